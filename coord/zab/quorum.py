"""Which sets of servers may decide, and which servers count at all.

`Quorum` is the seam for weights and groups; today only majorities exist (19.7).

A server whose disk was lost still has its number but not its promises and not the writes it acknowledged.
`countable` keeps it out of every quorum until it has been synchronized once (DESIGN 4): its mark is a
current epoch of 0, for the current epoch is set only after everything of a leader's history was durable.
The difficulty is a new ensemble, where nobody has history and somebody is the first to set the epoch; see
the function.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from coord.zab.messages import Sid


class Quorum(Protocol):
    """Sets of participants of which any two have a member in common."""

    @property
    def participants(self) -> frozenset[Sid]: ...

    def contains(self, sids: Collection[Sid]) -> bool:
        """Are the participants among `sids` enough to decide?"""

    def logged_by_quorum(self, logged: Iterable[int]) -> int:
        """The highest zxid that enough servers have logged; `logged` has one entry per participant that
        counts.
        """


@dataclass(frozen=True, slots=True)
class Majority:
    """More than half of the participants."""

    participants: frozenset[Sid]

    def contains(self, sids: Collection[Sid]) -> bool:
        return 2 * len(self.participants.intersection(sids)) > len(self.participants)

    def logged_by_quorum(self, logged: Iterable[int]) -> int:
        ordered = sorted(logged, reverse=True)
        needed = len(self.participants) // 2  # index of the last one a majority needs
        return ordered[needed] if len(ordered) > needed else 0


class Standing(NamedTuple):
    """How recent a server's history is; the greater wins (20.4)."""

    current_epoch: int
    last_zxid: int


def countable(
    standings: Mapping[Sid, Standing], participants: frozenset[Sid], history_seen: bool = False
) -> set[Sid]:
    """The servers among those that answered whose voices count. `history_seen`: somebody, perhaps gone
    since, had transactions.

    * Somebody has transactions: an epoch was established then, so a quorum has had current epochs above
      0, and one that has none lost its disk or was never synchronized. Only the others count.
    * Nobody has transactions but somebody a current epoch: either the ensemble is new and was interrupted
      while its first epoch began, or the writes are on servers that did not answer. Those without count
      only when everybody has answered.
    * Nobody has anything: a new ensemble, everybody counts.
    """
    known = {sid: standing for sid, standing in standings.items() if sid in participants}
    synchronized = {sid for sid, standing in known.items() if standing.current_epoch > 0}
    if history_seen or any(standing.last_zxid > 0 for standing in known.values()):
        return synchronized
    if synchronized and len(known) < len(participants):
        return synchronized
    return set(known)
