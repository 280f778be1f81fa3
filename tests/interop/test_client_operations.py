"""All that our client can say, to our server and to Apache ZooKeeper 3.9."""

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

import coord
from tests.coord_servers import CoordServers
from tests.interop.apache import ApacheServers

pytestmark = pytest.mark.interop
K = coord.EventKind
HOLD_S = 60.0
"""No wait of these tests takes longer."""


BOTH = "reconfigEnabled=true\nenforceQuota=true\n"
OURS = BOTH + "extendedTypesEnabled=true\nsasl.digest.user.wire=wirepw\n"


@pytest.fixture(scope="module", params=["zoolog", "apache-3.9"])
def hosts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = Path(tmp_path_factory.mktemp("operations"))
    made = (
        CoordServers(directory, extra=OURS)
        if request.param == "zoolog"
        else ApacheServers(directory, extra=BOTH)
    )
    with made as servers:
        yield servers.hosts


@pytest.fixture
async def zk(hosts: str) -> AsyncIterator[coord.Client]:
    async with coord.connect(hosts) as client:
        yield client


@pytest.fixture
async def root(zk: coord.Client) -> str:
    """A node of the test's own."""
    return await zk.create(f"/t-{secrets.token_hex(6)}")


async def break_connection(zk: coord.Client) -> None:
    """As a network does that loses one; returns when the client knows."""
    while True:
        # The one at hand may be ending by itself: then the next is broken.
        if zk._session._serving is not None:
            zk._session._serving[1].cancel()
        with trio.move_on_after(1):
            await zk.wait_state(coord.State.SUSPENDED)
            return


async def test_every_kind_of_node_is_created_with_its_stat(zk: coord.Client, root: str) -> None:
    for options in ({"container": True}, {"ttl_ms": 60_000}, {"ephemeral": True}):
        path, stat = await zk.create_with_stat(f"{root}/{'-'.join(options)}", b"1", **options)  # type: ignore[arg-type]
        assert await zk.exists(path) == stat
        assert stat.ephemeral_owner == (zk.session_id if "ephemeral" in options else 0)
    assert await zk.create(f"{root}/s-", ttl_ms=60_000, sequential=True) == f"{root}/s-0000000003"
    assert await zk.create(f"{root}/c", container=True) == f"{root}/c"
    assert await zk.get_ephemerals(root) == [f"{root}/ephemeral"]
    assert await zk.get_all_children_number(root) == 5
    with pytest.raises(coord.BadArgumentsError):
        await zk.create(f"{root}/never", ttl_ms=1 << 40)


async def test_transactions_with_stats_and_every_kind_of_node(zk: coord.Client, root: str) -> None:
    transaction = zk.transaction()
    plain = transaction.create(f"{root}/a", b"1")
    counted = transaction.create_with_stat(f"{root}/n-", sequential=True)
    changed = transaction.set(f"{root}/a", b"22", 0)
    transaction.check(f"{root}/a", 1)
    container = transaction.create_with_stat(f"{root}/c", container=True)
    lived = transaction.create(f"{root}/t-", ttl_ms=60_000, sequential=True)
    transaction.create(f"{root}/e", ephemeral=True)
    transaction.delete(f"{root}/a", 1)
    await transaction.commit()
    assert (plain.result, lived.result) == (f"{root}/a", f"{root}/t-0000000003")
    assert counted.result.path == f"{root}/n-0000000001"
    assert counted.result.stat == await zk.exists(counted.result.path)
    assert container.result.stat == await zk.exists(f"{root}/c")
    assert changed.result.version == 1
    failing = zk.transaction()
    made, failed, later = failing.create(f"{root}/x"), failing.delete(f"{root}/none"), failing.check(root)
    with pytest.raises(coord.NoNodeError) as caught:
        await failing.commit()
    assert caught.value.index == 1
    errors = [type(pending.error) for pending in (made, failed, later)]
    assert errors == [coord.RolledBackError, coord.NoNodeError, coord.NotTriedError]


async def test_several_reads_at_once(zk: coord.Client, root: str) -> None:
    await zk.create(f"{root}/a", b"1")
    data, names, missing = await zk.multi_read(
        [coord.GetData(f"{root}/a"), coord.GetChildren(root), coord.GetData(f"{root}/none")],
        linearizable=True,
    )
    assert isinstance(data, tuple)
    assert data == await zk.get(f"{root}/a")
    assert names == ["a"]
    assert isinstance(missing, coord.NoNodeError)


async def test_credentials_access_lists_and_identities(hosts: str, root: str) -> None:
    async with coord.connect(hosts, auth=[("digest", "bob:secret")]) as bob, coord.connect(hosts) as eve:
        path = await bob.create(
            f"{root}/bobs", b"1", acl=[*coord.CREATOR_ACL, coord.acl("world", "anyone", "r")]
        )
        mine = coord.digest_acl("bob", "secret")
        assert (await bob.get_acl(path))[0] == [mine, coord.acl("world", "anyone", "r")]
        assert (await eve.get_acl(path))[0][0] == coord.Acl(31, "digest", "bob:x")
        with pytest.raises(coord.NoAuthError):
            await eve.set(path, b"2")
        await eve.add_auth("digest", b"bob:secret")
        await eve.set(path, b"2")
        assert coord.Identity("digest", "bob") in await eve.who_am_i()
        await break_connection(eve)
        await eve.set(path, b"3")
        assert (await eve.set_acl(path, coord.OPEN_ACL, 0)).aversion == 1
        with pytest.raises(coord.AuthFailedError):
            await eve.add_auth("no-such-scheme", b"x")
        assert eve.state is coord.State.AUTH_FAILED


async def test_a_login_by_sasl(hosts: str, root: str) -> None:
    async with coord.connect(hosts, sasl=("wire", "wirepw")) as zk:
        path = await zk.create(f"{root}/wires", acl=coord.CREATOR_ACL)
        assert (await zk.get_acl(path))[0] == [coord.acl("sasl", "wire")]
        await break_connection(zk)
        await zk.set(path, b"2")
    with pytest.raises(coord.AuthFailedError):
        async with coord.connect(hosts, sasl=("wire", "wrong")):
            pass


async def test_persistent_watches_and_their_reconnect(zk: coord.Client, root: str) -> None:
    async with zk.add_watch(root, recursive=True) as tree, zk.add_watch(root) as node:
        kinds = coord.WatcherKind
        found = [await zk.check_watches(root, kind) for kind in kinds]
        assert dict(zip(kinds, found, strict=True)) == {
            kinds.CHILDREN: False,
            kinds.DATA: False,
            kinds.ANY: True,
            kinds.PERSISTENT: True,
            kinds.RECURSIVE: True,
        }
        path, stat = await zk.create_with_stat(f"{root}/w")
        await zk.set(path, b"1")
        with trio.fail_after(HOLD_S):
            assert await anext(tree) == coord.NodeEvent(K.CREATED, path, stat.czxid)
            assert (await anext(tree))[:2] == (K.CHANGED, path)
            assert await anext(node) == coord.NodeEvent(K.CHILDREN, root, stat.czxid)
            await break_connection(zk)
            await zk.delete(path)
            assert [(await anext(tree))[:2] for _ in range(2)] == [(K.MISSED, root), (K.DELETED, path)]
            assert [(await anext(node))[:2] for _ in range(2)] == [(K.MISSED, root), (K.CHILDREN, root)]
    assert not await zk.check_watches(root)


async def test_one_shot_watches_are_set_again_and_catch_up(zk: coord.Client, root: str, hosts: str) -> None:
    async with (
        coord.connect(hosts) as other,
        zk.watch(root) as data,
        zk.watch(root, children=True) as names,
        zk.watch(f"{root}/none") as missing,
    ):
        for watch in (data, names, missing):
            assert (await anext(watch)).kind is K.CURRENT
        await break_connection(zk)
        # The client may be back before or behind these: the server's catch-up or its watches tell of them.
        await other.set(root, b"1")
        await other.create(f"{root}/none")
        with trio.fail_after(HOLD_S):
            assert (await anext(data)).kind is K.CHANGED
            assert (await anext(names)).kind is K.CHILDREN
            assert (await anext(missing)).kind is K.CREATED
        await zk.remove_watches(root, coord.WatcherKind.DATA)
        assert [event async for event in data] == []
        assert await zk.check_watches(root, coord.WatcherKind.CHILDREN)
        with pytest.raises(coord.NoWatcherError):
            await zk.remove_watches(root, coord.WatcherKind.DATA)


async def test_a_hard_quota_is_an_error_that_changed_nothing(zk: coord.Client, root: str) -> None:
    """Spec 12."""
    quota = f"/zookeeper/quota{root}"
    await coord.ensure_path(zk, quota)
    await zk.create(f"{quota}/zookeeper_limits", b"count=-1,bytes=-1=;byteHardLimit=10;countHardLimit=3")
    await zk.create(f"{quota}/zookeeper_stats", b"count=0,bytes=0")
    await zk.create(f"{root}/a", b"12345")
    with pytest.raises(coord.QuotaExceededError) as caught:
        await zk.set(f"{root}/a", b"12345678901")
    assert caught.value.happened is False
    await zk.create(f"{root}/b")
    with pytest.raises(coord.QuotaExceededError):
        await zk.multi([coord.Create(f"{root}/c")])
    assert await zk.get_children(root) == ["a", "b"]
    assert (await zk.get(f"{quota}/zookeeper_stats"))[0] == b"count=3,bytes=5"
    await coord.delete_tree(zk, quota)
    await zk.create(f"{root}/c")


async def test_a_standalone_server_has_no_configuration_to_change(zk: coord.Client) -> None:
    assert (await zk.get_config()).text == ""
    assert await zk.exists("/", linearizable=True) is not None
    with pytest.raises(coord.UnimplementedError):
        await zk.reconfig(leaving=["1"])
