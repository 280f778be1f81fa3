"""kazoo, unchanged, against one of our servers: data, errors, sequences, watches, transactions."""

import threading

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import (
    BadArgumentsError,
    BadVersionError,
    NoChildrenForEphemeralsError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
)
from kazoo.protocol.states import EventType, WatchedEvent

from tests.coord_servers import CoordServers
from tests.interop.conftest import MakeClient

pytestmark = pytest.mark.interop


@pytest.fixture
def client(standalone: CoordServers, make_client: MakeClient) -> KazooClient:
    return make_client(standalone.hosts)


@pytest.fixture
def root(client: KazooClient, request: pytest.FixtureRequest) -> str:
    """A node of its own for each test."""
    path = f"/{request.node.name}"
    client.create(path)
    return path


class Events:
    """Collects watch events across kazoo's threads."""

    def __init__(self) -> None:
        self.seen: list[WatchedEvent] = []
        self.arrived = threading.Condition()

    def __call__(self, event: WatchedEvent) -> None:
        with self.arrived:
            self.seen.append(event)
            self.arrived.notify_all()

    def wait(self, count: int) -> list[tuple[str, str]]:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.seen) >= count, timeout=60)
            return [(event.type, event.path) for event in self.seen]


def test_a_node_is_created_read_changed_and_deleted(client: KazooClient, root: str) -> None:
    path = client.create(f"{root}/a", b"one")
    data, stat = client.get(path)
    assert (data, stat.version, stat.dataLength, stat.numChildren) == (b"one", 0, 3, 0)
    assert stat.czxid == stat.mzxid == stat.pzxid
    changed = client.set(path, b"second")
    assert (changed.version, changed.dataLength) == (1, 6)
    assert changed.mzxid > changed.czxid
    assert client.exists(path) == client.get(path)[1]
    assert client.get_children(root) == ["a"]
    client.delete(path)
    assert client.exists(path) is None
    assert client.exists(root).cversion == 2


def test_empty_data_and_no_data_are_different(client: KazooClient, root: str) -> None:
    client.create(f"{root}/empty", b"")
    client.set(f"{root}/empty", b"something")
    client.set(f"{root}/empty", None)
    assert client.get(f"{root}/empty")[0] is None
    client.set(f"{root}/empty", b"")
    assert client.get(f"{root}/empty")[0] == b""


def test_errors_have_their_codes(client: KazooClient, root: str) -> None:
    client.create(f"{root}/a")
    with pytest.raises(NodeExistsError):
        client.create(f"{root}/a")
    with pytest.raises(NoNodeError):
        client.create(f"{root}/b/c")
    with pytest.raises(NoNodeError):
        client.get(f"{root}/b")
    with pytest.raises(BadVersionError):
        client.set(f"{root}/a", b"", version=7)
    with pytest.raises(BadVersionError):
        client.delete(f"{root}/a", version=7)
    with pytest.raises(NotEmptyError):
        client.delete(root)
    with pytest.raises(BadArgumentsError):
        client.create(f"{root}/\x1e")
    client.create(f"{root}/e", ephemeral=True)
    with pytest.raises(NoChildrenForEphemeralsError):
        client.create(f"{root}/e/child")


def test_sequential_names_count_every_create_of_the_parent(client: KazooClient, root: str) -> None:
    names = [client.create(f"{root}/s-", sequence=True) for _ in range(3)]
    assert names == [f"{root}/s-{number:010d}" for number in range(3)]
    client.create(f"{root}/plain")
    client.delete(names[0])
    assert client.create(f"{root}/t-", sequence=True) == f"{root}/t-0000000004"


def test_create2_returns_the_stat(client: KazooClient, root: str) -> None:
    path, stat = client.create(f"{root}/a", b"abc", include_data=True)
    assert path == f"{root}/a"
    assert (stat.version, stat.dataLength, stat.numChildren) == (0, 3, 0)


def test_half_a_megabyte_fits(client: KazooClient, root: str) -> None:
    data = bytes(range(256)) * 2048
    client.create(f"{root}/big", data)
    assert client.get(f"{root}/big")[0] == data
    client.set(f"{root}/big", data[::-1])
    assert client.get(f"{root}/big")[0] == data[::-1]


def test_a_pipeline_of_mixed_requests_is_answered_in_order(client: KazooClient, root: str) -> None:
    path = f"{root}/p"
    client.create(path, b"0")
    results = []
    for number in range(1, 200):
        results.append((number, client.set_async(path, b"%d" % number), client.get_async(path)))
    client.sync(path)
    for number, changed, read in results:
        assert changed.get(60).version == number
        assert read.get(60)[0] == b"%d" % number


def test_a_data_watch_fires_once(client: KazooClient, root: str) -> None:
    events = Events()
    client.get(root, watch=events)
    client.set(root, b"1")
    client.set(root, b"2")
    # kazoo tells of events in the order in which they come.
    assert client.exists(f"{root}/last", watch=events) is None
    client.create(f"{root}/last")
    assert events.wait(2) == [(EventType.CHANGED, root), (EventType.CREATED, f"{root}/last")]


def test_an_exists_watch_sees_the_creation(client: KazooClient, root: str) -> None:
    events = Events()
    assert client.exists(f"{root}/later", watch=events) is None
    client.create(f"{root}/later")
    assert events.wait(1) == [(EventType.CREATED, f"{root}/later")]


def test_a_child_watch_sees_children_come_and_go(client: KazooClient, root: str) -> None:
    for change in (lambda: client.create(f"{root}/c"), lambda: client.delete(f"{root}/c")):
        events = Events()
        client.get_children(root, watch=events)
        change()
        assert events.wait(1) == [(EventType.CHILD, root)]


def test_a_deleted_node_with_both_watches_gives_one_event(client: KazooClient, root: str) -> None:
    path = client.create(f"{root}/a")
    events = Events()
    client.get(path, watch=events)
    client.get_children(path, watch=events)
    client.delete(path)
    client.sync(path)
    assert {event for event in events.wait(1)} == {(EventType.DELETED, path)}


def test_a_transaction_is_all_or_nothing(client: KazooClient, root: str) -> None:
    good = client.transaction()
    good.create(f"{root}/a", b"1")
    good.set_data(f"{root}/a", b"2")
    good.check(f"{root}/a", 1)
    created, changed, checked = good.commit()
    assert (created, changed.version, checked) == (f"{root}/a", 1, True)
    bad = client.transaction()
    bad.create(f"{root}/b")
    bad.check(f"{root}/a", 7)
    bad.delete(f"{root}/a")
    results = bad.commit()
    assert isinstance(results[0], RolledBackError)
    assert isinstance(results[1], BadVersionError)
    assert client.exists(f"{root}/b") is None
    assert client.exists(f"{root}/a") is not None


def test_ensure_path_and_recursive_delete(client: KazooClient, root: str) -> None:
    client.ensure_path(f"{root}/a/b/c/d")
    client.delete(f"{root}/a", recursive=True)
    assert client.get_children(root) == []


def test_kazoos_lock_is_exclusive(standalone: CoordServers, make_client: MakeClient, root: str) -> None:
    first, second = make_client(standalone.hosts), make_client(standalone.hosts)
    lock, other = first.Lock(f"{root}/lock", "first"), second.Lock(f"{root}/lock", "second")
    assert lock.acquire(timeout=60)
    assert not other.acquire(blocking=False)
    lock.release()
    assert other.acquire(timeout=60)
    other.release()


def test_four_letter_words_work_through_kazoo(client: KazooClient) -> None:
    assert client.command(b"ruok") == "imok"
    assert "Mode: standalone" in client.command(b"stat")
    assert client.command(b"isro") == "rw"
    keys = {line.split("\t")[0] for line in client.command(b"mntr").splitlines()}
    assert {"zk_version", "zk_znode_count", "zk_watch_count", "zk_ephemerals_count"} <= keys
