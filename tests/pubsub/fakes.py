"""In-memory coordination service and ledgers, with the faults that a hub must survive.

Both are shared by all clients of one test; a client can be killed (each of its calls raises `Killed` from
then on), and answers can be lost after the fact. The ledgers pass the same suite as the real ones.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import trio

import coord
from coord.clock import SYSTEM_CLOCK
from pubsub.hub.seams import (
    LedgerFacts,
    LedgerFencedError,
    LedgerGoneError,
    LedgerStoreError,
    OnAppended,
    TooFewBookiesError,
)


class Killed(BaseException):
    """The process that made the call is dead: nothing of ours may catch this."""


# -- coordination service
# --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Node:
    data: bytes
    czxid: int
    version: int = 0
    cversion: int = 0
    pzxid: int = 0
    owner: int = 0


class FakeEnsemble:
    """The tree all clients see."""

    def __init__(self) -> None:
        self.zxid = 0
        self.nodes: dict[str, _Node] = {"/": _Node(b"", 0)}
        self.changed = trio.Event()
        self.writes: list[str] = []
        self._sessions = 0

    def client(self) -> "FakeZk":
        self._sessions += 1
        return FakeZk(self, self._sessions)

    def touch(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def children(self, path: str) -> list[str]:
        prefix = path.rstrip("/") + "/"
        return sorted(
            one[len(prefix) :]
            for one in self.nodes
            if one.startswith(prefix) and "/" not in one[len(prefix) :]
        )

    def stat(self, path: str) -> coord.Stat:
        node = self.nodes[path]
        count = len(self.children(path))
        return coord.Stat(
            node.czxid,
            node.czxid,
            0,
            0,
            node.version,
            node.cversion,
            0,
            node.owner,
            len(node.data),
            count,
            node.pzxid,
        )

    def apply(self, operations: list[coord.Operation], session: int) -> list[object]:
        """All or nothing."""
        before = {path: replace(node) for path, node in self.nodes.items()}
        self.zxid += 1
        try:
            results = [self._apply_one(operation, session) for operation in operations]
        except coord.CoordError:
            self.nodes = before
            raise
        self.writes.append(" ".join(f"{type(one).__name__}:{one.path}" for one in operations))
        self.touch()
        return results

    def _apply_one(self, operation: coord.Operation, session: int) -> object:
        path = operation.path
        if isinstance(operation, coord.Create):
            parent = path.rpartition("/")[0] or "/"
            if parent not in self.nodes:
                raise coord.NoNodeError(path=path)
            if operation.sequential:
                path += f"{self.nodes[parent].cversion:010d}"
            if path in self.nodes:
                raise coord.NodeExistsError(path=path)
            self.nodes[path] = _Node(operation.data or b"", self.zxid, owner=session * operation.ephemeral)
            self._count_child(parent)
            return path
        node = self.nodes.get(path)
        if node is None:
            raise coord.NoNodeError(path=path)
        if operation.version not in (-1, node.version):
            raise coord.BadVersionError(path=path)
        if isinstance(operation, coord.SetData):
            node.data = operation.data or b""
            node.version += 1
            return self.stat(path)
        if isinstance(operation, coord.Delete):
            if self.children(path):
                raise coord.NotEmptyError(path=path)
            del self.nodes[path]
            self._count_child(path.rpartition("/")[0] or "/")
        return None

    def _count_child(self, parent: str) -> None:
        self.nodes[parent].cversion += 1
        self.nodes[parent].pzxid = self.zxid

    def end_session(self, session: int) -> None:
        for path in [path for path, node in self.nodes.items() if node.owner == session]:
            self.apply([coord.Delete(path)], session)


class FakeZk:
    """What hub and bus use of `coord.Client`."""

    def __init__(self, ensemble: FakeEnsemble, session: int) -> None:
        self.ensemble = ensemble
        self.session_id = session
        self.session_password = b"p" * 16
        self.expired = trio.Event()
        self.is_dead = False
        self.is_cut = False
        #: Write calls until an answer is lost after the fact; None for never.
        self.lose_answer_in: int | None = None
        self.on_write: Callable[[list[coord.Operation]], None] = lambda operations: None

    def expire(self) -> None:
        self.ensemble.end_session(self.session_id)
        self.expired.set()

    async def _begin(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_dead:
            raise Killed
        if self.is_cut:
            await trio.sleep_forever()
        if self.expired.is_set():
            raise coord.SessionExpiredError

    async def multi(self, operations: list[coord.Operation]) -> list[object]:
        await self._begin()
        self.on_write(operations)
        if self.is_dead:
            raise Killed
        results = self.ensemble.apply(operations, self.session_id)
        if self.lose_answer_in is not None:
            self.lose_answer_in -= 1
            if self.lose_answer_in < 0:
                self.lose_answer_in = None
                raise coord.ConnectionLossError("the answer was lost")
        return results

    async def create(
        self, path: str, data: bytes = b"", *, ephemeral: bool = False, sequential: bool = False
    ) -> str:
        (made,) = await self.multi([coord.Create(path, data, ephemeral, sequential)])
        assert isinstance(made, str)
        return made

    async def set(self, path: str, data: bytes, version: int = -1) -> coord.Stat:
        (stat,) = await self.multi([coord.SetData(path, data, version)])
        assert isinstance(stat, coord.Stat)
        return stat

    async def delete(self, path: str, version: int = -1) -> None:
        await self.multi([coord.Delete(path, version)])

    async def get(self, path: str) -> tuple[bytes, coord.Stat]:
        await self._begin()
        if path not in self.ensemble.nodes:
            raise coord.NoNodeError(path=path)
        return self.ensemble.nodes[path].data, self.ensemble.stat(path)

    async def exists(self, path: str) -> coord.Stat | None:
        await self._begin()
        return self.ensemble.stat(path) if path in self.ensemble.nodes else None

    async def get_children(self, path: str) -> list[str]:
        await self._begin()
        if path not in self.ensemble.nodes:
            raise coord.NoNodeError(path=path)
        return self.ensemble.children(path)

    @asynccontextmanager
    async def watch(self, path: str, *, children: bool = False) -> AsyncIterator[AsyncIterator[None]]:
        async def events() -> AsyncIterator[None]:
            while True:
                changed = self.ensemble.changed
                yield None
                await changed.wait()

        iterator = events()
        try:
            yield iterator
        finally:
            await iterator.aclose()  # type: ignore[attr-defined]


# -- ledgers
# ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class FakeLedger:
    ledger_id: int
    properties: dict[str, bytes]
    copies: int
    created_ms: int
    entries: list[bytes] = field(default_factory=list)
    is_closed: bool = False


class FakeBookies:
    """The ledgers all hubs share."""

    def __init__(self, count: int = 3) -> None:
        self.count = count
        self.ledgers: dict[int, FakeLedger] = {}
        self.deleted: list[int] = []
        self.reads = 0
        self._next_id = 1

    def client(self) -> "FakeLedgers":
        return FakeLedgers(self)

    def make(self, properties: dict[str, bytes], copies: int) -> FakeLedger:
        ledger = self.ledgers[self._next_id] = FakeLedger(
            self._next_id, properties, copies, SYSTEM_CLOCK.wall_ms()
        )
        self._next_id += 1
        return ledger

    def find(self, ledger_id: int) -> FakeLedger:
        if ledger_id not in self.ledgers:
            raise LedgerGoneError(f"no ledger {ledger_id}")
        return self.ledgers[ledger_id]


class FakeLedgers:
    """One hub's client of them."""

    copies_wanted = 3
    ack_quorum = 2

    def __init__(self, bookies: FakeBookies) -> None:
        self.bookies = bookies
        self.is_dead = False
        #: Appends wait here while set; `release` lets them go.
        self.is_held = False
        self.writers: list[FakeWriter] = []
        self.on_call: Callable[[str], None] = lambda name: None

    async def _begin(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_dead:
            raise Killed
        self.on_call(name)
        if self.is_dead:
            raise Killed

    async def create(self, properties: dict[str, bytes]) -> "FakeWriter":
        await self._begin("create")
        copies = min(self.copies_wanted, self.bookies.count)
        if copies < self.ack_quorum:
            raise TooFewBookiesError(f"{copies} bookies")
        writer = FakeWriter(self, self.bookies.make(properties, copies))
        self.writers.append(writer)
        return writer

    async def open_recovered(self, ledger_id: int) -> "FakeReader":
        await self._begin("open_recovered")
        if self.bookies.count < self.ack_quorum:
            raise LedgerStoreError("too few bookies answer")
        ledger = self.bookies.find(ledger_id)
        ledger.is_closed = True
        return FakeReader(self, ledger)

    async def delete(self, ledger_id: int) -> None:
        await self._begin("delete")
        if self.bookies.ledgers.pop(ledger_id, None) is not None:
            self.bookies.deleted.append(ledger_id)

    async def listed(self) -> AsyncIterator[LedgerFacts]:
        for ledger in list(self.bookies.ledgers.values()):
            await self._begin("listed")
            if "kind" in ledger.properties:
                yield LedgerFacts(ledger.ledger_id, ledger.created_ms, ledger.properties)

    async def bookies_available(self) -> int:
        return self.bookies.count

    def release(self) -> None:
        """Lets held appends go."""
        self.is_held = False
        for writer in self.writers:
            writer.settle()


class FakeReader:
    def __init__(self, client: FakeLedgers, ledger: FakeLedger) -> None:
        self.ledger_id = ledger.ledger_id
        self._client = client
        self._ledger = ledger

    @property
    def last_entry(self) -> int:
        return len(self._ledger.entries) - 1

    async def read(self, first: int, last: int, bytes_max: int) -> list[bytes]:
        await self._client._begin("read")
        bookies = self._client.bookies
        bookies.reads += 1
        if self.ledger_id not in bookies.ledgers:
            raise LedgerGoneError(f"no ledger {self.ledger_id}")
        found: list[bytes] = []
        for entry in self._ledger.entries[first : last + 1]:
            if found and sum(map(len, found)) >= bytes_max:
                break
            found.append(entry)
        if not found:
            raise LedgerStoreError(f"ledger {self.ledger_id} has no entry {first}")
        return found

    def close(self) -> None:
        pass


class FakeWriter(FakeReader):
    """Confirms on the loop's next round; refuses once the ledger was recovered by somebody."""

    def __init__(self, client: FakeLedgers, ledger: FakeLedger) -> None:
        super().__init__(client, ledger)
        self.copies = ledger.copies
        self.pending: list[tuple[bytes, OnAppended]] = []
        self.failure: Exception | None = None
        self._is_scheduled = False

    def append_nowait(self, entry: bytes, on_appended: OnAppended) -> None:
        if self._client.is_dead:
            return
        self.pending.append((entry, on_appended))
        if not self._is_scheduled:
            self._is_scheduled = True
            trio.lowlevel.current_trio_token().run_sync_soon(self.settle)

    def settle(self) -> None:
        self._is_scheduled = False
        if self._client.is_held or self._client.is_dead:
            return
        pending, self.pending = self.pending, []
        for entry, on_appended in pending:
            if self.failure is None and self._ledger.is_closed:
                self.failure = LedgerFencedError(f"ledger {self.ledger_id} was recovered")
            if self.failure is None and self._client.bookies.count < self._client.ack_quorum:
                self.failure = TooFewBookiesError("no ack quorum")
            if self.failure is not None:
                on_appended(self.failure)
                continue
            self._ledger.entries.append(entry)
            on_appended(len(self._ledger.entries) - 1)

    async def close(self) -> None:
        await self._client._begin("close")
        if self._ledger.is_closed:
            raise LedgerFencedError(f"ledger {self.ledger_id} was recovered")
        self._ledger.is_closed = True

    def abandon(self) -> None:
        self.failure = self.failure or LedgerStoreError("abandoned")
        self.settle()
