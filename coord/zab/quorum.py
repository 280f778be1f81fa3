"""Which sets of servers may decide, and which servers count at all (19.7).

    Majority        more than half of the participants
    Hierarchical    more than half of the weight in more than half of the groups that have any
    Joint           both of two quorums: while the ensemble changes from one membership to the next

A server whose disk was lost still has its number but not its promises and not the writes it acknowledged.
`countable` keeps it out of every quorum until it has been synchronized once (DESIGN 4): its mark is a
current epoch of 0, for the current epoch is set only after everything of a leader's history was durable.
The difficulty is a new ensemble, where nobody has history and somebody is the first to set the epoch; see
the function.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from coord.zab.messages import Sid


class Quorum(Protocol):
    """Sets of participants of which any two have a member in common."""

    @property
    def participants(self) -> frozenset[Sid]:
        """Who votes."""

    @property
    def electable(self) -> frozenset[Sid]:
        """The participants that may lead: all whose voice weighs something."""

    def contains(self, sids: Collection[Sid]) -> bool:
        """Are the participants among `sids` enough to decide?"""

    def logged_by_quorum(self, logged: Mapping[Sid, int]) -> int:
        """The highest zxid that enough of `logged` have; strangers do not matter."""


@dataclass(frozen=True, slots=True)
class Majority:
    """More than half of the participants."""

    participants: frozenset[Sid]

    @property
    def electable(self) -> frozenset[Sid]:
        return self.participants

    def contains(self, sids: Collection[Sid]) -> bool:
        return 2 * len(self.participants.intersection(sids)) > len(self.participants)

    def logged_by_quorum(self, logged: Mapping[Sid, int]) -> int:
        participants = self.participants
        ordered = sorted([zxid for sid, zxid in logged.items() if sid in participants], reverse=True)
        needed = len(participants) // 2  # index of the last one a majority needs
        return ordered[needed] if len(ordered) > needed else 0


@dataclass(frozen=True, slots=True)
class Hierarchical:
    """More than half of the weight in more than half of the groups whose weight is not 0.

    Args:
        groups: disjoint, together all participants; for each its servers' weights.
    """

    groups: tuple[Mapping[Sid, int], ...]

    @property
    def participants(self) -> frozenset[Sid]:
        return frozenset(sid for group in self.groups for sid in group)

    @property
    def electable(self) -> frozenset[Sid]:
        return frozenset(sid for group in self.groups for sid, weight in group.items() if weight > 0)

    def contains(self, sids: Collection[Sid]) -> bool:
        voting = decided = 0
        for group in self.groups:
            weight = sum(group.values())
            voting += weight > 0
            decided += 2 * sum([group[sid] for sid in group.keys() & sids]) > weight
        return 2 * decided > voting

    def logged_by_quorum(self, logged: Mapping[Sid, int]) -> int:
        for zxid in sorted(set(logged.values()), reverse=True):
            if self.contains({sid for sid, other in logged.items() if other >= zxid}):
                return zxid
        return 0


@dataclass(frozen=True, slots=True)
class Joint:
    """Both quorums: what they decide no quorum of either can contradict."""

    old: Quorum
    new: Quorum

    @property
    def participants(self) -> frozenset[Sid]:
        return self.old.participants | self.new.participants

    @property
    def electable(self) -> frozenset[Sid]:
        return self.old.electable | self.new.electable

    def contains(self, sids: Collection[Sid]) -> bool:
        return self.old.contains(sids) and self.new.contains(sids)

    def logged_by_quorum(self, logged: Mapping[Sid, int]) -> int:
        return min(self.old.logged_by_quorum(logged), self.new.logged_by_quorum(logged))


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
