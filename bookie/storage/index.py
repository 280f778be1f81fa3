"""The extent index on disk: which ledgers are here, and where each run of entries is.

Reads happen on the loop, from the snapshot of the last commit; `commit` is the only writer, runs in a thread,
one at a time, and holds everything of one checkpoint together with its mark (R-J5, R-J6: the log before the
mark is needed for its extents only). `refresh` moves the loop to the new snapshot; until then the loop still
has in memory what the commit contains, so no entry is ever invisible in between (R-S1).
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import lmdb
from google_crc32c import value as crc32c

from bookie.storage.id_ranges import IdRanges
from bookie.storage.index_commit import Commit
from bookie.storage.index_format import (
    FORMAT_VERSION,
    TABLES,
    IndexDamagedError,
    LedgerRecord,
    RunRecord,
    decode_ledger,
    decode_number,
    decode_pair,
    decode_run,
    encode_number,
    encode_pair,
    id_key,
    key_id,
    run_key,
)
from coord.disk import RealDisk
from coord.log import Position

MAP_BYTES: Final = 1 << 40
"""Address space for the environment, far above need: the file is sparse and grows with its content."""

_DIGEST_MASK: Final = (1 << 64) - 1


class LedgerChange(NamedTuple):
    """What a checkpoint knows of one ledger: state, and durable runs since the last one, ascending and
    disjoint.

    `record.last_entry_id` and `record.runs` are the commit's to fill in; `runs` is consumed in its thread.
    """

    ledger_id: int
    record: LedgerRecord
    runs: Iterable[RunRecord]


@dataclass(slots=True)
class Changes:
    """One checkpoint: everything before `mark` that the index does not hold yet."""

    mark: Position
    ledgers: list[LedgerChange] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class CommitReport:
    """What a commit did.

    Attributes:
        deleted: ledgers whose runs are all gone and whose records were replaced by tombstones.
        segments: (runs, live bytes) of every segment that changed.
    """

    mark: Position
    deleted: tuple[int, ...]
    segments: dict[int, tuple[int, int]]


class Index:
    """An open index.

    Attributes:
        incarnation: binds index, segments and cookie to each other, so that swapped disks are noticed.
        mark: everything in the log before it is in the index.
        segments: segment -> (runs, live bytes) as of the last refresh.
        deleting: ledgers that were being deleted when the index was opened.
        tombstones: deleted ledgers; the loop adds to it before the commit does.

    Raises:
        IndexDamagedError: by every method that reads, for what is not as it was written.
    """

    def __init__(self, path: str, incarnation: int, *, create: bool = False) -> None:
        """Open the index at `path`, or make an empty one.

        Raises:
            IndexDamagedError: it is not there or cannot be opened, is another incarnation's, or its ledger
                table is not what was written.
            OSError: the disk failed.
        """
        disk = RealDisk()
        there = os.path.exists(os.path.join(path, "data.mdb"))
        if there == create:
            raise IndexDamagedError(f"there is {'an' if there else 'no'} index at {path}")
        disk.make_directory(path)
        try:
            # No flag that leaves out a sync: pages are durable before the meta page names them, and that is
            # written synchronously. Nor a writable map, whose pages reach the disk when they like.
            self._env = lmdb.open(path, map_size=MAP_BYTES, max_dbs=len(TABLES), subdir=True)
            self._tables = [self._env.open_db(name) for name in TABLES]
        except lmdb.Error as error:
            raise IndexDamagedError(f"cannot open the index at {path}: {error}") from error
        self._ledgers, self._runs, self._segments, self._tombstones, self._meta = self._tables
        try:
            disk.fsync_directory(path)  # LMDB syncs what is in its file, not the file's name
            if create:
                self._create(incarnation)
            self._txn: Any = self._env.begin()
            self._load(incarnation)
        except lmdb.Error as error:
            self._env.close()
            raise IndexDamagedError(f"cannot read the index at {path}: {error}") from error
        except IndexDamagedError:
            self.close()
            raise
        except OSError:
            self._env.close()
            raise

    def ledger(self, ledger_id: int) -> LedgerRecord | None:
        key = id_key(ledger_id)
        value = self._txn.get(key, db=self._ledgers)
        return None if value is None else decode_ledger(key, value)

    def ledger_ids(self, after: int, count: int) -> list[int]:
        """Up to `count` ids above `after`, ascending, those being deleted included."""
        ids: list[int] = []
        with self._txn.cursor(db=self._ledgers) as cursor:
            if count > 0 and cursor.set_range(id_key(after + 1)):
                for key in cursor.iternext(keys=True, values=False):
                    ids.append(key_id(key))
                    if len(ids) == count:
                        break
        return ids

    def find(self, ledger_id: int, entry_id: int, last_entry_id: int) -> RunRecord | None:
        """The run that holds `entry_id` or the next above it; None, a promise, when there is none (R-B9).

        Args:
            last_entry_id: of the ledger's record.
        """
        if entry_id > last_entry_id:
            return None
        with self._txn.cursor(db=self._runs) as cursor:
            if not cursor.set_range(run_key(ledger_id, entry_id)):
                raise IndexDamagedError(
                    f"ledger {ledger_id} should have entry {last_entry_id}, and has no run there"
                )
            key, value = cursor.item()
        found, run = decode_run(key, value)
        if found != ledger_id:
            raise IndexDamagedError(
                f"ledger {ledger_id} should have entry {last_entry_id}, and has no run there"
            )
        if run.previous >= entry_id:
            raise IndexDamagedError(
                f"ledger {ledger_id} should have entry {run.previous}, and has no run there"
            )
        return run

    def commit(self, changes: Changes, *, deletes_all: bool = False) -> CommitReport:
        """Write one checkpoint, all of it or nothing; durable when this returns. Runs in a thread; never two
        at once.

        Args:
            deletes_all: the runs of deleted ledgers go with this commit, however long that takes.
        """
        with self._env.begin(write=True) as txn:
            commit = Commit(txn, self._ledgers, self._runs, self._tombstones, deletes_all=deletes_all)
            for change in changes.ledgers:
                commit.apply(change.ledger_id, change.record, change.runs)
            segments = self._count_segments(txn, commit.segment_deltas)
            key = b"ledgers"
            count, digest = decode_pair(key, txn.get(key, db=self._meta) or b"")
            count += commit.ledgers_added
            digest = (digest + commit.digest_delta) & _DIGEST_MASK
            txn.put(key, encode_pair(key, count, digest), db=self._meta)
            old = Position(*decode_pair(b"mark", txn.get(b"mark", db=self._meta) or b""))
            mark = max(old, changes.mark)
            txn.put(b"mark", encode_pair(b"mark", *mark), db=self._meta)
        return CommitReport(mark, tuple(commit.deleted), segments)

    def refresh(self, report: CommitReport) -> None:
        """Let the loop read what `commit` wrote."""
        self._txn.abort()
        self._txn = self._env.begin()
        self.mark = report.mark
        self.segments.update(report.segments)

    def forget_segments(self, numbers: list[int]) -> None:
        """Remove the counters of segments that are gone; in a thread, like `commit`, and never beside one."""
        with self._env.begin(write=True) as txn:
            for number in numbers:
                txn.delete(id_key(number), db=self._segments)

    def drop_counters(self, numbers: list[int]) -> None:
        """The loop's part of `forget_segments`, after it."""
        for number in numbers:
            self.segments.pop(number, None)

    def runs_from(self, ledger_id: int, entry_id: int, last_entry_id: int) -> Iterator[RunRecord]:
        """The runs that hold `entry_id` or ids above it; what lies between is not here (R-B9)."""
        run = self.find(ledger_id, entry_id, last_entry_id)
        if run is None:
            return
        yield run
        with self._txn.cursor(db=self._runs) as cursor:
            cursor.set_key(run_key(ledger_id, run.last))
            while run.last < last_entry_id:
                previous = run.last
                found = ledger_id
                if cursor.next():
                    found, run = decode_run(*cursor.item())
                if found != ledger_id or run.previous != previous:
                    raise IndexDamagedError(f"ledger {ledger_id} has lost a run after entry {previous}")
                yield run

    def close(self) -> None:
        self._txn.abort()
        self._env.close()

    def _create(self, incarnation: int) -> None:
        with self._env.begin(write=True, db=self._meta) as txn:
            txn.put(b"identity", encode_number(b"identity", incarnation))
            txn.put(b"mark", encode_pair(b"mark", 0, 0))
            txn.put(b"ledgers", encode_pair(b"ledgers", 0, 0))
            txn.put(b"format", encode_number(b"format", FORMAT_VERSION))

    def _load(self, incarnation: int) -> None:
        def meta(key: bytes) -> bytes:
            value: bytes | None = self._txn.get(key, db=self._meta)
            if value is None:
                raise IndexDamagedError(f"the index has no {key.decode()}")
            return value

        version = decode_number(b"format", meta(b"format"))
        if version != FORMAT_VERSION:
            raise IndexDamagedError(
                f"index format {version}, expected {FORMAT_VERSION}: written by a newer zoolog?"
            )
        self.incarnation = decode_number(b"identity", meta(b"identity"))
        if self.incarnation != incarnation:
            raise IndexDamagedError(f"the index is of incarnation {self.incarnation}, expected {incarnation}")
        self.mark = Position(*decode_pair(b"mark", meta(b"mark")))
        expected = decode_pair(b"ledgers", meta(b"ledgers"))
        count = digest = 0
        self.deleting: list[int] = []
        with self._txn.cursor(db=self._ledgers) as cursor:
            for key, value in cursor:
                if decode_ledger(key, value).deleting:
                    self.deleting.append(key_id(key))
                count += 1
                digest += crc32c(key + value)
        if (count, digest & _DIGEST_MASK) != expected:
            raise IndexDamagedError(
                f"the index has {count} ledgers, expected {expected[0]}, or their digest differs"
            )
        self.segments: dict[int, tuple[int, int]] = {}
        with self._txn.cursor(db=self._segments) as cursor:
            for key, value in cursor:
                self.segments[key_id(key)] = decode_pair(key, value)
        self.tombstones = IdRanges()
        with self._txn.cursor(db=self._tombstones) as cursor:
            for key, value in cursor:
                self.tombstones.add(decode_number(key, value), key_id(key))

    def _count_segments(self, txn: Any, deltas: dict[int, list[int]]) -> dict[int, tuple[int, int]]:
        counts: dict[int, tuple[int, int]] = {}
        for segment, (runs_delta, live_delta) in deltas.items():
            key = id_key(segment)
            value = txn.get(key, db=self._segments)
            runs, live = (0, 0) if value is None else decode_pair(key, value)
            if runs + runs_delta < 0 or live + live_delta < 0:
                raise IndexDamagedError(f"segment {segment} has {runs} runs, {-runs_delta} of them removed")
            counts[segment] = (runs + runs_delta, live + live_delta)
            txn.put(key, encode_pair(key, *counts[segment]), db=self._segments)
        return counts
