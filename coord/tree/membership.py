"""`/zookeeper/config`: the ensemble's configuration in the tree (specification 19.3).

What a reconfiguration leads to was decided by the leader; here its outcome is written down, the same on every
replica.
"""

import struct

from coord.protocol.jute import DecodeError
from coord.protocol.opcodes import NODE_DATA_CHANGED
from coord.protocol.records import STAT
from coord.tree.context import Context
from coord.tree.path import CONFIG
from coord.tree.tree import DataTree

_VERSION = struct.Struct(">q")
_LENGTH = struct.Struct(">i")
DATA_VERSION = -1
"""Of the node in an ensemble, always."""


def encode_change(version: int, text: str) -> bytes:
    """The body of a change: the configuration's version and its whole canonical text."""
    return _VERSION.pack(version) + text.encode()


def decode_change(body: bytes) -> tuple[int, str]:
    """Raises: DecodeError, for bytes that are no change."""
    if len(body) < _VERSION.size:
        raise DecodeError(f"expected a change of at least {_VERSION.size} bytes, got {len(body)}")
    try:
        return _VERSION.unpack_from(body)[0], body[_VERSION.size :].decode()
    except UnicodeDecodeError as error:
        raise DecodeError(f"expected a configuration's text: {error}") from error


def change_membership(tree: DataTree, context: Context, body: bytes) -> bytes:
    """19.3: mzxid is the version, the other zxids and versions stay; answers as getData does."""
    version, text = decode_change(body)
    node = tree.nodes[CONFIG]
    data = text.encode()
    tree.touch(CONFIG, node)
    tree.data_bytes += len(data) + _LENGTH.size - len(node.data)
    czxid, _, ctime, _, _, cversion, aversion, owner, _, children, pzxid = STAT.unpack(node.stat)
    node.stat = STAT.pack(
        czxid,
        version,
        ctime,
        context.wall_ms,
        DATA_VERSION,
        cversion,
        aversion,
        owner,
        len(data),
        children,
        pzxid,
    )
    node.data = _LENGTH.pack(len(data)) + data
    context.events.append((NODE_DATA_CHANGED, CONFIG, node.acl))
    return node.data + node.stat


def encode_level(level: int) -> bytes:
    return _LENGTH.pack(level)


def raise_level(tree: DataTree, context: Context, body: bytes) -> bytes:
    """From the next request on the tree is at this level, never at a lower one; answers as a
    reconfiguration does.
    """
    (level,) = _LENGTH.unpack(body)
    tree.feature_level = max(tree.feature_level, level)
    node = tree.nodes[CONFIG]
    return node.data + node.stat


def configuration_of(tree: DataTree) -> tuple[int, str] | None:
    """(version, text) of the ensemble's configuration; None before the first."""
    node = tree.nodes[CONFIG]
    text = node.data[_LENGTH.size :].decode()
    return (node.mzxid, text) if text else None
