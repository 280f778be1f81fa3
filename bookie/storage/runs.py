"""Runs of entry ids of one ledger in memory: disjoint, ascending, each with where its bytes are.

The place of a run is an `ExtentRef`, shared by all the pieces that later arrivals cut from it. Appending at
the end, which is what a writer does, costs three list appends; anything else is a bisection and a splice.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import NamedTuple


class ExtentRef:
    """One extent of one ledger: its bytes while they are in memory, its place once they are durable.

    Attributes:
        segment: segment that holds the record, -1 until it is durable.
        offset, length: of the record in that segment, header included.
        data: the extent's bytes until it is durable; None when only cache and segment have them.
    """

    __slots__ = ("count", "data", "first", "length", "offset", "segment")

    def __init__(self, first: int, count: int, length: int, data: bytes | None) -> None:
        self.first = first
        self.count = count
        self.segment = -1
        self.offset = 0
        self.length = length
        self.data = data

    @property
    def last(self) -> int:
        return self.first + self.count - 1


class Run(NamedTuple):
    """Entries `first`..`last`, all to be found in `extent`."""

    first: int
    last: int
    extent: ExtentRef


class RunIndex:
    """Disjoint runs in ascending order; the newest insertion wins where two overlap (R-B7)."""

    __slots__ = ("_extents", "_firsts", "_lasts")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._extents: list[ExtentRef] = []

    def __len__(self) -> int:
        return len(self._lasts)

    def __iter__(self) -> Iterator[Run]:
        return map(Run, self._firsts, self._lasts, self._extents)

    @property
    def last(self) -> int:
        """The highest id, -1 when there is none."""
        return self._lasts[-1] if self._lasts else -1

    def insert(self, first: int, last: int, extent: ExtentRef) -> None:
        """Let `first`..`last` point to `extent`, whatever they pointed to before (R-B8)."""
        if not self._lasts or first > self._lasts[-1]:
            self._firsts.append(first)
            self._lasts.append(last)
            self._extents.append(extent)
            return
        low = high = bisect_left(self._lasts, first)
        while high < len(self._firsts) and self._firsts[high] <= last:
            high += 1
        pieces = [Run(first, last, extent)]
        if low < high:
            if self._firsts[low] < first:
                pieces.insert(0, Run(self._firsts[low], first - 1, self._extents[low]))
            if self._lasts[high - 1] > last:
                pieces.append(Run(last + 1, self._lasts[high - 1], self._extents[high - 1]))
        self._firsts[low:high] = [run.first for run in pieces]
        self._lasts[low:high] = [run.last for run in pieces]
        self._extents[low:high] = [run.extent for run in pieces]

    def find(self, entry_id: int) -> Run | None:
        """The run that holds `entry_id`, or the next one above it, or None."""
        at = bisect_left(self._lasts, entry_id)
        if at == len(self._lasts):
            return None
        return Run(self._firsts[at], self._lasts[at], self._extents[at])

    def runs_from(self, entry_id: int) -> Iterator[Run]:
        """The runs that hold `entry_id` or ids above it; the index must not change meanwhile."""
        for at in range(bisect_left(self._lasts, entry_id), len(self._lasts)):
            yield Run(self._firsts[at], self._lasts[at], self._extents[at])

    def remove(self, extent: ExtentRef) -> None:
        """Take away what is left of `extent`."""
        at = bisect_left(self._lasts, extent.first)
        end = at
        while end < len(self._firsts) and self._firsts[end] <= extent.last:
            end += 1
        if at + 1 == end and self._extents[at] is extent:
            del self._firsts[at], self._lasts[at], self._extents[at]
        elif at < end:
            self.retain(lambda kept: kept is not extent)

    def retain(self, wanted: Callable[[ExtentRef], bool]) -> int:
        """Keep only the runs whose extent is wanted; returns how many went."""
        before = len(self._lasts)
        kept = [run for run in self if wanted(run.extent)]
        self._firsts = [run.first for run in kept]
        self._lasts = [run.last for run in kept]
        self._extents = [run.extent for run in kept]
        return before - len(kept)
