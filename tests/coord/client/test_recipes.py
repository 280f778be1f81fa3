"""Recipes of ZooKeeper's recipes page on the fake ensemble: what they promise, and that few are woken."""

import contextlib
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

import coord
from coord.protocol import opcodes
from coord.protocol.records import OPEN_ACL, encode_create, encode_path_version
from tests.coord.client.fake_ensemble import FakeEnsemble


@pytest.fixture
def fake() -> FakeEnsemble:
    return FakeEnsemble()


settle = trio.testing.wait_all_tasks_blocked


# Locks


async def test_a_lock_is_held_by_one_in_the_order_of_coming(fake: FakeEnsemble) -> None:
    order: list[int] = []
    tokens: list[int] = []
    async with fake.connect() as zk, trio.open_nursery() as nursery:

        async def work(number: int) -> None:
            async with coord.lock(zk, "/lock", b"%d" % number) as held:
                order.append(number)
                tokens.append(held.token)
                await settle()
                assert order[-1] == number

        for number in range(4):
            nursery.start_soon(work, number)
            await settle()
    assert order == [0, 1, 2, 3]
    assert tokens == sorted(set(tokens))
    assert fake.children("/lock") == []


async def test_of_many_who_wait_for_a_lock_one_is_woken(fake: FakeEnsemble) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(fake.connect()) for _ in range(10)]
        release = [trio.Event() for _ in clients]
        async with trio.open_nursery() as nursery:

            async def work(number: int) -> None:
                async with coord.lock(clients[number], "/lock"):
                    await release[number].wait()

            for number in range(len(clients)):
                nursery.start_soon(work, number)
                await settle()
            for number in range(len(clients)):
                before = sum(zk.statistics().watch_events for zk in clients)
                release[number].set()
                await settle()
                woken = sum(zk.statistics().watch_events for zk in clients) - before
                assert woken == (1 if number + 1 < len(clients) else 0)


async def test_readers_share_and_a_writer_waits_for_those_before_it_only(fake: FakeEnsemble) -> None:
    log: list[str] = []
    async with fake.connect() as zk, trio.open_nursery() as nursery:
        let_go = trio.Event()

        async def hold(
            name: str, kind: Callable[..., contextlib.AbstractAsyncContextManager[coord.Held]]
        ) -> None:
            async with kind(zk, "/rw"):
                log.append(name)
                await let_go.wait()
            log.append(f"-{name}")

        for name, kind in (
            ("r1", coord.read_lock),
            ("r2", coord.read_lock),
            ("w1", coord.write_lock),
            ("r3", coord.read_lock),
        ):
            nursery.start_soon(hold, name, kind)
            await settle()
        assert log == ["r1", "r2"]
        let_go.set()
    assert log.index("w1") > max(log.index("-r1"), log.index("-r2"))
    assert log.index("r3") > log.index("-w1")


async def test_a_holder_learns_that_its_lock_is_revoked(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, fake.connect() as other:
        assert not await coord.revoke(other, "/lock")
        async with coord.revocable_lock(zk, "/lock", b"mine") as held:
            assert not held.revoked.is_set()
            await other.set(held.path, b"something else")
            await settle()
            assert not held.revoked.is_set()
            assert await coord.revoke(other, "/lock")
            with trio.fail_after(60):
                await held.revoked.wait()
        assert fake.children("/lock") == []


async def test_what_a_holder_raises_comes_out_as_it_is(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        with pytest.raises(ZeroDivisionError):
            async with coord.revocable_lock(zk, "/lock"):
                raise ZeroDivisionError
        with pytest.raises(ZeroDivisionError):
            async with coord.cache_tree(zk, "/"):
                raise ZeroDivisionError


@pytest.mark.parametrize("executed", [True, False])
async def test_a_lost_answer_to_a_lock_s_create_makes_one_contender(
    fake: FakeEnsemble, executed: bool
) -> None:
    async with fake.connect() as zk:
        await zk.create("/lock")
        fake.lost_answers = {opcodes.CREATE: executed}
        async with coord.lock(zk, "/lock") as held:
            assert [f"/lock/{name}" for name in fake.children("/lock")] == [held.path]
        assert fake.children("/lock") == []


# Semaphores


async def test_a_semaphore_has_as_many_holders_as_leases_and_wakes_one(fake: FakeEnsemble) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(fake.connect()) for _ in range(8)]
        release = [trio.Event() for _ in clients]
        holding: list[int] = []
        async with trio.open_nursery() as nursery:

            async def work(number: int) -> None:
                async with coord.semaphore(clients[number], "/sem", 3):
                    holding.append(number)
                    assert len(holding) <= 3
                    await release[number].wait()
                    holding.remove(number)

            for number in range(len(clients)):
                nursery.start_soon(work, number)
                await settle()
            assert holding == [0, 1, 2]
            before = sum(zk.statistics().watch_events for zk in clients)
            release[1].set()
            await settle()
            assert holding == [0, 2, 3]
            # The first in line sees the lease go and takes it; the next in line takes its place.
            assert sum(zk.statistics().watch_events for zk in clients) - before <= 3
            for event in release:
                event.set()
    assert fake.children("/sem") == []
    assert fake.children("/sem-__lock__") == []


async def test_a_semaphore_of_another_size_is_refused(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        async with coord.semaphore(zk, "/sem", 2):
            pass
        with pytest.raises(ValueError, match="has 2 leases, not 3"):
            async with coord.semaphore(zk, "/sem", 3):
                raise AssertionError("nobody can hold it")
        with pytest.raises(ValueError, match="at least one"):
            async with coord.semaphore(zk, "/sem", 0):
                raise AssertionError("nobody can hold it")


async def test_who_is_cancelled_in_line_for_a_semaphore_leaves_nothing(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, fake.connect() as other, coord.semaphore(zk, "/sem", 1):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def wait() -> None:
                    async with coord.semaphore(other, "/sem", 1):
                        raise AssertionError("the lease is taken")

                nursery.start_soon(wait)
                await settle()
                scope.cancel()
        assert len(fake.children("/sem")) == 1
        assert fake.children("/sem-__lock__") == []


# Barriers


async def test_a_barrier_holds_up_until_it_is_removed(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, fake.connect() as other, trio.open_nursery() as nursery:
        barrier = coord.Barrier(zk, "/gate")
        await barrier.wait()
        await barrier.create()
        passed: list[int] = []

        async def wait() -> None:
            await coord.Barrier(other, "/gate").wait()
            passed.append(1)

        nursery.start_soon(wait)
        await settle()
        assert passed == []
        assert await barrier.remove()
        await settle()
        assert passed == [1]
        assert not await barrier.remove()


async def test_a_double_barrier_lets_all_in_together_and_out_together(fake: FakeEnsemble) -> None:
    inside: list[int] = []
    left: list[int] = []
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(fake.connect()) for _ in range(4)]
        for _ in range(2):  # a second meeting at the same place
            leave = [trio.Event() for _ in range(4)]
            async with trio.open_nursery() as nursery:

                async def meet(number: int, leave: trio.Event) -> None:
                    async with coord.double_barrier(clients[number], "/meeting", 4):
                        inside.append(number)
                        await leave.wait()
                    left.append(number)

                for number in range(3):
                    nursery.start_soon(meet, number, leave[number])
                    await settle()
                assert inside == []
                nursery.start_soon(meet, 3, leave[3])
                await settle()
                assert sorted(inside) == [0, 1, 2, 3]
                for number in range(3):
                    leave[number].set()
                    await settle()
                    assert left == []
                leave[3].set()
            assert sorted(left) == [0, 1, 2, 3]
            inside.clear()
            left.clear()
    assert fake.children("/meeting") == []


async def test_the_mark_of_a_meeting_whose_last_party_died_counts_for_no_other(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, fake.connect() as other, trio.open_nursery() as nursery:
        await zk.create("/meeting")
        await zk.create("/meeting/ready")
        entered: list[int] = []

        async def meet(number: int, client: coord.Client) -> None:
            async with coord.double_barrier(client, "/meeting", 2):
                entered.append(number)

        nursery.start_soon(meet, 0, zk)
        await settle()
        assert entered == []
        nursery.start_soon(meet, 1, other)
        await settle()
        assert sorted(entered) == [0, 1]


async def test_a_mark_that_is_taken_away_at_once_has_been_seen(fake: FakeEnsemble) -> None:
    """kazoo's parties take it away when they leave."""
    async with fake.connect() as zk, fake.connect() as other, trio.open_nursery() as nursery:
        inside = trio.Event()

        async def meet() -> None:
            async with coord.double_barrier(zk, "/meeting", 2):
                inside.set()

        nursery.start_soon(meet)
        await settle()
        await other.create("/meeting/other")
        await settle()
        assert not inside.is_set()
        for change, body in (
            (opcodes.CREATE, encode_create("/meeting/ready", b"", OPEN_ACL, 0)),
            (opcodes.DELETE, encode_path_version("/meeting/ready", -1)),
            (opcodes.DELETE, encode_path_version("/meeting/other", -1)),
        ):
            assert fake.change(change, body)[0] == 0
        await settle()
        assert inside.is_set()


async def test_a_party_that_dies_inside_a_double_barrier_holds_nobody_up(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, fake.connect() as other:
        left = trio.Event()
        async with trio.open_nursery() as nursery:

            async def meet(client: coord.Client, until: Callable[[], Awaitable[object]]) -> None:
                with contextlib.suppress(coord.SessionExpiredError):
                    async with coord.double_barrier(client, "/meeting", 2):
                        await until()
                    left.set()

            nursery.start_soon(meet, zk, trio.lowlevel.checkpoint)
            nursery.start_soon(meet, other, trio.sleep_forever)
            await settle()
            assert not left.is_set()
            fake.expire(other.session_id)
            await settle()
            assert left.is_set()
            nursery.cancel_scope.cancel()


# Queues


async def test_a_queue_gives_by_priority_and_then_in_order(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        queue = coord.Queue(zk, "/jobs")
        assert await queue.size() == 0
        for item in (b"a", b"b"):
            await queue.put(item)
        assert await queue.get() == b"a"
        await queue.put(b"urgent", priority=1)
        await queue.put(b"late", priority=999)
        assert await queue.size() == 3
        assert [await queue.get() for _ in range(3)] == [b"urgent", b"b", b"late"]
        with pytest.raises(ValueError, match="0 to 999"):
            await queue.put(b"", priority=1000)


async def test_an_item_wakes_one_of_many_consumers(fake: FakeEnsemble) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(fake.connect()) for _ in range(6)]
        producer = coord.Queue(await stack.enter_async_context(fake.connect()), "/jobs")
        got: list[bytes] = []
        async with trio.open_nursery() as nursery:

            async def consume(zk: coord.Client) -> None:
                got.append(await coord.Queue(zk, "/jobs").get())

            for zk in clients:
                nursery.start_soon(consume, zk)
                await settle()
            for number in range(len(clients)):
                before = sum(zk.statistics().watch_events for zk in clients)
                await producer.put(b"%d" % number)
                await settle()
                assert got == [b"%d" % one for one in range(number + 1)]
                # One sees the item; the next in line takes its place.
                assert sum(zk.statistics().watch_events for zk in clients) - before <= 2
    assert fake.children("/jobs") == []


@pytest.mark.parametrize("executed", [True, False])
async def test_an_item_is_put_once_and_taken_once_though_answers_are_lost(
    fake: FakeEnsemble, executed: bool
) -> None:
    async with fake.connect() as zk:
        queue = coord.Queue(zk, "/jobs")
        await queue.put(b"first")
        fake.lost_answers = {opcodes.MULTI: executed}
        await queue.put(b"second")
        assert await queue.size() == 2
        fake.lost_answers = {opcodes.MULTI: executed}
        assert await queue.get() == b"first"
        assert await queue.get() == b"second"
        assert await queue.size() == 0


async def test_two_consumers_take_different_items(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, fake.connect() as other:
        mine, theirs = coord.Queue(zk, "/jobs"), coord.Queue(other, "/jobs")
        for number in range(20):
            await mine.put(b"%d" % number)
        got = []
        for _ in range(10):
            got += [await mine.get(), await theirs.get()]
        assert got == [b"%d" % number for number in range(20)]


async def test_a_consumer_that_is_cancelled_while_it_waits_takes_nothing(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        queue = coord.Queue(zk, "/jobs")
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(queue.get)
                await settle()
                scope.cancel()
        await queue.put(b"kept")
        assert await queue.size() == 1
        assert await queue.get() == b"kept"


# Counters


async def test_a_counter_counts_every_addition_once(fake: FakeEnsemble) -> None:
    async with contextlib.AsyncExitStack() as stack:
        counters = [
            coord.Counter(await stack.enter_async_context(fake.connect()), "/count", default=100)
            for _ in range(4)
        ]
        assert await counters[0].value() == 100
        seen: list[int] = []
        async with trio.open_nursery() as nursery:

            async def count(counter: coord.Counter) -> None:
                for _ in range(10):
                    seen.append(await counter.add())

            for counter in counters:
                nursery.start_soon(count, counter)
        assert sorted(seen) == list(range(101, 141))
        assert await counters[0].add(-40) == 100


@pytest.mark.parametrize("executed", [True, False])
async def test_an_addition_whose_answer_is_lost_counts_once(fake: FakeEnsemble, executed: bool) -> None:
    async with fake.connect() as zk:
        counter = coord.Counter(zk, "/count")
        await counter.add(5)
        fake.lost_answers = {opcodes.MULTI: executed}
        assert await counter.add(2) == 7
        assert await counter.value() == 7


async def test_a_node_that_is_no_counter_is_named(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        await zk.create("/count", b"many")
        with pytest.raises(ValueError, match="an integer at /count, got b'many'"):
            await coord.Counter(zk, "/count").add()


# Groups


async def test_members_come_and_go_and_are_followed(fake: FakeEnsemble) -> None:
    seen: list[list[bytes]] = []
    async with fake.connect() as zk, fake.connect() as other, trio.open_nursery() as nursery:

        async def follow() -> None:
            async with coord.watch_members(other, "/group") as changes:
                async for members in changes:
                    seen.append(members)

        nursery.start_soon(follow)
        await settle()
        async with coord.join_group(zk, "/group", b"anna") as anna:
            await settle()
            async with coord.join_group(other, "/group", b"ben") as ben:
                assert await coord.get_members(zk, "/group") == [b"anna", b"ben"]
                assert anna.token < ben.token
                await settle()
            await settle()
        await settle()
        nursery.cancel_scope.cancel()
    assert [members for at, members in enumerate(seen) if at == 0 or members != seen[at - 1]] == [
        [],
        [b"anna"],
        [b"anna", b"ben"],
        [b"anna"],
        [],
    ]


async def test_a_member_whose_session_expires_is_one_no_longer(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, fake.connect() as other:
        with contextlib.suppress(coord.SessionExpiredError):
            async with coord.join_group(zk, "/group", b"anna"):
                fake.expire(zk.session_id)
                assert await coord.get_members(other, "/group") == []


# Two-phase commit


@pytest.mark.parametrize("refusing", [None, "b"])
async def test_all_sites_learn_one_decision(fake: FakeEnsemble, refusing: str | None) -> None:
    expected = coord.Decision.COMMIT if refusing is None else coord.Decision.ABORT
    decisions: list[coord.Decision] = []
    async with contextlib.AsyncExitStack() as stack:
        clients = {name: await stack.enter_async_context(fake.connect()) for name in "abc"}
        zk = await stack.enter_async_context(fake.connect())
        async with trio.open_nursery() as nursery:

            async def coordinate() -> None:
                decisions.append(await coord.coordinate(zk, "/app/tx", list(clients), b"what it is about"))

            async def site(name: str) -> None:
                choice = coord.Decision.ABORT if name == refusing else coord.Decision.COMMIT
                decisions.append(await coord.vote(clients[name], "/app/tx", name, choice))

            nursery.start_soon(coordinate)
            await settle()
            for name in clients:
                nursery.start_soon(site, name)
                await settle()
        assert decisions == [expected] * 4
        assert await coord.abort(zk, "/app/tx") is expected


async def test_a_coordinator_that_was_interrupted_goes_on_and_a_vote_counts_once(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, fake.connect() as site:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(coord.coordinate, zk, "/tx", ["a", "b"])
                await settle()
                scope.cancel()
        async with trio.open_nursery() as nursery:
            fake.lost_answers = {opcodes.SET_DATA: True}
            nursery.start_soon(coord.vote, site, "/tx", "a", coord.Decision.COMMIT)
            await settle()
            # It has voted: another vote changes nothing.
            nursery.start_soon(coord.vote, site, "/tx", "a", coord.Decision.ABORT)
            nursery.start_soon(coord.vote, site, "/tx", "b", coord.Decision.COMMIT)
            await settle()
            assert await coord.coordinate(zk, "/tx", ["a", "b"]) is coord.Decision.COMMIT


# Caches


async def test_a_tree_cache_follows_the_tree(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, fake.connect() as other:
        await other.create("/app", b"1")
        await other.create("/app/a", b"2")
        await other.create("/apple", b"not in it")
        async with coord.cache_tree(zk, "/app") as cache:
            assert {path: node.data for path, node in cache.items()} == {"/app": b"1", "/app/a": b"2"}
            await other.set("/app/a", b"3")
            await other.create("/app/a/deep", b"4")
            await other.delete("/app/a/deep")
            await other.create("/app/b")
            await settle()
            assert cache["/app/a"].data == b"3"
            assert cache.children("/app") == ["a", "b"]
            seen = [await cache.wait_change() for _ in range(2)]
            assert set(seen) <= {"/app", "/app/a", "/app/b", "/app/a/deep"}


async def test_a_cache_of_children_holds_the_children_alone(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, coord.cache_children(zk, "/late") as cache:
        assert dict(cache) == {}
        await zk.create("/late")
        await zk.create("/late/x", b"1")
        await zk.create("/late/x/y", b"2")
        await settle()
        assert {path: node.data for path, node in cache.items()} == {"/late/x": b"1"}
        await zk.delete("/late/x/y")
        await zk.delete("/late/x")
        await settle()
        assert dict(cache) == {}


async def test_a_cache_is_what_the_tree_is_behind_a_lost_connection(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.connect("a:1") as zk, fake.connect("b:2") as other:
        await other.create("/app")
        for number in range(10):
            await other.create(f"/app/{number}", b"old")
        async with coord.cache_tree(zk, "/app") as cache:
            fake.refusing = {1}
            for connection in [one for one in fake.connections if one.port == 1]:
                connection.cut()
            await settle()
            for number in range(5):
                await other.delete(f"/app/{number}")
            await other.set("/app/9", b"new")
            await other.create("/app/10")
            fake.refusing = set()
            with trio.fail_after(60):
                while sorted(cache.children("/app")) != ["10", "5", "6", "7", "8", "9"]:  # noqa: ASYNC110
                    await trio.sleep(0.1)
            assert cache["/app/9"].data == b"new"
