"""Watches as a client uses them: one node followed through one-shot watches, reconnects and all.

A server's watch fires once and dies with its connection. `Watch` therefore reads the node again, with a new
watch, before it tells of an event, and compares: what happened between the two watches is seen by that read,
and what happens after it fires the new watch. Behind a reconnect the table sets what is armed again, and the
server tells of what was missed while away (`coord.client.watches`).
"""

import enum
from types import TracebackType
from typing import NamedTuple, Self

import trio

from coord.client.replies import decoding, read_names
from coord.client.session import Session
from coord.client.watches import FIRES, Armed, WatchTable
from coord.errors import ConnectionLossError, NotConnectedError, error_of
from coord.protocol import opcodes
from coord.protocol.jute import Reader, encode_int, encode_text
from coord.protocol.records import Stat, encode_path_watch, read_stat


class EventKind(enum.Enum):
    """What an event tells: CURRENT is the first of each `Watch`, the others are changes since the one
    before (DELETED also tells of a node that has come and gone since); MISSED, of persistent watches only,
    that changes may have gone unseen.
    """

    CURRENT = "current"
    CREATED = "created"
    DELETED = "deleted"
    CHANGED = "changed"
    CHILDREN = "children"
    MISSED = "missed"


class WatchEvent(NamedTuple):
    """One event; `stat` is the node's as of the read behind it, None where there is no node."""

    kind: EventKind
    path: str
    stat: Stat | None


class Watch:
    """Follows one node; made by `Client.watch`, an async context manager and iterator of WatchEvent.

    Attributes:
        stat: the node's Stat as of the last event; None where there is no node.
        children: with `children=True` the names of its children as of the last event.
        armed: which watch the server holds for this one; None while it is spent or being set.
    """

    def __init__(self, table: WatchTable, session: Session, path: str, shown: str, children: bool) -> None:
        self.stat: Stat | None = None
        self.children: list[str] = []
        self.armed: Armed | None = None
        self._table = table
        self._session = session
        self._path = path
        self._shown = shown
        self._of_children = children
        self._fired = trio.Event()
        self._started = False
        self._reading = False
        self._removed = False
        self._has_come = False  # as the server says; since then it may have gone again

    # What the table says.

    def on_event(self, kind: int) -> None:
        # While the watch is being set nobody can say which of the two came first: better to read once more.
        if self.armed is None or kind in FIRES[self.armed]:
            self._has_come = self._has_come or kind == opcodes.NODE_CREATED
            self.wake()

    def on_break(self) -> None:
        # What is armed is set again. What was being read may have been answered without the watch's being
        # known as armed here: that has to be read again.
        if self.armed is None:
            self.wake()

    def may_hold(self, kind: int) -> bool:
        # A read that was cancelled may still set its watch; what removes it comes behind it.
        if kind == opcodes.WATCHER_CHILDREN:
            return self.armed is Armed.CHILD or (self._reading and self._of_children)
        return self.armed in (Armed.DATA, Armed.EXIST) or self._reading

    def is_of(self, kind: int) -> bool:
        """Whether such a watch is what this one sets when it reads again."""
        own = opcodes.WATCHER_CHILDREN if self._of_children else opcodes.WATCHER_DATA
        return kind in (own, opcodes.WATCHER_ANY)

    def on_removed(self) -> None:
        """The server's watch was removed on request; the iteration ends."""
        self._removed = True
        self.wake()

    def wake(self) -> None:
        """The server's watch is spent, or may be: the node has to be read again."""
        self.armed = None
        self._fired.set()

    # What its user does.

    async def __aenter__(self) -> Self:
        self._table.add(self._path, self)
        try:
            self.stat = await self._read()
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        """Forgets the watch, also on the server: one that never fires would stay there with the connection,
        and so would one for each lock that was ever waited for."""
        self._table.remove(self._path, self)
        others, persistent = self._table.at(self._path)
        if persistent:
            # Servers before 3.9 would take those along.
            return
        for kind in (opcodes.WATCHER_CHILDREN, opcodes.WATCHER_DATA):
            if self.may_hold(kind) and not any(other.may_hold(kind) for other in others):
                self._session.post(opcodes.REMOVE_WATCHES, encode_text(self._path) + encode_int(kind))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchEvent:
        """Waits for the next change, also while no server can be reached. Cancelled, it loses none.

        Raises:
            SessionExpiredError: the session is over.
            StopAsyncIteration: the watch was removed by `Client.remove_watches`.
        """
        if not self._started:
            self._started = True
            await trio.lowlevel.checkpoint()
            return WatchEvent(EventKind.CURRENT, self._shown, self.stat)
        while True:
            await self._fired.wait()
            if self._removed:
                raise StopAsyncIteration
            try:
                before, self.stat = self.stat, await self._read()
            except NotConnectedError:
                continue
            has_come, self._has_come = self._has_come, False
            kind = self._compare(before, self.stat, has_come)
            if kind is not None:
                return WatchEvent(kind, self._shown, self.stat)

    def _compare(self, before: Stat | None, after: Stat | None, has_come: bool) -> EventKind | None:
        if after is None:
            return EventKind.DELETED if before is not None or has_come else None
        if before is None or before.czxid != after.czxid:
            return EventKind.CREATED
        if self._of_children:
            return EventKind.CHILDREN if before.pzxid != after.pzxid else None
        return EventKind.CHANGED if before.mzxid != after.mzxid else None

    async def _read(self) -> Stat | None:
        """Reads the node and sets the server's watch in one request; again while connections are being
        lost."""
        while True:
            self._fired = trio.Event()
            self.armed = None
            self._reading = True
            try:
                if self._of_children:
                    found = await self._read_children()
                    if found is not None:
                        self._reading = False
                        self._arm(Armed.CHILD)
                        return found
                # A node that is not there has no list of children: its creation is what can be watched.
                err, body = await self._session.call(opcodes.EXISTS, encode_path_watch(self._path, True))
            except ConnectionLossError:
                continue
            except BaseException:
                self._fired.set()
                raise
            self._reading = False
            if err == opcodes.NO_NODE:
                self._arm(Armed.EXIST)
                self.children = []
                return None
            if err:
                self._fired.set()
                raise error_of(err, path=self._shown)
            if not self._of_children:
                self._arm(Armed.DATA)
                with decoding("a watch's read"):
                    return read_stat(Reader(body))

    def _arm(self, armed: Armed) -> None:
        if not self._fired.is_set():
            self.armed = armed

    async def _read_children(self) -> Stat | None:
        err, body = await self._session.call(opcodes.GET_CHILDREN2, encode_path_watch(self._path, True))
        if err == opcodes.NO_NODE:
            return None
        if err:
            self._fired.set()
            raise error_of(err, path=self._shown)
        with decoding("a watch's read"):
            reader = Reader(body)
            names, stat = read_names(reader), read_stat(reader)
        self.children = names
        return stat
