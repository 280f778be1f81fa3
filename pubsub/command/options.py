"""Options that several subcommands share."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

DEFAULT_COORD = "127.0.0.1:2181"

Command = TypeVar("Command", bound=Callable[..., Any])


def coord_option(command: Command) -> Command:
    """`--coord HOSTS`, from the environment or the usual port where it is not given."""
    return click.option(
        "--coord",
        "hosts",
        metavar="HOSTS",
        default=lambda: os.environ.get("ZOOLOG_COORD") or DEFAULT_COORD,
        show_default="$ZOOLOG_COORD, then 127.0.0.1:2181",
        help="Coordination servers: host:port,host:port[/chroot].",
    )(command)


def json_option(command: Command) -> Command:
    """`--json` for commands that print facts."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def print_facts(facts: object, as_json: bool, text: str) -> None:
    """Prints `facts` as JSON or `text` as it is."""
    sys.stdout.write((json.dumps(facts, indent=1) if as_json else text) + "\n")
    sys.stdout.flush()
