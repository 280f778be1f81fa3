"""Options that several subcommands share."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import click

import coord

DEFAULT_COORD = "127.0.0.1:2181"

Command = TypeVar("Command", bound=Callable[..., Any])


class Decorator(Protocol):
    """Adds options to a command's function."""

    def __call__(self, command: Command, /) -> Command: ...


def check_hosts(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A connection string that cannot be parsed is wrong usage."""
    if value is not None:
        try:
            coord.parse_hosts(value)
        except coord.HostsError as error:
            raise click.BadParameter(str(error), ctx, param) from error
    return value


def coord_option(command: Command) -> Command:
    """`--coord HOSTS`, from the environment or the usual port where it is not given."""
    return click.option(
        "--coord",
        "hosts",
        metavar="HOSTS",
        default=lambda: os.environ.get("ZOOLOG_COORD") or DEFAULT_COORD,
        show_default="$ZOOLOG_COORD, then 127.0.0.1:2181",
        callback=check_hosts,
        help="Coordination servers: host:port,host:port[/chroot].",
    )(command)


def _take_hosts(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.obj = check_hosts(ctx, param, value)


class ClientGroup(click.Group):
    """A group of client commands: `--coord` may stand before the subcommand or behind it.

    The group's own callback puts the hosts into `ctx.obj`, where the subcommands find them.
    """

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Adds a subcommand, which gets the option too."""
        cmd.params.append(
            click.Option(
                ["--coord"],
                metavar="HOSTS",
                expose_value=False,
                callback=_take_hosts,
                help="Coordination servers; here or before the subcommand.",
            )
        )
        super().add_command(cmd, name)


def json_option(command: Command) -> Command:
    """`--json` for commands that print facts."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def print_facts(facts: object, as_json: bool, text: str) -> None:
    """Prints `facts` as JSON or `text` as it is."""
    sys.stdout.write((json.dumps(facts, indent=1) if as_json else text) + "\n")
    sys.stdout.flush()
