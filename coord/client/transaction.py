"""Operations of a multi, as a client says them and reads their results (spec 10)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

from coord.errors import ProtocolError, error_of
from coord.protocol import opcodes
from coord.protocol.jute import Reader
from coord.protocol.records import (
    OPEN_ACL,
    Acl,
    Stat,
    encode_create,
    encode_multi,
    encode_path_version,
    encode_set_data,
    read_multi_header,
    read_stat,
)


@dataclass(frozen=True, slots=True)
class Create:
    """Creates a node; its result is the path."""

    path: str
    data: bytes | None = b""
    ephemeral: bool = False
    sequential: bool = False
    acl: tuple[Acl, ...] = OPEN_ACL


@dataclass(frozen=True, slots=True)
class SetData:
    """Replaces a node's data where `version` fits; its result is the Stat."""

    path: str
    data: bytes | None
    version: int = -1


@dataclass(frozen=True, slots=True)
class Delete:
    """Deletes a node where `version` fits."""

    path: str
    version: int = -1


@dataclass(frozen=True, slots=True)
class Check:
    """Fails the transaction unless the node exists and has this version."""

    path: str
    version: int = -1


Operation = Create | SetData | Delete | Check

ERROR_RESULT = -1


def encode_operations(operations: Sequence[Operation], absolute: Callable[[str], str]) -> bytes:
    """The body of the multi; `absolute` puts the chroot before a path."""
    items: list[tuple[int, bytes]] = []
    for operation in operations:
        path = absolute(operation.path)
        match operation:
            case Create():
                flags = (opcodes.FLAG_EPHEMERAL if operation.ephemeral else 0) | (
                    opcodes.FLAG_SEQUENTIAL if operation.sequential else 0
                )
                items.append((opcodes.CREATE, encode_create(path, operation.data, operation.acl, flags)))
            case SetData():
                items.append((opcodes.SET_DATA, encode_set_data(path, operation.data, operation.version)))
            case Delete():
                items.append((opcodes.DELETE, encode_path_version(path, operation.version)))
            case Check():
                items.append((opcodes.CHECK, encode_path_version(path, operation.version)))
            case _:
                assert_never(operation)
    return encode_multi(items)


def decode_results(
    operations: Sequence[Operation], reader: Reader, relative: Callable[[str], str]
) -> list[str | Stat | None]:
    """The results in order (spec 10.2).

    Raises:
        CoordError: of the operation that failed, with its index.
        ProtocolError: the reply is not one to these operations.
        DecodeError: it cannot be decoded.
    """
    results: list[str | Stat | None] = []
    refused = False
    for index, operation in enumerate(operations):
        op, done, _ = read_multi_header(reader)
        if done:
            raise ProtocolError(f"expected {len(operations)} results, got {index}")
        if op == ERROR_RESULT:
            # Of a failed transaction each operation has an error; only one names the reason (spec 10.3).
            err = reader.read_int()
            if err not in (opcodes.OK, opcodes.RUNTIME_INCONSISTENCY):
                raise error_of(err, path=operation.path, index=index)
            refused = True
        elif op == opcodes.CREATE:
            results.append(relative(reader.read_text() or ""))
        elif op == opcodes.SET_DATA:
            results.append(read_stat(reader))
        else:
            results.append(None)
    if refused or not read_multi_header(reader)[1]:
        raise ProtocolError(f"expected {len(operations)} results, got a failure without reason or more")
    return results
