"""How checkpoints and snapshots keep a tree: each node as bytes of its own, and one record of everything
else.

    node  = u32 path bytes | path | i32 data bytes (-1: null) | data | i32 ACL number | i32 create counter
            | i64 raw owner (spec 8.3; 0 for plain nodes and ephemerals) | 68-byte Stat      all big-endian
    facts = CBOR map {zxid, feature_level, next_number, next_acl, digest, nodes,
            sessions: [[id, timeout ms, password]], acls: [[number, [[perms, scheme, id]]]]}

The key of a node is its number, as 8 bytes big-endian.
"""

import struct
from dataclasses import dataclass
from typing import Any

import cbor2

from coord.protocol.jute import DecodeError, Reader, encode_buffer
from coord.protocol.records import PASSWORD_BYTES, STAT_BYTES, Acl
from coord.tree.node import Node, make_node

_NODE = struct.Struct(">iiq")


@dataclass(frozen=True, slots=True)
class Facts:
    """The state beside the nodes; `digest` is that of nodes, sessions and ACLs."""

    zxid: int
    feature_level: int
    next_number: int
    next_acl: int
    digest: int
    node_count: int
    sessions: list[tuple[int, int, bytes]]
    acls: list[tuple[int, tuple[Acl, ...]]]


def encode_node(path: bytes, node: Node) -> bytes:
    """A node as a checkpoint keeps it."""
    return b"".join(
        (encode_buffer(path), node.data, _NODE.pack(node.acl, node.created, node.kind), node.stat)
    )


def decode_node(number: int, value: bytes) -> tuple[bytes, Node]:
    """(path, node) of what `encode_node` wrote.

    Raises:
        DecodeError: the bytes are no node.
    """
    reader = Reader(value)
    path = reader.read_buffer()
    start = reader.offset
    reader.read_buffer()
    end = reader.offset
    if path is None or reader.remaining != _NODE.size + STAT_BYTES:
        raise DecodeError(f"expected a node of {end + _NODE.size + STAT_BYTES} bytes, got {len(value)}")
    acl, created, kind = _NODE.unpack_from(value, end)
    return path, make_node(number, value[start:end], value[end + _NODE.size :], acl, created, kind)


def encode_facts(facts: Facts) -> bytes:
    """Everything beside the nodes, as one record."""
    encoded: bytes = cbor2.dumps(
        {
            "zxid": facts.zxid,
            "feature_level": facts.feature_level,
            "next_number": facts.next_number,
            "next_acl": facts.next_acl,
            "digest": facts.digest,
            "nodes": facts.node_count,
            "sessions": facts.sessions,
            "acls": [[number, [list(entry) for entry in acl]] for number, acl in facts.acls],
        }
    )
    return encoded


def decode_facts(data: bytes) -> Facts:
    """Reads what `encode_facts` wrote.

    Raises:
        DecodeError: bytes that are no facts, or fields of another kind.
    """
    try:
        fields = cbor2.loads(data)
        return Facts(
            _integer(fields["zxid"]),
            _integer(fields["feature_level"]),
            _integer(fields["next_number"]),
            _integer(fields["next_acl"]),
            _integer(fields["digest"]),
            _integer(fields["nodes"]),
            [_session(item) for item in fields["sessions"]],
            [(_integer(number), tuple(_acl(entry) for entry in acl)) for number, acl in fields["acls"]],
        )
    except (cbor2.CBORDecodeError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise DecodeError(f"expected the facts of a tree in CBOR: {error!r}") from error


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"expected an integer, got {value!r}")
    return value


def _session(item: Any) -> tuple[int, int, bytes]:
    session_id, timeout_ms, password = item
    if type(password) is not bytes or len(password) != PASSWORD_BYTES:
        raise TypeError(f"expected a password of {PASSWORD_BYTES} bytes, got {password!r}")
    return _integer(session_id), _integer(timeout_ms), password


def _acl(entry: Any) -> Acl:
    perms, scheme, identity = entry
    if type(scheme) is not str or type(identity) is not str:
        raise TypeError(f"expected an ACL entry, got {entry!r}")
    return Acl(_integer(perms), scheme, identity)
