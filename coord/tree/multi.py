"""multi: several writes as one, all or nothing (spec 10). The operations run on the tree itself; a failure
takes them back.
"""

import struct
from collections.abc import Callable, Mapping

from coord.protocol import opcodes
from coord.protocol.jute import DecodeError, Reader
from coord.protocol.records import MULTI_END
from coord.tree.acl import read_acl
from coord.tree.context import Context, RefusedError
from coord.tree.tree import DataTree

_ERROR = struct.Struct(">i?ii")
_pack_header = struct.Struct(">i?i").pack
#: Creates that answer with a Stat have one result type (spec 10.2).
_RESULT_TYPES = {opcodes.CREATE_CONTAINER: opcodes.CREATE2, opcodes.CREATE_TTL: opcodes.CREATE2}

Operation = Callable[[DataTree, Context, bytes], bytes]


def execute_multi(
    tree: DataTree, context: Context, body: bytes, operations: Mapping[int, Operation]
) -> bytes:
    """The results of all operations, or an error for each.

    Raises:
        DecodeError, struct.error: the request as a whole is none; nothing was changed.
    """
    items = decode_multi(body)
    parts: list[bytes] = []
    events = context.events
    kept = len(events)
    tree.begin()
    for position, (op, item) in enumerate(items):
        try:
            result = operations[op](tree, context, item)
        except (RefusedError, DecodeError, struct.error) as failure:
            tree.rollback()
            del events[kept:]
            if not isinstance(failure, RefusedError):
                raise
            return _failed(len(items), position, failure.code)
        parts.append(_pack_header(_RESULT_TYPES.get(op, op), False, 0))
        parts.append(result)
    tree.commit()
    parts.append(MULTI_END)
    return b"".join(parts)


def decode_multi(body: bytes) -> list[tuple[int, bytes]]:
    """The operations with their records as bytes.

    Raises:
        DecodeError: an operation that a multi may not hold, or a record that ends early.
    """
    reader = Reader(body)
    operations: list[tuple[int, bytes]] = []
    while True:
        op = reader.read_int()
        done = reader.read_bool()
        reader.read_int()
        if done:
            return operations
        start = reader.offset
        skip = _SKIPS.get(op)
        if skip is None:
            raise DecodeError(f"operation {op} cannot be part of a multi")
        op = skip(reader, op)
        operations.append((op, body[start : reader.offset]))


def _skip_create(reader: Reader, op: int) -> int:
    """Moves past a CreateRequest; its flags must be of a mode without TTL. Flag 4 makes a container here,
    whatever the operation (spec 10.2).
    """
    flags = _skip_create_fields(reader, allow_null_acl=False)
    if not 0 <= flags <= opcodes.FLAG_CONTAINER:
        raise DecodeError(f"unknown create flag {flags}")
    return opcodes.CREATE_CONTAINER if flags == opcodes.FLAG_CONTAINER else op


def _skip_create_ttl(reader: Reader, op: int) -> int:
    """Moves past a CreateTTLRequest. Flags of a mode without TTL make it the create of that mode, and its
    TTL means nothing; unknown ones fail in their place, and so does a null ACL (all as 3.9.5 does).
    """
    flags = _skip_create_fields(reader, allow_null_acl=True)
    reader.read_long()
    if flags == opcodes.FLAG_CONTAINER:
        return opcodes.CREATE_CONTAINER
    if 0 <= flags < opcodes.FLAG_CONTAINER:
        return opcodes.CREATE
    return op


def _skip_create_fields(reader: Reader, *, allow_null_acl: bool) -> int:
    _skip_path(reader)
    reader.read_buffer()
    if read_acl(reader) is None and not allow_null_acl:
        raise DecodeError("null ACL")
    return reader.read_int()


def _skip_path_version(reader: Reader, op: int) -> int:
    _skip_path(reader)
    reader.read_int()
    return op


def _skip_set_data(reader: Reader, op: int) -> int:
    _skip_path(reader)
    reader.read_buffer()
    reader.read_int()
    return op


def _skip_path(reader: Reader) -> None:
    if reader.read_string() is None:
        raise DecodeError("null path")


def _failed(count: int, failed: int, code: int) -> bytes:
    """Every operation gets an error: 0 before the failed one, RuntimeInconsistency behind it (spec 10.3)."""
    parts: list[bytes] = []
    for position in range(count):
        err = 0 if position < failed else code if position == failed else opcodes.RUNTIME_INCONSISTENCY
        parts.append(_ERROR.pack(-1, False, err, err))
    parts.append(MULTI_END)
    return b"".join(parts)


_SKIPS: dict[int, Callable[[Reader, int], int]] = {
    opcodes.CREATE: _skip_create,
    opcodes.CREATE2: _skip_create,
    opcodes.CREATE_CONTAINER: _skip_create,
    opcodes.CREATE_TTL: _skip_create_ttl,
    opcodes.DELETE: _skip_path_version,
    opcodes.SET_DATA: _skip_set_data,
    opcodes.CHECK: _skip_path_version,
}
