"""A copy of a subtree, or of one node's children, that follows the ensemble's.

One persistent recursive watch tells of every change (servers from 3.6 on have it); what it tells of is read
again. Behind a reconnect, or when more came than could be kept, everything is read again. The copy never
shows a node older than it has shown it before, and in the end it is what the ensemble has.
"""

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import trio

from coord.client.client import Client
from coord.client.persistent import NodeEvent
from coord.client.recipes.contention import retry
from coord.client.trees import walk
from coord.client.watch import EventKind
from coord.errors import CoordError, NoAuthError, NoNodeError
from coord.nursery import open_private_nursery
from coord.protocol.records import Stat

#: Changes a follower of a cache may be behind; the oldest are dropped.
CHANGES_BEHIND_MAX = 10_000


@dataclass(frozen=True, slots=True)
class CachedNode:
    """A node as it was last read."""

    data: bytes | None
    stat: Stat


class Cache(Mapping[str, CachedNode]):
    """Path → node; made by `cache_tree` and `cache_children`. It changes while its block waits."""

    def __init__(self, path: str, depth: int | None) -> None:
        self.path = path
        self._depth = depth
        self._nodes: dict[str, CachedNode] = {}
        self._changed: deque[str] = deque(maxlen=CHANGES_BEHIND_MAX)
        self._woken = trio.Event()
        self.failure: CoordError | None = None

    def __getitem__(self, path: str) -> CachedNode:
        return self._nodes[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def children(self, path: str) -> list[str]:
        """The names of a node's children, sorted; looks at every node of the cache."""
        prefix = path.rstrip("/") + "/"
        return sorted(
            name
            for node in self._nodes
            if node.startswith(prefix) and node != "/" and "/" not in (name := node[len(prefix) :])
        )

    def changes(self) -> "Changes":
        """The paths of nodes that came, changed or went, in order; for one follower."""
        return Changes(self)

    async def wait_change(self) -> str:
        """The next path of `changes`. Cancelled, it loses none.

        Raises:
            SessionExpiredError: the cache follows no longer, and all changes were taken.
        """
        while not self._changed:
            if self.failure is not None:
                raise self.failure
            self._woken = trio.Event()
            await self._woken.wait()
        await trio.lowlevel.checkpoint()
        return self._changed.popleft()

    def covers(self, path: str) -> bool:
        """Whether a node belongs into the cache."""
        if path == self.path:
            return self._depth is None
        prefix = self.path.rstrip("/") + "/"
        return path.startswith(prefix) and (self._depth is None or "/" not in path[len(prefix) :])

    # What the follower of the watch says.

    def put(self, path: str, node: CachedNode) -> None:
        known = self._nodes.get(path)
        if known is None or known.stat.mzxid < node.stat.mzxid or known.stat.czxid < node.stat.czxid:
            self._nodes[path] = node
            self._tell(path)
        elif known.stat != node.stat:
            self._nodes[path] = node  # its children or list of rights have changed: not its data

    def drop(self, path: str) -> None:
        if self._nodes.pop(path, None) is not None:
            self._tell(path)

    def end(self, failure: CoordError) -> None:
        self.failure = failure
        self._woken.set()

    def _tell(self, path: str) -> None:
        self._changed.append(path)
        self._woken.set()


class Changes:
    """Iterates over a cache's changes; ends with an error only."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        return await self._cache.wait_change()


@contextlib.asynccontextmanager
async def cache_tree(zk: Client, path: str) -> AsyncIterator[Cache]:
    """Keeps a copy of `path` and everything below it; complete when the block begins.

    The node need not exist. What may not be read is left out.

    Raises:
        SessionExpiredError: the session is over.
        UnimplementedError: the server has no recursive watches.
    """
    async with _follow(zk, Cache(path, None)) as cache:
        yield cache


@contextlib.asynccontextmanager
async def cache_children(zk: Client, path: str) -> AsyncIterator[Cache]:
    """Keeps a copy of the children of `path`, with their data; otherwise as `cache_tree`."""
    async with _follow(zk, Cache(path, 1)) as cache:
        yield cache


@contextlib.asynccontextmanager
async def _follow(zk: Client, cache: Cache) -> AsyncIterator[Cache]:
    async with zk.add_watch(cache.path, recursive=True) as events, open_private_nursery() as nursery:
        await _read_all(zk, cache)

        async def follow() -> None:
            try:
                async for event in events:
                    await _apply(zk, cache, event)
            except CoordError as failure:
                cache.end(failure)

        nursery.start_soon(follow)
        yield cache


async def _apply(zk: Client, cache: Cache, event: NodeEvent) -> None:
    if event.kind is EventKind.MISSED:
        await _read_all(zk, cache)
    elif cache.covers(event.path):
        await _read(zk, cache, event.path)


async def _read_all(zk: Client, cache: Cache) -> None:
    """Reads every node again, and drops those that are gone."""
    found: set[str] = set()
    with contextlib.suppress(NoNodeError):
        if cache.covers(cache.path):
            async with contextlib.aclosing(walk(zk, cache.path)) as nodes:
                found.update([node async for node in nodes])
        else:
            names = await retry(zk.get_children, cache.path)
            found.update(f"{cache.path.rstrip('/')}/{name}" for name in names)
    for path in [*found, *(path for path in list(cache) if path not in found)]:
        await _read(zk, cache, path)


async def _read(zk: Client, cache: Cache, path: str) -> None:
    try:
        data, stat = await retry(zk.get, path)
    except (NoNodeError, NoAuthError):
        cache.drop(path)
    else:
        cache.put(path, CachedNode(data, stat))
