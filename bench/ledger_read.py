"""How fast is a closed ledger read back, by one client, from bookies that share the machine with it?

    python -m bench.ledger_read [--entry-bytes 100] [--entries 1000000] [--bookies 3]

Unit: entries per second over the whole ledger, first entry to last, once as single entries and once as
payload lists. The ledger is larger than what a bookie keeps in memory, so most of it comes from the segments
(the page cache may hold them). Reported with it: resident memory of each bookie after the reads. The result
goes to bench/results/ledger_read.json.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trio

import bookie
from tests.bookie.bookie_servers import BookieServers
from tests.coord_servers import CoordServers
from tests.ending import end_in_order

RESULTS = Path(__file__).parent / "results"
PIECE = 20_000


async def measure(hosts: str, options: argparse.Namespace) -> dict[str, Any]:
    payloads = [os.urandom(options.entry_bytes) for _ in range(PIECE)]
    async with bookie.connect(hosts) as ledgers:
        async with ledgers.create(ensemble=options.bookies) as ledger:
            for _ in range(options.entries // PIECE):
                await ledger.append_many(payloads)
        result: dict[str, Any] = {}
        async with ledgers.open(ledger.ledger_id) as reader:
            begun, count = time.perf_counter(), 0
            async for _ in reader.read():
                count += 1
            result["entries_per_s"] = round(count / (time.perf_counter() - begun))
            begun, chunk_entries = time.perf_counter(), 0
            async for chunk in reader.read_chunks():
                chunk_entries += len(chunk.payloads)
            result["chunked_entries_per_s"] = round(chunk_entries / (time.perf_counter() - begun))
        assert count == chunk_entries == options.entries // PIECE * PIECE
        return result


def main() -> None:
    end_in_order()
    parser = argparse.ArgumentParser()
    parser.add_argument("--entry-bytes", type=int, default=100)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--bookies", type=int, default=3)
    options = parser.parse_args()
    load = round(os.getloadavg()[0], 2)
    with (
        tempfile.TemporaryDirectory(prefix="ledger-read-") as directory,
        CoordServers(Path(directory) / "coord", 1, tick_ms=2000) as coord_servers,
        BookieServers(Path(directory), coord_servers.hosts, options.bookies) as bookies,
    ):
        result = trio.run(measure, coord_servers.hosts, options)
        result["bookie_resident_mb"] = [round(server.resident_bytes() / 1e6) for server in bookies.servers]
    report = {
        "command": "python -m bench.ledger_read " + " ".join(sys.argv[1:]),
        "entry_bytes": options.entry_bytes,
        "entries": options.entries,
        "bookies": options.bookies,
        "processors": os.cpu_count(),
        "load_average_before": load,
        **result,
    }
    print(json.dumps(report, indent=1))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "ledger_read.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
