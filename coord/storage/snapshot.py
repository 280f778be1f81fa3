"""SNAP: a durable checkpoint as a stream of chunks, and its reception into a new generation.

    stream := chunk+            chunks are cut between records, about 64 KiB each
    record := table u8 | key length u32 | value length u32 | key | value                  little-endian
              first   table 1, key "state": the checkpoint's own record, as stored
              then    table 0: every node, as stored (so under the checksum it was written with)
              last    table 255, no key, value = records before it u64 | CRC-32 of all bytes before it u32

The sender reads one transaction, so writes and later checkpoints do not touch what is streamed; an open
transaction keeps the pages it sees from being used again, so the environment grows until `close`. Several
learners may be fed from one reader.

The checksum at the end is of another polynomial than the values': a CRC over data that ends in its own CRC
depends on the data's length only, so CRC32C would not see two values of the same length change places.

The receiver verifies every value and builds the state as it writes, so that the new generation is current
only if its digest is right. Nothing of the running generation is touched before `DataDirectory.switch`; a
crash or `abort` before it leaves the server with what it had.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic

from coord.storage.checkpoint import (
    STATE_KEY,
    Checkpoint,
    CheckpointDamagedError,
    CheckpointStore,
    decode_state,
    unseal,
)
from coord.storage.directory import DataDirectory
from coord.storage.environment import (
    META,
    NODES,
    Environment,
    EnvironmentFailedError,
    Environments,
    WriteTransaction,
)
from coord.storage.source import S, StateKind, StateLoader
from coord.storage.steps import Steps

__all__ = ["Installed", "SnapshotDamagedError", "SnapshotReader", "SnapshotReceiver"]

SNAPSHOT_CHUNK_BYTES = 64 << 10
_RECORD = struct.Struct("<BII")
_END = struct.Struct("<QI")
_KEY = struct.Struct(">Q")
_END_TABLE = 255


class SnapshotDamagedError(Exception):
    """The stream is not what a sender makes; the receiver has given up and nothing was changed."""


class SnapshotReader:
    """The durable checkpoint of a store as chunks, on the loop: `next_chunk` takes well under a millisecond.

    Attributes:
        zxid: the state is as of exactly this transaction. Pin the log above it (`TxnLog.pin`) until the
            learners are done.

    Raises:
        CheckpointDamagedError: from the constructor if there is no checkpoint or it is damaged, from
        `next_chunk` if it is.
    """

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._open = False
        try:
            self._transaction = store.open().read()
        except EnvironmentFailedError as error:
            raise CheckpointDamagedError(str(error)) from error
        self._open = True
        sealed = self._transaction.get(META, STATE_KEY)
        if sealed is None:
            self.close()
            raise CheckpointDamagedError(f"{store.path}: there is no checkpoint")
        try:
            self.zxid = decode_state(sealed, store.path).zxid
        except CheckpointDamagedError:
            self.close()
            raise
        self._records = self._read(sealed)
        self._count = 0
        self._crc = 0
        self._ended = False

    def _read(self, state: bytes) -> Iterator[tuple[int, bytes, bytes]]:
        yield META, STATE_KEY, state
        for key, sealed in self._transaction.items(NODES):
            unseal(NODES, key, sealed, self._store.path)
            yield NODES, key, sealed

    def next_chunk(self) -> bytes | None:
        """The next chunk, None after the last one."""
        if self._ended:
            return None
        parts: list[bytes] = []
        size = 0
        try:
            for table, key, value in self._records:
                parts += (_RECORD.pack(table, len(key), len(value)), key, value)
                self._count += 1
                size += _RECORD.size + len(key) + len(value)
                if size >= SNAPSHOT_CHUNK_BYTES:
                    break
        except EnvironmentFailedError as error:
            raise CheckpointDamagedError(str(error)) from error
        chunk = b"".join(parts)
        self._crc = zlib.crc32(chunk, self._crc)
        if size < SNAPSHOT_CHUNK_BYTES:
            self._ended = True
            chunk += _RECORD.pack(_END_TABLE, 0, _END.size) + _END.pack(self._count, self._crc)
        return chunk

    def close(self) -> None:
        """Let go of the transaction; no error if done before."""
        if self._open:
            self._open = False
            self._transaction.close()
            self._store.close()


@dataclass(frozen=True, slots=True)
class Installed(Generic[S]):
    """A snapshot that is this server's state now, durably.

    Attributes:
        store: the new generation's, so that the next checkpoint writes only what changes from here on.
    """

    state: S
    zxid: int
    generation: str
    store: CheckpointStore


class SnapshotReceiver(Generic[S]):
    """Receives one snapshot into a new generation of a data directory.

    `feed` chunks until it returns True, then wait for `notify` and call `take_installed`: the new generation
    is current and durable. Then open its log (`coord.storage.recovery.begin_log`), and only after that
    acknowledge. `abort` instead leaves everything as it was.

    Args:
        notify: called from the thread when `take_installed` has something; thread-safe and quick.
        threaded: False for tests and simulation: everything happens in the call.
    """

    def __init__(
        self,
        directory: DataDirectory,
        environments: Environments,
        kind: StateKind[S],
        notify: Callable[[], None],
        *,
        threaded: bool = True,
    ) -> None:
        self._directory = directory
        self._kind = kind
        self._notify = notify
        self._generation = directory.new_generation()
        path = directory.checkpoint_path(self._generation)
        self._store = CheckpointStore(directory.disk, path, environments)
        self._environment: Environment | None = self._store.open()
        self._transaction: WriteTransaction | None = None
        self._failure: EnvironmentFailedError | None = None
        self._loader: StateLoader[S] | None = None
        self._checkpoint: Checkpoint | None = None
        self._state: S | None = None
        self._records = 0
        self._crc = 0
        self._fed_bytes = 0
        self._written_bytes = 0
        self._ended = False
        self._steps = Steps("snapshot", threaded=threaded)
        self._steps.do(self._begin)

    @property
    def queued_bytes(self) -> int:
        """Fed and not written yet: what the caller's back-pressure looks at."""
        return self._fed_bytes - self._written_bytes

    @property
    def received_zxid(self) -> int:
        """What the snapshot is as of, once its first chunk has been fed."""
        assert self._checkpoint is not None
        return self._checkpoint.zxid

    def feed(self, chunk: bytes) -> bool:
        """Take the next chunk; True after the last one.

        Raises:
            SnapshotDamagedError: `abort` must follow.
        """
        if self._state is not None:
            raise SnapshotDamagedError(f"{len(chunk)} bytes behind the end")
        numbered: list[tuple[int, bytes]] = []
        stored: list[tuple[bytes, bytes]] = []
        at = 0
        while at < len(chunk):
            start = at
            table, key, value, at = _split(chunk, at)
            if table == _END_TABLE:
                self._store_nodes(numbered, stored, len(chunk))
                self._finish(value, zlib.crc32(chunk[:start], self._crc))
                if at != len(chunk):
                    raise SnapshotDamagedError(f"{len(chunk) - at} bytes behind the end")
                return True
            self._records += 1
            try:
                if self._loader is None:
                    self._start(table, key, value)
                    continue
                if table != NODES or len(key) != _KEY.size:
                    raise SnapshotDamagedError(f"expected a node, got table {table}, key {key.hex()}")
                numbered.append((_KEY.unpack(key)[0], unseal(NODES, key, value, "the snapshot")))
                stored.append((key, value))
            except CheckpointDamagedError as error:
                raise SnapshotDamagedError(str(error)) from error
        self._crc = zlib.crc32(chunk, self._crc)
        self._store_nodes(numbered, stored, len(chunk))
        return False

    def _start(self, table: int, key: bytes, value: bytes) -> None:
        if table != META or key != STATE_KEY:
            raise SnapshotDamagedError(f"expected the state record first, got table {table}, key {key.hex()}")
        self._checkpoint = decode_state(value, "the snapshot")
        try:
            self._loader = self._kind.loader(self._checkpoint.facts)
        except ValueError as error:
            raise SnapshotDamagedError(f"the snapshot's facts: {error}") from error
        self._steps.do(lambda: self._put(META, [(key, value)], 0))

    def _store_nodes(
        self, numbered: list[tuple[int, bytes]], stored: list[tuple[bytes, bytes]], size: int
    ) -> None:
        if not numbered:
            return
        assert self._loader is not None
        try:
            self._loader.add(numbered)
        except ValueError as error:
            raise SnapshotDamagedError(f"a node of the snapshot: {error}") from error
        self._fed_bytes += size
        self._steps.do(lambda: self._put(NODES, stored, size))

    def _finish(self, end: bytes, crc: int) -> None:
        if len(end) != _END.size or _END.unpack(end) != (self._records, crc):
            raise SnapshotDamagedError("the count or checksum at its end does not match")
        if self._loader is None or self._checkpoint is None:
            raise SnapshotDamagedError("a snapshot without a state record")
        if self._records - 1 != self._checkpoint.nodes:
            raise SnapshotDamagedError(f"expected {self._checkpoint.nodes} nodes, got {self._records - 1}")
        try:
            self._state = self._loader.finish()
        except ValueError as error:
            raise SnapshotDamagedError(str(error)) from error
        self._steps.do(self._commit)

    def take_installed(self) -> Installed[S] | None:
        """Switch to the received generation, once it is on disk; None until then.

        Raises:
            EnvironmentFailedError: it could not be written; `abort`, and unless `disk_full` stop the process.
            OSError: the switch failed; stop the process.
        """
        if not self._ended:
            return None
        if self._failure is not None:
            raise self._failure
        assert self._state is not None
        assert self._checkpoint is not None
        self._close()
        self._directory.switch(self._generation)
        self._store.zxid = self._checkpoint.zxid
        return Installed(self._state, self._checkpoint.zxid, self._generation, self._store)

    def abort(self) -> None:
        """Give up and remove what was received."""
        self._close()
        self._directory.remove_other_generations()

    def _close(self) -> None:
        self._steps.do(self._drop)
        self._steps.close()
        if self._environment is not None:
            self._store.close()
            self._environment = None

    # The thread's side.

    def _begin(self) -> None:
        try:
            assert self._environment is not None
            self._transaction = self._environment.write()
        except EnvironmentFailedError as error:
            self._failure = error

    def _put(self, table: int, items: list[tuple[bytes, bytes]], size: int) -> None:
        if self._failure is None and self._transaction is not None:
            try:
                self._transaction.put_many(table, items)
            except EnvironmentFailedError as error:
                self._failure = error
        self._written_bytes += size

    def _commit(self) -> None:
        transaction = self._transaction
        if self._failure is None and transaction is not None:
            try:
                self._transaction = None
                transaction.commit()
            except EnvironmentFailedError as error:
                self._failure = error
        self._ended = True
        self._notify()

    def _drop(self) -> None:
        if self._transaction is not None:
            self._transaction.abort()
            self._transaction = None


def _split(chunk: bytes, at: int) -> tuple[int, bytes, bytes, int]:
    """The record at `at` and where the next one starts."""
    if at + _RECORD.size > len(chunk):
        raise SnapshotDamagedError("a chunk ends within a record")
    table, key_length, value_length = _RECORD.unpack_from(chunk, at)
    at += _RECORD.size
    middle, end = at + key_length, at + key_length + value_length
    if end > len(chunk):
        raise SnapshotDamagedError("a chunk ends within a record")
    return table, chunk[at:middle], chunk[middle:end], end
