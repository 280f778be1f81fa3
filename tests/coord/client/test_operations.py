"""The operations beyond the everyday ones, as a client says them (spec 6, 10, 11)."""

import pytest
import trio

import coord
from coord.client.client import CONFIG_PATH
from coord.protocol import opcodes
from coord.protocol.jute import Reader
from tests.coord.client.fake_ensemble import FakeEnsemble


@pytest.fixture
def fake() -> FakeEnsemble:
    return FakeEnsemble()


async def test_a_node_comes_with_its_stat(fake: FakeEnsemble) -> None:
    async with fake.connect("a:1/zookeeper") as zk:
        path, stat = await zk.create_with_stat("/x-", b"12", sequential=True, ephemeral=True)
        assert path == "/x-0000000000"
        assert (stat.czxid, stat.data_length, stat.ephemeral_owner) == (zk.last_zxid, 2, zk.session_id)
        path, stat = await zk.create_with_stat("/c", container=True)
        assert (path, stat.ephemeral_owner) == ("/c", 0)
        assert await zk.exists(path) == stat


async def test_a_time_to_live_goes_with_its_mode(fake: FakeEnsemble) -> None:
    """Spec 6.1: 5 and 6 are the modes of nodes with a time to live, the opcode is createTTL's."""
    async with fake.connect() as zk:
        for sequential in (False, True):
            with pytest.raises(coord.UnimplementedError):
                await zk.create("/t", ttl_ms=1234, sequential=sequential)
    sent = [body for op, body in fake.frames if op == opcodes.CREATE_TTL]
    assert [body[-12:] for body in sent] == [
        mode.to_bytes(4, "big") + (1234).to_bytes(8, "big") for mode in (5, 6)
    ]


@pytest.mark.parametrize(
    "kinds",
    [
        {"ephemeral": True, "container": True},
        {"ephemeral": True, "ttl_ms": 5},
        {"container": True, "ttl_ms": 5},
        {"container": True, "sequential": True},
    ],
)
async def test_kinds_that_exclude_each_other_are_refused_before_sending(
    fake: FakeEnsemble, kinds: dict[str, int]
) -> None:
    async with fake.connect() as zk:
        with pytest.raises(ValueError, match="expected one of ephemeral, container and ttl_ms"):
            await zk.create("/x", **kinds)  # type: ignore[arg-type]
        assert fake.frames == []


async def test_access_control_lists_are_read_and_replaced(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        await zk.create("/a")
        assert (await zk.get_acl("/a"))[0] == list(coord.OPEN_ACL)
        wanted = [coord.digest_acl("bob", "secret"), coord.acl("world", "anyone", "ra")]
        assert (await zk.set_acl("/a", wanted, 0)).aversion == 1
        acl, stat = await zk.get_acl("/a")
        assert acl == wanted
        assert stat.aversion == 1
        with pytest.raises(coord.BadVersionError):
            await zk.set_acl("/a", wanted, 0)
        with pytest.raises(coord.InvalidAclError):
            await zk.set_acl("/a", coord.CREATOR_ACL)
        with pytest.raises(coord.NoNodeError):
            await zk.get_acl("/none")


async def test_ephemerals_and_descendants_are_those_of_the_chroot(fake: FakeEnsemble) -> None:
    async with fake.connect() as outside:
        for path in ("/app", "/app/a", "/app/a/b", "/apple"):
            await outside.create(path)
        async with fake.connect("a:1/app") as zk:
            for path in ("/e2", "/a/e1", "/a/b/f"):
                await zk.create(path, ephemeral=True)
            assert await zk.get_ephemerals() == ["/a/b/f", "/a/e1", "/e2"]
            assert await zk.get_ephemerals("/a/") == ["/a/b/f", "/a/e1"]
            assert await zk.get_all_children_number("/") == 5
            assert await zk.get_all_children_number("/a", linearizable=True) == 3
            assert await outside.get_ephemerals() == []
        async with fake.connect(session=(0, bytes(16))) as zk:
            await zk.create("/apple/e", ephemeral=True)
            async with fake.connect("a:1/app", session=(zk.session_id, zk.session_password)) as same:
                assert await same.get_ephemerals() == []


async def test_several_reads_in_one_request_fail_one_by_one(fake: FakeEnsemble) -> None:
    """Spec 10.5."""
    async with fake.connect("a:1/zookeeper") as zk:
        await zk.create("/a", b"1")
        data, names, missing = await zk.multi_read(
            [coord.GetData("/a"), coord.GetChildren("/"), coord.GetData("/none")]
        )
        assert isinstance(data, tuple)
        assert data[0] == b"1"
        assert names == ["a", "config", "quota"]
        assert isinstance(missing, coord.NoNodeError)
        assert (missing.path, missing.index) == ("/none", 2)
        assert await zk.multi_read([]) == []
        assert fake.served[opcodes.MULTI_READ] == 2


async def test_the_configuration_is_found_from_below_a_chroot(fake: FakeEnsemble) -> None:
    async with fake.connect("a:1/zookeeper") as zk:
        assert (await zk.get_config()).text == ""


async def test_a_reconfiguration_names_joining_leaving_and_version(fake: FakeEnsemble) -> None:
    """Spec 3: ReconfigRequest; a list that is not given is null."""
    async with fake.connect() as zk:
        with pytest.raises(coord.CoordError) as caught:
            await zk.reconfig(joining=["server.4=h:1:2;3", "server.5=h:4:5;6"], leaving=["1"], version=77)
        assert caught.value.path == CONFIG_PATH
    (body,) = [body for op, body in fake.frames if op == opcodes.RECONFIG]
    reader = Reader(body)
    assert reader.read_text() == "server.4=h:1:2;3,server.5=h:4:5;6"
    assert (reader.read_text(), reader.read_text(), reader.read_long()) == ("1", None, 77)
    assert reader.remaining == 0


async def test_watches_that_the_server_does_not_have_are_no_watches(fake: FakeEnsemble) -> None:
    """Spec 9.5: NoWatcher."""
    async with fake.connect() as zk:
        assert not await zk.check_watches("/")
        with pytest.raises(coord.NoWatcherError):
            await zk.remove_watches("/", coord.WatcherKind.RECURSIVE)


async def test_watches_end_locally_where_no_server_can_be_asked(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.connect(session_timeout_ms=3000) as zk, zk.watch("/") as state, zk.add_watch("/") as all_:
        await anext(state)
        fake.refusing = {1, 2, 3}
        fake.cut_all()
        with pytest.raises(coord.CoordError):
            await zk.remove_watches("/")
        await zk.remove_watches("/", local=True)
        assert [event async for event in state] == []
        assert [event async for event in all_] == []
        fake.refusing = set()
        await zk.wait_state(coord.State.CONNECTED)
        assert not await zk.check_watches("/")


async def test_what_a_client_has_done_is_counted(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, zk.watch("/x") as events:
        await anext(events)
        await zk.create("/x")
        await anext(events)
        await fake.cut_and_return()
        assert zk.statistics() == coord.ClientStatistics(connections=2, requests=4, watch_events=1)
