"""kazoo's watches that re-arm themselves: DataWatch, ChildrenWatch, PatientChildrenWatch, TreeCache."""

import queue
import secrets
import threading
from collections.abc import Callable

import pytest
from kazoo.client import KazooClient
from kazoo.protocol.states import EventType
from kazoo.recipe.cache import TreeCache, TreeEvent
from kazoo.recipe.watchers import PatientChildrenWatch

from tests.coord_servers import CoordServers, wait_for
from tests.interop.conftest import MakeClient

pytestmark = pytest.mark.interop
WAIT_S = 60.0


@pytest.fixture
def watcher(ensemble: CoordServers, make_client: MakeClient) -> KazooClient:
    return make_client(ensemble.servers[0].address)


@pytest.fixture
def writer(ensemble: CoordServers, make_client: MakeClient) -> KazooClient:
    return make_client(ensemble.servers[1].address)


@pytest.fixture
def root(writer: KazooClient, watcher: KazooClient) -> str:
    path: str = writer.create(f"/w-{secrets.token_hex(6)}")
    watcher.sync(path)
    return path


def test_a_data_watch_follows_a_node_through_its_life(
    watcher: KazooClient, writer: KazooClient, root: str
) -> None:
    seen: queue.Queue[tuple[bytes | None, int | None, str | None]] = queue.Queue()

    @watcher.DataWatch(f"{root}/n")
    def watch(data: bytes | None, stat: object, event: object) -> None:
        seen.put((data, stat and stat.version, event and event.type))

    assert seen.get(timeout=WAIT_S) == (None, None, None)
    for change, expected in (
        (lambda: writer.create(f"{root}/n", b"1"), (b"1", 0, EventType.CREATED)),
        (lambda: writer.set(f"{root}/n", b"2"), (b"2", 1, EventType.CHANGED)),
        (lambda: writer.delete(f"{root}/n"), (None, None, EventType.DELETED)),
        (lambda: writer.create(f"{root}/n", b"3"), (b"3", 0, EventType.CREATED)),
    ):
        change()
        assert seen.get(timeout=WAIT_S) == expected


def test_a_data_watch_ends_when_its_function_says_so(
    watcher: KazooClient, writer: KazooClient, root: str
) -> None:
    seen: queue.Queue[bytes] = queue.Queue()

    @watcher.DataWatch(root)
    def watch(data: bytes, stat: object) -> bool:
        seen.put(data)
        return data != b"end"

    for data in (b"1", b"end", b"2"):
        seen.get(timeout=WAIT_S)
        writer.set(root, data)
        if data == b"end":
            assert seen.get(timeout=WAIT_S) == b"end"
            break
    writer.set(root, b"3")
    # kazoo tells of events one by one, in the order in which they come.
    told = threading.Event()
    assert watcher.exists(f"{root}/last", watch=lambda event: told.set()) is None
    writer.create(f"{root}/last")
    assert told.wait(WAIT_S)
    assert seen.empty()


def test_a_children_watch_sees_every_change_in_the_end(
    watcher: KazooClient, writer: KazooClient, root: str
) -> None:
    seen: list[list[str]] = []

    @watcher.ChildrenWatch(root)
    def watch(children: list[str]) -> None:
        seen.append(sorted(children))

    for name in "abc":
        writer.create(f"{root}/{name}")
    wait_for(lambda: seen[-1] == ["a", "b", "c"], "three children", WAIT_S)
    writer.delete(f"{root}/b")
    wait_for(lambda: seen[-1] == ["a", "c"], "two children", WAIT_S)
    assert seen[0] == []


def test_a_children_watch_goes_on_after_the_connection_broke(
    watcher: KazooClient, writer: KazooClient, root: str
) -> None:
    seen: list[list[str]] = []

    @watcher.ChildrenWatch(root)
    def watch(children: list[str]) -> None:
        seen.append(sorted(children))

    watcher._connection._socket.shutdown(2)
    writer.create(f"{root}/a")
    wait_for(lambda: seen[-1] == ["a"], "the child made meanwhile", WAIT_S)


def test_a_patient_watch_waits_for_the_children_to_settle(
    watcher: KazooClient, writer: KazooClient, root: str
) -> None:
    for name in "abc":
        writer.create(f"{root}/{name}")
    watcher.sync(root)
    children, changed = PatientChildrenWatch(watcher, root, time_boundary=0.05).start().get(WAIT_S)
    assert sorted(children) == ["a", "b", "c"]
    writer.create(f"{root}/d")
    changed.wait(WAIT_S)
    assert changed.ready()


def test_a_tree_cache_holds_the_subtree(watcher: KazooClient, writer: KazooClient, root: str) -> None:
    writer.create(f"{root}/a/b", b"1", makepath=True)
    watcher.sync(root)
    cache, ready = TreeCache(watcher, root), threading.Event()
    kinds: queue.Queue[tuple[int, str]] = queue.Queue()

    def hear(event: TreeEvent) -> None:
        if event.event_type == TreeEvent.INITIALIZED:
            ready.set()
        elif ready.is_set():
            kinds.put((event.event_type, event.event_data.path))

    cache.listen(hear)
    cache.start()
    try:
        assert ready.wait(WAIT_S)
        assert cache.get_data(f"{root}/a/b").data == b"1"
        changes: list[tuple[Callable[[], object], int, str]] = [
            (lambda: writer.set(f"{root}/a/b", b"2"), TreeEvent.NODE_UPDATED, f"{root}/a/b"),
            (lambda: writer.create(f"{root}/a/c"), TreeEvent.NODE_ADDED, f"{root}/a/c"),
            (lambda: writer.delete(f"{root}/a/b"), TreeEvent.NODE_REMOVED, f"{root}/a/b"),
        ]
        for change, kind, path in changes:
            change()
            while (heard := kinds.get(timeout=WAIT_S)) != (kind, path):
                # A parent's Stat changes with its children.
                assert heard == (TreeEvent.NODE_UPDATED, f"{root}/a")
        # The cache tells of a deletion before its parent forgets the child.
        wait_for(lambda: cache.get_children(f"{root}/a") == {"c"}, "one child", WAIT_S)
        assert cache.get_data(f"{root}/a/b") is None
    finally:
        cache.close()
