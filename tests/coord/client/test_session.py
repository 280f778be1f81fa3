"""The client against servers in memory: reconnects, lost answers, pings, the end of sessions."""

import pytest
import trio

import coord
from coord.client import requests as requests_module
from coord.client import session as session_module
from coord.protocol import opcodes
from coord.protocol.records import OPEN_ACL, encode_create
from tests.coord.client.fake_ensemble import FakeEnsemble


@pytest.fixture
def fake() -> FakeEnsemble:
    return FakeEnsemble()


async def test_requests_of_many_tasks_leave_together(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        paths = [f"/n{number}" for number in range(20)]
        async with trio.open_nursery() as nursery:
            for path in paths:
                nursery.start_soon(zk.create, path)
        assert await zk.get_children("/") == sorted([*paths_names(paths), "zookeeper"])


def paths_names(paths: list[str]) -> list[str]:
    return [path[1:] for path in paths]


async def test_every_operation_does_what_it_says(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        assert await zk.create("/a", b"1") == "/a"
        data, stat = await zk.get("/a")
        assert (data, stat.version, stat.data_length) == (b"1", 0, 1)
        assert (await zk.set("/a", b"22", 0)).version == 1
        assert await zk.create("/a/s-", sequential=True) == "/a/s-0000000000"
        ephemeral = await zk.create("/e", ephemeral=True)
        found = await zk.exists(ephemeral)
        assert found is not None
        assert found.ephemeral_owner == zk.session_id
        assert await zk.exists("/none") is None
        assert await zk.get_children("/a") == ["s-0000000000"]
        await zk.sync("/a")
        with pytest.raises(coord.NotEmptyError):
            await zk.delete("/a")
        with pytest.raises(coord.BadVersionError) as caught:
            await zk.set("/a", b"", 7)
        assert caught.value.path == "/a"
        assert caught.value.happened is False


async def test_an_answer_that_was_lost_is_an_unknown_outcome(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        for executed in (True, False):
            fake.lost_answers = {opcodes.CREATE: executed}
            with pytest.raises(coord.ConnectionLossError) as caught:
                await zk.create("/lost" if executed else "/never")
            assert caught.value.happened is None
        assert await zk.exists("/lost") is not None
        assert await zk.exists("/never") is None


async def test_the_next_server_takes_the_session_over(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        await zk.create("/mine", ephemeral=True)
        before, first = zk.session_id, zk.server
        fake.cut_all()
        await trio.testing.wait_all_tasks_blocked()
        assert await zk.exists("/mine") is not None
        assert zk.session_id == before
        assert zk.server != first
        assert zk.state is coord.State.CONNECTED
    assert fake.children("/") == ["zookeeper"]


async def test_requests_made_between_two_connections_wait_for_the_next(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.connect() as zk, trio.open_nursery() as nursery:
        fake.refusing = {1, 2, 3}
        fake.cut_all()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert zk.state is coord.State.SUSPENDED
        made: list[str] = []

        async def create(path: str) -> None:
            made.append(await zk.create(path))

        for path in ("/a", "/b"):
            nursery.start_soon(create, path)
        await trio.sleep(1)
        assert made == []
        fake.refusing = set()
        await trio.sleep(2)
        assert sorted(made) == ["/a", "/b"]


async def test_without_servers_for_a_session_timeout_a_request_was_not_sent(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.connect(session_timeout_ms=6000) as zk:
        fake.refusing = {1, 2, 3}
        fake.cut_all()
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        with pytest.raises(coord.NotConnectedError, match="nobody listens") as caught:
            await zk.create("/a")
        assert caught.value.happened is False
        assert 6 <= trio.current_time() - began < 8
        fake.refusing = set()
        assert await zk.exists("/a") is None


async def test_a_cancelled_request_that_was_not_sent_never_is(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.connect() as zk:
        fake.refusing = {1, 2, 3}
        fake.cut_all()
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.5) as scope:
            await zk.create("/cancelled")
        assert scope.cancelled_caught
        fake.refusing = set()
        assert await zk.exists("/cancelled") is None
        assert fake.served[opcodes.CREATE] == 0


async def test_the_answer_to_a_cancelled_request_goes_to_nobody(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        fake.holding = True
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(zk.create, "/a")
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        fake.release()
        assert await zk.create("/b") == "/b"
        assert await zk.exists("/a") is not None


async def test_an_idle_client_pings_and_stays(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.connect(session_timeout_ms=6000) as zk:
        await trio.sleep(20)
        assert 9 <= fake.served[opcodes.PING] <= 10
        assert len(fake.dialled) == 1
        assert zk.state is coord.State.CONNECTED


async def test_a_silent_server_is_left_after_two_thirds_of_the_timeout(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.connect(session_timeout_ms=6000) as zk:
        fake.holding = True
        began = trio.current_time()
        with pytest.raises(coord.ConnectionLossError, match="is silent"):
            await zk.create("/a")
        assert 4 <= trio.current_time() - began < 4.1
        fake.release()
        assert await zk.exists("/a") is not None


async def test_a_server_that_does_not_answer_the_handshake_is_left(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    fake.deaf = {1, 2}
    async with fake.connect() as zk:
        assert zk.server == ("c", 3)


async def test_a_request_learns_of_the_session_s_end(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        await zk.create("/mine", ephemeral=True)
        fake.expire(zk.session_id)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(coord.SessionExpiredError, match="has expired"):
            await zk.exists("/mine")
        assert zk.state is coord.State.EXPIRED
        assert zk.expired.is_set()
        with pytest.raises(coord.SessionExpiredError):
            await zk.exists("/mine")


async def test_all_who_wait_learn_of_the_session_s_end(
    fake: FakeEnsemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those who wait for room, however many they are."""
    monkeypatch.setattr(requests_module, "OUTSTANDING_MAX", 2)
    told = 0
    async with fake.connect() as zk:
        fake.holding = True

        async def ask() -> None:
            nonlocal told
            with pytest.raises((coord.SessionExpiredError, coord.ConnectionLossError)):
                await zk.exists("/")
            told += 1

        async with trio.open_nursery() as nursery:
            for _ in range(9):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            fake.holding = False
            fake.held.clear()
            fake.expire(zk.session_id)
    assert told == 9


async def test_more_requests_than_may_be_outstanding_wait_their_turn(
    fake: FakeEnsemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests_module, "OUTSTANDING_MAX", 3)
    async with fake.connect() as zk:
        fake.holding = True
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(zk.create, f"/{number}")
            await trio.testing.wait_all_tasks_blocked()
            assert fake.served[opcodes.CREATE] == 3
            fake.release()
        assert fake.served[opcodes.CREATE] == 10


async def test_leaving_the_block_closes_the_session(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        await zk.create("/mine", ephemeral=True)
        assert fake.children("/") == ["mine", "zookeeper"]
    assert fake.children("/") == ["zookeeper"]
    assert fake.connections == []
    assert zk.expired.is_set()
    with pytest.raises(coord.SessionExpiredError, match="was closed"):
        await zk.exists("/")


async def test_a_block_left_between_two_connections_closes_the_session_on_the_next(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery, fake.connect() as zk:
        await zk.create("/mine", ephemeral=True)
        fake.refusing = {1, 2, 3}
        fake.cut_all()
        await trio.sleep(0.05)
        assert zk.state is coord.State.SUSPENDED

        async def return_soon() -> None:
            await trio.sleep(0.2)
            fake.refusing = set()

        nursery.start_soon(return_soon)
    assert fake.children("/") == ["zookeeper"]


async def test_closing_whose_answer_was_lost_is_confirmed_by_the_next_server(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        await zk.create("/mine", ephemeral=True)
        fake.lost_answers = {opcodes.CLOSE_SESSION: False}
    assert fake.children("/") == ["zookeeper"]


async def test_leaving_without_any_server_ends_soon(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        async with fake.connect() as zk:
            fake.refusing = {1, 2, 3}
            fake.cut_all()
            await trio.sleep(0.05)

            async def wait() -> None:
                with pytest.raises(coord.SessionExpiredError, match="was closed"):
                    await zk.get("/")

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked(0.001)
            began = trio.current_time()
        assert trio.current_time() - began <= session_module.CLOSE_DEADLINE_AWAY_S


async def test_a_session_can_be_taken_up_elsewhere(fake: FakeEnsemble) -> None:
    """As a process does that was started again: with id and password; the older connection dies."""
    async with fake.connect() as zk:
        await zk.create("/mine", ephemeral=True)
        async with fake.connect(session=(zk.session_id, zk.session_password)) as again:
            found = await again.exists("/mine")
            assert found is not None
            assert found.ephemeral_owner == again.session_id == zk.session_id
        assert fake.children("/") == ["zookeeper"]


async def test_a_wrong_password_is_a_session_that_is_over(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        with pytest.raises(coord.SessionExpiredError, match="has expired"):
            async with fake.connect(session=(zk.session_id, b"w" * 16)):
                pass
        assert await zk.exists("/") is not None


async def test_ending_a_predecessor_s_session_removes_its_ephemerals(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        fake.change(
            opcodes.CREATE, encode_create("/theirs", b"", OPEN_ACL, opcodes.FLAG_EPHEMERAL), session_id=1
        )
        password = fake.tree.sessions[1].password
        await zk.end_session(1, password)
        assert fake.children("/") == ["zookeeper"]
        await zk.end_session(1, password)


async def test_ending_a_session_that_no_server_confirms_is_an_error(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.connect("a:1") as zk, fake.connect("a:1") as other:
        fake.refusing = {1}
        with pytest.raises(coord.NotConnectedError, match="nobody listens at a:1"):
            await zk.end_session(other.session_id, other.session_password)
        fake.refusing = set()


async def test_connecting_to_nobody_says_why(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    fake.refusing = {1, 2, 3}
    with pytest.raises(coord.NotConnectedError, match=r"cannot connect to a:1,b:2,c:3: .*nobody listens"):
        async with fake.connect(connect_timeout_ms=3000):
            pass
    assert trio.current_time() >= 3
    assert len(fake.dialled) < 60


async def test_a_server_that_takes_us_and_leaves_is_not_dialled_in_a_loop(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.connect("a:1") as zk:
        fake.lost_answers = {opcodes.EXISTS: False}
        for _ in range(5):
            fake.lost_answers = {opcodes.EXISTS: False}
            with pytest.raises(coord.ConnectionLossError):
                await zk.exists("/")
        assert trio.current_time() > 0.1


async def test_a_hostile_event_costs_only_the_connection(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        fake.connections[0].send(b"\0\0\0\x12\xff\xff\xff\xff" + bytes(14))
        await trio.testing.wait_all_tasks_blocked()
        assert await zk.exists("/") is not None
        assert len(fake.dialled) == 2


async def test_a_reply_that_cannot_be_decoded_is_the_server_s_fault(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        fake.holding = True
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(coord.ProtocolError, match="the reply to getData cannot be decoded"):
                    await zk.get("/")

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            fake.held.clear()
            fake.connections[0].deliver(b"\0\0\0\x12\0\0\0\x01" + bytes(14))
        fake.holding = False


@pytest.mark.parametrize("timeout_ms", [0, -1, 1 << 31])
async def test_a_session_timeout_out_of_range_is_refused(fake: FakeEnsemble, timeout_ms: int) -> None:
    with pytest.raises(ValueError, match="expected a session timeout of 1 to 2147483647 ms"):
        async with fake.connect(session_timeout_ms=timeout_ms):
            pass


async def test_the_timeout_granted_counts(fake: FakeEnsemble) -> None:
    fake.granted_ms = 4000
    async with fake.connect(session_timeout_ms=60_000) as zk:
        assert zk.session_timeout_ms == 4000


async def test_a_failure_of_the_block_is_raised_as_itself(fake: FakeEnsemble) -> None:
    with pytest.raises(coord.NoNodeError):
        async with fake.connect() as zk:
            await zk.get("/none")
    assert fake.connections == []
