"""Opening a store: make a new one, or bring index and log of an old one together.

    <directory>/segments/segment.<16 hex digits>     the log (coord.log), tagged with the incarnation
    <directory>/index/                               LMDB (bookie.storage.index_format)
    <directory>/index.damaged-N/                     an index that was set aside and rebuilt

Nothing is served before everything behind the mark is applied and committed with a new mark (spec 9.5). An
index that is lost or damaged is rebuilt from the segments only if all that were ever written are there: a
removed segment may have held the fence or the key of a ledger without entries, and without it a negative
answer would be a guess (R-B9).
"""

import os
from collections.abc import Callable, Iterator
from typing import Final

from bookie.storage import record as records
from bookie.storage.errors import StoreDamagedError
from bookie.storage.index import Index
from bookie.storage.index_format import IndexDamagedError
from bookie.storage.ledger_table import LedgerTable
from bookie.storage.limits import StoreLimits
from bookie.storage.record import RecordDamagedError, RecordUnknownError
from bookie.storage.replay import Replay
from bookie.storage.store import Store
from coord import eventlog
from coord.disk import Disk, RealDisk
from coord.log import LogConfig, LogDamagedError, LogWriter, Position, Record, SegmentedLog, open_log
from coord.log.format import segment_name

SEGMENT_PREFIX: Final = "segment"
_NO_MARK: Final = "the index does not know the beginning of the log"
_QUEUE_BYTES_MAX: Final = 1 << 40  # the store's own admission is the bound: what it accepted must be taken

_log = eventlog.get("bookie.storage")


def open_store(
    disk: Disk,
    directory: str,
    incarnation: int,
    *,
    fresh: bool,
    notify: Callable[[], None],
    limits: StoreLimits | None = None,
    index_directory: str | None = None,
    threaded: bool = True,
) -> Store:
    """Open the store in `directory`.

    Args:
        incarnation: of the bookie (R-I2); index and segments of another one are refused.
        fresh: the bookie has never served from this directory: whatever is there is removed, and a new store
            made.
        notify: called from the log's thread when `Store.on_log` has something to do.
        index_directory: where LMDB's files are, on the real disk; `directory` unless the disk is not the real
            one.
        threaded: False for tests: the log writes when its writer is stepped.

    Raises:
        StoreDamagedError: segments or records are missing or damaged; the message says where.
        OSError: the disk failed.
    """
    limits = limits or StoreLimits()
    index_directory = index_directory or directory
    segments = os.path.join(directory, "segments")
    index_path = os.path.join(index_directory, "index")
    # free_bytes_min 0: the bookie turns read-only by its own thresholds, and fences must be logged even then.
    # No seals: nothing is read from damaged logs here, and an earlier release may open the store again.
    config = LogConfig(
        segment_bytes_max=limits.segment_bytes_max, free_bytes_min=0, contiguous=False, sealed=False
    )
    if fresh:
        disk.remove_tree(segments)
        _remove_index(index_path)
        Index(index_path, incarnation, create=True).close()
    elif not disk.exists(segments):
        raise StoreDamagedError(f"{segments} is missing: the bookie has lost its data")
    try:
        index, lost = _open_index(index_path, incarnation)
        if index is not None:
            _check_mark(disk, segments, index.mark)
        log = open_log(disk, segments, SEGMENT_PREFIX, tag=incarnation.to_bytes(8, "big"), config=config)
        table: LedgerTable | None = None
        if index is not None:
            try:
                table = _bring_up(log, index, limits)
            except IndexDamagedError as error:
                index.close()
                lost = str(error)
        if table is None:
            table = _bring_up(log, _rebuild(log, index_path, incarnation, limits, lost), limits)
    except (LogDamagedError, RecordDamagedError, RecordUnknownError, IndexDamagedError) as error:
        raise StoreDamagedError(str(error)) from error
    writer = LogWriter(log, notify, threaded=threaded, queue_bytes_max=_QUEUE_BYTES_MAX)
    writer.defer()
    return Store(log, writer, table, limits)


def _open_index(path: str, incarnation: int) -> tuple[Index | None, str]:
    """The index, or why it must be rebuilt."""
    try:
        return Index(path, incarnation), ""
    except IndexDamagedError as error:
        return None, str(error)


def _check_mark(disk: Disk, segments: str, mark: Position) -> None:
    """The segment of the mark must be there: what was written to it behind the mark is nowhere else (9.5).

    It is looked for before the log is opened, which would give its number to a new segment.
    """
    path = os.path.join(segments, segment_name(SEGMENT_PREFIX, mark.segment))
    if mark.segment and not disk.exists(path):
        raise StoreDamagedError(f"{path} is missing, and the index was last written from it")


def _bring_up(log: SegmentedLog, index: Index, limits: StoreLimits) -> LedgerTable:
    """Everything the log holds behind the index's mark, applied and committed."""
    table = LedgerTable(index, limits.ledgers_cached_max)
    _replay(log, table, Replay(table), index.mark, limits)
    # Before the mark names this segment, something must be in it: an empty one is replaced at the next start,
    # and a segment that is missing would look lost.
    opened = records.opened_record(index.incarnation)
    log.write_group([len(opened)], [opened])
    _checkpoint(table, log.end())
    return table


def _replay(
    log: SegmentedLog, table: LedgerTable, replay: Replay, mark: Position, limits: StoreLimits
) -> None:
    """Apply everything from `mark` on, with checkpoints on the way to bound memory.

    Only where everything is replayed may a ledger come back that is still being deleted; it must be gone
    before.
    """
    for record in log.scan(mark) if mark.segment else _scan_whole(log, _NO_MARK):
        if record.frame_start > mark and table.recent_runs > limits.recent_runs_max:
            _checkpoint(table, record.frame_start, deletes_all=replay.rebuilding)
        mark = record.frame_start
        replay.apply(record.payload, record.segment, record.offset)
    _log.info("store is open", replayed_records=replay.records, ledgers=len(table), torn_tail=log.torn_tail)


def _checkpoint(table: LedgerTable, mark: Position, *, deletes_all: bool = False) -> None:
    table.thaw(table.index.commit(table.freeze(mark), deletes_all=deletes_all))


def _rebuild(log: SegmentedLog, index_path: str, incarnation: int, limits: StoreLimits, reason: str) -> Index:
    """A new index from all segments, or an error where they do not tell everything."""
    for _ in _scan_whole(log, f"{reason}; it cannot be rebuilt"):
        pass
    _log.warning("rebuilding the index from all segments", do="check the disk for errors", reason=reason)
    building = index_path + ".building"
    _remove_index(building)
    index = Index(building, incarnation, create=True)
    table = LedgerTable(index, limits.ledgers_cached_max)
    _replay(log, table, Replay(table, rebuilding=True), Position(0, 0), limits)
    _checkpoint(table, log.end(), deletes_all=True)
    index.close()
    if os.path.exists(index_path):
        number = 1
        while os.path.exists(f"{index_path}.damaged-{number}"):
            number += 1
        os.rename(index_path, f"{index_path}.damaged-{number}")
    os.rename(building, index_path)
    # Segments may go soon, and then nothing could be rebuilt once more.
    RealDisk().fsync_directory(os.path.dirname(index_path))
    return Index(index_path, incarnation)


def _scan_whole(log: SegmentedLog, problem: str) -> Iterator[Record]:
    """Everything from the first record ever written on.

    Raises:
        StoreDamagedError: segments are gone, in the middle or at the beginning.
    """
    group = 0
    for record in log.scan():
        if record.group > group + 1:
            raise StoreDamagedError(
                f"{problem}, since segments were removed from {log.directory}: move the data directory away,"
                " remove the bookie's cookie, and let the ledgers be copied from their other replicas"
            )
        group = record.group
        yield record


def _remove_index(path: str) -> None:
    for name in ("data.mdb", "lock.mdb"):
        if os.path.exists(os.path.join(path, name)):
            os.unlink(os.path.join(path, name))
