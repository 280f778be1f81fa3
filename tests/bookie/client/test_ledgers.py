"""The client as a whole: real cores, real rpc over loopback, bookies and coordination service in memory."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise

import pytest
import trio
import trio.testing

import bookie
from bookie.client.store import MetadataStore
from bookie.client.tailing import RETRY_S
from bookie.ledger import layout
from bookie.ledger.errors import MetadataStoreError
from bookie.ledger.metadata import LedgerState, Member
from bookie.ledger.wire import Add, Code, Fence, Read, Tail
from coord.clock import SYSTEM_CLOCK
from coord.rpc import Peer
from tests.bookie.fake_cluster import FakeCluster

pytestmark = pytest.mark.trio


@asynccontextmanager
async def ledgers_on(cluster: FakeCluster) -> AsyncIterator[bookie.Ledgers]:
    with trio.fail_after(60):
        async with bookie.open_ledgers(cluster.zk, rng=random.Random()) as ledgers:
            yield ledgers


async def read_all(ledgers: bookie.Ledgers, ledger_id: int) -> list[bytes]:
    async with ledgers.open(ledger_id) as ledger:
        return [entry.payload async for entry in ledger.read()]


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await trio.testing.wait_all_tasks_blocked(0.001)


async def test_what_is_appended_is_read_back_after_the_close() -> None:
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as ledgers:
        async with ledgers.create() as ledger:
            assert await ledger.append(b"one") == 0
            assert await ledger.append_many(b"%d" % k for k in range(10_000)) == range(1, 10_001)
            assert ledger.last_add_confirmed == 10_000
        assert ledger.metadata.state is LedgerState.CLOSED
        assert await read_all(ledgers, ledger.ledger_id) == [b"one", *(b"%d" % k for k in range(10_000))]
        async with ledgers.open(ledger.ledger_id) as reader:
            assert (await reader.read_last()).entry_id == 10_000
            assert reader.length == ledger.length
            some = [e async for e in reader.read(5, 7)]
            assert some == [bookie.Entry(5, b"4"), bookie.Entry(6, b"5"), bookie.Entry(7, b"6")]


async def test_a_writer_reads_its_own_ledger_up_to_its_lac() -> None:
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as ledgers, ledgers.create() as ledger:
        await ledger.append_many([b"a", b"b"])
        async with aclosing(ledger.reader().read_chunks()) as chunks:
            assert [payload async for chunk in chunks for payload in chunk.payloads] == [b"a", b"b"]


async def test_an_empty_ledger_reads_as_nothing() -> None:
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as ledgers:
        async with ledgers.create() as ledger:
            assert await ledger.append_many([]) == range(0)
        assert await read_all(ledgers, ledger.ledger_id) == []
        async with ledgers.open(ledger.ledger_id) as reader:
            with pytest.raises(bookie.NoSuchEntryError):
                await reader.read_last()


async def test_an_hmac_ledger_with_a_password() -> None:
    """1.3, 1.4: the key guards adds, the seal is checked by readers."""
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as ledgers:
        async with ledgers.create(password=b"pw", seal=bookie.SealKind.HMAC_SHA256) as ledger:
            await ledger.append(b"secret")
        async with ledgers.open(ledger.ledger_id, password=b"pw") as reader:
            assert [e.payload async for e in reader.read()] == [b"secret"]
        with pytest.raises(bookie.UnauthorizedError):
            await ledgers.open_ledger(ledger.ledger_id, password=b"other")


async def test_callbacks_come_in_order_and_once() -> None:
    """The hub's hot path: no task and no future per entry."""
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as ledgers:
        done: list[object] = []
        ledger = await ledgers.create_ledger()
        ids = [ledger.append_nowait(b"x", done.append) for _ in range(50)]
        assert ledger.append_many_nowait([b"y", b"z"], done.append) == 51
        await until(lambda: len(done) == 51)
        assert done == [*ids, 51]
        await ledger.close()
        with pytest.raises(bookie.LedgerClosedError):
            ledger.append_nowait(b"x", done.append)


async def test_append_nowait_refuses_beyond_the_bounds() -> None:
    """Back-pressure in entries and bytes."""
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as ledgers:
        for server in cluster.servers.values():
            server.hold = lambda message: isinstance(message, Add)
        limits = bookie.WriterLimits(outstanding_entries=3)
        ledger = await ledgers.create_ledger(limits=limits)
        done: list[object] = []
        for _ in range(3):
            ledger.append_nowait(b"x", done.append)
        assert not ledger.writable
        with pytest.raises(bookie.TooManyRequestsError):
            ledger.append_nowait(b"x", done.append)
        await until(lambda: any(isinstance(m, Add) for m in cluster.servers["b0"].seen))
        for server in cluster.servers.values():
            server.release()
        await ledger.wait_writable()
        await until(lambda: len(done) == 3)
        await ledger.close()


async def test_a_cancelled_append_is_not_taken_back() -> None:
    """R-N15: its id is used, its entry stored."""
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as ledgers:
        async with ledgers.create() as ledger:
            for server in cluster.servers.values():
                server.hold = lambda message: isinstance(message, Add)
            with trio.move_on_after(0.05):
                await ledger.append(b"cancelled")
            for server in cluster.servers.values():
                server.release()
            assert await ledger.append(b"next") == 1
        assert await read_all(ledgers, ledger.ledger_id) == [b"cancelled", b"next"]


async def test_a_dead_bookie_is_replaced_and_nothing_is_lost() -> None:
    """4.5, with a spare."""
    async with FakeCluster(4) as cluster, ledgers_on(cluster) as ledgers:
        async with ledgers.create() as ledger:
            await ledger.append_many([b"%d" % k for k in range(100)])
            victim = ledger.metadata.last_fragment.ensemble[1].bookie_id
            cluster.stop(victim)
            await ledger.append_many([b"%d" % k for k in range(100, 200)])
            await until(lambda: len(ledger.metadata.fragments) == 2)
        assert 100 <= ledger.metadata.fragments[1].first_entry_id <= 200
        assert victim not in {m.bookie_id for m in ledger.metadata.last_fragment.ensemble}
        assert await read_all(ledgers, ledger.ledger_id) == [b"%d" % k for k in range(200)]


async def test_without_a_spare_the_dead_bookie_stays_and_is_used_again_when_it_returns() -> None:
    """DESIGN 5: availability with few bookies."""
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as ledgers:
        async with ledgers.create() as ledger:
            await ledger.append(b"0")
            cluster.stop("b1")
            entry_id = 1
            while ledger.statistics().down != ("b1",):
                await ledger.append(b"%d" % entry_id)
                entry_id += 1
            await cluster.start("b1")
            while ledger.statistics().down:
                await ledger.append(b"%d" % entry_id)
                entry_id += 1
                await trio.testing.wait_all_tasks_blocked(0.01)
            await ledger.append(b"%d" % entry_id)
            await until(lambda: entry_id in cluster.stored("b1", ledger.ledger_id))
        assert len(ledger.metadata.fragments) == 1
        assert await read_all(ledgers, ledger.ledger_id) == [b"%d" % k for k in range(entry_id + 1)]


async def test_a_bookie_with_empty_disks_is_another_bookie() -> None:
    """R-I3 (#4812, #2612): same id, other incarnation: no denial, no ack; it may be chosen anew."""
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as ledgers:
        async with ledgers.create() as ledger:
            await ledger.append(b"0")
            cluster.stop("b2")
            wiped = cluster.servers["b2"].bookie
            wiped.member = Member("b2", 2)
            wiped.ledgers.clear()
            wiped.durable.clear()
            await cluster.start("b2")
            await ledger.append(b"1")
            await until(lambda: len(ledger.metadata.fragments) == 2)
        assert Member("b2", 2) in ledger.metadata.last_fragment.ensemble
        assert Member("b2", 1) in ledger.metadata.fragments[0].ensemble
        assert await read_all(ledgers, ledger.ledger_id) == [b"0", b"1"]


async def test_opening_fences_the_writer() -> None:
    """6: what was acknowledged is there, and nothing is acknowledged afterwards."""
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as ledgers, ledgers_on(cluster) as others:
        ledger = await ledgers.create_ledger()
        await ledger.append_many([b"a", b"b"])
        assert await read_all(others, ledger.ledger_id) == [b"a", b"b"]
        with pytest.raises(bookie.LedgerFencedError):
            await ledger.append(b"c")
        with pytest.raises(bookie.LedgerFencedError):
            await ledger.close()
        assert await read_all(others, ledger.ledger_id) == [b"a", b"b"]


def is_writers_add(message: object) -> bool:
    """Not a recovery's."""
    return isinstance(message, Add) and not message.flags


async def test_recovery_finds_what_was_stored_and_not_acknowledged() -> None:
    """6.2 steps 4 and 5: and writes it back to the others. The bookie that has it must be among those heard:
    both others are enough to deny it.
    """
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as ledgers, ledgers_on(cluster) as others:
        ledger = await ledgers.create_ledger()
        await ledger.append(b"a")
        for name in ("b1", "b2"):
            cluster.servers[name].hold = lambda message: isinstance(message, Add)
        ledger.append_nowait(b"b", lambda _: None)
        await until(lambda: len(cluster.stored("b0", ledger.ledger_id)) == 2)
        cluster.servers["b1"].hold = is_writers_add
        cluster.servers["b2"].hold = lambda message: is_writers_add(message) or isinstance(message, Fence)
        assert await read_all(others, ledger.ledger_id) == [b"a", b"b"]
        copies = [name for name in cluster.servers if 1 in cluster.stored(name, ledger.ledger_id)]
        assert len(copies) >= 2


async def test_recovery_needs_coverage_only() -> None:
    """6.1: 3/2 tolerates one silent bookie."""
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as ledgers, ledgers_on(cluster) as others:
        ledger = await ledgers.create_ledger()
        await ledger.append_many([b"a", b"b"])
        cluster.servers["b0"].silent = True
        assert await read_all(others, ledger.ledger_id) == [b"a", b"b"]
        metadata = await others.metadata(ledger.ledger_id)
        assert (metadata.last_entry_id, metadata.length) == (1, 2)
        ledger.fail(bookie.ClientClosedError("test"))


async def test_two_recoveries_at_once_agree() -> None:
    """6.6."""
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as ledgers:
        ledger = await ledgers.create_ledger()
        await ledger.append_many([b"%d" % k for k in range(100)])
        results: list[list[bytes]] = []

        async def recover() -> None:
            results.append(await read_all(ledgers, ledger.ledger_id))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(recover)
        assert results == [[b"%d" % k for k in range(100)]] * 3


async def test_opening_without_recovery_disturbs_nobody() -> None:
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as ledgers, ledgers_on(cluster) as others:
        async with ledgers.create() as ledger:
            await ledger.append_many([b"a", b"b"])
            await ledger.append(b"c")  # carries LAC 1
            reader = await others.open_ledger(ledger.ledger_id, recover=False)
            assert reader.last_entry_id >= 1
            assert not reader.closed
            with pytest.raises(bookie.ReadError):
                [e async for e in reader.read(0, 99)]  # beyond the LAC (5.1)
            await ledger.append(b"d")
        assert len(await read_all(others, ledger.ledger_id)) == 4


async def test_a_tail_follows_a_live_writer_to_its_close() -> None:
    """5.7: an idle writer's last entries become visible by explicit LAC; the close ends the tail."""
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as ledgers, ledgers_on(cluster) as others:
        seen: list[bytes] = []

        async def follow(ledger_id: int) -> None:
            async with others.tail(ledger_id) as entries:
                async for entry in entries:
                    seen.append(entry.payload)

        async with trio.open_nursery() as nursery:
            ledger = await ledgers.create_ledger()
            nursery.start_soon(follow, ledger.ledger_id)
            await ledger.append_many([b"a", b"b"])
            await until(lambda: seen == [b"a", b"b"])
            await ledger.append(b"c")
            await until(lambda: len(seen) == 3)
            await ledger.append(b"d")
            await ledger.close()
        assert seen == [b"a", b"b", b"c", b"d"]
        assert not any(isinstance(m, Fence) for server in cluster.servers.values() for m in server.seen)


async def test_a_tail_goes_on_over_an_ensemble_change() -> None:
    """5.8."""
    async with FakeCluster(4) as cluster, ledgers_on(cluster) as ledgers:
        ledger = await ledgers.create_ledger()
        async with ledger, ledgers.tail(ledger.ledger_id) as entries:
            await ledger.append(b"a")
            iterator = aiter(entries)
            assert (await anext(iterator)).payload == b"a"
            for _ in range(2):
                victim = ledger.metadata.last_fragment.ensemble[0].bookie_id
                cluster.stop(victim)
                await ledger.append(b"b")
                assert (await anext(iterator)).payload == b"b"
                await cluster.start(victim)


async def test_a_tail_of_a_deleted_ledger_ends_with_an_error() -> None:
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as ledgers:
        ledger = await ledgers.create_ledger()
        async with ledgers.tail(ledger.ledger_id) as entries:
            await ledgers.delete(ledger.ledger_id)
            with pytest.raises(bookie.NoSuchLedgerError):
                [e async for e in entries]


async def test_tail_requests_are_not_repeated_in_a_hurry_when_bookies_fail() -> None:
    """Again and again, but each bookie is left alone for a while first; a slow machine makes that longer."""
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as ledgers:
        ledger = await ledgers.create_ledger()
        asked: dict[str, list[float]] = {name: [] for name in cluster.servers}

        def fail_tails(name: str, answer: Callable[..., None]) -> Callable[..., None]:
            def answer_or_fail(peer: Peer, request_id: int, message: object, body: bytes) -> None:
                if isinstance(message, Tail):
                    asked[name].append(trio.current_time())
                    peer.fail(request_id, int(Code.TOO_MANY_REQUESTS))
                else:
                    answer(peer, request_id, message, body)

            return answer_or_fail

        for name, server in cluster.servers.items():
            server._answer = fail_tails(name, server._answer)  # type: ignore[method-assign]
        async with (
            ledger,
            ledgers.tail(ledger.ledger_id) as entries,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(anext, aiter(entries))
            await until(lambda: sum(map(len, asked.values())) >= 8)
            nursery.cancel_scope.cancel()
        pauses = [later - sooner for times in asked.values() for sooner, later in pairwise(times)]
        assert min(pauses) >= RETRY_S - 0.002  # the client counts whole milliseconds


async def test_a_damaged_copy_is_read_from_another_replica() -> None:
    """5.3, R-R1."""
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as ledgers:
        async with ledgers.create() as ledger:
            await ledger.append_many([b"a", b"b", b"c"])
        for name in ("b0", "b1"):
            cluster.servers[name].bookie.unreadable.add((ledger.ledger_id, 1))
        assert await read_all(ledgers, ledger.ledger_id) == [b"a", b"b", b"c"]
        cluster.servers["b2"].bookie.unreadable.add((ledger.ledger_id, 1))
        with pytest.raises(bookie.ReadError):
            await read_all(ledgers, ledger.ledger_id)


async def test_no_such_entry_means_that_every_replica_denies_it() -> None:
    """R-R1: one that is down makes it another error."""
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as ledgers:
        async with ledgers.create() as ledger:
            await ledger.append(b"a")
        for server in cluster.servers.values():
            server.bookie.ledgers[ledger.ledger_id].entries.clear()
        with pytest.raises(bookie.NoSuchEntryError):
            await read_all(ledgers, ledger.ledger_id)
        cluster.stop("b1")
        with pytest.raises(bookie.BookieUnavailableError):
            await read_all(ledgers, ledger.ledger_id)


async def test_a_hanging_replica_is_not_waited_for() -> None:
    """5.3: after the speculation time the next one is asked too."""
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as ledgers:
        async with ledgers.create() as ledger:
            await ledger.append_many([b"a", b"b"])
        for name in ("b0", "b1"):
            cluster.servers[name].hold = lambda message: isinstance(message, Read)
        assert await read_all(ledgers, ledger.ledger_id) == [b"a", b"b"]


async def test_too_few_bookies_and_a_smaller_ensemble() -> None:
    """R-M1, issue section 5: never under the ack quorum, and marked."""
    async with FakeCluster(2) as cluster, ledgers_on(cluster) as ledgers:
        async with ledgers.create(smaller=True) as ledger:
            await ledger.append(b"a")
        schedule = ledger.metadata.schedule
        assert (schedule.ensemble_size, schedule.write_quorum, schedule.ack_quorum) == (2, 2, 2)
        assert ledger.metadata.custom[bookie.WANTED] == b"3/3"
        with pytest.raises(bookie.IncorrectParameterError):
            await ledgers.create_ledger(ensemble=2, ack_quorum=3)


async def test_not_enough_bookies_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bookie.client.ledgers.BOOKIES_WAIT_S", 0.05)
    async with FakeCluster(2) as cluster, ledgers_on(cluster) as ledgers:
        with pytest.raises(bookie.NotEnoughBookiesError):
            await ledgers.create_ledger()
        assert not any(path.startswith("/ledgers/000") for path in cluster.zk.nodes)


async def test_listing_and_deleting() -> None:
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as ledgers:
        ids = []
        for _ in range(5):
            async with ledgers.create() as ledger:
                ids.append(ledger.ledger_id)
        assert [i async for i in ledgers.list()] == sorted(ids)
        for ledger_id in (ids[1], ids[1], 12345):  # idempotent
            await ledgers.delete(ledger_id)
        assert [i async for i in ledgers.list()] == [ids[0], *ids[2:]]
        for ledger_id in ids:
            await ledgers.delete(ledger_id)
        assert not any(path.startswith("/ledgers/000") for path in cluster.zk.nodes)
        with pytest.raises(bookie.NoSuchLedgerError):
            await ledgers.open_ledger(ids[0])


async def test_leaving_the_client_ends_its_writers_without_closing_the_ledger() -> None:
    async with FakeCluster(3) as cluster:
        async with ledgers_on(cluster) as ledgers:
            ledger = await ledgers.create_ledger()
            await ledger.append(b"a")
        with pytest.raises(bookie.ClientClosedError):
            await ledger.append(b"b")
        with pytest.raises(bookie.ClientClosedError):
            await ledgers.create_ledger()
        async with ledgers_on(cluster) as others:
            assert await read_all(others, ledger.ledger_id) == [b"a"]


async def test_the_callers_own_exception_comes_out_as_itself() -> None:
    async with FakeCluster(3) as cluster:
        with pytest.raises(KeyError):
            async with ledgers_on(cluster) as ledgers, ledgers.create() as ledger:
                await ledger.append(b"a")
                raise KeyError("mine")
        async with ledgers_on(cluster) as others:
            assert (await others.metadata(ledger.ledger_id)).last_entry_id == 0


# --- lost answers of the metadata store (17.2)


@pytest.mark.parametrize("lost", ["request", "answer"])
@pytest.mark.parametrize("step", ["create", "change", "close", "declare", "recovered"])
async def test_a_lost_answer_makes_no_duplicate_and_no_false_conflict(step: str, lost: str) -> None:
    """R-M5, R-M6: at each compare-and-set."""
    async with FakeCluster(4) as cluster, ledgers_on(cluster) as ledgers, ledgers_on(cluster) as others:
        losing: list[str] = []

        def lose(operation: str, path: str) -> str | None:
            is_ledger = path.rpartition("/")[2].startswith("L") and path != layout.LAYOUT
            if losing and is_ledger and operation == losing[0]:
                losing.pop()
                return lost
            return None

        cluster.zk.lose = lose
        if step == "create":
            losing.append("create")
        ledger = await ledgers.create_ledger()
        await ledger.append(b"a")
        if step == "change":
            losing.append("set")
            cluster.stop(ledger.metadata.last_fragment.ensemble[0].bookie_id)
            await ledger.append(b"b")
            await until(lambda: len(ledger.metadata.fragments) == 2)
        if step == "close":
            losing.append("set")
        if step in ("declare", "recovered"):
            if step == "declare":
                losing.append("set")
            else:
                sets = sum(operation == "set" for operation, _ in cluster.zk.writes)

                def lose_second(operation: str, path: str) -> str | None:
                    done = sum(o == "set" for o, _ in cluster.zk.writes) - sets
                    if operation == "set" and done == 1 and not losing:
                        losing.append("done")
                        return lost
                    return None

                cluster.zk.lose = lose_second
            assert await read_all(others, ledger.ledger_id) == [b"a"]
            assert losing in ([], ["done"])
            ledger.fail(bookie.ClientClosedError("test"))
        else:
            await ledger.close()
            assert losing == []
            assert len(await read_all(others, ledger.ledger_id)) == (2 if step == "change" else 1)
        assert [i async for i in others.list()] == [ledger.ledger_id]


async def test_an_id_taken_by_another_is_passed_over() -> None:
    """R-M5: exists with another token is a conflict: next id."""
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as ledgers:
        async with ledgers.create() as first:
            pass
        cluster.zk.nodes[layout.ID_GENERATOR] = (b"%d" % first.ledger_id, 77)
        async with ledgers_on(cluster) as others, others.create() as second:
            assert second.ledger_id != first.ledger_id


async def test_ids_of_two_clients_never_meet() -> None:
    async with FakeCluster(3) as cluster, ledgers_on(cluster) as one, ledgers_on(cluster) as two:
        ids = []
        for ledgers in (one, two) * 6:
            async with ledgers.create() as ledger:
                ids.append(ledger.ledger_id)
        assert len(set(ids)) == 12


async def test_a_missing_layout_names_what_to_do() -> None:
    async with FakeCluster(0) as cluster:
        del cluster.zk.nodes[layout.ID_GENERATOR]
        store = MetadataStore(cluster.zk, random.Random(1), SYSTEM_CLOCK)
        with pytest.raises(MetadataStoreError, match="start a bookie"):
            await store._next_id()
