"""A set of ids as ranges: tombstones of deleted ledgers, kept for ever because their ids are dense (R-G5)."""

from bisect import bisect_left
from collections.abc import Iterator


class IdRanges:
    """Disjoint inclusive ranges in ascending order; neighbours are joined."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def __contains__(self, number: int) -> bool:
        at = bisect_left(self._lasts, number)
        return at < len(self._lasts) and self._firsts[at] <= number

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._firsts, self._lasts, strict=True)

    def __len__(self) -> int:
        return len(self._lasts)

    def add(self, first: int, last: int) -> None:
        """Include `first`..`last`."""
        low = bisect_left(self._lasts, first - 1)
        high = low
        while high < len(self._firsts) and self._firsts[high] <= last + 1:
            first = min(first, self._firsts[high])
            last = max(last, self._lasts[high])
            high += 1
        self._firsts[low:high] = [first]
        self._lasts[low:high] = [last]
