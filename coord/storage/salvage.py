"""The log that a server has lost: what is left of it, and how it becomes whole again.

    lost = salvage(directory, base_zxid)     what is left, behind the checkpoint; None if there is nothing
    ... a `coord.zab.repair.Repair` says what is missing, peers give it ...
    restore(directory, lost, batches, options)   the whole history as a new log, and the epoch claimed again

The bytes of a log differ from server to server (groups, marks, what was known committed), those of its
batches do not. So a log is not patched: it is written anew, from its own batches that are good and the peers'
where they are not, in the order that it had.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from google_crc32c import value as crc32c

from coord.disk import Disk
from coord.log import Hole, LogDamagedError, SegmentedLog, open_log, salvage_log
from coord.storage.directory import DataDirectory
from coord.storage.recovery import LOG_PREFIX, LogOptions
from coord.storage.txnlog import (
    KIND_BATCH,
    KIND_MARK,
    RECORD_HEADER_BYTES,
    LoggedBatch,
    TxnLog,
    decode_record,
    encode_record_header,
)

__all__ = ["KeptBatch", "LogsToGive", "LostLog", "RestoredBatch", "read_batch", "restore", "salvage"]

ZXID_MAX = 0x7FFFFFFFFFFFFFFF
_LENGTH_BYTES = 4
"""Of each record in a frame, before the record's own header and bytes."""


class KeptBatch(NamedTuple):
    """A batch that is good, and where it is; `crc` and `length` are of its bytes."""

    previous: int
    first: int
    last: int
    committed: int
    path: str
    offset: int
    length: int
    crc: int


@dataclass(slots=True)
class LostLog:
    """What is left of a log.

    Attributes:
        base_zxid: of the checkpoint that it belongs to; 0 without one.
        batches: those behind it, by their last zxid. Some may be of a past that was cut off.
        below: those that it covers, of use to peers alone.
        end_zxid: of the last batch that is known to have been there.
        tail_bytes: of the batches that were there behind it; None: not known.
        end_zxid_min: the log reached this far.
        committed_zxid: the highest known committed.
    """

    base_zxid: int
    batches: dict[int, KeptBatch] = field(default_factory=dict)
    below: dict[int, KeptBatch] = field(default_factory=dict)
    end_zxid: int = 0
    tail_bytes: int | None = None
    end_zxid_min: int = 0
    committed_zxid: int = 0

    def batches_above(self, disk: Disk, zxid: int) -> Iterator[LoggedBatch]:
        """The good batches that end above a zxid, in order; those below the checkpoint too.

        Raises:
            LogDamagedError, OSError: as `read_batch`.
        """
        for known in (self.below, self.batches):
            for last in sorted(last for last in known if last > zxid):
                kept = known[last]
                payload = read_batch(disk, kept)
                yield LoggedBatch(KIND_BATCH, kept.committed, kept.previous, kept.first, last, payload)


class RestoredBatch(NamedTuple):
    """A batch of the history to be written: the peers' bytes, or None where this server's own are good."""

    previous: int
    first: int
    last: int
    payload: bytes | None


def salvage(
    directory: DataDirectory, base_zxid: int, see: Callable[[LoggedBatch], None] = lambda batch: None
) -> LostLog | None:
    """Read what is left of the log that was set aside. Blocks for as long as that takes.

    Args:
        base_zxid: the zxid of the checkpoint; batches up to it are for peers alone.
        see: called with each batch that is good.

    Returns:
        None if nothing was lost, or it is of no use any more.

    Raises:
        OSError: the disk failed.
    """
    path = directory.lost_log_path()
    if path is None or directory.loss is None:
        return None
    lost = _read(directory, path, directory.loss.log_generation, base_zxid, see)
    end = directory.loss.end
    if end.is_exact:
        lost.end_zxid, lost.tail_bytes = max(end.zxid, base_zxid), 0
    elif lost.end_zxid < end.zxid:
        lost.tail_bytes = None
    lost.end_zxid_min = max(lost.committed_zxid, end.zxid)
    return lost


def _read(
    directory: DataDirectory, path: str, generation: str, base_zxid: int, see: Callable[[LoggedBatch], None]
) -> LostLog:
    lost = LostLog(base_zxid, end_zxid=base_zxid, committed_zxid=base_zxid)
    for item in salvage_log(directory.disk, path, LOG_PREFIX, tag=generation.encode()):
        if isinstance(item, Hole):
            _note_hole(lost, item)
            continue
        place = f"{path}/{LOG_PREFIX}.{item.segment:016x}"
        try:
            batch = decode_record(item.payload, place, item.offset)
        except LogDamagedError:
            lost.tail_bytes = None
            continue
        lost.committed_zxid = max(lost.committed_zxid, batch.committed)
        if batch.last >= base_zxid:
            lost.end_zxid, lost.tail_bytes = batch.last, 0
        if batch.kind == KIND_BATCH:
            kept = lost.batches if batch.last > base_zxid else lost.below
            if kept is lost.batches:
                see(batch)
            offset = item.offset + RECORD_HEADER_BYTES
            where = place, offset, len(batch.payload), crc32c(batch.payload)
            kept[batch.last] = KeptBatch(batch.previous, batch.first, batch.last, batch.committed, *where)
    return lost


class LogsToGive:
    """The batches that a server has for peers whose logs are damaged.

    It may have lost its own: then what is left of it, that behind its checkpoint too, for theirs may be
    older. If its log has been repaired, that begins at the checkpoint, and what was good before is in the one
    that was set aside still.
    """

    def __init__(self, directory: DataDirectory, lost: LostLog | None) -> None:
        self._directory = directory
        self._aside = lost

    def batches_above(self, txn_log: TxnLog, zxid: int) -> Iterator[LoggedBatch]:
        """The good batches that end above a zxid, in order, as far as they are. Blocks where the log that was
        set aside must be read, once: a server whose log is repaired is asked for what was before.

        Args:
            txn_log: the log in use; nothing of it is given while the server misses history.

        Raises:
            LogDamagedError, OSError: one cannot be read.
        """
        oldest_zxid = ZXID_MAX if self._directory.loss is not None else txn_log.oldest_zxid
        if zxid < oldest_zxid:
            for batch in self._read_aside().batches_above(self._directory.disk, zxid):
                if batch.last > oldest_zxid:
                    break
                yield batch
        if self._directory.loss is None:
            yield from txn_log.batches_above(max(zxid, oldest_zxid))

    def batches_in_spite_of_damage(self, zxid: int) -> Iterator[LoggedBatch]:
        """What the log in use has above a zxid, in order, but for what is bad. That a batch is not among them
        says nothing. Blocks while the whole log is read.

        Raises:
            LogDamagedError, OSError: as `read_batch`, and where not even so much can be read.
        """
        directory = self._directory
        if directory.loss is None:
            found = _read(directory, directory.log_path(), directory.log_generation, 0, lambda batch: None)
            yield from found.batches_above(directory.disk, zxid)

    def _read_aside(self) -> LostLog:
        if self._aside is None:
            found = self._directory.set_aside_log()
            nothing = LostLog(0)
            self._aside = nothing if found is None else _read(self._directory, *found, 0, lambda batch: None)
        return self._aside


def _note_hole(lost: LostLog, hole: Hole) -> None:
    """A bad frame whose header or seal is good says how many records it has and how long they are, all
    together: so how many bytes of batches, for a mark has none. Where the log begins with such frames it is
    known of all. (Some may be in the checkpoint; to wait for more than there was is safe.)
    """
    if hole.begins_log:
        lost.tail_bytes = 0
    if lost.tail_bytes is None or hole.records is None:
        lost.tail_bytes = None
    else:
        lost.tail_bytes += hole.payload_length - hole.records * (_LENGTH_BYTES + RECORD_HEADER_BYTES)


def read_batch(disk: Disk, kept: KeptBatch) -> bytes:
    """The bytes of a batch.

    Raises:
        LogDamagedError: they are not any more what they were.
        OSError: the disk failed.
    """
    file = disk.open(kept.path, writable=False)
    try:
        data = file.pread(kept.length, kept.offset)
    finally:
        file.close()
    if len(data) != kept.length or crc32c(data) != kept.crc:
        raise LogDamagedError(kept.path, kept.offset, "a batch that was good is not any more")
    return data


def restore(
    directory: DataDirectory, lost: LostLog, history: Iterable[RestoredBatch], options: LogOptions
) -> None:
    """Write the history behind the checkpoint as a new log, and claim it: after the next `open_state` the
    server is what it was before the damage.

    No server may run on the directory. What a leader may have sent meanwhile, and this server has not made
    its own, is dropped.

    Raises:
        LogDamagedError: a batch of the lost log cannot be read any more; nothing has changed.
        OSError: the disk failed.
    """
    generation = directory.new_log()
    log = open_log(
        directory.disk,
        directory.log_path(generation),
        LOG_PREFIX,
        tag=generation.encode(),
        config=options.config,
        new_file_id=options.new_file_id,
    )
    try:
        _write(directory.disk, log, lost, history)
    finally:
        log.close()
    directory.restore_history(generation)


def _write(disk: Disk, log: SegmentedLog, lost: LostLog, history: Iterable[RestoredBatch]) -> None:
    """A frame for each batch, so that the next damage to one takes no other along."""
    committed = last = lost.base_zxid
    for batch in history:
        kept = lost.batches.get(batch.last)
        if kept is not None:
            committed = max(committed, kept.committed)
        payload = batch.payload
        if payload is None:
            assert kept is not None
            payload = read_batch(disk, kept)
        last = batch.last
        header = encode_record_header(KIND_BATCH, committed, batch.previous, batch.first, last)
        log.write_group((len(header) + len(payload),), (header, payload), durable=False)
    # The mark protects the last batch as that of an orderly stop does.
    mark = encode_record_header(KIND_MARK, lost.committed_zxid, last, last, last)
    log.write_group((len(mark),), (mark,), durable=False)
    log.sync()
