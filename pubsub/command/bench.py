"""`zoolog bench`: throughput and latency of a running cluster, or of a local one made for it."""

import contextlib
import dataclasses
import secrets
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import trio
from rich import box
from rich.console import Console
from rich.table import Table

import pubsub
from pubsub.cluster import ClusterPlan, failing_on_signals, run_cluster
from pubsub.command.bench_generators import Measurement, Watcher, run_generators
from pubsub.command.ledger import quorum_options
from pubsub.command.load.coord import CoordLoad
from pubsub.command.load.ledger import LedgerLoad
from pubsub.command.load.topic import SIZE_MIN, TopicLoad
from pubsub.command.options import ClientGroup, Command, Decorator, coord_option, json_option, print_facts

#: Longest message and entry that the options allow; the layers' own limits are higher.
SIZE_MAX = 1_000_000


@click.group("bench", cls=ClientGroup)
@coord_option
@click.pass_context
def bench_command(ctx: click.Context, hosts: str) -> None:
    """Measure a running cluster, or with --local one that is made for it.

    Each run warms up first, counts errors apart, and removes what it created. Load comes from processes of
    their own; `load cpu` near 1 says that the load generator, not the cluster, was the limit.
    """
    ctx.obj = hosts


def load_options(*, clients: int, outstanding: int, size: int, size_min: int, of: str) -> Decorator:
    """The options that all benchmarks share."""
    options = (
        click.option("--local", is_flag=True, help="Start a local cluster in a temporary directory."),
        click.option(
            "--servers",
            type=click.IntRange(1, 9),
            default=3,
            show_default=True,
            help="Coordination servers of the local cluster.",
        ),
        click.option(
            "--size",
            type=click.IntRange(size_min, SIZE_MAX),
            default=size,
            show_default=True,
            help=f"Bytes of {of}.",
        ),
        click.option("--clients", type=click.IntRange(1, 10_000), default=clients, show_default=True),
        click.option(
            "--outstanding",
            type=click.IntRange(1, 10_000),
            default=outstanding,
            show_default=True,
            help="Requests that each client keeps under way.",
        ),
        click.option(
            "--duration",
            type=click.FloatRange(0.1, 3600),
            default=10.0,
            show_default=True,
            help="Seconds that are measured.",
        ),
        click.option(
            "--warm-up",
            type=click.FloatRange(0, 600),
            default=2.0,
            show_default=True,
            help="Seconds before that.",
        ),
        json_option,
    )

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def batch_option(default: int, of: str) -> Decorator:
    return click.option(
        "--batch", type=click.IntRange(1, 100_000), default=default, show_default=True, help=of
    )


@bench_command.command("coord")
@load_options(clients=20, outstanding=100, size=1024, size_min=0, of="each node's data")
@click.option(
    "--read-ratio",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Share of getData; the others are setData.",
)
@click.option("--creates", is_flag=True, help="Only creates, of numbered children.")
@click.pass_obj
def bench_coord(
    hosts: str, /, read_ratio: float, creates: bool, local: bool, servers: int, as_json: bool, **load: Any
) -> None:
    """Reads and writes of znodes over raw connections."""
    kind: dict[str, Any] = {"creates": True} if creates else {"read_ratio": read_ratio}

    async def measure(hosts: str, watcher: Watcher) -> list[Measurement]:
        spec = CoordLoad(hosts, **kind, **_load(load))
        [result] = await run_generators([("coord", dataclasses.asdict(spec))], watcher)
        return [Measurement("requests", result, load["size"])]

    plan = ClusterPlan(Path(), coord=servers, bookies=0, hubs=0)
    _bench("coord", hosts, plan if local else None, kind | load, as_json, measure)


@bench_command.command("ledger")
@load_options(clients=1, outstanding=32, size=100, size_min=1, of="each entry")
@batch_option(100, "Entries that are appended at once; each is one request.")
@quorum_options
@click.pass_obj
def bench_ledger(hosts: str, /, local: bool, servers: int, as_json: bool, **load: Any) -> None:
    """Appends to ledgers, one ledger per client."""
    shape = {name: load[name] for name in ("batch", "ensemble", "write_quorum", "ack_quorum")}

    async def measure(hosts: str, watcher: Watcher) -> list[Measurement]:
        spec = LedgerLoad(hosts, **shape, **_load(load))
        [result] = await run_generators([("ledger", dataclasses.asdict(spec))], watcher)
        return [Measurement("appended", result, load["size"])]

    plan = ClusterPlan(Path(), coord=servers, bookies=max(3, load["ensemble"]), hubs=0)
    _bench("ledger", hosts, plan if local else None, load, as_json, measure)


@bench_command.command("pubsub")
@load_options(clients=1, outstanding=8, size=100, size_min=SIZE_MIN, of="each message")
@batch_option(1000, "Messages that are published at once; each is one request.")
@click.option(
    "--subscribers",
    type=click.IntRange(0, 100),
    default=1,
    show_default=True,
    help="Subscriptions that take every message, each a process.",
)
@click.pass_obj
def bench_pubsub(
    hosts: str, /, batch: int, subscribers: int, local: bool, servers: int, as_json: bool, **load: Any
) -> None:
    """Messages through one topic, published and delivered at once.

    Delivery's latency is from publish to delivery; both run on this machine.
    """

    async def measure(hosts: str, watcher: Watcher) -> list[Measurement]:
        topic = f"zoolog-bench-{secrets.token_hex(4)}"
        spec = TopicLoad(hosts, topic, batch=batch, **_load(load))
        roles = [
            ("subscribe", dataclasses.asdict(dataclasses.replace(spec, subscription=f"reader-{number}")))
            for number in range(1, subscribers + 1)
        ]
        try:
            *received, sent = await run_generators([*roles, ("publish", dataclasses.asdict(spec))], watcher)
        finally:
            await _delete_topic(hosts, topic)
        rows = [Measurement("published", sent, load["size"])]
        for result in received:
            # More may be delivered than were acknowledged: what failed may have been stored all the same.
            lost = max(0, sent.all - result.all)
            rows.append(Measurement("delivered", result, load["size"], lost))
        return rows

    plan = ClusterPlan(Path(), coord=servers, bookies=3, hubs=1)
    settings = {"batch": batch, "subscribers": subscribers} | load
    _bench("pubsub", hosts, plan if local else None, settings, as_json, measure)


async def _delete_topic(hosts: str, topic: str) -> None:
    """Also after Ctrl-C or a failure, as far as that works within a few seconds."""
    with trio.move_on_after(5) as scope, contextlib.suppress(Exception):
        scope.shield = True
        async with pubsub.connect(hosts) as bus:
            await bus.delete_topic(topic, force=True)


def _load(load: dict[str, Any]) -> dict[str, Any]:
    """Options by the names that the generators have for them."""
    return {
        "clients": load["clients"],
        "outstanding": load["outstanding"],
        "size": load["size"],
        "seconds": load["duration"],
        "warm_up_s": load["warm_up"],
    }


Measure = Callable[[str, Watcher], Awaitable[list[Measurement]]]


def _bench(
    name: str,
    hosts: str,
    local: ClusterPlan | None,
    settings: dict[str, Any],
    as_json: bool,
    measure: Measure,
) -> None:
    """Runs one benchmark and prints its results; exit status 1 where nothing was done or something lost."""

    async def run() -> tuple[str, list[Measurement]]:
        seconds = settings["warm_up"] + settings["duration"]
        with Watcher(f"bench {name}", seconds, Console(stderr=True)) as watcher:
            async with _cluster(hosts, local, watcher) as target:
                return target, await measure(target, watcher)

    target, rows = trio.run(run, strict_exception_groups=True)
    facts = {
        "bench": name,
        "coord": target,
        "local": local is not None,
        "settings": settings,
        "results": [row.facts() for row in rows],
    }
    if as_json:
        print_facts(facts, True, "")
    else:
        _print_table(name, settings, rows)
    lost = sum(row.lost for row in rows)
    if lost:
        raise click.ClickException(f"{lost} messages were published and not delivered")
    if not all(row.result.completed for row in rows):
        raise click.ClickException("nothing was completed within the measurement")


@contextlib.asynccontextmanager
async def _cluster(hosts: str, local: ClusterPlan | None, watcher: Watcher) -> AsyncIterator[str]:
    """The hosts to measure: those given, or those of a cluster that lives as long as the block."""
    if local is None:
        yield hosts
        return
    with tempfile.TemporaryDirectory(prefix="zoolog-bench-") as directory:
        watcher.say("starting the servers")
        plan = dataclasses.replace(local, directory=Path(directory))
        async with (
            failing_on_signals(signal.SIGTERM),
            run_cluster(plan, on_event=watcher.note) as cluster,
        ):
            yield cluster.coord_hosts


def _print_table(name: str, settings: dict[str, Any], rows: list[Measurement]) -> None:
    shown = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in settings.items())
    table = Table(title=f"zoolog bench {name}", caption=shown, box=box.SIMPLE_HEAVY, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("per second", "MB/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "errors", "load cpu"):
        table.add_column(heading, justify="right")
    for row in rows:
        facts = row.facts()
        latencies = [facts[key] for key in ("p50_ms", "p99_ms", "p99_9_ms", "max_ms")]
        table.add_row(
            row.name,
            f"{facts['per_second']:,}",
            f"{facts['mb_per_second']:,}",
            *("-" if value is None else f"{value:.3f}" for value in latencies),
            f"{facts['errors']:,}",
            f"{facts['generator_cpu']:.2f}",
        )
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        console.width = max(console.width, 120)
    console.print(table)
