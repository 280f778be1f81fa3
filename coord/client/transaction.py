"""Transactions: operations that are carried out together or not at all (spec 10).

transaction = zk.transaction()
job = transaction.create("/jobs/job-", b"...", sequential=True)
transaction.check("/leader", version=7)
await transaction.commit()
job.result                                    # the path
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar, assert_never

from coord.client.replies import read_names
from coord.errors import CoordError, NotTriedError, ProtocolError, RolledBackError, error_of
from coord.protocol import opcodes
from coord.protocol.jute import Reader
from coord.protocol.records import (
    OPEN_ACL,
    Acl,
    Stat,
    encode_create,
    encode_create_ttl,
    encode_multi,
    encode_path_version,
    encode_path_watch,
    encode_set_data,
    read_multi_header,
    read_stat,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Create:
    """Creates a node; its result is the path, with `with_stat` a `Created`.

    `container` and `ttl_ms` make nodes that the servers delete: once the last child is gone, and once it was
    not written for so long and has no children.
    """

    path: str
    data: bytes | None = b""
    ephemeral: bool = False
    sequential: bool = False
    acl: Sequence[Acl] = OPEN_ACL
    container: bool = False
    ttl_ms: int | None = None
    with_stat: bool = False


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


@dataclass(frozen=True, slots=True)
class GetData:
    """Reads a node's data and Stat."""

    path: str


@dataclass(frozen=True, slots=True)
class GetChildren:
    """Reads the names of a node's children, sorted."""

    path: str


class Created(NamedTuple):
    """A node as it was created; within transactions servers before 3.9 do not tell the Stat."""

    path: str
    stat: Stat | None


Operation = Create | SetData | Delete | Check
OperationResult = str | Created | Stat | None
Read = GetData | GetChildren
ReadResult = tuple[bytes | None, Stat] | list[str] | CoordError

ERROR_RESULT = -1


def encode_creation(operation: Create, path: str) -> tuple[int, bytes]:
    """The operation code and body that make such a node.

    Raises:
        ValueError: kinds that exclude each other.
    """
    ephemeral, sequential, ttl_ms = operation.ephemeral, operation.sequential, operation.ttl_ms
    if ephemeral + operation.container + (ttl_ms is not None) > 1 or (operation.container and sequential):
        raise ValueError("expected one of ephemeral, container and ttl_ms, and a container not sequential")
    if ttl_ms is not None:
        flags = opcodes.FLAG_TTL_SEQUENTIAL if sequential else opcodes.FLAG_TTL
        body = encode_create_ttl(path, operation.data, operation.acl, flags, ttl_ms)
        return opcodes.CREATE_TTL, body
    if operation.container:
        body = encode_create(path, operation.data, operation.acl, opcodes.FLAG_CONTAINER)
        return opcodes.CREATE_CONTAINER, body
    flags = (opcodes.FLAG_EPHEMERAL if ephemeral else 0) | (opcodes.FLAG_SEQUENTIAL if sequential else 0)
    op = opcodes.CREATE2 if operation.with_stat else opcodes.CREATE
    return op, encode_create(path, operation.data, operation.acl, flags)


def encode_operations(operations: Sequence[Operation], absolute: Callable[[str], str]) -> bytes:
    """The body of the multi; `absolute` puts the chroot before a path."""
    items: list[tuple[int, bytes]] = []
    for operation in operations:
        path = absolute(operation.path)
        match operation:
            case Create():
                items.append(encode_creation(operation, path))
            case SetData():
                items.append((opcodes.SET_DATA, encode_set_data(path, operation.data, operation.version)))
            case Delete():
                items.append((opcodes.DELETE, encode_path_version(path, operation.version)))
            case Check():
                items.append((opcodes.CHECK, encode_path_version(path, operation.version)))
            case _:
                assert_never(operation)
    return encode_multi(items)


def decode_outcomes(
    operations: Sequence[Operation], reader: Reader, relative: Callable[[str], str]
) -> list[OperationResult | CoordError]:
    """Per operation its result, or, of a transaction that failed, its error (spec 10.2, 10.3).

    Raises:
        ProtocolError: the reply is not one to these operations.
        DecodeError: it cannot be decoded.
    """
    outcomes: list[OperationResult | CoordError] = []
    for index, operation in enumerate(operations):
        op, done, _ = read_multi_header(reader)
        if done:
            raise ProtocolError(f"expected {len(operations)} results, got {index}")
        if op == ERROR_RESULT:
            outcomes.append(_outcome_error(reader.read_int(), operation.path, index))
        elif op in (opcodes.CREATE, opcodes.CREATE2):
            path = relative(reader.read_text() or "")
            stat = read_stat(reader) if op == opcodes.CREATE2 else None
            with_stat = isinstance(operation, Create) and operation.with_stat
            outcomes.append(Created(path, stat) if with_stat else path)
        elif op == opcodes.SET_DATA:
            outcomes.append(read_stat(reader))
        else:
            outcomes.append(None)
    if not read_multi_header(reader)[1]:
        raise ProtocolError(f"expected {len(operations)} results, got more")
    return outcomes


def _outcome_error(code: int, path: str, index: int) -> CoordError:
    """Of a failed transaction each operation has an error; only one names the reason."""
    match code:
        case opcodes.OK:
            return RolledBackError(path=path, index=index)
        case opcodes.RUNTIME_INCONSISTENCY:
            return NotTriedError(path=path, index=index)
    return error_of(code, path=path, index=index)


def find_failure(outcomes: Sequence[OperationResult | CoordError]) -> CoordError | None:
    """Why a transaction failed; None where it was carried out.

    Raises:
        ProtocolError: it failed, and no operation names a reason.
    """
    errors = [outcome for outcome in outcomes if isinstance(outcome, CoordError)]
    for error in errors:
        if not isinstance(error, RolledBackError | NotTriedError):
            return error
    if errors:
        raise ProtocolError(f"expected {len(outcomes)} results, got a failure without reason")
    return None


def encode_reads(reads: Sequence[Read], absolute: Callable[[str], str]) -> bytes:
    """The body of a multiRead."""
    return encode_multi(
        [
            (
                opcodes.GET_DATA if isinstance(read, GetData) else opcodes.GET_CHILDREN,
                encode_path_watch(absolute(read.path), False),
            )
            for read in reads
        ]
    )


def decode_reads(reads: Sequence[Read], reader: Reader) -> list[ReadResult]:
    """The results of a multiRead in order (spec 10.5); raises as `decode_outcomes`."""
    results: list[ReadResult] = []
    for index, read in enumerate(reads):
        op, done, _ = read_multi_header(reader)
        if done:
            raise ProtocolError(f"expected {len(reads)} results, got {index}")
        if op == ERROR_RESULT:
            results.append(error_of(reader.read_int(), path=read.path, index=index))
        elif op == opcodes.GET_DATA:
            results.append((reader.read_buffer(), read_stat(reader)))
        else:
            results.append(read_names(reader))
    return results


class Pending(Generic[T]):
    """What one operation of a transaction will have given.

    Attributes:
        error: why it failed, or, where another operation failed, RolledBackError or NotTriedError; None
            before the commit and when it was carried out.
    """

    def __init__(self) -> None:
        self.error: CoordError | None = None
        self._result: list[T] = []

    @property
    def result(self) -> T:
        """The operation's result.

        Raises:
            CoordError: the operation was not carried out; the class says why.
            RuntimeError: the transaction has not been committed.
        """
        if self.error is not None:
            raise self.error
        if not self._result:
            raise RuntimeError("the transaction has not been committed")
        return self._result[0]

    def settle(self, outcome: Any) -> None:
        if isinstance(outcome, CoordError):
            self.error = outcome
        else:
            self._result.append(outcome)


class Transaction:
    """Collects operations; made by `Client.transaction`. `commit` carries all of them out, or none."""

    def __init__(
        self, send: Callable[[Sequence[Operation]], Awaitable[list[OperationResult | CoordError]]]
    ) -> None:
        self._send = send
        self._operations: list[Operation] = []
        self._pending: list[Pending[Any]] = []
        self._committed = False

    def create(
        self,
        path: str,
        data: bytes | None = b"",
        *,
        acl: Sequence[Acl] = OPEN_ACL,
        ephemeral: bool = False,
        sequential: bool = False,
        container: bool = False,
        ttl_ms: int | None = None,
    ) -> Pending[str]:
        """Creates a node; gives its path."""
        return self._add(Create(path, data, ephemeral, sequential, acl, container, ttl_ms), Pending[str]())

    def create_with_stat(
        self,
        path: str,
        data: bytes | None = b"",
        *,
        acl: Sequence[Acl] = OPEN_ACL,
        ephemeral: bool = False,
        sequential: bool = False,
        container: bool = False,
        ttl_ms: int | None = None,
    ) -> Pending[Created]:
        """Creates a node; gives its path and Stat."""
        operation = Create(path, data, ephemeral, sequential, acl, container, ttl_ms, with_stat=True)
        return self._add(operation, Pending[Created]())

    def set(self, path: str, data: bytes | None, version: int = -1) -> Pending[Stat]:
        """Replaces a node's data; gives the Stat behind the change."""
        return self._add(SetData(path, data, version), Pending[Stat]())

    def delete(self, path: str, version: int = -1) -> Pending[None]:
        return self._add(Delete(path, version), Pending[None]())

    def check(self, path: str, version: int = -1) -> Pending[None]:
        """Lets the transaction fail unless the node exists and has this version."""
        return self._add(Check(path, version), Pending[None]())

    def __len__(self) -> int:
        return len(self._operations)

    async def commit(self) -> list[OperationResult]:
        """Carries out all operations or none; their results in order, which the `Pending`s have too.

        Raises:
            CoordError: the class of the operation that failed, with `index` naming it; nothing was changed,
                and each `Pending` has its error.
            ConnectionLossError: unknown whether it was carried out.
            RuntimeError: it was committed before.
        """
        if self._committed:
            raise RuntimeError("expected a transaction that was not committed, got one that was")
        self._committed = True
        outcomes = await self._send(self._operations)
        for pending, outcome in zip(self._pending, outcomes, strict=True):
            pending.settle(outcome)
        failure = find_failure(outcomes)
        if failure is not None:
            raise failure
        return [outcome for outcome in outcomes if not isinstance(outcome, CoordError)]

    def _add(self, operation: Operation, pending: Pending[T]) -> Pending[T]:
        self._operations.append(operation)
        self._pending.append(pending)
        return pending
