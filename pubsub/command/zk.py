"""`zoolog zk`: the coordination tree from the shell, one command a call or interactively."""

import datetime
import shlex
import sys
from typing import Any

import click
import trio

import coord
from pubsub.command.options import ClientGroup, coord_option, json_option, print_facts

CONNECT_TIMEOUT_MS = 10_000


@click.group("zk", cls=ClientGroup, invoke_without_command=True)
@coord_option
@click.pass_context
def zk_command(ctx: click.Context, hosts: str) -> None:
    """The coordination shell; without a subcommand it is interactive."""
    ctx.obj = hosts
    if ctx.invoked_subcommand is None:
        _interact(hosts)


def _run(hosts: str, action: Any, *arguments: Any) -> Any:
    async def call() -> Any:
        async with coord.connect(hosts, connect_timeout_ms=CONNECT_TIMEOUT_MS) as zk:
            return await action(zk, *arguments)

    return trio.run(call, strict_exception_groups=True)


@zk_command.command("ls")
@click.argument("path", default="/")
@json_option
@click.pass_obj
def list_children(hosts: str, path: str, as_json: bool) -> None:
    """Print the names of a node's children, sorted."""
    names = _run(hosts, lambda zk: zk.get_children(path))
    if names or as_json:
        print_facts(names, as_json, "\n".join(names))


@zk_command.command("get")
@click.argument("path")
@click.pass_obj
def get_data(hosts: str, path: str) -> None:
    """Print a node's data, byte for byte, and a newline where standard output is a terminal."""
    data, _ = _run(hosts, lambda zk: zk.get(path))
    sys.stdout.buffer.write(data or b"")
    if sys.stdout.isatty():
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


@zk_command.command("set")
@click.argument("path")
@click.argument("data")
@click.option("--version", type=int, default=-1, help="Only if the node has this version.")
@click.pass_obj
def set_data(hosts: str, path: str, data: str, version: int) -> None:
    """Replace a node's data."""
    _run(hosts, lambda zk: zk.set(path, data.encode(), version))


@zk_command.command("create")
@click.argument("path")
@click.argument("data", default="")
@click.option("--sequential", "-s", is_flag=True, help="Append a number that no other child has had.")
@click.option("--ephemeral", "-e", is_flag=True, help="Gone with the session: here, when this command ends.")
@click.option("--parents", "-p", is_flag=True, help="Create missing parents.")
@click.pass_obj
def create(hosts: str, path: str, data: str, sequential: bool, ephemeral: bool, parents: bool) -> None:
    """Create a node and print its path."""

    async def action(zk: coord.Client) -> str:
        parent = path.rpartition("/")[0]
        if parents and parent:
            await coord.ensure_path(zk, parent)
        return await zk.create(path, data.encode(), sequential=sequential, ephemeral=ephemeral)

    click.echo(_run(hosts, action))


@zk_command.command("delete")
@click.argument("path")
@click.option("--version", type=int, default=-1, help="Only if the node has this version.")
@click.option("--recursive", "-r", is_flag=True, help="With everything below it.")
@click.pass_obj
def delete(hosts: str, path: str, version: int, recursive: bool) -> None:
    """Delete a node."""
    _run(hosts, _delete_tree if recursive else _delete_one, path, version)


async def _delete_one(zk: coord.Client, path: str, version: int) -> None:
    await zk.delete(path, version)


async def _delete_tree(zk: coord.Client, path: str, version: int) -> None:
    for name in await zk.get_children(path):
        await _delete_tree(zk, f"{path.rstrip('/')}/{name}", -1)
    await zk.delete(path, version)


@zk_command.command("stat")
@click.argument("path")
@json_option
@click.pass_obj
def show_stat(hosts: str, path: str, as_json: bool) -> None:
    """Print a node's Stat."""
    stat = _run(hosts, lambda zk: zk.exists(path))
    if stat is None:
        raise coord.NoNodeError(path=path)
    print_facts(stat._asdict(), as_json, _format_stat(stat))


def _format_stat(stat: coord.Stat) -> str:
    """As zkCli prints it."""

    def time(ms: int) -> str:
        return datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC).isoformat(timespec="milliseconds")

    return "\n".join(
        (
            f"cZxid = 0x{stat.czxid:x}",
            f"ctime = {time(stat.ctime)}",
            f"mZxid = 0x{stat.mzxid:x}",
            f"mtime = {time(stat.mtime)}",
            f"pZxid = 0x{stat.pzxid:x}",
            f"cversion = {stat.cversion}",
            f"dataVersion = {stat.version}",
            f"aclVersion = {stat.aversion}",
            f"ephemeralOwner = 0x{stat.ephemeral_owner & 0xFFFFFFFFFFFFFFFF:x}",
            f"dataLength = {stat.data_length}",
            f"numChildren = {stat.num_children}",
        )
    )


@zk_command.command("watch")
@click.argument("path")
@click.option("--children", is_flag=True, help="Follow the list of children instead of the data.")
@click.option("--count", type=click.IntRange(1), help="End after so many events.")
@click.pass_obj
def watch(hosts: str, path: str, children: bool, count: int | None) -> None:
    """Print a line for the node as it is and for each change, until Ctrl-C."""

    async def action(zk: coord.Client) -> None:
        seen = 0
        async with zk.watch(path, children=children) as events:
            async for event in events:
                version = "-" if event.stat is None else str(event.stat.version)
                click.echo(f"{event.kind.value}\t{event.path}\tversion={version}")
                seen += 1
                if seen == count:
                    return

    _run(hosts, action)


@zk_command.command("sync")
@click.argument("path", default="/")
@click.pass_obj
def sync(hosts: str, path: str) -> None:
    """Wait until the server has everything that was written before."""
    _run(hosts, lambda zk: zk.sync(path))


def _interact(hosts: str) -> None:
    """Reads commands until `quit`, Ctrl-D or Ctrl-C; a failing one is told and the next is read."""
    from pubsub.command.main import run

    if sys.stdin.isatty():
        import readline  # noqa: F401  (its import gives input() line editing)

        click.echo(f"connected commands go to {hosts}; `help` lists them, `quit` ends", err=True)
    while True:
        try:
            line = input("zk> " if sys.stdin.isatty() else "")
        except (EOFError, KeyboardInterrupt):
            return
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] in ("quit", "exit"):
            return
        if words[0] == "help":
            words = ["--help"]
        run(["zk", "--coord", hosts, *words])
