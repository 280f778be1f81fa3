"""What the bookie holds in memory of one ledger, and where it finds an entry.

An extent moves pending -> recent -> frozen -> index, and is found at every moment (R-B2, R-S1):

    pending   accepted, its record on the way to the disk; visible to reads, not yet answered
    recent    durable; `recent` over `frozen` over the index is exactly the durable log applied in order
    frozen    being written to the index by the checkpoint that runs, unchanged meanwhile
    index     LMDB

A later copy of an entry overrides an earlier one only once it is durable: were a pending copy to take the
place of a durable one, a checkpoint between the two would drop an acknowledged entry.
"""

import heapq
from collections.abc import Callable, Iterator
from typing import NamedTuple

from bookie.storage.index import Index
from bookie.storage.index_format import LedgerRecord, RunRecord
from bookie.storage.runs import ExtentRef, RunIndex


class Place(NamedTuple):
    """A record in a segment, header included."""

    segment: int
    offset: int
    length: int


class Piece(NamedTuple):
    """Entries `first`..`last`, found in one extent: its bytes if it is not durable yet, else its place."""

    first: int
    last: int
    source: bytes | Place


_EMPTY = RunIndex()


class LocalLedger:
    """State of one ledger; the store is the only one that changes it, on the loop (R-B1).

    Attributes:
        fenced: normal adds are refused; set at once, and promised to others when `fence_durable`.
        fence_waiters: called when the fence record is durable.
        lac: highest LAC received (never more: R-F8).
        persisted_last: highest id in the index as of its last refresh.
        changed: in the set that the next checkpoint writes.
        deleting: deleted; its tombstone is logged, its runs may still be in the index.
    """

    __slots__ = (
        "changed", "deleting", "fence_durable", "fence_waiters", "fenced", "frozen", "lac", "ledger_id",
        "master_key", "pending", "persisted_last", "recent",
    )  # fmt: skip

    def __init__(self, ledger_id: int, record: LedgerRecord) -> None:
        self.ledger_id = ledger_id
        self.master_key = record.master_key
        self.fenced = self.fence_durable = record.fenced
        self.deleting = record.deleting
        self.lac = record.lac
        self.persisted_last = record.last_entry_id
        self.fence_waiters: list[Callable[[], None]] = []
        self.pending = RunIndex()
        self.recent = RunIndex()
        self.frozen = _EMPTY
        self.changed = False

    @property
    def last_entry_id(self) -> int:
        """Highest id stored here, -1 when there is none."""
        return max(self.pending.last, self.recent.last, self.frozen.last, self.persisted_last)

    @property
    def idle(self) -> bool:
        """Nothing here that the index does not hold."""
        return not (self.changed or self.pending or self.recent or self.frozen or self.fence_waiters)

    def record(self) -> LedgerRecord:
        return LedgerRecord(self.master_key, self.fenced, self.deleting, self.lac)

    def freeze(self) -> Iterator[RunRecord]:
        """Give the durable runs to a checkpoint; the iterator may be consumed in another thread."""
        assert self.frozen is _EMPTY
        self.changed = False
        if self.recent:
            self.frozen = self.recent
            self.recent = RunIndex()
        return _records(self.frozen)

    def thaw(self) -> int:
        """The index holds the frozen runs; returns how many they were."""
        count = len(self.frozen)
        self.persisted_last = max(self.persisted_last, self.frozen.last)
        self.frozen = _EMPTY
        return count

    def forget_runs(self) -> None:
        """The ledger is deleted: nothing of it is found any more."""
        self.pending = RunIndex()
        self.recent = RunIndex()

    def pieces(self, index: Index, first: int, last: int) -> Iterator[Piece]:
        """Where the entries from `first` on are, up to `last` or the first that is not here.

        Raises:
            IndexDamagedError: the index cannot say.
        """
        entry_id = first
        while entry_id <= last:
            # What holds the id in memory, newest first; where a newer copy begins the older one is not used.
            piece: Piece | None = None
            limit = last
            for runs in (self.recent, self.frozen, self.pending):
                run = runs.find(entry_id)
                if run is not None and run.first <= entry_id:
                    extent = run.extent
                    piece = Piece(entry_id, min(run.last, limit), _source(extent))
                    break
                if run is not None and runs is not self.pending:
                    limit = min(limit, run.first - 1)
            if piece is None:
                stored = index.find(self.ledger_id, entry_id, self.persisted_last)
                if stored is None or stored.first > entry_id:
                    return
                piece = Piece(
                    entry_id, min(stored.last, limit), Place(stored.segment, stored.offset, stored.length)
                )
            yield piece
            entry_id = piece.last + 1

    def held(
        self, index: Index, first: int, last: int, ranges_max: int
    ) -> tuple[tuple[tuple[int, int], ...], int]:
        """Exactly the ids stored here in `first`..`last` as ranges, and the id up to which that is complete
        (R-N8).

        Raises:
            IndexDamagedError: the index cannot say.
        """
        sources = [
            ((run.first, run.last) for run in runs.runs_from(first))
            for runs in (self.recent, self.frozen, self.pending)
        ]
        sources.append(
            (run.first, run.last) for run in index.runs_from(self.ledger_id, first, self.persisted_last)
        )
        ranges: list[tuple[int, int]] = []
        for low, high in heapq.merge(*sources):
            low, high = max(low, first), min(high, last)
            if low > last:
                break
            if ranges and low <= ranges[-1][1] + 1:
                ranges[-1] = (ranges[-1][0], max(ranges[-1][1], high))
            elif len(ranges) == ranges_max:
                return tuple(ranges), low - 1
            else:
                ranges.append((low, high))
        return tuple(ranges), last


def _source(extent: ExtentRef) -> bytes | Place:
    if extent.data is not None:
        return extent.data
    return Place(extent.segment, extent.offset, extent.length)


def _records(runs: RunIndex) -> Iterator[RunRecord]:
    for first, last, extent in runs:
        live = extent.length * (last - first + 1) // extent.count
        yield RunRecord(first, last, extent.segment, extent.offset, extent.length, live)
