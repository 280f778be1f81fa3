"""How long do a topic's subscribers wait when its hub is killed?

    python -m bench.pubsub_failover [--rounds 5] [--rate 2000] [--apache-coord]

A publisher sends small lists all the time, a subscriber takes them; the hub that owns the topic is killed
with -9 and started again after the topic has moved. Unit: milliseconds from the kill to the first message the
subscriber gets that was published after the last one before the kill; then everything is compared: no loss,
order kept, repeats refused. Bar: 2000 ms. The result goes to bench/results/pubsub_failover.json.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trio

import pubsub
from bench.coord_peers import ApacheServers
from tests.bookie.bookie_servers import BookieServers
from tests.coord_servers import CoordServers
from tests.ending import end_in_order
from tests.pubsub.hub_servers import HubServers

RESULTS = Path(__file__).parent / "results"
TOPIC = "failover"
PIECE = 20
BAR_MS = 2000
BETWEEN_S = 1.0
ROUND_S_MAX = 20


class Run:
    """One publisher, one subscriber, and what they saw."""

    def __init__(self, bus: pubsub.Bus, hubs: HubServers, rate: int) -> None:
        self.bus = bus
        self.hubs = hubs
        self.pause_s = PIECE / rate
        self.published = 0
        self.arrivals: list[tuple[float, int]] = []
        self.received = 0
        self.is_done = False
        self.duplicates = 0

    async def publish(self) -> None:
        while not self.is_done:
            payloads = [b"%d" % number for number in range(self.published, self.published + PIECE)]
            self.duplicates += (await self.bus.publish_many(TOPIC, payloads)).duplicate
            self.published += PIECE
            await trio.sleep(self.pause_s)
        await self.bus.publish(TOPIC, b"end")

    async def subscribe(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with self.bus.subscribe(TOPIC, "bench") as messages:
            task_status.started()
            async for batch in messages.batches():
                payloads = batch.payloads
                if payloads == [b"end"]:
                    return
                expected = [b"%d" % number for number in range(self.received, self.received + len(payloads))]
                if payloads != expected:
                    raise AssertionError(f"at {self.received}: got {payloads[:3]}, expected {expected[:3]}")
                self.received += len(payloads)
                self.arrivals.append((time.perf_counter(), self.received))
                await messages.consume(batch)

    async def kill_owner(self) -> float:
        """Kills, waits for the next message, starts the hub again; milliseconds without one."""
        info = await self.bus.topic_info(TOPIC)
        hub = self.hubs.at(info.owner)
        killed_at = time.perf_counter()
        hub.kill()
        before = self.received
        while self.received == before:  # noqa: ASYNC110
            await trio.sleep(0.001)
        waited_ms = (self.arrivals[-1][0] - killed_at) * 1000
        hub.spawn()
        await trio.to_thread.run_sync(hub.wait_ready)
        await trio.sleep(BETWEEN_S)
        return waited_ms


async def run(hosts: str, hubs: HubServers, options: argparse.Namespace) -> dict[str, Any]:
    waits = []
    async with pubsub.connect(hosts) as bus, trio.open_nursery() as nursery:
        one = Run(bus, hubs, options.rate)
        await nursery.start(one.subscribe)
        nursery.start_soon(one.publish)
        await trio.sleep(BETWEEN_S)
        for _ in range(options.rounds):
            with trio.fail_after(ROUND_S_MAX):
                waits.append(await one.kill_owner())
        one.is_done = True
    if one.received != one.published:
        raise AssertionError(f"published {one.published}, received {one.received}")
    return {
        "waits_ms": [round(wait) for wait in waits],
        "wait_median_ms": round(statistics.median(waits)),
        "wait_max_ms": round(max(waits)),
        "messages": one.received,
        "lists_recognised_as_repeats": one.duplicates,
    }


def main() -> None:
    end_in_order()
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=int, default=2000, help="messages a second")
    parser.add_argument("--bookies", type=int, default=3)
    parser.add_argument("--hubs", type=int, default=2)
    parser.add_argument("--apache-coord", action="store_true", help="metadata in Debian's ZooKeeper")
    options = parser.parse_args()
    kind = ApacheServers if options.apache_coord else CoordServers
    with (
        tempfile.TemporaryDirectory(prefix="pubsub-failover-") as directory,
        kind(Path(directory) / "coord", 1, tick_ms=2000) as coord_servers,
        BookieServers(Path(directory), coord_servers.hosts, options.bookies),
        HubServers(Path(directory), coord_servers.hosts, options.hubs) as hubs,
    ):
        result = trio.run(run, coord_servers.hosts, hubs, options)
    report = {
        "command": "python -m bench.pubsub_failover " + " ".join(sys.argv[1:]),
        "bookies": options.bookies,
        "hubs": options.hubs,
        "processors": os.cpu_count(),
        "bars": {"wait_max_ms": BAR_MS},
        **result,
    }
    print(json.dumps(report, indent=1))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "pubsub_failover.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
