"""The client against real bookies and a real coordination server: writers and bookies killed with -9."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

import bookie
from tests.bookie.bookie_servers import BookieServers
from tests.coord_servers import ROOT, CoordServers

pytestmark = [pytest.mark.trio, pytest.mark.crash]


def append_until_killed(hosts: str, batches: int) -> tuple[int, int]:
    """Ledger id and last entry id that a writer process was told is durable before it was killed."""
    command = [sys.executable, "-m", "tests.bookie.client.append_until_killed", hosts]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=os.environ) as process:
        try:
            assert process.stdout is not None
            ledger_id = int(process.stdout.readline())
            last = -1
            for _ in range(batches):
                last = int(process.stdout.readline())
        finally:
            process.kill()
    return ledger_id, last


async def test_what_a_killed_writer_was_told_is_in_the_recovered_ledger(tmp_path: Path) -> None:
    """6: with all bookies, and once more with only an ack quorum of them left."""
    with CoordServers(tmp_path / "coord") as servers, BookieServers(tmp_path, servers.hosts, 3) as bookies:
        for survivors in (3, 2):
            ledger_id, last = await trio.to_thread.run_sync(append_until_killed, servers.hosts, 20)
            if survivors == 2:
                bookies[1].kill()
            with trio.fail_after(60):
                async with bookie.connect(servers.hosts) as ledgers, ledgers.open(ledger_id) as reader:
                    found = [entry.payload async for entry in reader.read()]
                    assert reader.closed
            assert len(found) > last
            assert found == [b"%d" % (k % 100) for k in range(len(found))]


async def test_a_tail_in_another_process_than_the_writer(tmp_path: Path) -> None:
    """5.7: entries arrive while the writer lives; the recovery of the dead writer's ledger ends the tail."""
    with CoordServers(tmp_path / "coord") as servers, BookieServers(tmp_path, servers.hosts, 3):
        ledger_id, last = await trio.to_thread.run_sync(append_until_killed, servers.hosts, 3)
        seen: list[bytes] = []
        with trio.fail_after(60):
            async with bookie.connect(servers.hosts) as ledgers, trio.open_nursery() as nursery:

                async def follow() -> None:
                    async with ledgers.tail(ledger_id) as entries:
                        async for entry in entries:
                            seen.append(entry.payload)

                nursery.start_soon(follow)
                async with ledgers.open(ledger_id) as reader:
                    end = reader.last_entry_id
        assert end >= last
        assert seen == [b"%d" % (k % 100) for k in range(end + 1)]
