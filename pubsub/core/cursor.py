"""A durable subscription's state: everything up to M is acknowledged, and disjoint ranges above it (2.2).

Acknowledgements are idempotent and only ever add (P2), so replaying or repeating them is harmless.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from pubsub.core.errors import InvalidRequestError, RecordError


class Cursor:
    """Mark-delete position and acknowledged ranges above it."""

    __slots__ = ("_firsts", "_lasts", "mark")

    def __init__(self, mark: int = 0) -> None:
        """Nothing above `mark` is acknowledged."""
        self.mark = mark
        # Parallel and sorted: range i is _firsts[i].._lasts[i]; ranges neither touch nor overlap, nor touch
        # the mark.
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def __repr__(self) -> str:
        return f"Cursor({self.mark}, {self.ranges})"

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The acknowledged ranges above the mark, first and last inclusive."""
        return list(zip(self._firsts, self._lasts, strict=True))

    @property
    def highest(self) -> int:
        """The highest acknowledged sequence."""
        return self._lasts[-1] if self._lasts else self.mark

    def is_acknowledged(self, sequence: int) -> bool:
        if sequence <= self.mark:
            return True
        at = bisect_right(self._firsts, sequence) - 1
        return at >= 0 and sequence <= self._lasts[at]

    def acknowledge_to(self, sequence: int, high_watermark: int) -> bool:
        """Cumulative: everything up to `sequence`. Lower than the mark changes nothing.

        Returns:
            Whether anything changed.

        Raises:
            InvalidRequestError: above the high watermark: nobody can have received that.
        """
        _check_watermark(sequence, high_watermark)
        if sequence <= self.mark:
            return False
        self.mark = sequence
        self._absorb()
        return True

    def acknowledge(self, first: int, last: int, high_watermark: int) -> bool:
        """Individual: the messages `first` to `last`. Returns and raises as `acknowledge_to`."""
        if first > last or first < 1:
            raise InvalidRequestError(f"acknowledged range {first}..{last} is empty or below 1")
        _check_watermark(last, high_watermark)
        first = max(first, self.mark + 1)
        if first > last:
            return False
        # Everything that overlaps or touches first..last melts into one range.
        low = bisect_left(self._lasts, first - 1)
        high = bisect_right(self._firsts, last + 1)
        if high - low == 1 and self._firsts[low] <= first and last <= self._lasts[low]:
            return False
        if low < high:
            first = min(first, self._firsts[low])
            last = max(last, self._lasts[high - 1])
        self._firsts[low:high] = [first]
        self._lasts[low:high] = [last]
        self._absorb()
        return True

    def encode_ranges(self) -> list[int]:
        """Gap to the previous range (or the mark) and length, alternating: small numbers for a compact
        record.
        """
        out: list[int] = []
        previous = self.mark
        for first, last in zip(self._firsts, self._lasts, strict=True):
            out += (first - previous - 1, last - first + 1)
            previous = last
        return out

    @classmethod
    def decode(cls, mark: int, ranges: Sequence[int]) -> "Cursor":
        """The reverse of `mark` and `encode_ranges`.

        Raises:
            RecordError: an odd count, or a gap or length below 1.
        """
        if mark < 0 or len(ranges) % 2 or any(number < 1 for number in ranges):
            raise RecordError(
                f"cursor at {mark} with ranges {list(ranges)[:8]}: expected gaps and lengths from 1 on"
            )
        cursor = cls(mark)
        position = mark
        for gap, length in zip(ranges[::2], ranges[1::2], strict=True):
            cursor._firsts.append(position + gap + 1)
            position += gap + length
            cursor._lasts.append(position)
        return cursor

    def merge(self, other: "Cursor") -> None:
        """Takes over what `other` has acknowledged: the maximum of two records of one subscription."""
        if other.mark > self.mark:
            self.mark = other.mark
            self._absorb()
        for first, last in other.ranges:
            self.acknowledge(first, last, last)

    def _absorb(self) -> None:
        """Drops ranges the mark has reached and moves it over one that begins right behind it."""
        drop = 0
        while drop < len(self._firsts) and self._firsts[drop] <= self.mark + 1:
            self.mark = max(self.mark, self._lasts[drop])
            drop += 1
        del self._firsts[:drop], self._lasts[:drop]


def _check_watermark(sequence: int, high_watermark: int) -> None:
    if sequence > high_watermark:
        raise InvalidRequestError(f"acknowledged {sequence}, but only {high_watermark} messages are stored")
