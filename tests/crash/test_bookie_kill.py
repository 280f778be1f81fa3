"""kill -9 of real bookies under load: what they acknowledged is there afterwards, unchanged (17.6)."""

from pathlib import Path

import pytest
import trio

import bookie
from bookie.ledger.extent import encode_extent
from bookie.ledger.wire import Add, Fence
from tests.bookie.bookie_load import KEY, Load, connect, payload, read_all
from tests.bookie.bookie_servers import BookieServer, BookieServers
from tests.coord_servers import CoordServers

pytestmark = pytest.mark.crash

ROUNDS = 4


@pytest.fixture
def coord_hosts(tmp_path: Path):
    with CoordServers(tmp_path / "coord", 1) as servers:
        yield servers.hosts


async def test_a_killed_bookie_has_everything_it_acknowledged(tmp_path, coord_hosts):
    """kill -9 in the middle of adds, fences and checkpoints, again and again."""
    server = BookieServer(tmp_path, 1, coord_hosts, ("--checkpoint-ms", "20", "--segment-bytes", "200000"))
    load = Load(seed=1)
    try:
        for round_ in range(ROUNDS):
            await trio.to_thread.run_sync(server.start)
            await load.check(server)
            async with connect(server) as link:
                await link.call(Fence(100 + round_, KEY, -1))
            load.fenced.add(100 + round_)
            await load.run(server, adds=300)
        await trio.to_thread.run_sync(server.start)
        await load.check(server)
        assert len(load.acknowledged) > 1000
    finally:
        server.kill()


async def test_a_terminated_bookie_ends_in_order_and_replays_nothing(tmp_path, coord_hosts):
    server = BookieServer(tmp_path, 1, coord_hosts, ())
    try:
        await trio.to_thread.run_sync(server.start)
        async with connect(server) as link:
            encoded = encode_extent(1, 0, -1, 0, [b"a"])
            await link.call(Add(1, 0, KEY, encoded.checksum), encoded.data)
        assert await trio.to_thread.run_sync(server.stop) == 0
        await trio.to_thread.run_sync(server.start)
        starts = [line for line in server.log_path.read_text().splitlines() if "replayed_records=" in line]
        assert len(starts) == 2
        assert "replayed_records=0" in starts[-1].split()
        async with connect(server) as link:
            assert await read_all(link, 1) == {0: b"a"}
    finally:
        server.kill()


async def test_a_ledger_loses_nothing_when_its_bookies_are_killed_in_turn(tmp_path, coord_hosts):
    """The client's appends go on; what it was told is durable is read back after every bookie was killed
    once.
    """
    with BookieServers(tmp_path, coord_hosts, 3, "--checkpoint-ms", "50") as bookies:
        async with bookie.connect(coord_hosts) as ledgers:
            confirmed: list[int] = []
            async with ledgers.create(ensemble=3, ack_quorum=2) as ledger:
                ledger_id = ledger.ledger_id
                async with trio.open_nursery() as nursery:

                    async def append() -> None:
                        while True:
                            entry_id = await ledger.append(payload(0, len(confirmed)))
                            assert entry_id == len(confirmed)
                            confirmed.append(entry_id)

                    nursery.start_soon(append)
                    for number in range(3):
                        await _more(confirmed, 100)
                        bookies[number].kill()
                        await _more(confirmed, 100)
                        await trio.to_thread.run_sync(bookies[number].start)
                        await _more(confirmed, 100)
                    await _more(confirmed, 100)
                    nursery.cancel_scope.cancel()
            async with ledgers.open(ledger_id) as reader:
                found = [entry.payload async for entry in reader.read()]
    assert len(found) >= len(confirmed)
    assert found[: len(confirmed)] == [payload(0, entry_id) for entry_id in confirmed]


async def _more(confirmed: list[int], count: int) -> None:
    target = len(confirmed) + count
    with trio.fail_after(60):
        while len(confirmed) < target:  # noqa: ASYNC110  # real time, real processes
            await trio.sleep(0.005)
