"""Requests that change nothing, answered from the tree as it is.

    err, body, watch = read(tree, op, request_body, identities, session_id)

`watch` is the (table, path) on which the request asks to be told, or None; registering it at once, before
anything else is executed, is what keeps a change from being missed.

A server may answer getData itself, as it is the hottest of all: for a node whose `acl` is 0 the reply's
body is `node.data + node.stat`.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Final

from coord.protocol import opcodes
from coord.protocol.jute import DecodeError, Reader, encode_int, encode_strings, encode_text
from coord.protocol.records import MULTI_END, Identity, encode_acl, read_multi_header
from coord.tree.acl import is_allowed, mask_acl
from coord.tree.multi import decode_multi
from coord.tree.node import Node
from coord.tree.path import ROOT
from coord.tree.tree import OPEN_ACL_ID, DataTree

WATCH_DATA: Final = 0
WATCH_CHILD: Final = 1

WatchRequest = tuple[int, bytes]
Answer = tuple[int, bytes, WatchRequest | None]

#: What Java's trim() drops: all up to the blank.
_TRIMMED = bytes(range(0x21))
_MULTI_HEADER = struct.Struct(">i?i")
#: One frame may name a large node fifty thousand times.
_MULTI_READ_BYTES_MAX: Final = 32 << 20


def read(
    tree: DataTree,
    op: int,
    body: bytes,
    identities: Sequence[Identity],
    session_id: int,
    *,
    skip_acl: bool = False,
) -> Answer:
    """Answers one read: error code, reply body (empty on errors but one), and the watch it asks for."""
    operation = _OPERATIONS.get(op)
    if operation is None:
        return opcodes.UNIMPLEMENTED, b"", None
    try:
        return operation(tree, body, None if skip_acl else identities, session_id)
    except (struct.error, DecodeError):
        return opcodes.MARSHALLING_ERROR, b"", None


Identities = Sequence[Identity] | None


def _may_read(tree: DataTree, node: Node, identities: Identities, want: int = opcodes.PERM_READ) -> bool:
    return (
        node.acl == OPEN_ACL_ID or identities is None or is_allowed(tree.acl_of(node.acl), want, identities)
    )


def _path_and_watch(body: bytes) -> tuple[bytes, bool]:
    reader = Reader(body)
    path = reader.read_string()
    watch = reader.read_bool()
    if path is None:
        raise DecodeError("null path")
    return path, watch


def _find(tree: DataTree, path: bytes) -> Node | None:
    return tree.nodes.get(path or ROOT)


def _exists(tree: DataTree, body: bytes, identities: Identities, session_id: int) -> Answer:
    path, watch = _path_and_watch(body)
    if b"\0" in path:
        return opcodes.BAD_ARGUMENTS, b"", None
    wanted = (WATCH_DATA, path) if watch else None
    node = _find(tree, path)
    if node is None:
        return opcodes.NO_NODE, b"", wanted
    if not _may_read(tree, node, identities):
        return opcodes.NO_AUTH, b"", None
    return 0, node.stat, wanted


def _get_data(tree: DataTree, body: bytes, identities: Identities, session_id: int) -> Answer:
    path, watch = _path_and_watch(body)
    node = _find(tree, path)
    if node is None:
        return opcodes.NO_NODE, b"", None
    if not _may_read(tree, node, identities):
        return opcodes.NO_AUTH, b"", None
    return 0, node.data + node.stat, (WATCH_DATA, path) if watch else None


def _get_children(tree: DataTree, body: bytes, identities: Identities, session_id: int) -> Answer:
    path, watch = _path_and_watch(body)
    node = _find(tree, path)
    if node is None:
        return opcodes.NO_NODE, b"", None
    if not _may_read(tree, node, identities):
        return opcodes.NO_AUTH, b"", None
    return 0, encode_strings(_names(path, node)), (WATCH_CHILD, path) if watch else None


def _names(path: bytes, node: Node) -> list[bytes]:
    """Names of the children, in order of creation."""
    start = len(path) + 1 if len(path) > 1 else 1
    return [child[start:] for child in node.children or ()]


def _get_children2(tree: DataTree, body: bytes, identities: Identities, session_id: int) -> Answer:
    err, names, watch = _get_children(tree, body, identities, session_id)
    if err:
        return err, b"", None
    node = _find(tree, _path_and_watch(body)[0])
    assert node is not None
    return 0, names + node.stat, watch


def _get_acl(tree: DataTree, body: bytes, identities: Identities, session_id: int) -> Answer:
    path = Reader(body).read_string()
    if path is None:
        raise DecodeError("null path")
    node = _find(tree, path)
    if node is None:
        return opcodes.NO_NODE, b"", None
    if not _may_read(tree, node, identities, opcodes.PERM_READ | opcodes.PERM_ADMIN):
        return opcodes.NO_AUTH, b"", None
    acl = tree.acl_of(node.acl)
    shown = acl if identities is None else mask_acl(acl, identities)
    return 0, encode_acl(shown) + node.stat, None


def _get_all_children_number(tree: DataTree, body: bytes, identities: Identities, session_id: int) -> Answer:
    path = Reader(body).read_string()
    if path is None:
        raise DecodeError("null path")
    node = _find(tree, path)
    if node is None:
        return opcodes.NO_NODE, b"", None
    if not _may_read(tree, node, identities):
        return opcodes.NO_AUTH, b"", None
    # Under its alias "" the root counts itself, too.
    count = _count_descendants(tree, path, node) if path else len(tree.nodes)
    return 0, encode_int(count), None


def _count_descendants(tree: DataTree, path: bytes, node: Node) -> int:
    if path == ROOT:
        return len(tree.nodes) - 1
    count = 0
    waiting = [node]
    while waiting:
        children = waiting.pop().children or {}
        count += len(children)
        waiting += [child for child in map(tree.nodes.__getitem__, children) if child.children]
    return count


def _get_ephemerals(tree: DataTree, body: bytes, identities: Identities, session_id: int) -> Answer:
    prefix = Reader(body).read_string() or b""
    owned = [path for _, path in sorted(tree.ephemerals.get(session_id, {}).items())]
    if prefix.strip() and prefix.strip(_TRIMMED) != ROOT:
        owned = [path for path in owned if path.startswith(prefix)]
    return 0, encode_strings(owned), None


def _sync(tree: DataTree, body: bytes, identities: Identities, session_id: int) -> Answer:
    """The reply echoes the path, a null one too; the barrier is the server's business."""
    return 0, encode_text(Reader(body).read_text()), None


def _multi_read(tree: DataTree, body: bytes, identities: Identities, session_id: int) -> Answer:
    """Spec 10.5; watches asked for inside are ignored. Writes in the place of reads are answered as ZooKeeper
    answers them (spec 5.1): with an error, and with the end of the results.
    """
    reader = Reader(body)
    parts: list[bytes] = []
    size = 0
    while True:
        op, done, _ = read_multi_header(reader)
        if done:
            break
        if op not in (opcodes.GET_DATA, opcodes.GET_CHILDREN):
            if not parts and decode_multi(body):
                return opcodes.MARSHALLING_ERROR, MULTI_END, None
            raise DecodeError(f"operation {op} cannot be part of a multiRead")
        start = reader.offset
        reader.read_string()
        reader.read_bool()
        err, result, _ = _OPERATIONS[op](tree, body[start : reader.offset], identities, session_id)
        if err:
            parts.append(_MULTI_HEADER.pack(-1, False, err) + encode_int(err))
        else:
            parts.append(_MULTI_HEADER.pack(op, False, 0) + result)
            size += len(result)
            if size > _MULTI_READ_BYTES_MAX:
                raise DecodeError(
                    f"expected to answer a multiRead with at most {_MULTI_READ_BYTES_MAX} bytes"
                )
    parts.append(MULTI_END)
    return 0, b"".join(parts), None


_OPERATIONS: dict[int, Callable[[DataTree, bytes, Identities, int], Answer]] = {
    opcodes.EXISTS: _exists,
    opcodes.GET_DATA: _get_data,
    opcodes.GET_CHILDREN: _get_children,
    opcodes.GET_CHILDREN2: _get_children2,
    opcodes.GET_ACL: _get_acl,
    opcodes.GET_ALL_CHILDREN_NUMBER: _get_all_children_number,
    opcodes.GET_EPHEMERALS: _get_ephemerals,
    opcodes.SYNC: _sync,
    opcodes.MULTI_READ: _multi_read,
}
