"""Who is told of which change: the watches of one server's connections (spec 9).

Per connection, path and table there is a set of bits, so that kinds of watches do not disturb each other: a
standard one is spent when it fires, the persistent ones stay. A path or connection without bits is forgotten.
Connections are whatever hashable token the server uses.

A million watches must be cheap, so what there is once stands once: the bits are with the connection, and the
table of paths says only who watches. A path that one connection watches has no container of its own, and one
that many watch is one object for all of them, whatever bytes each of them sent.
"""

import struct
from collections.abc import Callable, Hashable, Iterable, KeysView
from typing import Final

from coord.protocol import opcodes
from coord.tree.context import TreeEvent
from coord.tree.path import ROOT
from coord.tree.read import WATCH_CHILD, WATCH_DATA

STANDARD: Final = 1
PERSISTENT: Final = 2
RECURSIVE: Final = 4

_EVENT = struct.Struct(">iiqiiii")
_EVENT_HEAD_BYTES = _EVENT.size - 4

Told = tuple[Hashable, bytes]


def encode_event(kind: int, path: bytes, zxid: int) -> bytes:
    """The whole frame of a watch event; `zxid` is the one of the change, -1 for catch-up."""
    return (
        _EVENT.pack(
            _EVENT_HEAD_BYTES + len(path), opcodes.XID_EVENT, zxid, 0, kind, opcodes.SYNC_CONNECTED, len(path)
        )
        + path
    )


#: What one connection's watches may take, about half a million of short paths; Apache's server has no bound.
WATCH_BYTES_MAX: Final = 64 << 20
#: What a watch takes beside its path.
WATCH_BYTES: Final = 80
#: Bytes of added watches at which those that are left are measured.
_MEASURED_AT_BYTES: Final = WATCH_BYTES_MAX * 4 // 3

#: The connection that watches a path, or all of them, each with the bytes object that stands for the path.
_Watchers = Hashable | dict[Hashable, bytes]


class WatchTable:
    """All watches of one server.

    Attributes:
        recursive_count: watches of whole subtrees.
        overfull: a connection whose watches take more than they may; whoever sees it ends it and sets None.
    """

    def __init__(self) -> None:
        self._tables: tuple[dict[bytes, _Watchers], dict[bytes, _Watchers]] = ({}, {})
        self._of_connection: dict[Hashable, tuple[dict[bytes, int], dict[bytes, int]]] = {}
        self._added_bytes: dict[Hashable, int] = {}
        self.recursive_count = 0
        self.overfull: Hashable | None = None

    @property
    def count(self) -> int:
        """Watches over all connections, a path in both tables counting twice."""
        return sum(len(data) + len(child) for data, child in self._of_connection.values())

    @property
    def connection_count(self) -> int:
        return len(self._of_connection)

    @property
    def watched_data(self) -> KeysView[bytes]:
        """Paths in the data table: a view, as of the moment it is looked at."""
        return self._tables[WATCH_DATA].keys()

    @property
    def watched_children(self) -> KeysView[bytes]:
        """The same of the child table."""
        return self._tables[WATCH_CHILD].keys()

    @property
    def data_paths(self) -> dict[bytes, dict[Hashable, int]]:
        """A copy of the data table, for the words that print watches."""
        found: dict[bytes, dict[Hashable, int]] = {}
        for connection, (data, _) in self._of_connection.items():
            for path, bits in data.items():
                found.setdefault(path, {})[connection] = bits
        return found

    def bits_of(self, connection: Hashable, table: int, path: bytes) -> int:
        """Which watches the connection has on exactly this path."""
        mine = self._of_connection.get(connection)
        return 0 if mine is None else mine[table].get(path, 0)

    def add(self, connection: Hashable, table: int, path: bytes, bits: int = STANDARD) -> None:
        """Registers a watch; the same one twice is one."""
        mine = self._of_connection.get(connection)
        if mine is None:
            mine = self._of_connection[connection] = ({}, {})
        watched = mine[table]
        before = watched.get(path, 0)
        if bits & RECURSIVE & ~before:
            self.recursive_count += 1
        if before:
            watched[path] = before | bits
            return
        added = self._added_bytes.get(connection, 0) + len(path) + WATCH_BYTES
        self._added_bytes[connection] = added
        if added > _MEASURED_AT_BYTES:
            self._measure(connection)
        paths = self._tables[table]
        watchers = paths.get(path)
        if watchers is None:
            paths[path] = connection
        elif isinstance(watchers, dict):
            path = next(iter(watchers.values()))
            watchers[connection] = path
        else:
            paths[path] = {watchers: path, connection: path}
        watched[path] = bits

    def _measure(self, connection: Hashable) -> None:
        """What was added and is still there; what was spent is not accounted for one by one."""
        sizes = (len(path) + WATCH_BYTES for watched in self._of_connection[connection] for path in watched)
        self._added_bytes[connection] = total = sum(sizes)
        if total > WATCH_BYTES_MAX:
            self.overfull = connection

    def remove(self, connection: Hashable, table: int, path: bytes, bits: int) -> bool:
        """Takes these watches back; False where the connection had none of them."""
        before = self.bits_of(connection, table, path)
        if not before & bits:
            return False
        mine = self._of_connection[connection]
        if before & bits & RECURSIVE:
            self.recursive_count -= 1
        if before & ~bits:
            mine[table][path] = before & ~bits
            return True
        del mine[table][path]
        self._forget(connection, table, path)
        if not mine[WATCH_DATA] and not mine[WATCH_CHILD]:
            del self._of_connection[connection]
        return True

    def remove_connection(self, connection: Hashable) -> None:
        """Forgets everything of a connection that has ended."""
        self._added_bytes.pop(connection, None)
        for table, watched in enumerate(self._of_connection.pop(connection, ())):
            for path, bits in watched.items():
                if bits & RECURSIVE:
                    self.recursive_count -= 1
                self._forget(connection, table, path)

    def fire(
        self,
        events: Iterable[TreeEvent],
        zxid: int,
        may_know: Callable[[Hashable, int], bool] | None = None,
    ) -> list[Told]:
        """Turns the changes of one request into frames for connections, in order, spending standard watches.

        Args:
            may_know: asked, with the connection and an ACL's number, for changes whose ACL is not open; None
                lets everybody know. A standard watch that may not know is spent all the same (spec 9.3).
        """
        told: list[Told] = []
        for kind, path, acl in events:
            if kind == opcodes.NODE_CHILDREN_CHANGED:
                watchers = self._take(WATCH_CHILD, path)
            else:
                watchers = self._take(WATCH_DATA, path)
                if self.recursive_count:
                    watchers = self._with_recursive(watchers, path)
                if kind == opcodes.NODE_DELETED:
                    # A connection that watches both tables hears of a deletion once.
                    watchers = list(dict.fromkeys([*watchers, *self._take(WATCH_CHILD, path)]))
            if not watchers:
                continue
            frame = encode_event(kind, path, zxid)
            if acl and may_know is not None:
                watchers = [connection for connection in watchers if may_know(connection, acl)]
            told += [(connection, frame) for connection in watchers]
        return told

    def _take(self, table: int, path: bytes) -> list[Hashable]:
        """The connections that watch exactly this path; their standard bits are spent."""
        watchers = self._tables[table].get(path)
        if watchers is None:
            return []
        of_path = watchers if isinstance(watchers, dict) else {watchers: path}
        connections = list(of_path)
        staying: dict[Hashable, bytes] = {}
        of_connection = self._of_connection
        for connection in connections:
            mine = of_connection[connection]
            watched = mine[table]
            left = watched[path] & ~STANDARD
            if left:
                watched[path] = left
                staying[connection] = of_path[connection]
                continue
            del watched[path]
            if not watched and not mine[1 - table]:
                del of_connection[connection]
        if not staying:
            del self._tables[table][path]
        elif len(staying) < len(connections):
            self._tables[table][path] = staying
        return connections

    def _forget(self, connection: Hashable, table: int, path: bytes) -> None:
        """The connection watches this path no longer."""
        paths = self._tables[table]
        watchers = paths[path]
        if isinstance(watchers, dict):
            del watchers[connection]
            if watchers:
                return
        del paths[path]

    def _with_recursive(self, watchers: list[Hashable], path: bytes) -> list[Hashable]:
        """Adds those with a recursive watch on an ancestor."""
        found = dict.fromkeys(watchers)
        table = self._tables[WATCH_DATA]
        while path not in (ROOT, b""):
            path = path.rpartition(b"/")[0] or ROOT
            above = table.get(path)
            if above is None:
                continue
            for connection in above if isinstance(above, dict) else (above,):
                if self._of_connection[connection][WATCH_DATA][path] & RECURSIVE:
                    found[connection] = None
        return list(found)
