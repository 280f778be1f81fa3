"""The cursor ledger: positions and producers of all topics of one hub, one entry a second (DESIGN 6).

An entry is a CBOR array; a reader ignores elements behind those it knows:

    entry    := [1, snapshot first entry or null, hub registration, [row, ...]]
    row      := [0, topic id, topic epoch, subscription, incarnation, mark, [gap, length, ...]]       a cursor
              | [1, topic id, topic epoch, covered sequence, [producer, ...]]
              producer := [producer id, persisted, recent producer sequence, recent topic sequence, epoch]
              | [2, topic id, topic epoch, subscription, incarnation]                                 removed
    snapshot first entry: the entry where the latest complete snapshot begins; a reader starts there. A
    snapshot is one or more entries with all rows; between two, entries carry what changed. Null before the
    first is complete.

Every row has its topic's epoch, and a reader drops a row of a lower epoch than one it has seen (P3): so the
rows of a deposed owner never win. A subscription that was removed and created again has another incarnation.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import cbor2

from pubsub.core.cursor import Cursor
from pubsub.core.errors import RecordError

POSITIONS_VERSION: Final = 1
ROW_CURSOR: Final = 0
ROW_PRODUCERS: Final = 1
ROW_REMOVED: Final = 2
SNAPSHOT_EVERY_ENTRIES: Final = 64
"""Entries from one snapshot to the next; it bounds what a take-over reads."""
ENTRY_BYTES_TARGET: Final = 1 << 20
"""A snapshot is cut into entries of about this size."""

ProducerRow = tuple[bytes, int, int, int, int]


@dataclass(frozen=True, slots=True)
class CursorRow:
    topic_id: bytes
    epoch: int
    subscription: str
    incarnation: int
    mark: int
    ranges: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ProducersRow:
    """Producers of a topic that changed; stored headers above `covered` are to be replayed over them."""

    topic_id: bytes
    epoch: int
    covered: int
    producers: tuple[ProducerRow, ...]


@dataclass(frozen=True, slots=True)
class RemovedRow:
    topic_id: bytes
    epoch: int
    subscription: str
    incarnation: int


Row = CursorRow | ProducersRow | RemovedRow


def encode_positions(rows: Iterable[Row], registration: int, snapshot_first: int | None) -> bytes:
    """One entry of a cursor ledger."""
    out: list[list[Any]] = []
    for row in rows:
        match row:
            case CursorRow():
                out.append(
                    [
                        ROW_CURSOR,
                        row.topic_id,
                        row.epoch,
                        row.subscription,
                        row.incarnation,
                        row.mark,
                        list(row.ranges),
                    ]
                )
            case ProducersRow():
                producers = [list(one) for one in row.producers]
                out.append([ROW_PRODUCERS, row.topic_id, row.epoch, row.covered, producers])
            case RemovedRow():
                out.append([ROW_REMOVED, row.topic_id, row.epoch, row.subscription, row.incarnation])
    return cbor2.dumps([POSITIONS_VERSION, snapshot_first, registration, out])


@dataclass(frozen=True, slots=True)
class PositionsEntry:
    snapshot_first: int | None
    registration: int
    rows: tuple[Row, ...]


def decode_positions(data: bytes, where: str) -> PositionsEntry:
    """Read one entry; rows of an unknown kind are skipped.

    Raises:
        RecordError: not an entry of a cursor ledger.
    """
    try:
        fields = cbor2.loads(data)
        version, snapshot_first, registration, rows = fields[:4]
        if version != POSITIONS_VERSION or not isinstance(registration, int):
            raise RecordError(f"{where}: expected cursor entry version {POSITIONS_VERSION}, got {version!r}")
        if snapshot_first is not None and not isinstance(snapshot_first, int):
            raise TypeError(f"snapshot at {snapshot_first!r}")
        decoded = tuple(row for one in rows if (row := _decode_row(one)) is not None)
    except (cbor2.CBORDecodeError, ValueError, TypeError, IndexError, OverflowError, RecursionError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{where}: damaged cursor entry: {error!r}") from error
    return PositionsEntry(snapshot_first, registration, decoded)


@dataclass(slots=True)
class TopicPositions:
    """What a cursor ledger says about one topic."""

    epoch: int
    cursors: dict[tuple[str, int], Cursor] = field(default_factory=dict)
    covered: int = 0
    producers: dict[bytes, ProducerRow] = field(default_factory=dict)


class Positions:
    """Replays entries of a cursor ledger, in order, into the latest positions of each topic."""

    __slots__ = ("topics",)

    def __init__(self) -> None:
        self.topics: dict[bytes, TopicPositions] = {}

    def replay(self, rows: Iterable[Row]) -> None:
        for row in rows:
            topic = self.topics.get(row.topic_id)
            if topic is None:
                topic = self.topics[row.topic_id] = TopicPositions(row.epoch)
            if row.epoch < topic.epoch:
                continue
            topic.epoch = row.epoch
            match row:
                case CursorRow():
                    cursor = Cursor.decode(row.mark, row.ranges)
                    known = topic.cursors.get((row.subscription, row.incarnation))
                    if known is not None:
                        cursor.merge(known)
                    topic.cursors[(row.subscription, row.incarnation)] = cursor
                case ProducersRow():
                    topic.covered = max(topic.covered, row.covered)
                    for producer in row.producers:
                        topic.producers[producer[0]] = producer
                case RemovedRow():
                    topic.cursors.pop((row.subscription, row.incarnation), None)


def cut_rows(rows: Sequence[Row], bytes_target: int = ENTRY_BYTES_TARGET) -> list[list[Row]]:
    """Rows grouped into entries of about `bytes_target` bytes, at least one group."""
    groups: list[list[Row]] = [[]]
    size = 0
    for row in rows:
        if size >= bytes_target:
            groups.append([])
            size = 0
        groups[-1].append(row)
        size += 64 + (48 * len(row.producers) if isinstance(row, ProducersRow) else 128)
    return groups


def _decode_row(fields: Any) -> Row | None:
    kind = fields[0]
    if kind == ROW_CURSOR:
        topic_id, epoch, subscription, incarnation, mark, ranges = fields[1:7]
        row: Row = CursorRow(topic_id, epoch, subscription, incarnation, mark, tuple(ranges))
        _check(isinstance(mark, int) and all(isinstance(one, int) for one in ranges), fields)
        _check(isinstance(subscription, str) and isinstance(incarnation, int), fields)
    elif kind == ROW_PRODUCERS:
        topic_id, epoch, covered, producers = fields[1:5]
        rows = []
        for one in producers:
            producer_id, persisted, recent_sequence, recent_first, producer_epoch = one[:5]
            numbers = (persisted, recent_sequence, recent_first, producer_epoch)
            _check(isinstance(producer_id, bytes) and all(isinstance(n, int) for n in numbers), fields)
            rows.append((producer_id, *numbers))
        _check(isinstance(covered, int), fields)
        row = ProducersRow(topic_id, epoch, covered, tuple(rows))
    elif kind == ROW_REMOVED:
        topic_id, epoch, subscription, incarnation = fields[1:5]
        _check(isinstance(subscription, str) and isinstance(incarnation, int), fields)
        row = RemovedRow(topic_id, epoch, subscription, incarnation)
    elif isinstance(kind, int):
        return None
    else:
        raise TypeError(f"row of kind {kind!r}")
    _check(isinstance(topic_id, bytes) and isinstance(epoch, int), fields)
    return row


def _check(fact: bool, fields: Any) -> None:
    if not fact:
        raise TypeError(f"row {str(fields)[:80]} has fields of wrong types")
