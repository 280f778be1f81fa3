"""Checkpoints: the whole state as of exactly one zxid, replaced in one transaction of an environment.

    nodes   node number u64 big-endian -> encoded node | crc u32
    meta    "state" -> version u32 | zxid u64 | nodes u64 | facts | crc u32                 little-endian
            crc = CRC32C(table number u8 | key | value without the crc)

The environment itself checks nothing (of 75 flipped bits LMDB served 64 as if nothing had happened), hence a
checksum over key and value, the number of nodes, and the digest in the facts, which the loader recomputes.

Who moves it: the loop freezes the state and encodes what has changed in slices (`Checkpointer.work`); a
thread opens the environment, owns the write transaction and gets lists of ready bytes. What was committed is
durable; until then the environment holds the checkpoint before.

A marker file lies beside the environment while it is open. A process that dies inside LMDB leaves the marker,
and the next start lets another process read everything first, so a bad environment cannot take down one start
after the other; it is set aside instead.
"""

import errno
import os
import struct
import threading
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
from coord.storage.source import CheckpointSource, FrozenState, S, StateKind
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
_THAW_NODES = 256  # between two looks at the clock
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
    """One generation's checkpoint on disk. Any thread may `open` and `close` it.

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
        self._opening = threading.Lock()
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
        with self._opening:
            if self._environment is None:
                if not self._disk.exists(self._marker):
                    self._disk.open(self._marker, create=True).close()
                self._environment = self._environments.open(self.path)
                self._disk.fsync_directory(os.path.dirname(self.path))
            self._users += 1
            return self._environment

    def close(self) -> None:
        with self._opening:
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
        self._frozen: FrozenState | None = None
        self._encoded_all = self._ended = False
        self._thawed = False
        self._handed_bytes = 0  # loop side
        self._written_bytes = 0  # thread side, as are those below
        self._is_open = False
        self._transaction: WriteTransaction | None = None
        self._failure: EnvironmentFailedError | None = None

    @property
    def busy(self) -> bool:
        """A checkpoint has begun and its end was not taken yet."""
        return self._source is not None

    def begin(self, source: CheckpointSource) -> int:
        """Freeze the state as it is now, between two batches; returns its zxid. Only what is durable in the
        log may be in it.

        Args:
            source: what has been executed on top of the store's checkpoint, or from nothing if there is none.
        """
        assert self._source is None
        self._source, self._frozen = source, source.freeze()
        self._encoded_all = self._ended = self._thawed = False
        self._steps.do(self._begin)
        return self._frozen.zxid

    @property
    def is_held(self) -> bool:
        """All is encoded, and it waits to be committed."""
        return self._encoded_all and not self._ended

    def work(self, *, may_commit: bool = True) -> None:
        """Encode, or once it is written let go of what was frozen, for at most a millisecond; call it every
        tick while `busy`. The checkpoint takes the place of the last once all is encoded and it `may_commit`.
        """
        if self._source is None:
            return
        until_ms = self._clock.monotonic_ms() + _SLICE_MS
        if self._finished:
            written = self._finished[0].failure is None
            while not self._thawed:
                self._thawed = self._source.thaw(_THAW_NODES, written=written)
                if self._clock.monotonic_ms() >= until_ms:
                    break
        elif not self._encoded_all and self._handed_bytes - self._written_bytes <= _QUEUED_BYTES_MAX:
            self._encode(self._source, until_ms)
        if self.is_held and may_commit:
            assert self._frozen is not None
            self._ended = True
            self._steps.do(partial(self._commit, self._frozen))

    def _encode(self, source: CheckpointSource, until_ms: int) -> None:
        puts: list[tuple[bytes, bytes]] = []
        removed: list[bytes] = []
        size = 0
        while len(puts) + len(removed) < _SLICE_NODES and size < _SLICE_BYTES:
            records = source.encode_some(_ENCODE_NODES)
            if records is None:
                self._encoded_all = True
                break
            for number, value in records:
                key = _KEY.pack(number)
                if value is None:
                    removed.append(key)
                else:
                    puts.append((key, seal(NODES, key, value)))
                    size += len(value)
            if self._clock.monotonic_ms() >= until_ms:
                break
        self._handed_bytes += size
        self._steps.do(partial(self._write, puts, removed, size))

    def take_finished(self) -> Checkpointed | None:
        """How the checkpoint ended, once; the state is frozen no more."""
        if not self._thawed:
            return None
        finished = self._finished.popleft()
        self._source = self._frozen = None
        self._thawed = False
        if finished.failure is None:
            self._store.zxid = finished.zxid
        return finished

    def close(self) -> None:
        """Give up a checkpoint that is under way and end the thread; the durable one stays."""
        self._steps.do(self._end)  # where it was begun
        self._steps.close()

    # The thread's side.

    def _begin(self) -> None:
        self._failure = None
        try:
            environment = self._store.open()
            self._is_open = True
            self._transaction = environment.write()
        except (EnvironmentFailedError, OSError) as error:
            self._failure = _as_failure(error)

    def _write(self, puts: Sequence[tuple[bytes, bytes]], removed: Sequence[bytes], size: int) -> None:
        if self._failure is None and self._transaction is not None:
            try:
                self._transaction.put_many(NODES, puts)
                self._transaction.remove_many(NODES, removed)
            except EnvironmentFailedError as error:
                self._failure = error
        self._written_bytes += size

    def _commit(self, frozen: FrozenState) -> None:
        transaction = self._transaction
        if self._failure is None and transaction is not None:
            try:
                nodes = transaction.count(NODES)
                if nodes != frozen.nodes:
                    raise EnvironmentFailedError(
                        f"{self._store.path}: expected {frozen.nodes} nodes as in the state, got {nodes}"
                    )
                state = encode_state(frozen.zxid, nodes, frozen.facts)
                transaction.put_many(META, [(STATE_KEY, state)])
                self._transaction = None  # committed or not, it has ended
                transaction.commit()
            except EnvironmentFailedError as error:
                self._failure = error
        self._end()
        self._finished.append(Checkpointed(frozen.zxid, self._failure))
        self._notify()

    def _end(self) -> None:
        if self._transaction is not None:
            self._transaction.abort()
            self._transaction = None
        if self._is_open:
            self._is_open = False
            try:
                self._store.close()
            except OSError as error:
                self._failure = self._failure or _as_failure(error)


def _as_failure(error: EnvironmentFailedError | OSError) -> EnvironmentFailedError:
    if isinstance(error, OSError):
        return EnvironmentFailedError(str(error), disk_full=error.errno == errno.ENOSPC)
    return error
