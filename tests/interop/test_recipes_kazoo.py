"""Half of each party is kazoo's: our recipes and kazoo's of the same name, on one tree."""

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import pytest
import trio

import coord
from tests.coord_servers import CoordServers
from tests.interop.conftest import MakeClient

pytestmark = pytest.mark.interop
HOLD_S = 60.0

T = TypeVar("T")


@pytest.fixture
def root() -> str:
    return f"/t-{secrets.token_hex(6)}"


@pytest.fixture
async def kazoo(standalone: CoordServers, make_client: MakeClient) -> Any:
    return await trio.to_thread.run_sync(make_client, standalone.hosts)


async def blocking(call: Callable[..., T], *args: object, **options: object) -> T:
    """A call of kazoo's, which waits, in a thread of its own."""
    return await trio.to_thread.run_sync(partial(call, *args, **options))


async def wait_children(zk: coord.Client, path: str, count: int) -> None:
    async with zk.watch(path, children=True) as events:
        async for _ in events:
            if len(events.children) == count:
                return


async def test_readers_and_writers_of_both_kinds_take_turns(
    standalone: CoordServers, kazoo: Any, root: str
) -> None:
    reader, writer = kazoo.ReadLock(root, "reader"), kazoo.WriteLock(root, "writer")
    with trio.fail_after(HOLD_S):
        async with coord.connect(standalone.hosts) as zk:
            async with coord.read_lock(zk, root, b"ours"):
                assert await blocking(reader.acquire, blocking=False)
                assert not await blocking(writer.acquire, blocking=False)
                await blocking(reader.release)
            assert await blocking(writer.acquire, timeout=60)
            got = trio.Event()

            async def read() -> None:
                async with coord.read_lock(zk, root, b"ours"):
                    got.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await wait_children(zk, root, 2)
                assert not got.is_set()
                await blocking(writer.release)
                await got.wait()


async def test_leases_of_both_kinds_are_counted_together(
    standalone: CoordServers, kazoo: Any, root: str
) -> None:
    theirs = [kazoo.Semaphore(root, f"kazoo-{number}", max_leases=2) for number in range(2)]
    with trio.fail_after(HOLD_S):
        async with coord.connect(standalone.hosts) as zk:
            async with coord.semaphore(zk, root, 2, b"ours"):
                assert await blocking(theirs[0].acquire, timeout=60)
                assert not await blocking(theirs[1].acquire, blocking=False)
                assert sorted(await blocking(theirs[0].lease_holders)) == ["kazoo-0", "ours"]
            assert await blocking(theirs[1].acquire, timeout=60)
            with trio.move_on_after(0.2) as scope:
                async with coord.semaphore(zk, root, 2):
                    raise AssertionError("both leases are kazoo's")
            assert scope.cancelled_caught
            await blocking(theirs[0].release)
            async with coord.semaphore(zk, root, 2):
                pass


async def test_a_barrier_of_either_kind_holds_up_the_other(
    standalone: CoordServers, kazoo: Any, root: str
) -> None:
    theirs = kazoo.Barrier(root)

    async def pass_theirs() -> None:
        assert await blocking(theirs.wait, HOLD_S / 2)

    with trio.fail_after(HOLD_S):
        async with coord.connect(standalone.hosts) as zk:
            ours = coord.Barrier(zk, root)
            await blocking(theirs.create)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.wait)
                await blocking(theirs.remove)
            await ours.create()
            assert not await blocking(theirs.wait, 0.1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pass_theirs)
                assert await ours.remove()
            await pass_theirs()


@pytest.mark.parametrize("at_once", [False, True])
async def test_both_kinds_meet_at_a_double_barrier(
    at_once: bool, standalone: CoordServers, kazoo: Any, root: str
) -> None:
    """kazoo's party takes the mark away when it leaves, also where ours has only heard of it by then."""
    theirs = kazoo.DoubleBarrier(root, 2, "kazoo")
    with trio.fail_after(HOLD_S):
        async with coord.connect(standalone.hosts) as zk, trio.open_nursery() as nursery:
            ours_is_inside, theirs_is_inside, theirs_has_left = trio.Event(), trio.Event(), trio.Event()

            async def meet() -> None:
                await blocking(theirs.enter)
                theirs_is_inside.set()
                if not at_once:
                    await ours_is_inside.wait()
                await blocking(theirs.leave)
                theirs_has_left.set()

            nursery.start_soon(meet)
            async with coord.double_barrier(zk, root, 2, b"ours"):
                ours_is_inside.set()
                await theirs_is_inside.wait()
                async with zk.watch(f"{root}/ready") as mark:
                    async for event in mark:
                        if event.stat is None:
                            break
                assert not theirs_has_left.is_set()
    async with coord.connect(standalone.hosts) as zk:
        assert await zk.get_children(root) == []


async def test_items_of_either_kind_are_taken_by_the_other(
    standalone: CoordServers, kazoo: Any, root: str
) -> None:
    theirs = kazoo.Queue(root)
    with trio.fail_after(HOLD_S):
        async with coord.connect(standalone.hosts) as zk:
            ours = coord.Queue(zk, root)
            await blocking(theirs.put, b"1")
            await ours.put(b"2")
            await blocking(theirs.put, b"3", 5)
            await ours.put(b"4", priority=900)
            assert await ours.get() == b"3"
            assert await blocking(theirs.get) == b"1"
            assert await ours.get() == b"2"
            assert await blocking(theirs.get) == b"4"
            assert await blocking(len, theirs) == await ours.size() == 0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.get)
                await wait_children(zk, root + "-__lock__", 1)
                await blocking(theirs.put, b"5")


async def test_both_kinds_count_together(standalone: CoordServers, kazoo: Any, root: str) -> None:
    theirs = kazoo.Counter(root)
    with trio.fail_after(HOLD_S):
        async with coord.connect(standalone.hosts) as zk:
            ours = coord.Counter(zk, root)

            async def count_ours() -> None:
                for _ in range(20):
                    await ours.add()

            def count_theirs() -> None:
                for _ in range(20):
                    theirs.__add__(2)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(count_ours)
                nursery.start_soon(blocking, count_theirs)
            assert await ours.value() == await blocking(lambda: theirs.value) == 60


async def test_members_of_both_kinds_see_each_other(standalone: CoordServers, kazoo: Any, root: str) -> None:
    theirs = kazoo.Party(root, "kazoo")
    with trio.fail_after(HOLD_S):
        async with coord.connect(standalone.hosts) as zk:
            await blocking(theirs.join)
            async with coord.join_group(zk, root, b"ours"):
                assert await coord.get_members(zk, root) == [b"kazoo", b"ours"]
                assert sorted(await blocking(list, theirs)) == ["kazoo", "ours"]
            await blocking(theirs.leave)
            assert await coord.get_members(zk, root) == []
