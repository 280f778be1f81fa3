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
from coord.tree.create import OPEN_ACL_BYTES, OPEN_ACL_SIZE
from coord.tree.tree import DataTree

_ERROR = struct.Struct(">i?ii")
_HEADER = struct.Struct(">i?i")
_HEADER_BYTES = _HEADER.size
_TTL_BYTES = 8
_pack_header, _unpack_header = _HEADER.pack, _HEADER.unpack_from
_unpack_int = struct.Struct(">i").unpack_from
#: Creates that answer with a Stat have one result type (spec 10.2).
_RESULT_TYPES = {opcodes.CREATE_CONTAINER: opcodes.CREATE2, opcodes.CREATE_TTL: opcodes.CREATE2}

Operation = Callable[[DataTree, Context, bytes], bytes]
WriteData = Callable[[DataTree, Context, bytes, bytes, int], bytes]
#: A record, or of setData its path, data field and version: it is what most multis are made of.
Item = bytes | tuple[bytes, bytes, int]


def execute_multi(
    tree: DataTree,
    context: Context,
    body: bytes,
    operations: Mapping[int, Operation],
    write_data: WriteData,
) -> bytes:
    """The results of all operations, or an error for each.

    Args:
        operations: what executes the record of each operation but setData.
        write_data: what executes a setData that has been taken apart.

    Raises:
        DecodeError: the request as a whole is none; nothing was changed.
    """
    items = decode_multi(body)
    parts: list[bytes] = []
    events = context.events
    kept = len(events)
    tree.begin()
    for position, (op, item) in enumerate(items):
        try:
            if isinstance(item, tuple):
                result = write_data(tree, context, *item)
            else:
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


def decode_multi(body: bytes) -> list[tuple[int, Item]]:
    """The operations with their records.

    Raises:
        DecodeError: an operation that a multi may not hold, or a record that ends early.
    """
    try:
        return _decode(body)
    except struct.error as error:
        raise DecodeError(f"expected a whole multi, got {len(body)} bytes: {error}") from error


def _decode(body: bytes) -> list[tuple[int, Item]]:
    operations: list[tuple[int, Item]] = []
    at = 0
    while True:
        op, done, _ = _unpack_header(body, at)
        if done:
            return operations
        at += _HEADER_BYTES
        if op == opcodes.SET_DATA:
            size: int = _unpack_int(body, at)[0]
            data_at = at + 4 + size
            data_size: int = _unpack_int(body, data_at)[0]
            end = data_at + 4 + data_size if data_size > 0 else data_at + 4
            if size < 0 or data_size < -1:
                raise DecodeError("null path, or a negative length of data")
            version: int = _unpack_int(body, end)[0]
            operations.append((op, (body[at + 4 : data_at], body[data_at:end], version)))
            at = end + 4
            continue
        skip = _SKIPS.get(op)
        if skip is None:
            raise DecodeError(f"operation {op} cannot be part of a multi")
        op, end = skip(body, at, op)
        operations.append((op, body[at:end]))
        at = end


# Each moves past a record that begins at `at`: the operation it stands for, and where it ends. Taken apart by
# hand, for a multi may have thousands of them (a third of the time that `Reader` takes).


def _skip_create(body: bytes, at: int, op: int) -> tuple[int, int]:
    """A CreateRequest; its flags must be of a mode without TTL. Flag 4 makes a container here, whatever the
    operation (spec 10.2).
    """
    flags, end, is_null_acl = _skip_create_fields(body, at)
    if is_null_acl:
        raise DecodeError("null ACL")
    if not 0 <= flags <= opcodes.FLAG_CONTAINER:
        raise DecodeError(f"unknown create flag {flags}")
    return opcodes.CREATE_CONTAINER if flags == opcodes.FLAG_CONTAINER else op, end


def _skip_create_ttl(body: bytes, at: int, op: int) -> tuple[int, int]:
    """A CreateTTLRequest. Flags of a mode without TTL make it the create of that mode, and its TTL means
    nothing; unknown ones fail in their place, and so does a null ACL (all as 3.9.5 does).
    """
    flags, end, _ = _skip_create_fields(body, at)
    end += _TTL_BYTES
    _check_end(body, end)
    if flags == opcodes.FLAG_CONTAINER:
        return opcodes.CREATE_CONTAINER, end
    if 0 <= flags < opcodes.FLAG_CONTAINER:
        return opcodes.CREATE, end
    return op, end


def _skip_create_fields(body: bytes, at: int) -> tuple[int, int, bool]:
    """The flags, where they end, and whether the ACL is null."""
    end = _skip_data(body, _skip_path(body, at))
    is_null_acl = False
    if body[end : end + OPEN_ACL_SIZE] == OPEN_ACL_BYTES:
        end += OPEN_ACL_SIZE
    else:
        reader = Reader(body, end)
        is_null_acl = read_acl(reader) is None
        end = reader.offset
    return _unpack_int(body, end)[0], end + 4, is_null_acl


def _skip_path_version(body: bytes, at: int, op: int) -> tuple[int, int]:
    end = _skip_path(body, at) + 4
    _check_end(body, end)
    return op, end


def _skip_path(body: bytes, at: int) -> int:
    size: int = _unpack_int(body, at)[0]
    if size < 0:
        raise DecodeError("null path")
    return at + 4 + size


def _skip_data(body: bytes, at: int) -> int:
    size: int = _unpack_int(body, at)[0]
    if size < -1:
        raise DecodeError(f"expected a length of at least -1, got {size}")
    return at + 4 + size if size > 0 else at + 4


def _check_end(body: bytes, end: int) -> None:
    if end > len(body):
        raise DecodeError(f"expected a multi of at least {end} bytes, got {len(body)}")


def _failed(count: int, failed: int, code: int) -> bytes:
    """Every operation gets an error: 0 before the failed one, RuntimeInconsistency behind it (spec 10.3)."""
    parts: list[bytes] = []
    for position in range(count):
        err = 0 if position < failed else code if position == failed else opcodes.RUNTIME_INCONSISTENCY
        parts.append(_ERROR.pack(-1, False, err, err))
    parts.append(MULTI_END)
    return b"".join(parts)


_SKIPS: dict[int, Callable[[bytes, int, int], tuple[int, int]]] = {
    opcodes.CREATE: _skip_create,
    opcodes.CREATE2: _skip_create,
    opcodes.CREATE_CONTAINER: _skip_create,
    opcodes.CREATE_TTL: _skip_create_ttl,
    opcodes.DELETE: _skip_path_version,
    opcodes.CHECK: _skip_path_version,
}
