"""Who belongs to the ensemble, as far as the protocol cares: numbers, roles and weights, no addresses."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from coord.zab.messages import Sid
from coord.zab.quorum import Hierarchical, Majority, Quorum


@dataclass(frozen=True)
class Membership:
    """One configuration of the ensemble.

    Attributes:
        participants: who votes.
        observers: members that get what was committed and decide nothing.
        groups: without any, a majority of the participants decides; else each participant is in one.
        weights: of participants whose weight in their group is not 1.

    Raises:
        ValueError: groups that overlap, or leave out a participant, or hold somebody else; no participant
            that could lead.
    """

    participants: frozenset[Sid]
    observers: frozenset[Sid] = frozenset()
    groups: tuple[frozenset[Sid], ...] = ()
    weights: tuple[tuple[Sid, int], ...] = ()

    def __post_init__(self) -> None:
        if self.groups:
            grouped = sorted(sid for group in self.groups for sid in group)
            if grouped != sorted(self.participants):
                raise ValueError(
                    f"each of the participants {sorted(self.participants)} must be in exactly one group, "
                    f"got {[sorted(group) for group in self.groups]}"
                )
        if not self.quorum.electable:
            raise ValueError("no participant has a weight above 0")

    @classmethod
    def of(cls, participants: Iterable[int], observers: Iterable[int] = ()) -> "Membership":
        """A majority of `participants` decides."""
        return cls(frozenset(map(Sid, participants)), frozenset(map(Sid, observers)))

    @property
    def members(self) -> frozenset[Sid]:
        return self.participants | self.observers

    @cached_property
    def quorum(self) -> Quorum:
        if not self.groups:
            return Majority(self.participants)
        weights = dict(self.weights)
        return Hierarchical(tuple({sid: weights.get(sid, 1) for sid in group} for group in self.groups))
