"""Containers and TTL nodes that have had their time (spec 8.3): which may go, and how they go.

The leader looks for candidates and asks for each by a deleteContainer request; whether the node may really go
is decided where every replica decides it, when the request is executed. The body is our own: the client's
record, which is a path, and the time an unused container is given.
"""

import struct

from coord.protocol import opcodes
from coord.protocol.jute import DecodeError, Reader, encode_buffer, encode_long
from coord.tree.context import Context, RefusedError
from coord.tree.node import CONTAINER_OWNER, Node, ttl_ms_of
from coord.tree.tree import DataTree

_unpack_mtime = struct.Struct(">24xq").unpack_from


def encode_delete_container(path: bytes, never_used_ms: int) -> bytes:
    """The body of the leader's deleteContainer request."""
    return encode_buffer(path) + encode_long(never_used_ms)


def _decode_delete_container(body: bytes) -> tuple[bytes, int]:
    reader = Reader(body)
    path = reader.read_string()
    if path is None:
        raise DecodeError("null path")
    return path, reader.read_long()


def check_reapable(tree: DataTree, context: Context, body: bytes) -> tuple[bytes, Node]:
    """The node that a deleteContainer request may delete, as things are where it is executed.

    Clients have no business here (spec 6.5): the requests are the leader's, which has no session.
    """
    if context.session_id:
        raise RefusedError(opcodes.UNIMPLEMENTED)
    path, never_used_ms = _decode_delete_container(body)
    node = tree.nodes.get(path)
    if node is None:
        raise RefusedError(opcodes.NO_NODE)
    if node.children:
        raise RefusedError(opcodes.NOT_EMPTY)
    if not is_due(node, context.wall_ms, never_used_ms):
        raise RefusedError(opcodes.BAD_VERSION)
    return path, node


def is_due(node: Node, wall_ms: int, never_used_ms: int) -> bool:
    """Whether a node has had its time: a container that has lost its last child, or was not used for
    `never_used_ms` (0: however long), or a TTL node that nobody has written to for longer than it may live.
    """
    kind = node.kind
    if not kind or node.children:
        return False
    if kind == CONTAINER_OWNER:
        if node.created:
            return True
        limit_ms = never_used_ms
    else:
        limit_ms = ttl_ms_of(kind)
    mtime: int = _unpack_mtime(node.stat)[0]
    return limit_ms > 0 and wall_ms - mtime > limit_ms
