"""Our client against real servers: ours, and Apache ZooKeeper's, 3.8 where Debian's package is installed and
3.9 from Maven."""

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

import coord
from bench.coord_peers import ApacheServers, apache_is_installed
from tests.coord_servers import CoordServers
from tests.interop import apache

pytestmark = pytest.mark.interop
HOLD_S = 60.0
"""No wait of these tests takes longer."""
TICK_MS = 500

KINDS: dict[str, type[CoordServers]] = {
    "zoolog": CoordServers,
    "apache": ApacheServers,
    "apache-3.9": apache.ApacheServers,
}


def check_installed(kind: str) -> None:
    if kind == "apache" and not (apache_is_installed() and shutil.which("java")):
        pytest.skip("Apache ZooKeeper is not here: apt-get install libzookeeper-java default-jre-headless")


@pytest.fixture(scope="module", params=list(KINDS))
def hosts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One standalone server."""
    check_installed(request.param)
    with KINDS[request.param](Path(tmp_path_factory.mktemp("client")), tick_ms=TICK_MS) as servers:
        yield servers.hosts


@pytest.fixture
def root() -> str:
    """A path of the test's own."""
    return f"/t-{secrets.token_hex(6)}"


async def test_operations_and_their_stats(hosts: str, root: str) -> None:
    async with coord.connect(hosts) as zk:
        await zk.create(root, b"one")
        data, stat = await zk.get(root)
        assert data == b"one"
        assert (stat.version, stat.cversion, stat.num_children, stat.data_length) == (0, 0, 0, 3)
        assert stat.czxid == stat.mzxid == stat.pzxid
        changed = await zk.set(root, b"three", 0)
        assert (changed.version, changed.czxid, changed.data_length) == (1, stat.czxid, 5)
        assert changed.mzxid > stat.mzxid
        assert await zk.create(f"{root}/n-", sequential=True) == f"{root}/n-0000000000"
        owned = await zk.create(f"{root}/e", ephemeral=True)
        found = await zk.exists(owned)
        assert found is not None
        assert found.ephemeral_owner == zk.session_id
        names, parent = await zk.get_children_and_stat(root)
        assert names == ["e", "n-0000000000"]
        assert parent.num_children == 2
        await zk.sync(root)
        await zk.create(f"{root}/null", None)
        assert (await zk.get(f"{root}/null"))[1].data_length == 0


async def test_refusals_name_their_reason(hosts: str, root: str) -> None:
    async with coord.connect(hosts) as zk:
        await zk.create(root)
        await zk.create(f"{root}/e", ephemeral=True)
        with pytest.raises(coord.NodeExistsError):
            await zk.create(root)
        with pytest.raises(coord.NoNodeError):
            await zk.get(f"{root}/none")
        with pytest.raises(coord.BadVersionError):
            await zk.delete(root, 5)
        with pytest.raises(coord.NotEmptyError):
            await zk.delete(root)
        with pytest.raises(coord.NoChildrenForEphemeralsError):
            await zk.create(f"{root}/e/x")
        with pytest.raises(coord.BadArgumentsError):
            await zk.create(f"{root}/..")
        with pytest.raises(coord.InvalidAclError):
            await zk.create(f"{root}/acl", acl=())


async def test_transactions(hosts: str, root: str) -> None:
    async with coord.connect(hosts) as zk:
        results = await zk.multi(
            [
                coord.Create(root, b"a"),
                coord.SetData(root, b"b", 0),
                coord.Create(f"{root}/s-", sequential=True),
            ]
        )
        assert results[0] == root
        assert isinstance(results[1], coord.Stat)
        assert results[2] == f"{root}/s-0000000000"
        with pytest.raises(coord.NoNodeError) as caught:
            await zk.multi([coord.SetData(root, b"c"), coord.Delete(f"{root}/none"), coord.Check(root)])
        assert (caught.value.index, caught.value.path) == (1, f"{root}/none")
        assert (await zk.get(root))[0] == b"b"


async def test_a_chroot_is_a_tree_of_its_own(hosts: str, root: str) -> None:
    async with coord.connect(hosts) as outside, coord.connect(hosts + root) as zk:
        await coord.ensure_path(zk, "/a/b")
        assert await outside.get_children(f"{root}/a") == ["b"]
        async with zk.watch("/a/b") as events:
            await events.__anext__()
            await outside.set(f"{root}/a/b", b"1")
            with trio.fail_after(HOLD_S):
                event = await events.__anext__()
            assert (event.kind, event.path) == (coord.EventKind.CHANGED, "/a/b")
        assert (await zk.multi([coord.Create("/a/c")])) == ["/a/c"]
        assert await outside.exists(f"{root}/a/c") is not None


async def test_watches_see_every_value_in_the_end(hosts: str, root: str) -> None:
    async with coord.connect(hosts) as zk, coord.connect(hosts) as writer:
        await writer.create(root)
        versions = []

        async def follow() -> None:
            async with zk.watch(root) as events:
                async for event in events:
                    assert event.stat is not None
                    versions.append(event.stat.version)
                    if event.stat.version == 50:
                        return

        with trio.fail_after(HOLD_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(follow)
                for _ in range(50):
                    await writer.set(root, b"x")
        assert versions == sorted(set(versions))


async def test_a_session_is_taken_up_and_ended_elsewhere(hosts: str, root: str) -> None:
    async with coord.connect(hosts) as other:
        await other.create(root)
        async with coord.connect(hosts) as zk:
            await zk.create(f"{root}/e", ephemeral=True)
            identity = (zk.session_id, zk.session_password)
            # The client whose session this is comes back for it, and may win for as long as this tries.
            with trio.fail_after(HOLD_S):
                while True:
                    with contextlib.suppress(coord.ConnectionLossError, coord.NotConnectedError):
                        await other.end_session(*identity)
                        break
            assert await other.exists(f"{root}/e") is None
            with trio.fail_after(HOLD_S):
                await zk.expired.wait()
        with pytest.raises(coord.SessionExpiredError):
            async with coord.connect(hosts, session=identity):
                pass


async def test_an_idle_session_lives_on_pings(hosts: str, root: str) -> None:
    async with coord.connect(hosts, session_timeout_ms=4000) as zk:
        await zk.create(root, ephemeral=True)
        assert zk.session_timeout_ms == 4000
        # Servers look once a tick whose time is over.
        await trio.sleep((zk.session_timeout_ms + 2 * TICK_MS) / 1000)
        assert await zk.exists(root) is not None


async def test_many_requests_at_once_are_answered_in_order(hosts: str, root: str) -> None:
    async with coord.connect(hosts) as zk:
        await zk.create(root)
        made: list[str] = []

        async def create() -> None:
            made.append(await zk.create(f"{root}/s-", sequential=True))

        async with trio.open_nursery() as nursery:
            for _ in range(500):
                nursery.start_soon(create)
        assert sorted(made) == [f"{root}/s-{number:010d}" for number in range(500)]


async def test_candidates_lead_one_after_the_other(hosts: str, root: str) -> None:
    tokens = []

    async def stand() -> None:
        async with coord.connect(hosts) as zk, coord.lead(zk, root) as leadership:
            tokens.append(leadership.token)
            assert len(await zk.get_children(root)) >= 1

    with trio.fail_after(HOLD_S):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(stand)
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 3


@pytest.mark.slow
@pytest.mark.crash
@pytest.mark.parametrize("kind", list(KINDS))
async def test_the_session_moves_when_its_server_dies(kind: str, tmp_path: Path) -> None:
    """The ephemeral stays, the watch goes on, what was acknowledged is there."""
    check_installed(kind)
    with KINDS[kind](tmp_path, 3, tick_ms=TICK_MS) as servers:
        async with coord.connect(servers.hosts, session_timeout_ms=10_000) as zk:
            await zk.create("/mine", b"0", ephemeral=True)
            async with zk.watch("/mine") as events:
                await events.__anext__()
                assert zk.server is not None
                (dead,) = (server for server in servers.servers if server.port == zk.server[1])
                before = zk.session_id
                await trio.to_thread.run_sync(dead.kill)
                with trio.fail_after(HOLD_S):
                    while True:
                        try:
                            await zk.set("/mine", b"1")
                            break
                        except (coord.ConnectionLossError, coord.NotConnectedError):
                            continue
                    assert (await events.__anext__()).kind is coord.EventKind.CHANGED
                found = await zk.exists("/mine")
                assert found is not None
                assert found.ephemeral_owner == before == zk.session_id
                assert zk.server[1] != dead.port
