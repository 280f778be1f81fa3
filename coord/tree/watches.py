"""Who is told of which change: the watches of one server's connections (spec 9).

Per connection, path and table there is a set of bits, so that kinds of watches do not disturb each other: a
standard one is spent when it fires, the persistent ones stay. A path or connection without bits is forgotten.
Connections are whatever hashable token the server uses.
"""

import struct
from collections.abc import Callable, Hashable, Iterable
from typing import Final

from coord.protocol import opcodes
from coord.protocol.jute import DecodeError, Reader
from coord.tree.context import TreeEvent
from coord.tree.path import ROOT
from coord.tree.read import WATCH_CHILD, WATCH_DATA
from coord.tree.tree import DataTree

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


class WatchTable:
    """All watches of one server."""

    def __init__(self) -> None:
        self._tables: tuple[dict[bytes, dict[Hashable, int]], dict[bytes, dict[Hashable, int]]] = ({}, {})
        self._of_connection: dict[Hashable, set[tuple[int, bytes]]] = {}
        self._recursive = 0

    @property
    def count(self) -> int:
        """Watches over all connections, a path in both tables counting twice."""
        return sum(map(len, self._of_connection.values()))

    @property
    def connection_count(self) -> int:
        return len(self._of_connection)

    @property
    def data_paths(self) -> dict[bytes, dict[Hashable, int]]:
        """The data table, for the words that print watches."""
        return self._tables[WATCH_DATA]

    def add(self, connection: Hashable, table: int, path: bytes, bits: int = STANDARD) -> None:
        """Registers a watch; the same one twice is one."""
        watchers = self._tables[table].setdefault(path, {})
        before = watchers.get(connection, 0)
        watchers[connection] = before | bits
        if bits & RECURSIVE and not before & RECURSIVE:
            self._recursive += 1
        self._of_connection.setdefault(connection, set()).add((table, path))

    def remove_connection(self, connection: Hashable) -> None:
        """Forgets everything of a connection that has ended."""
        for table, path in self._of_connection.pop(connection, ()):
            watchers = self._tables[table][path]
            if watchers.pop(connection) & RECURSIVE:
                self._recursive -= 1
            if not watchers:
                del self._tables[table][path]

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
        data, child = self._tables
        for kind, path, acl in events:
            if kind == opcodes.NODE_CHILDREN_CHANGED:
                watchers = self._take(child, WATCH_CHILD, path)
            else:
                watchers = self._take(data, WATCH_DATA, path)
                if self._recursive:
                    watchers = self._with_recursive(watchers, path)
                if kind == opcodes.NODE_DELETED:
                    # A connection that watches both tables hears of a deletion once.
                    watchers = list(dict.fromkeys([*watchers, *self._take(child, WATCH_CHILD, path)]))
            if not watchers:
                continue
            frame = encode_event(kind, path, zxid)
            if acl and may_know is not None:
                watchers = [connection for connection in watchers if may_know(connection, acl)]
            told += [(connection, frame) for connection in watchers]
        return told

    def _take(self, table: dict[bytes, dict[Hashable, int]], number: int, path: bytes) -> list[Hashable]:
        """The connections that watch exactly this path; their standard bits are spent."""
        watchers = table.get(path)
        if watchers is None:
            return []
        connections = list(watchers)
        for connection in connections:
            left = watchers[connection] & ~STANDARD
            if left:
                watchers[connection] = left
                continue
            del watchers[connection]
            mine = self._of_connection[connection]
            mine.discard((number, path))
            if not mine:
                del self._of_connection[connection]
        if not watchers:
            del table[path]
        return connections

    def _with_recursive(self, watchers: list[Hashable], path: bytes) -> list[Hashable]:
        """Adds those with a recursive watch on an ancestor."""
        found = dict.fromkeys(watchers)
        table = self._tables[WATCH_DATA]
        while path not in (ROOT, b""):
            path = path.rpartition(b"/")[0] or ROOT
            for connection, bits in table.get(path, {}).items():
                if bits & RECURSIVE:
                    found[connection] = None
        return list(found)


def set_watches(table: WatchTable, tree: DataTree, connection: Hashable, body: bytes) -> list[bytes]:
    """Spec 9.6, opcode 101: registers what has not changed since, returns frames for what has.

    Raises:
        DecodeError: the body is no SetWatches record, or holds a null.
    """
    reader = Reader(body)
    seen = reader.read_long()
    lists: list[list[bytes]] = []
    for _ in range(3):
        paths = reader.read_strings()
        if paths is None or None in paths:
            raise DecodeError("null list or path in setWatches")
        lists.append([path for path in paths if path is not None])
    data, exist, child = lists
    frames: list[bytes] = []
    for path in data:
        node = tree.nodes.get(path)
        if node is None:
            frames.append(encode_event(opcodes.NODE_DELETED, path, -1))
        elif node.mzxid > seen:
            frames.append(encode_event(opcodes.NODE_DATA_CHANGED, path, -1))
        else:
            table.add(connection, WATCH_DATA, path)
    for path in exist:
        if path in tree.nodes:
            frames.append(encode_event(opcodes.NODE_CREATED, path, -1))
        else:
            table.add(connection, WATCH_DATA, path)
    for path in child:
        node = tree.nodes.get(path)
        if node is None:
            frames.append(encode_event(opcodes.NODE_DELETED, path, -1))
        elif node.pzxid > seen:
            frames.append(encode_event(opcodes.NODE_CHILDREN_CHANGED, path, -1))
        else:
            table.add(connection, WATCH_CHILD, path)
    return frames
