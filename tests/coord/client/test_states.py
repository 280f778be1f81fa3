"""The state of a client, awaited and followed; credentials and servers without a quorum."""

import random
import struct

import pytest
import trio

import coord
from coord.client.handshake import encode_connect
from coord.client.servers import ServerList
from coord.client.states import Standing
from coord.protocol import opcodes
from coord.protocol.digest_md5 import DigestMd5Server
from tests.coord.client import fake_ensemble
from tests.coord.client.fake_ensemble import FakeEnsemble

S = coord.State


@pytest.fixture
def fake() -> FakeEnsemble:
    return FakeEnsemble()


async def test_each_change_of_state_is_told_in_order(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.connect() as zk:
        with zk.states() as states:
            await fake.cut_and_return()
            fake.expire(zk.session_id)
            with trio.fail_after(30):
                seen = [state async for state in states]
        assert seen == [S.CONNECTED, S.SUSPENDED, S.CONNECTED, S.SUSPENDED, S.EXPIRED]


async def test_a_state_can_be_waited_for(fake: FakeEnsemble, autojump_clock: trio.testing.MockClock) -> None:
    async with fake.connect() as zk:
        assert await zk.wait_state(S.CONNECTED) is S.CONNECTED
        fake.refusing = {1, 2, 3}
        fake.cut_all()
        with trio.fail_after(30):
            assert await zk.wait_state(S.SUSPENDED, S.EXPIRED) is S.SUSPENDED
            fake.refusing = set()
            assert await zk.wait_state(S.CONNECTED) is S.CONNECTED
            fake.expire(zk.session_id)
            with pytest.raises(coord.SessionExpiredError):
                await zk.wait_state(S.READ_ONLY)


async def test_a_state_of_a_moment_is_not_missed() -> None:
    standing = Standing()
    found: list[coord.State] = []

    async def wait() -> None:
        found.append(await standing.wait(S.SUSPENDED))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        standing.become(S.SUSPENDED)
        standing.become(S.CONNECTED)
    assert found == [S.SUSPENDED]
    assert standing.followers == set()


async def test_who_follows_states_slowly_still_learns_the_present_one() -> None:
    standing = Standing()
    states = coord.States(standing)
    with states:
        for _ in range(1000):
            standing.become(S.CONNECTED)
            standing.become(S.SUSPENDED)
        standing.become(S.CLOSED)
        seen = [state async for state in states]
    assert seen[-2:] == [S.SUSPENDED, S.CLOSED]
    assert len(seen) < 100


# Credentials


async def test_credentials_count_from_when_they_are_added(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        acl = [coord.acl("digest", "bob:secret")]
        await zk.create("/bobs", acl=acl)
        with pytest.raises(coord.NoAuthError):
            await zk.get("/bobs")
        await zk.add_auth("digest", "bob:secret")
        assert (await zk.get("/bobs"))[0] == b""
        assert coord.Identity("digest", "bob:secret") in await zk.who_am_i()


async def test_credentials_are_shown_to_the_next_server_before_anything_else(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    """Watches too may need them (spec 23: auth packets, setWatches, then what waits)."""
    async with fake.connect(auth=[("digest", "bob:secret")]) as zk:
        await zk.add_auth("digest", b"eve:hidden")
        await zk.create("/bobs", acl=[coord.acl("digest", "bob:secret")])
        async with zk.watch("/bobs") as events:
            await anext(events)
            fake.frames.clear()
            await fake.cut_and_return()
            assert (await zk.get("/bobs"))[0] == b""
        ops = [op for op, _ in fake.frames]
        assert ops == [opcodes.AUTH, opcodes.AUTH, opcodes.SET_WATCHES, opcodes.GET_DATA]


async def test_credentials_added_while_away_are_shown_once(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.connect() as zk, trio.open_nursery() as nursery:
        fake.refusing = {1, 2, 3}
        fake.cut_all()
        await trio.sleep(0.1)
        nursery.start_soon(zk.add_auth, "digest", "bob:secret")
        await trio.sleep(0.1)
        fake.refusing = set()
        await zk.sync()
        assert fake.served[opcodes.AUTH] == 1


async def test_credentials_that_no_server_could_be_shown_are_shown_to_the_next(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.connect(session_timeout_ms=3000) as zk:
        await zk.create("/bobs", acl=[coord.acl("digest", "bob:secret")])
        fake.refusing = {1, 2, 3}
        fake.cut_all()
        with pytest.raises(coord.NotConnectedError) as caught, trio.fail_after(10):
            await zk.add_auth("digest", "bob:secret")
        assert caught.value.happened is False
        fake.refusing = set()
        await zk.wait_state(S.CONNECTED)
        assert (await zk.get("/bobs"))[0] == b""


async def test_credentials_added_again_and_again_are_shown_once_to_the_next_server(
    fake: FakeEnsemble,
) -> None:
    async with fake.connect(auth=[("digest", "bob:secret")]) as zk:
        for _ in range(5):
            await zk.add_auth("digest", "bob:secret")
        await zk.sync()
        assert fake.served[opcodes.AUTH] == 6
        await fake.cut_and_return()
        assert fake.served[opcodes.AUTH] == 7


async def test_credentials_whose_answer_was_lost_are_answered_by_the_next_server(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        fake.lost_answers = {opcodes.AUTH: True}
        await zk.add_auth("digest", "bob:secret")
        assert fake.served[opcodes.AUTH] == 2


async def test_rejected_credentials_end_the_session(fake: FakeEnsemble) -> None:
    """Spec 11.4: -115, and the server closes the connection."""
    fake.wrong = {b"bad"}
    async with fake.connect() as zk:
        with pytest.raises(coord.AuthFailedError, match=r"rejected our credentials") as caught:
            await zk.add_auth("digest", "bad")
        assert caught.value.happened is False
        assert zk.state is S.AUTH_FAILED
        with pytest.raises(coord.AuthFailedError):
            await zk.get("/")
        assert zk.expired.is_set()
    assert len(fake.dialled) == 1


async def test_an_answer_to_credentials_may_overtake_others(fake: FakeEnsemble) -> None:
    """Spec 5.3: ZooKeeper answers auth out of order."""
    async with fake.connect() as zk, trio.open_nursery() as nursery:
        fake.holding = True
        nursery.start_soon(zk.get, "/")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(zk.add_auth, "digest", "bob:secret")
        await trio.testing.wait_all_tasks_blocked()
        fake.held.reverse()
        fake.release()


# SASL


async def test_each_connection_logs_in_before_anything_else(fake: FakeEnsemble) -> None:
    """Spec 11.5; credentials of other schemes and watches come behind."""
    fake.users = {"bob": "secret"}
    async with fake.connect(sasl=("bob", "secret"), auth=[("digest", "bob:secret")]) as zk, zk.watch("/"):
        fake.frames.clear()
        await fake.cut_and_return()
        ops = [op for op, _ in fake.frames]
        assert ops == [opcodes.SASL, opcodes.SASL, opcodes.AUTH, opcodes.SET_WATCHES]
        assert zk.state is S.CONNECTED


@pytest.mark.parametrize("login", [("bob", "wrong"), ("eve", "secret")])
async def test_a_rejected_login_is_the_end(fake: FakeEnsemble, login: tuple[str, str]) -> None:
    fake.users = {"bob": "secret"}
    with pytest.raises(coord.AuthFailedError, match="rejected the SASL login with error code -115"):
        async with fake.connect(sasl=login):
            pass
    assert len(fake.dialled) == 1


async def test_a_server_without_users_is_no_place_for_a_login(fake: FakeEnsemble) -> None:
    """Spec 11.5: it answers a null token; going on without would be to take its word for nothing."""
    with pytest.raises(coord.AuthFailedError, match="the server knows no SASL users"):
        async with fake.connect(sasl=("bob", "secret")):
            pass


async def test_a_server_that_does_not_know_the_password_itself_is_refused(
    fake: FakeEnsemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.users = {"bob": "secret"}

    def step(server: DigestMd5Server, token: bytes) -> bytes:
        return b"rspauth=" + b"0" * 32 if token else DigestMd5Server.step(server, token)

    monkeypatch.setattr(
        fake_ensemble, "DigestMd5Server", type("Pretender", (DigestMd5Server,), {"step": step})
    )
    with pytest.raises(coord.AuthFailedError, match="did not prove that it knows the password"):
        async with fake.connect(sasl=("bob", "secret")):
            pass


# Linearizable reads


async def test_a_linearizable_read_is_a_sync_and_a_read_in_one_send(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        await zk.get("/", linearizable=True)
        assert await zk.exists("/none", linearizable=True) is None
        assert [op for op, _ in fake.frames] == [
            opcodes.SYNC,
            opcodes.GET_DATA,
            opcodes.SYNC,
            opcodes.EXISTS,
        ]


async def test_a_linearizable_read_fails_where_its_sync_does(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    """Spec 14.3: a server without a quorum refuses sync; its read would prove nothing."""
    fake.without_quorum = {1, 2, 3}
    async with fake.connect(read_only=True) as zk:
        with pytest.raises(coord.NotReadOnlyError):
            await zk.get("/", linearizable=True)
        assert (await zk.get("/"))[1].num_children == 1


# Servers without a quorum


async def test_without_asking_for_it_nobody_is_served_read_only(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    fake.without_quorum = {1, 3}
    async with fake.connect() as zk:
        assert zk.server == ("b", 2)
        assert zk.state is S.CONNECTED


async def test_a_client_moves_to_a_server_with_a_quorum_as_soon_as_there_is_one(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    """Spec 14.4: with a session of its own, for the one from the read-only server is known there alone."""
    fake.without_quorum = {1, 2, 3}
    async with fake.connect(read_only=True) as zk:
        local = zk.session_id
        assert zk.state is S.READ_ONLY
        with pytest.raises(coord.NotReadOnlyError):
            await zk.create("/x")
        await trio.sleep(60)
        assert zk.state is S.READ_ONLY
        fake.without_quorum = {1, 2}
        with trio.fail_after(60):
            assert await zk.wait_state(S.CONNECTED) is S.CONNECTED
        assert zk.server == ("c", 3)
        assert zk.session_id != local
        assert await zk.create("/x") == "/x"
        assert len(fake.dialled) < 40


async def test_a_session_with_the_ensemble_is_kept_through_a_time_without_quorum(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.connect(read_only=True) as zk:
        before = zk.session_id
        fake.without_quorum = {1, 2, 3}
        fake.cut_all()
        with trio.fail_after(60):
            await zk.wait_state(S.READ_ONLY)
            fake.without_quorum = {2}
            await zk.wait_state(S.CONNECTED)
        assert zk.session_id == before


# The list of servers


async def test_a_client_whose_server_was_removed_goes_to_another_losing_nothing(fake: FakeEnsemble) -> None:
    async with fake.connect("a:1") as zk, trio.open_nursery() as nursery:
        fake.holding = True
        nursery.start_soon(zk.create, "/in-flight")
        await trio.testing.wait_all_tasks_blocked()
        assert await zk.update_hosts("b:2,c:3")
        await trio.testing.wait_all_tasks_blocked()
        assert zk.server == ("a", 1)
        fake.release()
        await trio.testing.wait_all_tasks_blocked()
        assert zk.server in (("b", 2), ("c", 3))
        assert await zk.exists("/in-flight") is not None


async def test_a_client_whose_server_stays_in_a_shorter_list_stays(fake: FakeEnsemble) -> None:
    async with fake.connect("a:1") as zk:
        assert not await zk.update_hosts("a:1")
        await trio.testing.wait_all_tasks_blocked()
        assert len(fake.dialled) == 1


async def test_another_chroot_is_refused(fake: FakeEnsemble) -> None:
    async with fake.connect("a:1") as zk:
        with pytest.raises(coord.HostsError, match="expected the chroot ''"):
            await zk.update_hosts("a:1/elsewhere")


def servers_of(*ports: int) -> list[tuple[str, int]]:
    return [("s", port) for port in ports]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (range(3), range(5)),
        (range(5), range(3)),
        (range(9), range(3, 9)),
        (range(3), range(3, 6)),
        (range(5), range(3, 7)),
        (range(2), range(10)),
        (range(6), range(4, 9)),
    ],
)
def test_moving_leaves_every_server_of_the_new_list_the_same_load(before: range, after: range) -> None:
    """The clients of all servers decide for themselves, by chance; the outcome is balanced."""
    rng = random.Random(7)
    clients_each = 6000 // len(before)
    load = dict.fromkeys(servers_of(*after), 0)
    for port in before:
        for _ in range(clients_each):
            current = ("s", port)
            servers = ServerList(servers_of(*before), rng)
            servers.on_connected(current)
            moves = servers.update(servers_of(*after), current)
            load[servers.next() if moves else current] += 1
    mean = clients_each * len(before) / len(after)
    assert all(0.85 * mean < count < 1.15 * mean for count in load.values()), load


def test_after_a_change_every_server_is_tried() -> None:
    servers = ServerList(servers_of(1, 2, 3), random.Random(1))
    assert servers.update(servers_of(4, 5, 6, 7), ("s", 1))
    assert {servers.next() for _ in range(4)} == set(servers_of(4, 5, 6, 7))
    assert {servers.next() for _ in range(4)} == set(servers_of(4, 5, 6, 7))


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one server"):
        ServerList([], random.Random(1))


def test_a_handshake_says_whether_read_only_will_do() -> None:
    """Spec 4.1: the last byte of a ConnectRequest."""
    frame = encode_connect(5, 10_000, (0, bytes(16)), read_only=True)
    assert frame == struct.pack(">iiqiqi16s?", 45, 0, 5, 10_000, 0, 16, bytes(16), True)
