"""How fast are entries appended to a ledger, by one client, on bookies that share the machine with it?

    python -m bench.ledger_append [--entry-bytes 100] [--seconds 5] [--bookies 3] [--ack-quorum 2]
    [--apache-coord]

Unit: entries per second through `append_many` (each call hands over PIECE entries, several calls are under
way at once), and microseconds for one `append` at a time; fsync on, E = Qw = the number of bookies. Reported
with
it: resident memory and processor time of each bookie, and of the client. Bars: 200 000 entries/s at 100 bytes
with three bookies and Qa 2; p50 of a single append below 800 us. The result goes to
bench/results/ledger_append.json.
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

import bookie
from bench.coord_peers import ApacheServers
from tests.bookie.bookie_servers import BookieServers
from tests.coord_servers import CoordServers
from tests.ending import end_in_order

RESULTS = Path(__file__).parent / "results"
PIECE = 20_000
CALLS = 4
BAR_ENTRIES_PER_S = 200_000
BAR_SINGLE_P50_US = 800


async def append_many(hosts: str, options: argparse.Namespace) -> dict[str, Any]:
    """Throughput with several `append_many` calls under way."""
    payloads = [os.urandom(options.entry_bytes) for _ in range(PIECE)]
    appended = 0

    async with (
        bookie.connect(hosts) as ledgers,
        ledgers.create(ensemble=options.bookies, ack_quorum=options.ack_quorum) as ledger,
    ):
        await ledger.append_many(payloads)
        begun = time.perf_counter()
        cpu = time.process_time()
        until = begun + options.seconds

        async def keep_appending() -> None:
            nonlocal appended
            while time.perf_counter() < until:
                await ledger.append_many(payloads)
                appended += PIECE

        async with trio.open_nursery() as nursery:
            for _ in range(CALLS):
                nursery.start_soon(keep_appending)
        took = time.perf_counter() - begun
        return {
            "entries_per_s": round(appended / took),
            "mb_per_s": round(appended * options.entry_bytes / took / 1e6, 1),
            "client_cpu_s_per_s": round((time.process_time() - cpu) / took, 2),
        }


async def append_one(hosts: str, options: argparse.Namespace) -> dict[str, Any]:
    """Latency of one append at a time."""
    payload = os.urandom(options.entry_bytes)
    times_us: list[float] = []
    async with (
        bookie.connect(hosts) as ledgers,
        ledgers.create(ensemble=options.bookies, ack_quorum=options.ack_quorum) as ledger,
    ):
        for _ in range(50):
            await ledger.append(payload)
        until = time.perf_counter() + options.seconds / 2
        while (begun := time.perf_counter()) < until:
            await ledger.append(payload)
            times_us.append((time.perf_counter() - begun) * 1e6)
    cuts = statistics.quantiles(times_us, n=1000)
    return {
        "single_append_p50_us": round(cuts[499]),
        "single_append_p99_us": round(cuts[989]),
        "single_append_p999_us": round(cuts[998]),
        "single_appends_per_s": round(len(times_us) / (sum(times_us) / 1e6)),
    }


def main() -> None:
    end_in_order()
    parser = argparse.ArgumentParser()
    parser.add_argument("--entry-bytes", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--bookies", type=int, default=3)
    parser.add_argument("--ack-quorum", type=int, default=2)
    parser.add_argument("--apache-coord", action="store_true", help="metadata in Debian's ZooKeeper")
    options = parser.parse_args()
    load = round(os.getloadavg()[0], 2)
    kind = ApacheServers if options.apache_coord else CoordServers
    with (
        tempfile.TemporaryDirectory(prefix="ledger-append-") as directory,
        kind(Path(directory) / "coord", 1, tick_ms=2000) as coord_servers,
        BookieServers(Path(directory), coord_servers.hosts, options.bookies) as bookies,
    ):
        result = trio.run(append_one, coord_servers.hosts, options)
        before = [server.cpu_seconds() for server in bookies.servers]
        result |= trio.run(append_many, coord_servers.hosts, options)
        result["bookie_cpu_s_per_s"] = [
            round((server.cpu_seconds() - cpu) / options.seconds, 2)
            for server, cpu in zip(bookies.servers, before, strict=True)
        ]
        result["bookie_resident_mb"] = [round(server.resident_bytes() / 1e6) for server in bookies.servers]
    report = {
        "command": "python -m bench.ledger_append " + " ".join(sys.argv[1:]),
        "entry_bytes": options.entry_bytes,
        "bookies": options.bookies,
        "ack_quorum": options.ack_quorum,
        "processors": os.cpu_count(),
        "load_average_before": load,
        "bars": {"entries_per_s": BAR_ENTRIES_PER_S, "single_append_p50_us": BAR_SINGLE_P50_US},
        **result,
    }
    print(json.dumps(report, indent=1))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "ledger_append.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
