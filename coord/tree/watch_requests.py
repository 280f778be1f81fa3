"""Requests about the watches of the connection they come on: setWatches, setWatches2, addWatch, checkWatches,
removeWatches (spec 9.5, 9.6). None of them looks at ACLs or at whether a path is legal.
"""

import struct
from collections.abc import Hashable, Iterator
from typing import Final

from coord.protocol import opcodes
from coord.protocol.jute import DecodeError, Reader, encode_int
from coord.tree.path import ROOT
from coord.tree.read import WATCH_CHILD, WATCH_DATA
from coord.tree.tree import DataTree
from coord.tree.watches import PERSISTENT, RECURSIVE, STANDARD, WatchTable, encode_event

WATCH_OPS: Final = frozenset(
    {
        opcodes.SET_WATCHES,
        opcodes.SET_WATCHES2,
        opcodes.ADD_WATCH,
        opcodes.CHECK_WATCHES,
        opcodes.REMOVE_WATCHES,
    }
)

_ALL: Final = STANDARD | PERSISTENT | RECURSIVE
_BOTH: Final = (WATCH_DATA, WATCH_CHILD)
#: What each type of removeWatches means: tables and bits.
_REMOVED: Final = {
    opcodes.WATCHER_CHILDREN: ((WATCH_CHILD,), STANDARD),
    opcodes.WATCHER_DATA: ((WATCH_DATA,), STANDARD),
    opcodes.WATCHER_ANY: (_BOTH, _ALL),
    opcodes.WATCHER_PERSISTENT: (_BOTH, PERSISTENT),
    opcodes.WATCHER_RECURSIVE: ((WATCH_DATA,), RECURSIVE),
}
#: checkWatches looks for a persistent watch in the data table only.
_CHECKED: Final = _REMOVED | {opcodes.WATCHER_PERSISTENT: ((WATCH_DATA,), PERSISTENT)}


def answer_watch_request(
    table: WatchTable, tree: DataTree, connection: Hashable, op: int, body: bytes
) -> tuple[int, bytes, list[bytes]]:
    """Error code, reply body, and the frames of events that go before the reply."""
    try:
        match op:
            case opcodes.SET_WATCHES:
                err, events = set_watches(table, tree, connection, body)
                return err, b"", events
            case opcodes.SET_WATCHES2:
                err, events = set_watches(table, tree, connection, body, with_persistent=True)
                return err, b"", events
            case opcodes.ADD_WATCH:
                return 0, _add_watch(table, connection, body), []
            case opcodes.CHECK_WATCHES:
                return _check_watches(table, connection, body), b"", []
            case _:
                return _remove_watches(table, connection, body), b"", []
    except (struct.error, DecodeError):
        return opcodes.MARSHALLING_ERROR, b"", []


def _add_watch(table: WatchTable, connection: Hashable, body: bytes) -> bytes:
    reader = Reader(body)
    path = reader.read_string()
    mode = reader.read_int()
    if path is None:
        raise DecodeError("null path")
    if mode == opcodes.ADD_WATCH_PERSISTENT:
        table.add(connection, WATCH_DATA, path, PERSISTENT)
        table.add(connection, WATCH_CHILD, path, PERSISTENT)
    elif mode == opcodes.ADD_WATCH_PERSISTENT_RECURSIVE:
        table.add(connection, WATCH_DATA, path, RECURSIVE)
    else:
        raise DecodeError(f"expected a mode of 0 or 1, got {mode}")
    return encode_int(0)


def _check_watches(table: WatchTable, connection: Hashable, body: bytes) -> int:
    path, (tables, bits) = _decode_watcher(body, _CHECKED)
    found = any(table.bits_of(connection, number, path) & bits for number in tables)
    return 0 if found else opcodes.NO_WATCHER


def _remove_watches(table: WatchTable, connection: Hashable, body: bytes) -> int:
    path, (tables, bits) = _decode_watcher(body, _REMOVED)
    removed = [table.remove(connection, number, path, bits) for number in tables]
    return 0 if any(removed) else opcodes.NO_WATCHER


def _decode_watcher(
    body: bytes, meanings: dict[int, tuple[tuple[int, ...], int]]
) -> tuple[bytes, tuple[tuple[int, ...], int]]:
    """The path, and what the type means. A null path is one that nobody watches (as 3.9.5 has it)."""
    reader = Reader(body)
    path = reader.read_string()
    kind = reader.read_int()
    meaning = meanings.get(kind)
    if meaning is None:
        raise DecodeError(f"expected a watcher type from 1 to 5, got {kind}")
    return path or b"", ((), 0) if path is None else meaning


def set_watches(
    table: WatchTable, tree: DataTree, connection: Hashable, body: bytes, *, with_persistent: bool = False
) -> tuple[int, list[bytes]]:
    """Spec 9.6: registers what has not changed since, returns frames for what has, and an error code.

    What stands before a null list or path is done all the same, as 3.9.5 does it.

    Args:
        with_persistent: the body is a SetWatches2, with two more lists.

    Raises:
        DecodeError: the body is no such record; nothing was registered.
    """
    reader = Reader(body)
    seen = reader.read_long()
    data, exist, child = (reader.read_strings() for _ in range(3))
    persistent, recursive = (reader.read_strings() if with_persistent else [] for _ in range(2))
    frames: list[bytes] = []
    find = tree.nodes.get
    try:
        for path in _named(data):
            node = find(path or ROOT)
            if node is None:
                frames.append(encode_event(opcodes.NODE_DELETED, path, -1))
            elif node.mzxid > seen:
                frames.append(encode_event(opcodes.NODE_DATA_CHANGED, path, -1))
            else:
                table.add(connection, WATCH_DATA, path)
        for path in _named(exist):
            if find(path or ROOT) is not None:
                frames.append(encode_event(opcodes.NODE_CREATED, path, -1))
            else:
                table.add(connection, WATCH_DATA, path)
        for path in _named(child):
            node = find(path or ROOT)
            if node is None:
                frames.append(encode_event(opcodes.NODE_DELETED, path, -1))
            elif node.pzxid > seen:
                frames.append(encode_event(opcodes.NODE_CHILDREN_CHANGED, path, -1))
            else:
                table.add(connection, WATCH_CHILD, path)
        for path in _named(persistent):
            table.add(connection, WATCH_DATA, path, PERSISTENT)
            table.add(connection, WATCH_CHILD, path, PERSISTENT)
        for path in _named(recursive):
            table.add(connection, WATCH_DATA, path, RECURSIVE)
    except DecodeError:
        return opcodes.MARSHALLING_ERROR, frames
    return 0, frames


def _named(paths: list[bytes | None] | None) -> Iterator[bytes]:
    if paths is None:
        raise DecodeError("null list in setWatches")
    for path in paths:
        if path is None:
            raise DecodeError("null path in setWatches")
        yield path
