"""The transaction log: batches as proposed, in zxid order, with what the leader knew to be committed.

A record is a 40-byte header (little-endian) and the batch's bytes:

    kind u8 (1 batch, 2 mark) | zeros 7 | committed u64 | previous u64 | first u64 | last u64 | batch

`committed` is the highest zxid known committed when the record was written; it may name a batch that follows.
`previous` is the last zxid before this record, so that a hole (between a checkpoint and the log, between two
segments) cannot pass unseen: zxids alone do not show one, as a new epoch starts its counter anew. A mark
carries nothing but `committed`; its `previous`, `first` and `last` are all the last zxid logged.

A batch is kept or dropped whole; its bounds are the only zxids that the log knows.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter_ns
from typing import NamedTuple

from coord.log import Appended, LogDamagedError, LogWriter, Position, Record, SegmentedLog

__all__ = [
    "LoggedBatch",
    "TxnLog",
    "TxnLogGapError",
    "decode_record",
    "encode_record_header",
    "scan_batches",
    "segment_starts",
]

_HEADER = struct.Struct("<B7sQQQQ")
_PADDING = bytes(7)
RECORD_HEADER_BYTES = _HEADER.size
KIND_BATCH = 1
KIND_MARK = 2


class TxnLogGapError(Exception):
    """The log does not reach back to the zxid asked for."""


class LoggedBatch(NamedTuple):
    """A record of the log. Of a mark, `first` and `last` name no batch of its own."""

    kind: int
    committed: int
    previous: int
    first: int
    last: int
    payload: bytes


def encode_record_header(kind: int, committed: int, previous: int, first: int, last: int) -> bytes:
    return _HEADER.pack(kind, _PADDING, committed, previous, first, last)


def decode_record(payload: bytes, path: str, offset: int) -> LoggedBatch:
    """Raises: LogDamagedError with the place given."""
    if len(payload) < RECORD_HEADER_BYTES:
        what = f"expected a transaction record of at least {RECORD_HEADER_BYTES} bytes, got {len(payload)}"
        raise LogDamagedError(path, offset, what)
    kind, padding, committed, previous, first, last = _HEADER.unpack_from(payload)
    batch = LoggedBatch(kind, committed, previous, first, last, payload[RECORD_HEADER_BYTES:])
    if kind == KIND_BATCH and padding == _PADDING and previous < first <= last:
        return batch
    if kind == KIND_MARK and padding == _PADDING and previous == first == last and not batch.payload:
        return batch
    what = f"not a transaction record: kind {kind}, zxids {previous:#x} {first:#x} {last:#x}"
    raise LogDamagedError(path, offset, what)


def _decode(log: SegmentedLog, record: Record) -> LoggedBatch:
    return decode_record(record.payload, log.path(record.segment), record.offset)


def segment_starts(log: SegmentedLog) -> dict[int, int]:
    """For every segment that has records: the last zxid logged before it. Reads one frame of each.

    Raises:
        LogDamagedError: a first frame is not what was written.
    """
    starts = {}
    for number, _ in log.segments():
        first = next(log.scan(Position(number, 0)), None)
        if first is not None and first.segment == number:
            starts[number] = _decode(log, first).previous
    return starts


def scan_batches(
    log: SegmentedLog, starts: dict[int, int], above: int
) -> Iterator[tuple[Record, LoggedBatch]]:
    """All records, marks too, from the segment on in which the batches above a zxid begin; some of the first
    may be below it.

    Raises:
        TxnLogGapError: the log begins later.
        LogDamagedError: a frame or record is not what was written, or does not follow the one before.
    """
    usable = [number for number, start in starts.items() if start <= above]
    if starts and not usable:
        raise TxnLogGapError(
            f"expected batches above {above:#x}, the log begins above {min(starts.values()):#x}"
        )
    last: int | None = None
    for record in log.scan(Position(max(usable, default=0), 0)):
        batch = _decode(log, record)
        if last is not None and batch.previous != last:
            what = f"expected a batch after {last:#x}, got one after {batch.previous:#x}"
            raise LogDamagedError(log.path(record.segment), record.offset, what)
        last = batch.last
        yield record, batch


class _Ticket(NamedTuple):
    """What an append carries through the writer."""

    previous: int
    last: int
    token: object


class _Cut(NamedTuple):
    """What a truncation did: the last zxid kept, and the new segment with the last zxid before it."""

    last: int
    segment: int
    start: int


class TxnLog:
    """The batches of one generation and their writer, used from the loop. Made by recovery, which knows what
    is in the log.

    Args:
        log: opened; this object owns and closes it.
        notify, threaded, clock_ns: see `LogWriter`.
        starts: from `segment_starts`.
        last_zxid: of the last batch in the log, or what an empty one continues from.

    Attributes:
        last_zxid: of the last batch appended.
        durable_zxid: of the last batch that `take_durable` has reported.
        appended_bytes: of batches since this object was made; for deciding when to checkpoint.
    """

    def __init__(
        self,
        log: SegmentedLog,
        notify: Callable[[], None],
        *,
        starts: dict[int, int],
        last_zxid: int,
        threaded: bool = True,
        clock_ns: Callable[[], int] = perf_counter_ns,
    ) -> None:
        self._log = log
        self._starts = starts
        self._pins: list[int] = []
        self._truncating = False
        self._sealed = False
        self.last_zxid = last_zxid
        self.durable_zxid = last_zxid
        self.appended_bytes = 0
        self.writer = LogWriter(log, notify, threaded=threaded, clock_ns=clock_ns)

    @property
    def failure(self) -> BaseException | None:
        """Set once the disk has failed; the owner must stop the process (`coord.log.fail_stop`)."""
        return self.writer.failure

    def append(
        self, first_zxid: int, last_zxid: int, parts: Sequence[bytes], committed_zxid: int, token: object
    ) -> None:
        """Queue a batch; `token` comes back from `take_durable` once it is durable.

        Args:
            parts: the batch's bytes, run together.
            committed_zxid: the highest zxid known committed.

        Raises:
            LogFailedError, LogQueueFullError, DiskFullError: not taken.
        """
        assert not self._truncating
        previous = self.last_zxid
        if not previous < first_zxid <= last_zxid:
            raise ValueError(f"expected zxids above {previous:#x}, got {first_zxid:#x} to {last_zxid:#x}")
        header = encode_record_header(KIND_BATCH, committed_zxid, previous, first_zxid, last_zxid)
        self.writer.append((header, *parts), _Ticket(previous, last_zxid, token))
        self.appended_bytes += sum(map(len, parts))
        self.last_zxid = last_zxid

    def append_mark(self, committed_zxid: int, token: object) -> None:
        """Queue a mark: what an idle leader logs after its last batch was committed, so that a restart may
        execute it.
        """
        assert not self._truncating
        last = self.last_zxid
        header = encode_record_header(KIND_MARK, committed_zxid, last, last, last)
        self.writer.append((header,), _Ticket(last, last, token))

    def seal(self) -> None:
        """What is appended from now on is in frames with seals (`coord.log.format`)."""
        if not self._sealed:
            self._sealed = True
            self.writer.submit(self._log.seal, None)

    def truncate_above(self, zxid: int, token: object) -> None:
        """Drop all batches above `zxid`, after everything appended so far; `token` comes back once that is
        durable.

        Until then nothing may be appended. A batch that spans `zxid`, or a `zxid` before the log's beginning,
        is a failure of the log: no correct leader asks for it.
        """
        assert not self._truncating
        self._truncating = True
        starts = dict(self._starts)  # the writer's thread must not see the loop change it
        self.writer.submit(lambda: self._cut_above(zxid, starts), token)

    def _cut_above(self, zxid: int, starts: dict[int, int]) -> _Cut:
        last = min(starts.values(), default=zxid)
        carry: list[Record] = []
        for record, batch in scan_batches(self._log, starts, zxid):
            if carry and carry[0].frame_start != record.frame_start:
                carry.clear()
            if batch.kind == KIND_BATCH and batch.last > zxid:
                if batch.first <= zxid:
                    what = f"the batch {batch.first:#x} to {batch.last:#x}"
                    raise ValueError(f"asked to truncate at {zxid:#x}, within {what}")
                start = _decode(self._log, carry[0]).previous if carry else batch.previous
                self._log.cut(record.frame_start, [kept.payload for kept in carry])
                return _Cut(batch.previous, self._log.end().segment, start)
            carry.append(record)
            last = batch.last
        return _Cut(last, 0, 0)

    def take_durable(self) -> list[object]:
        """Tokens of what became durable since the last call, in the order of `append`, `append_mark` and
        `truncate_above`.
        """
        tokens = []
        for item in self.writer.take_durable():
            if isinstance(item, Appended):
                assert isinstance(item.token, _Ticket)
                if item.segment not in self._starts:
                    self._starts[item.segment] = item.token.previous
                self.durable_zxid = item.token.last
                tokens.append(item.token.token)
            elif isinstance(item.result, _Cut):
                self._truncating = False
                self.last_zxid = self.durable_zxid = item.result.last
                if item.result.segment:
                    self._starts[item.result.segment] = item.result.start
                present = {number for number, _ in self._log.segments()}
                self._starts = {number: start for number, start in self._starts.items() if number in present}
                tokens.append(item.token)
        return tokens

    def batches_above(self, zxid: int) -> Iterator[LoggedBatch]:
        """Durable batches above a zxid, in order.

        Raises:
            TxnLogGapError: the log begins later; `oldest_zxid` is the least that can be asked for.
            LogDamagedError: nothing after the damage is yielded.
        """
        for _, batch in scan_batches(self._log, self._starts, zxid):
            if batch.kind == KIND_BATCH and batch.last > zxid:
                yield batch

    @property
    def oldest_zxid(self) -> int:
        return min(self._starts.values(), default=self.durable_zxid)

    def pin(self, zxid: int) -> None:
        """Keep the batches above `zxid` (a snapshot of it is under way) until `unpin` is called with the same
        zxid.
        """
        self._pins.append(zxid)

    def unpin(self, zxid: int) -> None:
        self._pins.remove(zxid)

    def remove_below(self, zxid: int, *, keep_bytes: int = 128 << 20) -> None:
        """Remove the oldest segments that hold nothing above `zxid` (a durable checkpoint's) nor above a pin.

        Args:
            keep_bytes: what to leave behind the checkpoint all the same, for learners that lag a little.
        """
        limit = min((zxid, *self._pins))
        segments = self._log.segments()
        kept = 0
        doomed = []
        for (number, used), (following, _) in zip(
            reversed(segments[:-1]), reversed(segments[1:]), strict=True
        ):
            kept += used
            if self._starts.get(following, limit + 1) <= limit and kept > keep_bytes:
                doomed = [older for older, _ in segments if older <= number]
                break
        if doomed:
            for number in doomed:
                self._starts.pop(number, None)
            self.writer.submit(lambda: self._log.remove(doomed), None)

    def close(self) -> None:
        """Write what is queued and close the files."""
        self.writer.close()
        self._log.close()
