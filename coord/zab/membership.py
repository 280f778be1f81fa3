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
        version: the zxid of the batch that brought it; 0 for the one that servers start with.
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
    version: int = 0

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

    def encode(self) -> str:
        """As notifications carry it: version, participants, observers, groups, weights between slashes."""
        groups = ";".join(_numbers(group) for group in self.groups)
        weights = ";".join(f"{sid},{weight}" for sid, weight in self.weights)
        parts = (f"{self.version:x}", _numbers(self.participants), _numbers(self.observers), groups, weights)
        return "/".join(parts)

    @classmethod
    def decode(cls, text: str) -> "Membership":
        """Raises: ValueError, for anything that `encode` does not write."""
        version, participants, observers, groups, weights = text.split("/")
        pairs = [pair.partition(",") for pair in weights.split(";") if pair]
        made = cls(
            _sids(participants),
            _sids(observers),
            tuple(_sids(group) for group in groups.split(";") if group),
            tuple((Sid(int(sid)), int(weight)) for sid, _, weight in pairs),
            int(version, 16),
        )
        if made.encode() != text:
            raise ValueError(f"expected a membership, got {text[:60]!r}")
        return made


def _numbers(sids: Iterable[Sid]) -> str:
    return ",".join(str(sid) for sid in sorted(sids))


def _sids(text: str) -> frozenset[Sid]:
    return frozenset(Sid(int(part)) for part in text.split(",") if part)
