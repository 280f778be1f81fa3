"""Commands about the ensemble and the shell's session: config, reconfig, connect, close, version."""

import dataclasses
import importlib.metadata
import re
from pathlib import Path

import click

from pubsub.command.options import check_hosts
from pubsub.command.shell.command import command
from pubsub.command.shell.console import Console
from pubsub.command.shell.nodes import stat_option
from pubsub.command.shell.text import format_stat

WILDCARD = "0.0.0.0"


@command("config")
@click.option("-c", "of_clients", is_flag=True, help="The version, and where clients connect.")
@click.option("-w", "watch", is_flag=True, help="Print an event when it changes.")
@stat_option
async def show_config(console: Console, of_clients: bool, watch: bool, with_stat: bool) -> None:
    """Print the ensemble's configuration."""
    config = await console.zk.get_config()
    if watch:
        if console.zk.hosts.chroot:
            raise click.ClickException("the configuration is watched from outside a chroot")
        await console.watch_once("/zookeeper/config")
    console.write(format_client_config(config.text) if of_clients else config.text)
    if with_stat:
        console.write(format_stat(config.stat))


def format_client_config(text: str) -> str:
    """`VERSION HOST:PORT,HOST:PORT`, as clients need it; nothing between commas for a member that does not
    say where clients connect."""
    version = re.search(r"^version=(.*)$", text, re.MULTILINE)
    addresses = []
    for line in re.findall(r"^server\.\d+=(.*)$", text, re.MULTILINE):
        client = line.partition(";")[2].partition("|")[0]
        addresses.append(f"{WILDCARD}:{client}" if client.isdigit() else client)
    return f"{version[1] if version else ''} {','.join(addresses)}"


@command("reconfig")
@stat_option
@click.option("-v", "version", type=str, default="-1", help="Only at this configuration version, in hex.")
@click.option("-file", "file", type=click.Path(dir_okay=False, path_type=Path), help="New members: a file.")
@click.option("-members", "members", help="New members: server.ID=host:port:port;port,...")
@click.option("-add", "joining", multiple=True, help="Servers to add; may be repeated.")
@click.option("-remove", "leaving", multiple=True, help="Ids of servers to remove: 4,5.")
async def reconfig(
    console: Console,
    with_stat: bool,
    version: str,
    file: Path | None,
    members: str | None,
    joining: tuple[str, ...],
    leaving: tuple[str, ...],
) -> None:
    """Change the ensemble's members, by addition and removal or as a whole."""
    whole = _members_of(file) if file is not None else _split(members)
    if bool(whole) == bool(joining or leaving) or (file is not None and members is not None):
        raise click.UsageError("expected -file, -members, or -add and -remove")
    try:
        number = -1 if version == "-1" else int(version, 16)
    except ValueError:
        raise click.UsageError(f"expected a version in hex, got {version!r}") from None
    config = await console.zk.reconfig(
        joining=[one for part in joining for one in _split(part)],
        leaving=[one for part in leaving for one in _split(part)],
        members=whole,
        version=number,
    )
    console.write(f"Committed new configuration:\n{config.text}")
    if with_stat:
        console.write(format_stat(config.stat))


def _split(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _members_of(file: Path) -> list[str]:
    """The `server.N=` lines of a configuration file."""
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeError) as error:
        raise click.UsageError(f"cannot read {file}: {error}") from error
    return [line.strip() for line in lines if line.strip().startswith("server.")]


@command("connect")
@click.argument("hosts", required=False, callback=check_hosts)
async def connect(console: Console, hosts: str | None) -> None:
    """Close the session and open one with other servers, or the same."""
    await console.connect(
        console.target if hosts is None else dataclasses.replace(console.target, hosts=hosts)
    )


@command("close")
async def close(console: Console) -> None:
    """Close the session; its ephemerals go with it."""
    await console.close()


@command("version", offline=True)
async def show_version(console: Console) -> None:
    """Print the shell's version."""
    console.write(f"ZooKeeper CLI version: 3.9.5-zoolog-{importlib.metadata.version('zoolog')}")


@command("history", offline=True)
async def show_history(console: Console) -> None:
    """Print the last commands with their numbers."""
    for number, line in list(console.history)[-11:]:
        console.write(f"{number} - {line}")


COMMANDS = (show_config, reconfig, connect, close, show_version, show_history)
