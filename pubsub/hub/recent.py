"""The newest entries of a topic in memory, so that subscribers that keep up never cause a read (1.14,
bounded).
"""

from bisect import bisect_right
from dataclasses import dataclass

COMPACT_AFTER = 256


@dataclass(slots=True)
class RecentBudget:
    """Bytes all topics of a hub keep together."""

    bytes_max: int
    bytes_used: int = 0


class RecentEntries:
    """Consecutive entries, oldest evicted first above the topic's or the hub's bound."""

    __slots__ = ("_budget", "_bytes", "_bytes_max", "_entries", "_firsts", "_head", "end")

    def __init__(self, first: int, bytes_max: int, budget: RecentBudget) -> None:
        """Holds nothing; the next entry added begins with sequence `first`."""
        self.end = first
        self._bytes_max = bytes_max
        self._budget = budget
        self._bytes = 0
        # The entries from _head on are live; dropped ones before it are removed in bulk.
        self._firsts: list[int] = []
        self._entries: list[bytes] = []
        self._head = 0

    @property
    def start(self) -> int:
        """The lowest sequence held; `end` when nothing is."""
        return self._firsts[self._head] if self._head < len(self._firsts) else self.end

    @property
    def held_bytes(self) -> int:
        return self._bytes

    def add(self, first: int, count: int, entry: bytes) -> None:
        """The next entry, confirmed."""
        assert first == self.end, f"entry begins at {first}, expected {self.end}"
        self._firsts.append(first)
        self._entries.append(entry)
        self.end = first + count
        self._bytes += len(entry)
        self._budget.bytes_used += len(entry)
        while self._bytes > self._bytes_max or (
            self._budget.bytes_used > self._budget.bytes_max and len(self._firsts) - self._head > 1
        ):
            self._evict()

    def get_from(self, sequence: int, bytes_max: int) -> list[tuple[int, bytes]]:
        """(first sequence, entry) of the entry that holds `sequence` and those behind it, at least one and
        about `bytes_max` bytes. `sequence` must be in [start, end).
        """
        at = bisect_right(self._firsts, sequence, self._head) - 1
        assert at >= self._head, f"sequence {sequence} is not among {self.start}..{self.end - 1}"
        found = []
        size = 0
        while at < len(self._firsts) and size < bytes_max:
            entry = self._entries[at]
            found.append((self._firsts[at], entry))
            size += len(entry)
            at += 1
        return found

    def clear(self) -> None:
        """Gives everything back to the budget."""
        self._budget.bytes_used -= self._bytes
        self._bytes = 0
        self._firsts.clear()
        self._entries.clear()
        self._head = 0

    def _evict(self) -> None:
        size = len(self._entries[self._head])
        self._bytes -= size
        self._budget.bytes_used -= size
        self._entries[self._head] = b""
        self._head += 1
        if self._head >= COMPACT_AFTER and self._head * 2 >= len(self._firsts):
            del self._firsts[: self._head], self._entries[: self._head]
            self._head = 0
