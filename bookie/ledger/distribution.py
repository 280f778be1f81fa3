"""Which bookies of an ensemble hold which entry, and when answers suffice (1.2, 6.1).

With E bookies, stripe unit S and write quorum Qw, entry e is on the indices ((e div S) + j) mod E for j in
0..Qw-1 (R-M8). The absolute entry id counts, so a replaced bookie takes over exactly the index of the old
one. Python's integers have no width to overflow (R-M2).
"""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """Quorums and stripe unit of one ledger; immutable for its life."""

    ensemble_size: int
    write_quorum: int
    ack_quorum: int
    stripe_unit: int = 1

    def write_set(self, entry_id: int) -> tuple[int, ...]:
        """Ensemble indices that hold the entry, in the order in which replicas are tried."""
        return self.write_set_from(entry_id // self.stripe_unit % self.ensemble_size)

    def write_set_from(self, index: int) -> tuple[int, ...]:
        """The write set that begins at an ensemble index; there are E different ones."""
        return tuple((index + j) % self.ensemble_size for j in range(self.write_quorum))

    def holds(self, index: int, entry_id: int) -> bool:
        """Whether the bookie at `index` is in the entry's write set."""
        distance = (index - entry_id // self.stripe_unit) % self.ensemble_size
        return distance < self.write_quorum

    def holds_any(self, index: int, first: int, last: int) -> bool:
        """Whether the bookie at `index` should hold any entry of first..last ("striped")."""
        first_unit, last_unit = first // self.stripe_unit, last // self.stripe_unit
        if last_unit - first_unit >= self.ensemble_size - self.write_quorum:
            return True
        return any(
            (index - unit) % self.ensemble_size < self.write_quorum
            for unit in range(first_unit, last_unit + 1)
        )

    def run_end(self, entry_id: int, last: int) -> int:
        """The last id up to `last` whose write set is that of `entry_id` without a break between.

        Where E = Qw each bookie holds every entry and nothing needs to be cut.
        """
        if self.ensemble_size == self.write_quorum:
            return last
        return min(last, (entry_id // self.stripe_unit + 1) * self.stripe_unit - 1)

    @property
    def negatives_needed(self) -> int:
        """How many of a write set must deny an entry, fenced, so that it can never be acknowledged."""
        return self.write_quorum - self.ack_quorum + 1

    def covers(self, unknown: Collection[int]) -> bool:
        """Whether no ack quorum of any write set consists of indices in `unknown` (6.1, per write set)."""
        unknown = frozenset(unknown)
        if len(unknown) < self.ack_quorum:
            return True
        return all(
            len(unknown.intersection(self.write_set_from(index))) < self.ack_quorum
            for index in range(self.ensemble_size if self.ensemble_size > self.write_quorum else 1)
        )

    def reachable(self, down: Collection[int]) -> bool:
        """Whether every write set still has an ack quorum outside `down`."""
        spare = self.write_quorum - self.ack_quorum
        if len(down) <= spare:
            return True
        down = frozenset(down)
        return all(
            len(down.intersection(self.write_set_from(index))) <= spare
            for index in range(self.ensemble_size if self.ensemble_size > self.write_quorum else 1)
        )
