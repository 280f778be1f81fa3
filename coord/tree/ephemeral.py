"""Which requests make ephemeral nodes: before one of those is executed, its session must be known to all
replicas (spec 4.7).
"""

import struct
from typing import Final

from coord.protocol import opcodes
from coord.protocol.jute import DecodeError, Reader
from coord.tree.acl import read_acl

_EPHEMERAL_FLAGS: Final = frozenset(
    {opcodes.FLAG_EPHEMERAL, opcodes.FLAG_EPHEMERAL | opcodes.FLAG_SEQUENTIAL}
)
_CREATES: Final = frozenset({opcodes.CREATE, opcodes.CREATE2, opcodes.CREATE_CONTAINER})


def makes_ephemeral(op: int, body: bytes) -> bool:
    """Whether a create, or a create in a multi, asks for an ephemeral node.

    False for a body that cannot be read to its end: its execution refuses it whatever session it is of.
    """
    try:
        reader = Reader(body)
        if op == opcodes.MULTI:
            return _is_in_multi(reader)
        return op in _CREATES and _read_flags(reader) in _EPHEMERAL_FLAGS
    except (DecodeError, struct.error):
        return False


def _is_in_multi(reader: Reader) -> bool:
    found = False
    while True:
        op, done, _ = reader.read_int(), reader.read_bool(), reader.read_int()
        if done:
            return found
        if op in _CREATES or op == opcodes.CREATE_TTL:
            found = _read_flags(reader) in _EPHEMERAL_FLAGS or found
            if op == opcodes.CREATE_TTL:
                reader.read_long()
            continue
        reader.read_buffer()
        if op == opcodes.SET_DATA:
            reader.read_buffer()
        reader.read_int()


def _read_flags(reader: Reader) -> int:
    reader.read_buffer()
    reader.read_buffer()
    read_acl(reader)
    return reader.read_int()
