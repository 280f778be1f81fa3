"""The ledgers a hub needs (`pubsub.hub.seams`): one suite over these tests' fake and over real bookies."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

import coord
from pubsub.hub.ledgers import open_ledgers
from pubsub.hub.seams import LedgerFencedError, LedgerGoneError, Ledgers, LedgerStoreError, LedgerWriter
from tests.bookie.bookie_servers import BookieServers
from tests.coord_servers import CoordServers
from tests.pubsub.fakes import FakeBookies


class Real:
    """Two clients of real bookies."""

    def __init__(self, hosts: str) -> None:
        self._hosts = hosts

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Ledgers]:
        async with coord.connect(self._hosts) as zk, open_ledgers(zk, 3, 3, 2) as ledgers:
            yield ledgers


class Fake:
    """Two clients of the fake ones."""

    def __init__(self) -> None:
        self._bookies = FakeBookies()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Ledgers]:
        yield self._bookies.client()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory: Path = tmp_path_factory.mktemp("ledgers")
    with (
        CoordServers(directory / "coord", 1) as coord_servers,
        BookieServers(directory, coord_servers.hosts, 3),
    ):
        yield coord_servers.hosts


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.crash)])
def service(request: pytest.FixtureRequest) -> Fake | Real:
    return Fake() if request.param == "fake" else Real(request.getfixturevalue("hosts"))


async def append(ledger: LedgerWriter, *entries: bytes) -> list[int | Exception]:
    """Appends at once and waits for all answers."""
    done = trio.Event()
    results: list[int | Exception] = []

    def on_appended(result: int | Exception) -> None:
        results.append(result)
        if len(results) == len(entries):
            done.set()

    for entry in entries:
        ledger.append_nowait(entry, on_appended)
    with trio.fail_after(60):
        await done.wait()
    return results


async def test_appends_are_answered_in_order_with_consecutive_ids(service: Fake | Real) -> None:
    async with service.client() as ledgers:
        ledger = await ledgers.create({"kind": b"test"})
        assert ledger.copies == 3
        assert await append(ledger, b"0", b"1", b"2") == [0, 1, 2]
        assert await append(ledger, b"3") == [3]
        await ledger.close()


async def test_more_than_a_ledger_takes_at_once_waits_its_turn(service: Fake | Real) -> None:
    async with service.client() as ledgers:
        ledger = await ledgers.create({})
        assert await append(ledger, *[b"x" * 2_000_000] * 30) == list(range(30))
        await ledger.close()


async def test_a_closed_ledger_is_read_back_by_another_client(service: Fake | Real) -> None:
    async with service.client() as ledgers, service.client() as others:
        ledger = await ledgers.create({})
        entries = [b"%d" % i * 1000 for i in range(50)]
        await append(ledger, *entries)
        await ledger.close()
        reader = await others.open_recovered(ledger.ledger_id)
        assert reader.last_entry == 49
        found: list[bytes] = []
        while len(found) < 50:
            part = await reader.read(len(found), 49, 10_000)
            assert part
            found += part
        assert found == entries
        assert await reader.read(7, 49, 1) == [entries[7]]
        reader.close()


async def test_t12_recovery_by_another_client_fences_the_writer(service: Fake | Real) -> None:
    async with service.client() as ledgers, service.client() as others:
        ledger = await ledgers.create({})
        await append(ledger, b"0", b"1")
        reader = await others.open_recovered(ledger.ledger_id)
        assert reader.last_entry == 1
        (result,) = await append(ledger, b"2")
        assert isinstance(result, LedgerFencedError)
        with pytest.raises(LedgerStoreError):
            await ledger.close()


async def test_a_writer_reads_what_it_has_written(service: Fake | Real) -> None:
    async with service.client() as ledgers:
        ledger = await ledgers.create({})
        await append(ledger, *[b"%d" % i for i in range(20)])
        with trio.fail_after(60):
            while True:
                try:
                    found = await ledger.read(3, 10, 1 << 20)
                    break
                except LedgerStoreError:
                    await trio.sleep(0.05)
        assert found[0] == b"3"
        assert found == [b"%d" % i for i in range(3, 3 + len(found))]
        await ledger.close()


async def test_an_abandoned_writer_fails_what_comes_and_can_be_recovered(service: Fake | Real) -> None:
    async with service.client() as ledgers, service.client() as others:
        ledger = await ledgers.create({})
        await append(ledger, b"0")
        ledger.abandon()
        (result,) = await append(ledger, b"1")
        assert isinstance(result, LedgerStoreError)
        assert (await others.open_recovered(ledger.ledger_id)).last_entry == 0


async def test_an_empty_ledger_has_no_last_entry(service: Fake | Real) -> None:
    async with service.client() as ledgers, service.client() as others:
        ledger = await ledgers.create({})
        assert (await others.open_recovered(ledger.ledger_id)).last_entry == -1


async def test_a_deleted_ledger_is_gone_and_deleting_it_again_is_no_error(service: Fake | Real) -> None:
    async with service.client() as ledgers:
        ledger = await ledgers.create({})
        await ledger.close()
        await ledgers.delete(ledger.ledger_id)
        await ledgers.delete(ledger.ledger_id)
        with pytest.raises(LedgerGoneError):
            await ledgers.open_recovered(ledger.ledger_id)


async def test_ledgers_are_listed_with_what_they_were_created_with(service: Fake | Real) -> None:
    async with service.client() as ledgers:
        ledger = await ledgers.create({"kind": b"topic", "topic": b"t"})
        await ledger.close()
        (facts,) = [one async for one in ledgers.listed() if one.ledger_id == ledger.ledger_id]
        assert facts.properties == {"kind": b"topic", "topic": b"t"}
        assert facts.created_ms > 1_700_000_000_000


async def test_bookies_are_counted(service: Fake | Real) -> None:
    async with service.client() as ledgers:
        ledger = await ledgers.create({})
        assert await ledgers.bookies_available() == 3
        await ledger.close()
