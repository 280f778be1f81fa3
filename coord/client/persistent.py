"""Persistent watches as a client uses them: every event of a node, or of a whole subtree, in order."""

from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

import trio

from coord.client.watch import EventKind
from coord.client.watches import Armed, WatchTable
from coord.errors import ConnectionLossError, error_of
from coord.protocol import opcodes
from coord.protocol.jute import encode_int, encode_text
from coord.protocol.records import WatcherEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from coord.client.session import Session

#: Events kept for a follower that is slow; one more and all are replaced by a MISSED.
EVENTS_BUFFERED_MAX = 10_000

KIND_OF_TYPE = {
    opcodes.NODE_CREATED: EventKind.CREATED,
    opcodes.NODE_DELETED: EventKind.DELETED,
    opcodes.NODE_DATA_CHANGED: EventKind.CHANGED,
    opcodes.NODE_CHILDREN_CHANGED: EventKind.CHILDREN,
}


class NodeEvent(NamedTuple):
    """One change as the server told it.

    Attributes:
        kind: MISSED means: read again what you follow, for events may have been missed; `path` is then the
            path watched.
        zxid: of the change; -1 from servers that do not tell it (Apache's before 3.9).
    """

    kind: EventKind
    path: str
    zxid: int


class PersistentWatch:
    """Each event of one node or subtree; made by `Client.add_watch`, an async context manager and iterator.

    After a reconnect, and where the follower was too slow for `buffer` events, a MISSED event says so.
    Leaving the block removes the server's watch where no other of this client needs it.
    """

    def __init__(
        self,
        table: WatchTable,
        session: "Session",
        path: str,
        shown: "Callable[[str], str]",
        recursive: bool,
        buffer: int,
    ) -> None:
        self.path = path
        self.armed = Armed.RECURSIVE if recursive else Armed.PERSISTENT
        self._table = table
        self._session = session
        self._shown = shown
        self._buffer = buffer
        self._events: deque[NodeEvent] = deque()
        self._woken = trio.Event()
        self._removed = False

    async def __aenter__(self) -> Self:
        body = encode_text(self.path) + encode_int(self.armed is Armed.RECURSIVE)
        self._table.add_persistent(self)
        try:
            while True:
                try:
                    err, _ = await self._session.call(opcodes.ADD_WATCH, body)
                    break
                except ConnectionLossError:
                    continue
            if err:
                raise error_of(err, path=self._shown(self.path))
        except BaseException:
            # A request that was cancelled may still set the watch; what removes it comes behind it.
            self._leave()
            raise
        # A connection that broke in between is no loss: nobody has been told that the watch is set.
        while self._events and self._events[0].kind is EventKind.MISSED:
            self._events.popleft()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._table.remove_persistent(self):
            of_type = (
                opcodes.WATCHER_RECURSIVE if self.armed is Armed.RECURSIVE else opcodes.WATCHER_PERSISTENT
            )
            self._session.post(opcodes.REMOVE_WATCHES, encode_text(self.path) + encode_int(of_type))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> NodeEvent:
        """Waits for the next event. Cancelled, it loses none.

        Raises:
            SessionExpiredError: the session is over, and all events were taken.
            StopAsyncIteration: the watch was removed by `Client.remove_watches`.
        """
        while not self._events:
            if self._removed:
                raise StopAsyncIteration
            self._session.check_alive()
            self._woken = trio.Event()
            await self._woken.wait()
        event = self._events.popleft()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return event

    # What the table says.

    def on_event(self, event: WatcherEvent, zxid: int) -> None:
        kind = KIND_OF_TYPE.get(event.type)
        if kind is None:
            return
        if len(self._events) >= self._buffer:
            self._events.clear()
            self.on_missed()
        else:
            self._put(NodeEvent(kind, self._shown(event.path), zxid))

    def on_missed(self) -> None:
        if not self._events or self._events[-1].kind is not EventKind.MISSED:
            self._put(NodeEvent(EventKind.MISSED, self._shown(self.path), -1))

    def is_of(self, kind: int) -> bool:
        """Never asked in vain: a persistent watch is always armed."""
        return False

    def on_removed(self) -> None:
        """The server's watch was removed on request: what is buffered is the last."""
        self._table.remove_persistent(self)
        self._removed = True
        self._woken.set()

    def wake(self) -> None:
        self._woken.set()

    def _put(self, event: NodeEvent) -> None:
        self._events.append(event)
        self._woken.set()
