"""Checkpoints: the whole state as of exactly one zxid, replaced in one transaction of an environment.

    nodes   node number u64 big-endian -> encoded node | crc u32
    meta    "state" -> version u32 | zxid u64 | nodes u64 | facts | crc u32                 little-endian
            crc = CRC32C(table number u8 | key | value without the crc)

The environment itself checks nothing (of 75 flipped bits LMDB served 64 as if nothing had happened), hence a
checksum over key and value, the number of nodes, and the digest in the facts, which the loader recomputes.

Who moves it: the loop freezes the state and encodes it in slices (`Checkpointer.work`); a thread owns the
write transaction and gets lists of ready bytes. What was committed is durable; until then the environment
holds the checkpoint before.

A marker file lies beside the environment while it is open. A process that dies inside LMDB leaves the marker,
and the next start lets another process read everything first, so a bad environment cannot take down one start
after the other; it is set aside instead.
"""

import os
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import google_crc32c

from coord.clock import Clock
from coord.disk import Disk
from coord.storage.environment import (
    META,
    NODES,
    Environment,
    EnvironmentFailedError,
    Environments,
    ReadTransaction,
    WriteTransaction,
)
from coord.storage.source import CheckpointSource, S, StateKind
from coord.storage.steps import Steps

__all__ = [
    "Checkpoint",
    "CheckpointDamagedError",
    "CheckpointStore",
    "Checkpointed",
    "Checkpointer",
    "seal",
    "unseal",
]

STATE_KEY = b"state"
VERSION = 1
_STATE = struct.Struct("<IQQ")
_KEY = struct.Struct(">Q")
_CRC = struct.Struct("<I")
_ENCODE_NODES = 8  # between two looks at the clock; small, as a node may be a megabyte
_SLICE_NODES = 256  # and bytes: what one `work` encodes at most, about a millisecond's worth
_SLICE_BYTES = 1 << 20
_SLICE_MS = 1
_QUEUED_BYTES_MAX = 8 << 20
_LOAD_NODES = 256


class CheckpointDamagedError(Exception):
    """A checkpoint is not what was written."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint says of itself."""

    zxid: int
    nodes: int
    facts: bytes


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """How a checkpoint ended.

    Attributes:
        failure: None if it is durable. If it is there and not `disk_full`, the disk has failed: stop the
            process.
    """

    zxid: int
    failure: EnvironmentFailedError | None = None


def seal(table: int, key: bytes, value: bytes) -> bytes:
    """A value as stored: with its checksum behind it."""
    return value + _CRC.pack(google_crc32c.extend(google_crc32c.value(bytes((table,)) + key), value))


def unseal(table: int, key: bytes, sealed: bytes, path: str) -> bytes:
    """Raises: CheckpointDamagedError."""
    value = sealed[:-4]
    if len(sealed) < 4 or _CRC.unpack(sealed[-4:])[0] != google_crc32c.extend(
        google_crc32c.value(bytes((table,)) + key), value
    ):
        raise CheckpointDamagedError(f"{path}: the checksum of table {table}, key {key.hex()} does not match")
    return value


def encode_state(zxid: int, nodes: int, facts: bytes) -> bytes:
    return seal(META, STATE_KEY, _STATE.pack(VERSION, zxid, nodes) + facts)


def decode_state(sealed: bytes, path: str) -> Checkpoint:
    """Raises: CheckpointDamagedError."""
    value = unseal(META, STATE_KEY, sealed, path)
    if len(value) < _STATE.size:
        raise CheckpointDamagedError(
            f"{path}: expected a state record of at least {_STATE.size} bytes, got {len(value)}"
        )
    version, zxid, nodes = _STATE.unpack_from(value)
    if version != VERSION:
        raise CheckpointDamagedError(f"{path}: expected checkpoint version {VERSION}, got {version}")
    return Checkpoint(zxid, nodes, value[_STATE.size :])


class CheckpointStore:
    """One generation's checkpoint on disk.

    Args:
        path: the environment's directory; its parent holds the marker.

    Attributes:
        zxid: of the durable checkpoint; 0 if there is none or it was not loaded.
    """

    def __init__(self, disk: Disk, path: str, environments: Environments) -> None:
        self._disk = disk
        self._environments = environments
        self._environment: Environment | None = None
        self._users = 0
        self._marker = path + ".open"
        self.path = path
        self.zxid = 0

    def load(self, kind: StateKind[S]) -> tuple[S, int] | None:
        """The state in the checkpoint and its zxid, every value and the digest verified; None if there is no
        checkpoint.

        Raises:
            CheckpointDamagedError: `set_aside` it.
        """
        if not self._disk.exists(self.path):
            return None
        if self._disk.exists(self._marker):
            problem = self._environments.probe(self.path)
            if problem is not None:
                raise CheckpointDamagedError(f"{self.path}: {problem}")
        try:
            environment = self.open()
            try:
                return self._load(kind, environment.read())
            finally:
                self.close()
        except EnvironmentFailedError as error:
            raise CheckpointDamagedError(str(error)) from error

    def _load(self, kind: StateKind[S], transaction: ReadTransaction) -> tuple[S, int] | None:
        try:
            sealed = transaction.get(META, STATE_KEY)
            if sealed is None:
                if next(transaction.items(NODES), None) is not None:
                    raise CheckpointDamagedError(f"{self.path}: nodes without a state record")
                return None
            checkpoint = decode_state(sealed, self.path)
            loader = kind.loader(checkpoint.facts)
            count = 0
            for numbered in read_nodes(transaction, self.path):
                loader.add(numbered)
                count += len(numbered)
                if count > checkpoint.nodes:  # pages that point in a circle would never end
                    break
            if count != checkpoint.nodes:
                raise CheckpointDamagedError(f"{self.path}: expected {checkpoint.nodes} nodes, got {count}")
            state = loader.finish()
        except ValueError as error:
            raise CheckpointDamagedError(f"{self.path}: {error}") from error
        finally:
            transaction.close()
        self.zxid = checkpoint.zxid
        return state, checkpoint.zxid

    def set_aside(self, directory: str) -> str:
        """Move a bad environment into a directory, for whoever wants to know what happened; returns where it
        is now.

        One is kept: an older one goes.
        """
        aside = os.path.join(directory, "checkpoint-set-aside")
        self._disk.remove_tree(aside)
        self._disk.rename(self.path, aside)
        if self._disk.exists(self._marker):
            self._disk.unlink(self._marker)
        self._disk.fsync_directory(os.path.dirname(self.path))
        self._disk.fsync_directory(directory)
        return aside

    def open(self) -> Environment:
        """The environment, opened for the first user; each `open` needs its `close`."""
        if self._environment is None:
            if not self._disk.exists(self._marker):
                self._disk.open(self._marker, create=True).close()
            self._environment = self._environments.open(self.path)
            self._disk.fsync_directory(os.path.dirname(self.path))
        self._users += 1
        return self._environment

    def close(self) -> None:
        self._users -= 1
        if self._users == 0 and self._environment is not None:
            self._environment.close()
            self._environment = None
            self._disk.unlink(self._marker)


def read_nodes(transaction: ReadTransaction, path: str) -> Iterator[list[tuple[int, bytes]]]:
    """All nodes in runs, verified.

    Raises:
        CheckpointDamagedError: nothing from the bad one on is yielded.
    """
    run: list[tuple[int, bytes]] = []
    for key, sealed in transaction.items(NODES):
        if len(key) != _KEY.size:
            raise CheckpointDamagedError(f"{path}: expected keys of {_KEY.size} bytes, got {key.hex()}")
        run.append((_KEY.unpack(key)[0], unseal(NODES, key, sealed, path)))
        if len(run) == _LOAD_NODES:
            yield run
            run = []
    yield run


class Checkpointer:
    """Writes checkpoints of a state into a store, beside its execution.

    Args:
        notify: called from the thread when `take_finished` has something; thread-safe and quick.
        threaded: False for tests and simulation: everything happens in `work`.
    """

    def __init__(
        self, store: CheckpointStore, clock: Clock, notify: Callable[[], None], *, threaded: bool = True
    ) -> None:
        self._store = store
        self._clock = clock
        self._notify = notify
        self._steps = Steps("checkpoint", threaded=threaded)
        self._finished: deque[Checkpointed] = deque()
        self._source: CheckpointSource | None = None
        self._opened = False
        self._facts = b""
        self._zxid = 0
        self._encoded_all = False
        self._handed_bytes = 0  # loop side
        self._written_bytes = 0  # thread side
        self._must_be_whole = store.zxid == 0
        self._transaction: WriteTransaction | None = None
        self._failure: EnvironmentFailedError | None = None

    @property
    def busy(self) -> bool:
        """A checkpoint has begun and its end was not taken yet."""
        return self._source is not None

    def begin(self, source: CheckpointSource) -> int:
        """Freeze the state as it is now, between two batches; returns its zxid. Only what is durable in the
        log may be in it.
        """
        assert self._source is None
        frozen = source.freeze(whole=self._must_be_whole)
        self._source = source
        self._facts, self._zxid = frozen.facts, frozen.zxid
        self._encoded_all = False
        self._failure = None
        whole = self._must_be_whole
        try:
            environment = self._store.open()
        except EnvironmentFailedError as error:
            self._failure = error
        else:
            self._opened = True
            self._steps.do(lambda: self._begin(environment, whole))
        return frozen.zxid

    def work(self) -> None:
        """Encode for at most a millisecond; call it every tick while `busy`."""
        source = self._source
        if source is None or self._encoded_all:
            return
        if self._handed_bytes - self._written_bytes > _QUEUED_BYTES_MAX:
            return
        until = self._clock.monotonic_ms() + _SLICE_MS
        puts: list[tuple[bytes, bytes]] = []
        removed: list[bytes] = []
        size = 0
        while len(puts) + len(removed) < _SLICE_NODES and size < _SLICE_BYTES:
            records = source.encode_some(_ENCODE_NODES)
            if not records:
                self._encoded_all = True
                break
            for number, value in records:
                key = _KEY.pack(number)
                if value is None:
                    removed.append(key)
                else:
                    puts.append((key, seal(NODES, key, value)))
                    size += len(value)
            if self._clock.monotonic_ms() >= until:
                break
        self._handed_bytes += size
        self._steps.do(partial(self._write, puts, removed, size))
        if self._encoded_all:
            self._steps.do(partial(self._commit, self._zxid, self._facts))

    def take_finished(self) -> Checkpointed | None:
        """How the checkpoint ended, once; the state's freeze has been ended accordingly."""
        if not self._finished:
            return None
        finished = self._finished.popleft()
        assert self._source is not None
        self._release()
        written = finished.failure is None
        self._source.end_freeze(written=written)
        self._source = None
        self._must_be_whole = not written
        if written:
            self._store.zxid = finished.zxid
        return finished

    def close(self) -> None:
        """Give up a checkpoint that is under way and end the thread; the durable one stays."""
        self._steps.do(self._abort)  # where it was begun
        self._steps.close()
        self._release()

    def _release(self) -> None:
        if self._opened:
            self._store.close()
            self._opened = False

    # The thread's side.

    def _begin(self, environment: Environment, whole: bool) -> None:
        try:
            self._transaction = environment.write()
            if whole:
                self._transaction.clear(NODES)
        except EnvironmentFailedError as error:
            self._failure = error

    def _write(self, puts: Sequence[tuple[bytes, bytes]], removed: Sequence[bytes], size: int) -> None:
        if self._failure is None and self._transaction is not None:
            try:
                self._transaction.put_many(NODES, puts)
                self._transaction.remove_many(NODES, removed)
            except EnvironmentFailedError as error:
                self._failure = error
        self._written_bytes += size

    def _commit(self, zxid: int, facts: bytes) -> None:
        transaction = self._transaction
        if self._failure is None and transaction is not None:
            try:
                state = encode_state(zxid, transaction.count(NODES), facts)
                transaction.put_many(META, [(STATE_KEY, state)])
                self._transaction = None  # committed or not, it has ended
                transaction.commit()
            except EnvironmentFailedError as error:
                self._failure = error
        self._abort()
        self._finished.append(Checkpointed(zxid, self._failure))
        self._notify()

    def _abort(self) -> None:
        if self._transaction is not None:
            self._transaction.abort()
            self._transaction = None
