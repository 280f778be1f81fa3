"""Persistent watches: every event in order, and an explicit one where some may be missing (spec 9)."""

import pytest
import trio

import coord
from coord.client.watches import SET_WATCHES_BYTES_MAX
from coord.protocol import opcodes
from coord.protocol.records import OPEN_ACL, encode_create, encode_path_version, encode_set_data
from tests.coord.client.fake_ensemble import FakeEnsemble

K = coord.EventKind


@pytest.fixture
def fake() -> FakeEnsemble:
    made = FakeEnsemble()
    made.change(opcodes.CREATE, encode_create("/app", b"", OPEN_ACL, 0))
    return made


def write(fake: FakeEnsemble, path: str) -> None:
    assert fake.change(opcodes.SET_DATA, encode_set_data(path, b"x", -1))[0] == 0


def create(fake: FakeEnsemble, path: str) -> None:
    assert fake.change(opcodes.CREATE, encode_create(path, b"", OPEN_ACL, 0))[0] == 0


def delete(fake: FakeEnsemble, path: str) -> None:
    assert fake.change(opcodes.DELETE, encode_path_version(path, -1))[0] == 0


async def take(events: coord.PersistentWatch, count: int) -> list[tuple[coord.EventKind, str]]:
    with trio.fail_after(30):
        return [(event.kind, event.path) for event in [await anext(events) for _ in range(count)]]


async def test_a_persistent_watch_tells_every_event_of_its_node(fake: FakeEnsemble) -> None:
    """Spec 9.2."""
    async with fake.connect() as zk, zk.add_watch("/app") as events:
        write(fake, "/app")
        create(fake, "/app/x")
        write(fake, "/app/x")
        delete(fake, "/app/x")
        delete(fake, "/app")
        assert await take(events, 4) == [
            (K.CHANGED, "/app"),
            (K.CHILDREN, "/app"),
            (K.CHILDREN, "/app"),
            (K.DELETED, "/app"),
        ]


async def test_a_recursive_watch_tells_every_event_below_and_no_lists_of_children(fake: FakeEnsemble) -> None:
    """Spec 9.2."""
    async with fake.connect() as zk, zk.add_watch("/app", recursive=True) as events:
        create(fake, "/app/x")
        create(fake, "/app/x/y")
        create(fake, "/apple")
        write(fake, "/app/x/y")
        delete(fake, "/app/x/y")
        event = await anext(events)
        assert (event.kind, event.path, event.zxid) == (K.CREATED, "/app/x", 2)
        assert await take(events, 3) == [
            (K.CREATED, "/app/x/y"),
            (K.CHANGED, "/app/x/y"),
            (K.DELETED, "/app/x/y"),
        ]


async def test_a_watch_of_a_whole_subtree_is_a_recursive_one(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, zk.watch("/app", recursive=True) as events:
        create(fake, "/app/x")
        assert await take(events, 1) == [(K.CREATED, "/app/x")]


async def test_kinds_of_watches_on_one_path_do_not_disturb_each_other(fake: FakeEnsemble) -> None:
    async with (
        fake.connect() as zk,
        zk.add_watch("/app") as node,
        zk.add_watch("/", recursive=True) as tree,
        zk.watch("/app") as state,
        zk.watch("/app", children=True) as names,
    ):
        for watch in (state, names):
            assert (await anext(watch)).kind is K.CURRENT
        create(fake, "/app/x")
        write(fake, "/app")
        assert (await anext(state)).kind is K.CHANGED
        assert (await anext(names)).kind is K.CHILDREN
        assert await take(node, 2) == [(K.CHILDREN, "/app"), (K.CHANGED, "/app")]
        assert await take(tree, 2) == [(K.CREATED, "/app/x"), (K.CHANGED, "/app")]


async def test_a_reconnect_is_told_and_the_watch_goes_on(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    """Spec 9.6: setWatches2 says nothing about what a persistent watch has missed."""
    async with (
        fake.connect() as zk,
        zk.add_watch("/app", recursive=True) as events,
        zk.add_watch("/app") as one,
    ):
        write(fake, "/app")
        fake.refusing = {1, 2, 3}
        fake.cut_all()
        await trio.sleep(0.1)
        create(fake, "/app/unseen")
        fake.refusing = set()
        assert await take(events, 2) == [(K.CHANGED, "/app"), (K.MISSED, "/app")]
        assert await zk.get_children("/app") == ["unseen"]
        create(fake, "/app/seen")
        assert await take(events, 1) == [(K.CREATED, "/app/seen")]
        assert await take(one, 3) == [(K.CHANGED, "/app"), (K.MISSED, "/app"), (K.CHILDREN, "/app")]
        assert fake.served[opcodes.SET_WATCHES2] == 1


async def test_several_reconnects_that_nobody_has_looked_at_are_one_event(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.connect() as zk, zk.add_watch("/app") as events:
        for _ in range(3):
            await fake.cut_and_return()
        write(fake, "/app")
        assert await take(events, 2) == [(K.MISSED, "/app"), (K.CHANGED, "/app")]


async def test_who_reads_behind_a_missed_event_sees_everything(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    """The watches go before whatever waits, so a change is seen by the read or told behind it."""
    async with fake.connect() as zk, zk.add_watch("/app") as events, trio.open_nursery() as nursery:
        fake.refusing = {1, 2, 3}
        fake.cut_all()
        await trio.sleep(0.1)
        nursery.start_soon(zk.get_children, "/app")
        await trio.sleep(0.1)
        fake.frames.clear()
        fake.refusing = set()
        assert await take(events, 1) == [(K.MISSED, "/app")]
        await zk.sync()
        assert [op for op, _ in fake.frames][:2] == [opcodes.SET_WATCHES2, opcodes.GET_CHILDREN2]


async def test_a_follower_that_is_too_slow_is_told_so(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, zk.add_watch("/app", buffer=3) as events:
        for _ in range(4):
            write(fake, "/app")
        await zk.sync()
        write(fake, "/app")
        assert await take(events, 2) == [(K.MISSED, "/app"), (K.CHANGED, "/app")]


async def test_a_watch_that_could_not_be_set_at_once_is_set_on_the_next_server(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        fake.lost_answers = {opcodes.ADD_WATCH: False}
        async with zk.add_watch("/app") as events:
            write(fake, "/app")
            assert await take(events, 1) == [(K.CHANGED, "/app")]


async def test_the_last_follower_of_a_path_removes_the_server_s_watch(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        async with zk.add_watch("/app"):
            async with zk.add_watch("/app"), zk.add_watch("/app", recursive=True):
                pass
            await zk.sync()
            assert fake.served[opcodes.REMOVE_WATCHES] == 1
        await zk.sync()
        assert fake.served[opcodes.REMOVE_WATCHES] == 2
        assert zk._watches.at("/app") == ([], [])


async def test_a_watch_whose_setting_was_cancelled_is_removed(fake: FakeEnsemble) -> None:
    """The request had left: the watch is set all the same."""
    async with fake.connect() as zk:
        fake.holding = True
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(zk.add_watch("/app", recursive=True).__aenter__)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        fake.release()
        await zk.sync()
        assert fake.watches.count == 0


async def test_the_end_of_the_session_ends_the_iteration_behind_its_events(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, zk.add_watch("/app") as events:
        write(fake, "/app")
        await zk.sync()
        fake.expire(zk.session_id)
        await trio.testing.wait_all_tasks_blocked()
        assert await take(events, 1) == [(K.CHANGED, "/app")]
        with pytest.raises(coord.SessionExpiredError):
            await anext(events)


async def test_paths_of_events_below_a_chroot_are_its_own(fake: FakeEnsemble) -> None:
    async with fake.connect("a:1,b:2/app") as zk, zk.add_watch("/", recursive=True) as events:
        write(fake, "/app")
        create(fake, "/app/x")
        fake.cut_all()
        assert await take(events, 3) == [(K.CHANGED, "/"), (K.CREATED, "/x"), (K.MISSED, "/")]


async def test_many_watches_are_set_again_in_few_requests_and_miss_nothing(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    """Spec 9.6: chunks of at most 128 KiB of paths; each changed node is told once."""
    paths = [f"/app/{number:0400d}" for number in range(1000)]
    for path in paths:
        create(fake, path)
    told: list[str] = []
    ready = 0
    async with fake.connect() as zk, trio.open_nursery() as nursery:

        async def follow(path: str) -> None:
            nonlocal ready
            async with zk.watch(path) as events:
                await anext(events)
                ready += 1
                told.append((await anext(events)).path)

        for path in paths:
            nursery.start_soon(follow, path)
        await trio.testing.wait_all_tasks_blocked()
        assert ready == len(paths)
        fake.refusing = {1, 2, 3}
        fake.cut_all()
        await trio.sleep(0.1)
        for path in paths[::100]:
            write(fake, path)
        fake.frames.clear()
        fake.refusing = set()
        await trio.sleep(5)
        assert sorted(told) == paths[::100]
        sent = [len(body) for op, body in fake.frames if op == opcodes.SET_WATCHES]
        assert len(sent) == -(-404 * 1000 // SET_WATCHES_BYTES_MAX)
        assert max(sent) <= SET_WATCHES_BYTES_MAX + 20
        assert fake.served[opcodes.EXISTS] == len(paths) + 10
        nursery.cancel_scope.cancel()


async def test_what_changed_while_watches_were_being_set_again_is_not_lost_with_that_connection(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    """A connection that breaks between two chunks has shown a newer state than the second was set at."""
    paths = [f"/app/{number:0{SET_WATCHES_BYTES_MAX // 2}d}" for number in range(3)]
    for path in paths:
        create(fake, path)
    async with fake.connect() as zk, zk.watch(paths[0]), zk.watch(paths[1]), zk.watch(paths[2]) as last:
        await anext(last)
        fake.refusing = {1, 2, 3}
        fake.cut_all()
        await trio.sleep(0.1)
        write(fake, paths[2])
        fake.break_at = (opcodes.SET_WATCHES, 2)
        fake.refusing = set()
        with trio.fail_after(10):
            assert (await anext(last)).kind is K.CHANGED
        assert fake.served[opcodes.SET_WATCHES] == 5
