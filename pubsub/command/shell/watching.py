"""Commands about events: addWatch, removewatches, printwatches, watch."""

import click

import coord
from pubsub.command.shell.command import command, path_argument
from pubsub.command.shell.console import Console


@command("addWatch")
@path_argument()
@click.option(
    "-m",
    "mode",
    type=click.Choice(["PERSISTENT", "PERSISTENT_RECURSIVE"]),
    default="PERSISTENT_RECURSIVE",
    show_default=True,
    help="Events of the node alone, or of everything below it too.",
)
async def add_watch(console: Console, path: str, mode: str) -> None:
    """Print each event of a node, until removewatches or the end of the shell."""
    await console.watch_all(path, recursive=mode == "PERSISTENT_RECURSIVE")


@command("removewatches")
@path_argument()
@click.option("-c", "kind", flag_value="CHILDREN", help="Those of the list of children.")
@click.option("-d", "kind", flag_value="DATA", help="Those of the data.")
@click.option("-a", "kind", flag_value="ANY", default=True, help="All; so it is without any of the three.")
@click.option("-l", "local", is_flag=True, help="Also where no server can be asked.")
async def remove_watches(console: Console, path: str, kind: str | bool | None, local: bool) -> None:
    """Remove the watches of a path."""
    of_kind = coord.WatcherKind[kind if isinstance(kind, str) else "ANY"]
    await console.zk.remove_watches(path, of_kind, local=local)


@command("printwatches")
@click.argument("on", type=click.Choice(["on", "off"]), required=False)
async def print_watches(console: Console, on: str | None) -> None:
    """Say whether events are printed, or change it."""
    if on is None:
        console.write(f"printwatches is {'on' if console.print_watches else 'off'}")
    else:
        console.print_watches = on == "on"


@command("watch")
@path_argument()
@click.option("--children", is_flag=True, help="Follow the list of children instead of the data.")
@click.option("--recursive", is_flag=True, help="Every event of everything below.")
@click.option("--count", type=click.IntRange(1), help="End after so many lines.")
async def watch(console: Console, path: str, children: bool, recursive: bool, count: int | None) -> None:
    """Print a line for the node as it is and for each change, until Ctrl-C."""
    left = count or -1
    if recursive:
        async with console.zk.add_watch(path, recursive=True) as events:
            async for event in events:
                click.echo(f"{event.kind.value}\t{event.path}\tzxid=0x{event.zxid & (1 << 64) - 1:x}")
                left -= 1
                if left == 0:
                    return
    else:
        async with console.zk.watch(path, children=children) as changes:
            async for kind, node, stat in changes:
                click.echo(f"{kind.value}\t{node}\tversion={'-' if stat is None else stat.version}")
                left -= 1
                if left == 0:
                    return


COMMANDS = (add_watch, remove_watches, print_watches, watch)
