"""Repeats refused by producer id and sequence (2.9).

A producer numbers its messages; the hub keeps, per topic and producer, the highest number pushed (P) and the
highest persisted (D). P never moves back on a live owner: a failed add makes the hub give the topic up, and
the next owner rebuilds D from what is stored.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, assert_never

from pubsub.core.errors import OutOfOrderError

PRODUCERS_MAX: Final = 10_000
PRODUCER_IDLE_MS_MAX: Final = 6 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Accept:
    """New: append it."""


@dataclass(frozen=True, slots=True)
class Pending:
    """The same batch is being written: answer with the result of that add, not before."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Stored before: success, flagged as a repeat. `first` is its topic sequence, 0 when no longer known."""

    first: int


Verdict = Accept | Pending | Stored


@dataclass(slots=True)
class Producer:
    """One producer's numbers; `recent_*` describe its last persisted batch, for the answer to a repeat."""

    pushed: int
    persisted: int
    recent_sequence: int
    recent_first: int
    used_ms: int
    epoch: int = 0


class DedupTable:
    """The producers of one topic; at most PRODUCERS_MAX, the longest idle one is forgotten first."""

    __slots__ = ("_changed", "_producers", "producers_max")

    def __init__(self, producers_max: int = PRODUCERS_MAX) -> None:
        self._producers: OrderedDict[bytes, Producer] = OrderedDict()
        self._changed: set[bytes] = set()
        self.producers_max = producers_max

    def __len__(self) -> int:
        return len(self._producers)

    def judge(self, producer_id: bytes, sequence: int, last: int) -> Verdict:
        """What to do with a batch of the producer's numbers `sequence` to `last`. Changes nothing.

        Raises:
            OutOfOrderError: it overlaps what was pushed only in part, so it is not a repeat of the same
                bytes.
        """
        producer = self._producers.get(producer_id)
        if producer is None or sequence > producer.pushed:
            return Accept()
        if last <= producer.persisted:
            return Stored(producer.recent_first if producer.recent_sequence == sequence else 0)
        if last <= producer.pushed and sequence > producer.persisted:
            return Pending()
        raise OutOfOrderError(
            f"batch {sequence}..{last} of producer {producer_id.hex()} overlaps {producer.persisted} (stored)"
            f" and {producer.pushed} (being stored) in part"
        )

    def push(self, producer_id: bytes, last: int, now_ms: int) -> None:
        """An accepted batch has been handed to the ledger."""
        producer = self._producers.get(producer_id)
        if producer is None:
            self._make_room()
            producer = self._producers[producer_id] = Producer(0, 0, 0, 0, now_ms)
        else:
            self._producers.move_to_end(producer_id)
        producer.pushed = max(producer.pushed, last)
        producer.used_ms = now_ms

    def persist(self, producer_id: bytes, sequence: int, last: int, first: int) -> None:
        """A pushed batch is stored; its first message is the topic's `first`."""
        producer = self._producers.get(producer_id)
        if producer is None:
            return
        producer.persisted = max(producer.persisted, last)
        producer.recent_sequence = sequence
        producer.recent_first = first
        self._changed.add(producer_id)

    def replay(self, producer_id: bytes, sequence: int, last: int, first: int, now_ms: int) -> None:
        """A header found in the ledgers when the topic was taken over, in their order."""
        self.push(producer_id, last, now_ms)
        self.persist(producer_id, sequence, last, first)

    def last_persisted(self, producer_id: bytes) -> int:
        """The producer's highest stored number, 0 when it is unknown here: it continues behind it."""
        producer = self._producers.get(producer_id)
        return 0 if producer is None else producer.persisted

    def take_changes(self) -> list[tuple[bytes, int, int, int, int]]:
        """Rows (producer id, persisted, recent sequence, recent first, epoch) that changed since the last
        call.
        """
        rows = [self._row(producer_id) for producer_id in self._changed if producer_id in self._producers]
        self._changed.clear()
        return rows

    def rows(self) -> list[tuple[bytes, int, int, int, int]]:
        """The whole table in the form of `take_changes`, the longest idle first."""
        return [self._row(producer_id) for producer_id in self._producers]

    def restore(self, rows: list[tuple[bytes, int, int, int, int]], now_ms: int) -> None:
        """Put back rows of a snapshot; a later row of the same producer wins."""
        for producer_id, persisted, recent_sequence, recent_first, epoch in rows:
            self._producers.pop(producer_id, None)
            self._make_room()
            self._producers[producer_id] = Producer(
                persisted, persisted, recent_sequence, recent_first, now_ms, epoch
            )

    def forget_idle(self, now_ms: int) -> None:
        """Forget producers idle for longer than PRODUCER_IDLE_MS_MAX, unless one has a batch in flight."""
        for producer_id, producer in list(self._producers.items()):
            if now_ms - producer.used_ms < PRODUCER_IDLE_MS_MAX:
                break
            if producer.pushed == producer.persisted:
                del self._producers[producer_id]

    def _row(self, producer_id: bytes) -> tuple[bytes, int, int, int, int]:
        producer = self._producers[producer_id]
        return (
            producer_id,
            producer.persisted,
            producer.recent_sequence,
            producer.recent_first,
            producer.epoch,
        )

    def _make_room(self) -> None:
        if len(self._producers) < self.producers_max:
            return
        for producer_id, producer in self._producers.items():
            if producer.pushed == producer.persisted:
                del self._producers[producer_id]
                return


def describe(verdict: Verdict) -> str:
    """A word for logs."""
    match verdict:
        case Accept():
            return "new"
        case Pending():
            return "being stored"
        case Stored():
            return "stored"
    assert_never(verdict)
