"""`zoolog up`: a local cluster in the foreground."""

import signal
import sys
from pathlib import Path

import click
import trio

from pubsub.cluster import ClusterPlan, format_ready, run_cluster


@click.command("up")
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), default=Path("zoolog-data"), show_default=True,
    help="Where data, logs and cluster.json go.",
)  # fmt: skip
@click.option("--coord", "coord_count", type=click.IntRange(1, 9), default=3, show_default=True, metavar="N")
@click.option("--bookies", type=click.IntRange(0, 50), default=3, show_default=True, metavar="N")
@click.option("--hubs", type=click.IntRange(0, 50), default=2, show_default=True, metavar="N")
@click.option(
    "--port-base", type=click.IntRange(1, 65000), help="First port; default: ports the system gives."
)
@click.option("--no-restart", is_flag=True, help="Do not start a server again that died.")
def up_command(
    directory: Path, coord_count: int, bookies: int, hubs: int, port_base: int | None, no_restart: bool
) -> None:
    """Run a local cluster, one process per server, until Ctrl-C.

    Prints `ready` and the addresses once every server serves, and keeps them in DIR/cluster.json. Started
    again on the same DIR it goes on with the data.
    """
    plan = ClusterPlan(directory.resolve(), coord_count, bookies, hubs, port_base)
    trio.run(_up, plan, not no_restart, strict_exception_groups=True)


async def _up(plan: ClusterPlan, restart: bool) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_on_signal, nursery.cancel_scope)
        async with run_cluster(plan, restart=restart, on_event=_say) as cluster:
            sys.stdout.write(format_ready(cluster) + "\n")
            sys.stdout.flush()
            await trio.sleep_forever()


async def _cancel_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
            return


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
