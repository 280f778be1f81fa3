"""Commands about nodes: create, get, set, ls, stat, delete and their kin."""

import base64
import binascii
import contextlib
import json
import sys

import click

import coord
from pubsub.command.shell.command import command, path_argument
from pubsub.command.shell.console import Console
from pubsub.command.shell.text import format_hex, format_names, format_stat

version_option = click.option(
    "-v", "--version", type=int, default=-1, help="Only if the node has this version; -1 for any."
)
stat_option = click.option("-s", "with_stat", is_flag=True, help="Print the node's Stat.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@command("create")
@path_argument()
@click.argument("data", required=False)
@click.argument("acl", required=False)
@click.option("-s", "--sequential", is_flag=True, help="Append a number that no other child has had.")
@click.option("-e", "--ephemeral", is_flag=True, help="Gone with the session: the shell's, or the command's.")
@click.option("-c", "--container", is_flag=True, help="Deleted by the servers once its last child is gone.")
@click.option("-t", "--ttl", type=click.IntRange(1), help="Deleted by the servers after MS without a write.")
@click.option("-p", "--parents", is_flag=True, help="Create missing parents.")
async def create(
    console: Console,
    path: str,
    data: str | None,
    acl: str | None,
    sequential: bool,
    ephemeral: bool,
    container: bool,
    ttl: int | None,
    parents: bool,
) -> None:
    """Create a node and print its path.

    ACL is a list scheme:id:perms,... with the permissions cdrwa; without one the node is open to everybody.
    """
    if container and (sequential or ephemeral):
        raise click.UsageError("-c cannot be combined with -s or -e: containers are neither")
    if ttl is not None and (ephemeral or container):
        raise click.UsageError("-t cannot be combined with -c or -e")
    entries = coord.OPEN_ACL if acl is None else parse_acl(acl)
    parent = path.rpartition("/")[0]
    if parents and parent:
        await coord.ensure_path(console.zk, parent)
    made = await console.zk.create(
        path,
        None if data is None else encode_data(data),
        acl=entries,
        sequential=sequential,
        ephemeral=ephemeral,
        container=container,
        ttl_ms=ttl,
    )
    console.write(f"Created {made}")


def parse_acl(text: str) -> list[coord.Acl]:
    try:
        return coord.parse_acl(text)
    except ValueError as error:
        raise click.UsageError(f"Acl is not valid : {error}") from error


def encode_data(text: str) -> bytes:
    """An argument as the bytes it was given as."""
    return text.encode("utf-8", "surrogateescape")


@command("get")
@path_argument()
@stat_option
@click.option("-w", "watch", is_flag=True, help="Print an event when the data changes.")
@click.option("-b", "as_base64", is_flag=True, help="Print the data in base64.")
@click.option("-x", "as_hex", is_flag=True, help="Print the data in hexadecimal, 16 bytes a line.")
async def get(
    console: Console, path: str, with_stat: bool, watch: bool, as_base64: bool, as_hex: bool
) -> None:
    """Print a node's data.

    A single command prints it byte for byte, with a newline where standard output is a terminal; the shell
    always with a newline, and null data as null.
    """
    if watch:
        await console.zk.get(path)
        await console.watch_once(path)
    data, stat = await console.zk.get(path)
    if as_base64:
        console.write(base64.b64encode(data or b"").decode())
    elif as_hex:
        console.write(format_hex(data or b""))
    else:
        null = b"null" if console.interactive else b""
        console.write_bytes(null if data is None else data)
    if with_stat:
        if not (as_base64 or as_hex or console.interactive or sys.stdout.isatty()):
            console.write("")
        console.write(format_stat(stat))


@command("set")
@path_argument()
@click.argument("data")
@stat_option
@version_option
@click.option("-b", "as_base64", is_flag=True, help="The data is given in base64.")
async def set_data(
    console: Console, path: str, data: str, with_stat: bool, version: int, as_base64: bool
) -> None:
    """Replace a node's data."""
    if as_base64:
        try:
            content = base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise click.UsageError(f"expected data in base64: {error}") from error
    else:
        content = encode_data(data)
    stat = await console.zk.set(path, content, version)
    if with_stat:
        console.write(format_stat(stat))


@command("ls")
@path_argument(default="/")
@stat_option
@click.option("-w", "watch", is_flag=True, help="Print an event when the list changes.")
@click.option("-R", "recursive", is_flag=True, help="Everything below, a path a line, as it is read.")
@json_option
async def list_children(
    console: Console, path: str, with_stat: bool, watch: bool, recursive: bool, as_json: bool
) -> None:
    """Print the names of a node's children, sorted."""
    if watch:
        await console.zk.get_children(path)
        await console.watch_once(path, children=True)
    if recursive:
        async with contextlib.aclosing(coord.walk(console.zk, path)) as nodes:
            async for node in nodes:
                console.write(node)
        return
    names, stat = await console.zk.get_children_and_stat(path)
    console.write(json.dumps(names, indent=1) if as_json else format_names(names))
    if with_stat:
        console.write(format_stat(stat))


@command("stat")
@path_argument()
@click.option("-w", "watch", is_flag=True, help="Print an event when the node changes.")
@json_option
async def show_stat(console: Console, path: str, watch: bool, as_json: bool) -> None:
    """Print a node's Stat."""
    stat = await console.zk.exists(path)
    if watch:
        await console.watch_once(path)
    if stat is None:
        raise coord.NoNodeError(path=path)
    console.write(json.dumps(stat._asdict(), indent=1) if as_json else format_stat(stat))


@command("delete")
@path_argument()
@version_option
@click.option("-r", "--recursive", is_flag=True, help="With everything below it, as deleteall.")
async def delete(console: Console, path: str, version: int, recursive: bool) -> None:
    """Delete a node without children."""
    if recursive:
        await coord.delete_tree(console.zk, path)
    else:
        await console.zk.delete(path, version)


@command("deleteall")
@path_argument()
@click.option(
    "-b",
    "together",
    type=click.IntRange(1, 10_000),
    default=1000,
    show_default=True,
    help="Nodes deleted in one transaction.",
)
async def delete_all(console: Console, path: str, together: int) -> None:
    """Delete a node and everything below it."""
    await coord.delete_tree(console.zk, path, together=together)


@command("sync")
@path_argument(default="/")
async def sync(console: Console, path: str) -> None:
    """Wait until the server has everything that was written before."""
    await console.zk.sync(path)
    console.write("Sync is OK")


@command("getAllChildrenNumber")
@path_argument()
async def get_all_children_number(console: Console, path: str) -> None:
    """Print how many nodes there are below a node, at any depth."""
    console.write(str(await console.zk.get_all_children_number(path)))


@command("getEphemerals")
@path_argument(default="/")
async def get_ephemerals(console: Console, path: str) -> None:
    """Print this session's ephemerals whose paths begin with PATH."""
    console.write(format_names(await console.zk.get_ephemerals(path)))


COMMANDS = (
    create,
    get,
    set_data,
    list_children,
    show_stat,
    delete,
    delete_all,
    sync,
    get_all_children_number,
    get_ephemerals,
)
