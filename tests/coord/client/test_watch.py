"""Watches miss no change: between two one-shot watches, while away, under cancellation."""

import pytest
import trio

import coord
from coord.protocol import opcodes
from coord.protocol.records import OPEN_ACL, encode_create, encode_path_version, encode_set_data
from tests.coord.client.fake_ensemble import FakeEnsemble

K = coord.EventKind


@pytest.fixture
def fake() -> FakeEnsemble:
    made = FakeEnsemble()
    made.change(opcodes.CREATE, encode_create("/app", b"", OPEN_ACL, 0))
    return made


def write(fake: FakeEnsemble, path: str, data: bytes) -> None:
    assert fake.change(opcodes.SET_DATA, encode_set_data(path, data, -1))[0] == 0


def create(fake: FakeEnsemble, path: str) -> None:
    assert fake.change(opcodes.CREATE, encode_create(path, b"", OPEN_ACL, 0))[0] == 0


def delete(fake: FakeEnsemble, path: str) -> None:
    assert fake.change(opcodes.DELETE, encode_path_version(path, -1))[0] == 0


async def next_of(events: coord.Watch) -> coord.WatchEvent:
    with trio.fail_after(30):
        return await events.__anext__()


async def test_the_first_event_is_the_state_as_it_is(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, zk.watch("/app") as events, zk.watch("/none") as nothing:
        event = await next_of(events)
        assert (event.kind, event.path) == (K.CURRENT, "/app")
        assert event.stat is not None
        assert await next_of(nothing) == coord.WatchEvent(K.CURRENT, "/none", None)


async def test_each_kind_of_change_is_told(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, zk.watch("/app/x") as events:
        await next_of(events)
        create(fake, "/app/x")
        assert (await next_of(events)).kind is K.CREATED
        write(fake, "/app/x", b"1")
        event = await next_of(events)
        assert event.kind is K.CHANGED
        assert event.stat is not None
        assert event.stat.version == 1
        delete(fake, "/app/x")
        assert await next_of(events) == coord.WatchEvent(K.DELETED, "/app/x", None)


async def test_changes_before_the_watch_is_set_again_are_one_event(fake: FakeEnsemble) -> None:
    """The server tells of the first only; the read that sets the next watch sees them all."""
    async with fake.connect() as zk, zk.watch("/app") as events:
        await next_of(events)
        for value in (b"1", b"2", b"3"):
            write(fake, "/app", value)
        event = await next_of(events)
        assert event.kind is K.CHANGED
        assert event.stat is not None
        assert event.stat.version == 3
        write(fake, "/app", b"4")
        assert (await next_of(events)).stat != event.stat


async def test_a_change_during_the_read_that_sets_the_watch_is_told(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, zk.watch("/app") as events:
        await next_of(events)
        write(fake, "/app", b"1")
        fake.holding = True
        async with trio.open_nursery() as nursery:

            async def follow() -> None:
                versions = []
                async for event in events:
                    assert event.stat is not None
                    versions.append(event.stat.version)
                    if event.stat.version == 2:
                        break
                assert versions in ([1, 2], [2])

            nursery.start_soon(follow)
            await trio.testing.wait_all_tasks_blocked()
            write(fake, "/app", b"2")
            fake.release()


async def test_a_node_made_anew_is_told_as_created(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, zk.watch("/app") as events:
        await next_of(events)
        delete(fake, "/app")
        create(fake, "/app")
        assert (await next_of(events)).kind is K.CREATED


async def test_a_node_that_has_come_and_gone_is_told_as_deleted(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, zk.watch("/app/x") as events:
        await next_of(events)
        for _ in range(2):
            create(fake, "/app/x")
            delete(fake, "/app/x")
            assert await next_of(events) == coord.WatchEvent(K.DELETED, "/app/x", None)
        create(fake, "/app/x")
        assert (await next_of(events)).kind is K.CREATED


async def test_children_are_followed(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, zk.watch("/app", children=True) as events:
        await next_of(events)
        assert events.children == []
        create(fake, "/app/b")
        create(fake, "/app/a")
        assert (await next_of(events)).kind is K.CHILDREN
        assert events.children == ["a", "b"]
        write(fake, "/app", b"data is not children")
        write(fake, "/app/a", b"nor is a child's data")
        delete(fake, "/app/b")
        assert (await next_of(events)).kind is K.CHILDREN
        assert events.children == ["a"]


async def test_children_of_a_node_that_comes_and_goes(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, zk.watch("/late", children=True) as events:
        assert (await next_of(events)).stat is None
        create(fake, "/late")
        create(fake, "/late/x")
        assert (await next_of(events)).kind is K.CREATED
        assert events.children == ["x"]
        delete(fake, "/late/x")
        delete(fake, "/late")
        assert (await next_of(events)).kind is K.DELETED
        assert events.children == []


async def test_a_change_while_the_connection_is_away_is_told(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.connect() as zk, zk.watch("/app") as events, zk.watch("/app", children=True) as names:
        await next_of(events)
        await next_of(names)
        fake.refusing = {1, 2, 3}
        fake.cut_all()
        await trio.sleep(0.1)
        write(fake, "/app", b"while away")
        create(fake, "/app/x")
        fake.refusing = set()
        assert (await next_of(events)).kind is K.CHANGED
        assert (await next_of(names)).kind is K.CHILDREN


async def test_a_reconnect_without_a_change_is_no_event(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.connect() as zk, zk.watch("/app") as events:
        await next_of(events)
        fake.cut_all()
        with trio.move_on_after(5) as scope:
            await events.__anext__()
        assert scope.cancelled_caught
        write(fake, "/app", b"1")
        assert (await next_of(events)).kind is K.CHANGED


async def test_a_watch_outlives_an_outage_longer_than_the_session_timeout(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.connect(session_timeout_ms=3000) as zk, zk.watch("/app") as events:
        await next_of(events)
        fake.refusing = {1, 2, 3}
        fake.cut_all()
        async with trio.open_nursery() as nursery:

            async def return_late() -> None:
                await trio.sleep(20)
                write(fake, "/app", b"1")
                fake.refusing = set()

            nursery.start_soon(return_late)
            assert (await next_of(events)).kind is K.CHANGED


async def test_a_cancelled_wait_loses_no_event(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, zk.watch("/app") as events:
        await next_of(events)
        write(fake, "/app", b"1")
        fake.holding = True
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(events.__anext__)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        fake.release()
        assert (await next_of(events)).kind is K.CHANGED


async def test_a_lost_answer_to_the_read_is_asked_again(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, zk.watch("/app") as events:
        await next_of(events)
        fake.lost_answers = {opcodes.EXISTS: True}
        write(fake, "/app", b"1")
        assert (await next_of(events)).kind is K.CHANGED
        write(fake, "/app", b"2")
        assert (await next_of(events)).kind is K.CHANGED


async def test_the_end_of_the_session_ends_the_watch(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        with pytest.raises(coord.SessionExpiredError):
            async with zk.watch("/app") as events:
                await next_of(events)
                fake.expire(zk.session_id)
                await next_of(events)


async def test_nothing_is_remembered_of_a_watch_that_was_left(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        async with zk.watch("/app"), zk.watch("/app"):
            assert len(zk._watches.at("/app")[0]) == 2
        assert zk._watches.at("/app") == ([], [])


# Under a chroot


async def test_below_a_chroot_paths_are_its_own(fake: FakeEnsemble) -> None:
    async with fake.connect("a:1,b:2/app") as zk:
        assert await zk.create("/x", b"1") == "/x"
        assert await zk.create("/s-", sequential=True) == "/s-0000000001"
        assert await zk.get_children("/") == ["s-0000000001", "x"]
        assert (await zk.get("/x"))[0] == b"1"
        assert await zk.exists("/app") is None
        with pytest.raises(coord.NoNodeError) as caught:
            await zk.get("/none")
        assert caught.value.path == "/none"
        results = await zk.multi([coord.Create("/m"), coord.Check("/m", 0), coord.Delete("/x")])
        assert results == ["/m", None, None]
        assert fake.children("/app") == ["m", "s-0000000001"]


async def test_watch_events_below_a_chroot_reach_their_watch(fake: FakeEnsemble) -> None:
    """The server names whole paths."""
    async with (
        fake.connect("a:1,b:2/app") as zk,
        zk.watch("/x") as events,
        zk.watch("/", children=True) as names,
    ):
        await next_of(events)
        await next_of(names)
        create(fake, "/x")
        create(fake, "/app/x")
        event = await next_of(events)
        assert (event.kind, event.path) == (K.CREATED, "/x")
        assert (await next_of(names)).path == "/"
        assert names.children == ["x"]


async def test_an_ending_session_of_elsewhere_is_found_under_a_chroot_too(fake: FakeEnsemble) -> None:
    async with fake.connect("a:1/app") as zk:
        fake.change(opcodes.CREATE, encode_create("/app/e", b"", OPEN_ACL, opcodes.FLAG_EPHEMERAL))
        await zk.end_session(1, fake.tree.sessions[1].password)
        assert await zk.get_children("/") == []


# What is left behind on the server


async def test_a_watch_that_was_left_is_removed_from_the_server_too(fake: FakeEnsemble) -> None:
    """Else every lock that was ever waited for would leave one, as long as the connection lives."""
    async with fake.connect() as zk:
        for _ in range(3):
            async with zk.watch("/app") as data, zk.watch("/app", children=True) as names:
                await next_of(data)
                await next_of(names)
            async with zk.watch("/none") as missing, zk.watch("/none", children=True) as no_names:
                await next_of(missing)
                await next_of(no_names)
        await zk.sync()
        assert fake.watches.count == 0


async def test_a_watch_that_fired_before_it_was_left_costs_no_request(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        async with zk.watch("/app") as events:
            await next_of(events)
            write(fake, "/app", b"1")
            await trio.testing.wait_all_tasks_blocked()
        await zk.sync()
        assert fake.watches.count == 0
        assert fake.served[opcodes.REMOVE_WATCHES] == 0


async def test_a_watch_whose_reading_was_cancelled_is_removed(fake: FakeEnsemble) -> None:
    """The request had left: its watch is set all the same."""
    async with fake.connect() as zk:
        fake.holding = True
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                for children in (False, True):
                    nursery.start_soon(zk.watch("/app", children=children).__aenter__)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        fake.release()
        await zk.sync()
        assert fake.watches.count == 0


async def test_one_of_several_followers_leaves_the_others_their_watch(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, zk.watch("/app") as events, zk.watch("/app", children=True) as names:
        await next_of(events)
        await next_of(names)
        async with zk.watch("/app") as more, zk.add_watch("/app"):
            await next_of(more)
        await zk.sync()
        create(fake, "/app/x")
        write(fake, "/app", b"1")
        assert (await next_of(names)).kind is K.CHILDREN
        assert (await next_of(events)).kind is K.CHANGED


async def test_removal_ends_a_watch_that_has_just_fired_too(fake: FakeEnsemble) -> None:
    """It has no watch at the server at that moment, and would set one again if it were read."""
    async with fake.connect() as zk, zk.watch("/app") as events, zk.watch("/app", children=True) as names:
        await next_of(events)
        await next_of(names)
        write(fake, "/app", b"1")
        await trio.testing.wait_all_tasks_blocked()
        await zk.remove_watches("/app")  # the server still has that of the children
        with trio.fail_after(30):
            assert [event async for event in names] == []
            assert [event async for event in events] == []
        assert fake.watches.count == 0
