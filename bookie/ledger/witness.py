"""What a fenced bookie said it holds, as a question that can be asked per entry (R-N8, 6.4)."""

from bisect import bisect_right
from itertools import pairwise

from bookie.ledger.extent import NO_ENTRY_ID
from bookie.ledger.wire import FenceReply


class Witness:
    """What one fenced bookie said it holds, asked by entry id."""

    __slots__ = ("_firsts", "_lasts", "floor", "lac", "limbo", "through")

    def __init__(self, reply: FenceReply) -> None:
        """Raises ValueError for an answer that contradicts itself."""
        ordered = all(a[1] < b[0] for a, b in pairwise(reply.held))
        if not ordered or any(first > last or first <= reply.floor for first, last in reply.held):
            raise ValueError(f"held ranges {reply.held!r:.100} above {reply.floor}")
        if not NO_ENTRY_ID <= reply.lac <= reply.floor or reply.through < reply.floor:
            raise ValueError(f"lac {reply.lac}, floor {reply.floor}, through {reply.through}")
        self.lac = reply.lac
        self.floor = reply.floor
        self.through = reply.through
        self.limbo = reply.limbo
        self._firsts = [first for first, _ in reply.held]
        self._lasts = [last for _, last in reply.held]

    def held_until(self, entry_id: int) -> int | None:
        """The end of the held run that contains the entry, or None."""
        position = bisect_right(self._firsts, entry_id) - 1
        if position >= 0 and self._lasts[position] >= entry_id:
            return self._lasts[position]
        return None

    def denies(self, entry_id: int) -> bool:
        """Whether this is an explicit negative (6.4): within what was asked, not held, and not in limbo."""
        return not self.limbo and self.floor < entry_id <= self.through and self.held_until(entry_id) is None
