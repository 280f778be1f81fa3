"""The topic record: one znode, one version, changed only by compare-and-set (2.1).

A CBOR map with text keys. Unknown keys, and unknown trailing fields of a range, are kept when a record is
written back, so an older hub does not lose what a newer one stored. Every transition is a method that returns
the next record; the shell writes it with the version it read.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import cbor2

from pubsub.core.errors import RecordError

RECORD_VERSION: Final = 1
STATE_OPEN: Final = "open"
STATE_DELETED: Final = "deleted"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Owner:
    """A hub at one registration. The registration id is the creation zxid of its ephemeral: a restarted hub
    has another one, so it is never taken for its predecessor (P11).
    """

    address: str
    registration: int


@dataclass(frozen=True, slots=True)
class LedgerRange:
    """One ledger of the chain.

    Attributes:
        last: sequence of its last message; None while its owner writes it.
        copies: bookies it was created over; fewer than wanted marks it for rolling once more are back.
    """

    ledger_id: int
    first: int
    last: int | None = None
    bytes: int = 0
    first_time_ms: int = 0
    last_time_ms: int = 0
    copies: int = 0
    unknown: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class TopicRecord:
    """What the coordination service knows about a topic.

    Attributes:
        topic_id: 16 random bytes; a topic created again under its old name has another one.
        epoch: grows by one at every acquisition; fences everything an owner writes outside its data ledger.
        owner: None before the first acquisition and after a clean release.
        ranges: the chain in order; all but the last are closed.
        sealed: the last sequence of all closed ranges there ever were, so that a trimmed chain repeats no
            number.
        deleting: ledgers taken from the chain and perhaps not deleted yet.
        cursors: the cursor ledgers that hold the positions of this topic's subscriptions.
    """

    topic_id: bytes
    epoch: int = 0
    owner: Owner | None = None
    ranges: tuple[LedgerRange, ...] = ()
    sealed: int = 0
    deleting: tuple[int, ...] = ()
    cursors: tuple[int, ...] = ()
    state: str = STATE_OPEN
    created_ms: int = 0
    producer_epoch: int = 0
    properties: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, Any] = field(default_factory=dict)

    @property
    def last_range(self) -> LedgerRange | None:
        return self.ranges[-1] if self.ranges else None

    @property
    def next_first(self) -> int:
        """First sequence of the next ledger; known only while every range is closed."""
        return self.sealed + 1

    @property
    def log_start(self) -> int:
        """The first sequence that is kept."""
        return self.ranges[0].first if self.ranges else self.sealed + 1

    def claimed(self, owner: Owner) -> "TopicRecord":
        """First compare-and-set of an acquisition (P12): the new owner, the next epoch."""
        return replace(self, owner=owner, epoch=self.epoch + 1)

    def closed(self, last: int, byte_count: int, last_time_ms: int) -> "TopicRecord":
        """The last range ends at `last`; a ledger without messages leaves the chain and is deleted."""
        tail = self.ranges[-1]
        if last < tail.first:
            deleting = (*self.deleting, tail.ledger_id)
            return replace(self, ranges=self.ranges[:-1], deleting=deleting, sealed=tail.first - 1)
        done = replace(tail, last=last, bytes=byte_count, last_time_ms=last_time_ms)
        return replace(self, ranges=(*self.ranges[:-1], done), sealed=last)

    def opened(self, ledger: LedgerRange) -> "TopicRecord":
        """A new open range behind closed ones (P13: nothing is appended to it before this is stored)."""
        tail = self.last_range
        assert tail is None or tail.last is not None, "the last range is open"
        assert ledger.first == self.next_first, "the chain has a gap"
        return replace(self, ranges=(*self.ranges, ledger))

    def with_cursors(self, cursors: tuple[int, ...]) -> "TopicRecord":
        return replace(self, cursors=cursors)

    def trimmed(self, count: int) -> "TopicRecord":
        """The first `count` ranges leave the chain; their ledgers are deleted after this is stored (2.6)."""
        gone = self.ranges[:count]
        assert all(ledger.last is not None for ledger in gone), "an open ledger is never deleted"
        ids = tuple(ledger.ledger_id for ledger in gone)
        return replace(self, ranges=self.ranges[count:], deleting=(*self.deleting, *ids))

    def forgotten(self, ledger_ids: frozenset[int]) -> "TopicRecord":
        """These ledgers have been deleted."""
        return replace(self, deleting=tuple(one for one in self.deleting if one not in ledger_ids))

    def released(self) -> "TopicRecord":
        """Given up cleanly; anyone may acquire without a probe."""
        return replace(self, owner=None)

    def deleted(self) -> "TopicRecord":
        """The topic is being deleted; its whole chain is to go."""
        ids = tuple(ledger.ledger_id for ledger in self.ranges)
        return replace(self, state=STATE_DELETED, ranges=(), deleting=(*self.deleting, *ids))

    def landed(self, wanted: "TopicRecord") -> bool:
        """Whether this record, read after a lost answer, shows that `wanted` was written (P14)."""
        return (
            self.topic_id == wanted.topic_id
            and self.epoch == wanted.epoch
            and self.owner == wanted.owner
            and self.cursors == wanted.cursors
            and self.state == wanted.state
            and self.deleting == wanted.deleting
            and [(one.ledger_id, one.last) for one in self.ranges]
            == [(one.ledger_id, one.last) for one in wanted.ranges]
        )


def encode_record(record: TopicRecord) -> bytes:
    """The znode's data."""
    owner = record.owner
    fields: dict[str, Any] = {
        **record.unknown,
        "version": RECORD_VERSION,
        "id": record.topic_id,
        "epoch": record.epoch,
        "owner": None if owner is None else [owner.address, owner.registration],
        "ranges": [
            [
                one.ledger_id,
                one.first,
                one.last,
                one.bytes,
                one.first_time_ms,
                one.last_time_ms,
                one.copies,
                *one.unknown,
            ]
            for one in record.ranges
        ],
        "sealed": record.sealed,
        "deleting": list(record.deleting),
        "cursors": list(record.cursors),
        "state": record.state,
        "created_ms": record.created_ms,
        "producer_epoch": record.producer_epoch,
        "properties": record.properties,
    }
    return cbor2.dumps(fields)


def decode_record(data: bytes, where: str) -> TopicRecord:
    """Read a znode's data.

    Args:
        where: path, for the error's text.

    Raises:
        RecordError: not a topic record, or one this program cannot serve.
    """
    fields = decode_map(data, where)
    version = fields.pop("version", None)
    if version != RECORD_VERSION:
        raise RecordError(f"{where}: expected a topic record of version {RECORD_VERSION}, got {version!r}")
    try:
        owner = fields.pop("owner")
        record = TopicRecord(
            topic_id=_typed(fields.pop("id"), bytes),
            epoch=_typed(fields.pop("epoch"), int),
            owner=None if owner is None else Owner(_typed(owner[0], str), _typed(owner[1], int)),
            ranges=tuple(_decode_range(one) for one in _typed(fields.pop("ranges"), list)),
            sealed=_typed(fields.pop("sealed"), int),
            deleting=tuple(_typed(one, int) for one in _typed(fields.pop("deleting"), list)),
            cursors=tuple(_typed(one, int) for one in _typed(fields.pop("cursors"), list)),
            state=_typed(fields.pop("state"), str),
            created_ms=_typed(fields.pop("created_ms"), int),
            producer_epoch=_typed(fields.pop("producer_epoch"), int),
            properties={
                _typed(k, str): _typed(v, str) for k, v in _typed(fields.pop("properties"), dict).items()
            },
            unknown=fields,
        )
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise RecordError(f"{where}: damaged topic record: {error!r}") from error
    _check_chain(record, where)
    return record


def decode_map(data: bytes, where: str) -> dict[str, Any]:
    """A CBOR map with text keys, else RecordError."""
    try:
        fields = cbor2.loads(data)
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise RecordError(f"{where}: not a CBOR record: {error}") from error
    if not isinstance(fields, dict) or not all(isinstance(key, str) for key in fields):
        raise RecordError(f"{where}: expected a CBOR map with text keys, got {type(fields).__name__}")
    return fields


def _decode_range(fields: Any) -> LedgerRange:
    ledger_id, first, last, byte_count, first_ms, last_ms, copies = fields[:7]
    return LedgerRange(
        _typed(ledger_id, int),
        _typed(first, int),
        None if last is None else _typed(last, int),
        _typed(byte_count, int),
        _typed(first_ms, int),
        _typed(last_ms, int),
        _typed(copies, int),
        tuple(fields[7:]),
    )


def _check_chain(record: TopicRecord, where: str) -> None:
    """Every range but the last has an end, and the next begins right behind it (1.11)."""
    expected = None
    for one in record.ranges:
        if one.first < 1 or (expected is not None and one.first != expected):
            raise RecordError(f"{where}: ledger {one.ledger_id} begins at {one.first}, expected {expected}")
        if one.last is None and one is not record.ranges[-1]:
            raise RecordError(f"{where}: ledger {one.ledger_id} has no end, but it is not the last")
        expected = None if one.last is None else one.last + 1
    if expected not in (None, record.sealed + 1):
        raise RecordError(
            f"{where}: closed up to {record.sealed}, but the last closed range ends before {expected}"
        )


def _typed(value: Any, kind: type[T]) -> T:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"expected {kind.__name__}, got {value!r}")
    return value
