"""Comparing states: whether the servers of an ensemble, who execute the same batches, came to the same state.

A digest stands for the whole state as of one zxid; every server makes one at the same zxids, now and then.
Learners report theirs to the leader, which compares what it has for the same zxid:

    a quorum has the same     agreed; each server is told that digest and looks at its own
    one's own is another      that server has diverged (`Mismatch`): it neither serves nor leads with its
                              state, and takes a whole one from the leader; a leader steps down first
    a quorum has reported,    nobody knows who is right (`Dispute`): nobody stops, but no checkpoint is
    and has no digest         made past what was last agreed

The log is not in doubt: it holds batches as they were proposed, whatever executing them led to. So what a
diverged server has logged and promised counts as before.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from coord.zab.messages import Sid
from coord.zab.quorum import Quorum

POINTS_MAX = 64
"""Zxids whose digests are remembered; the highest."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The state of server `sid` as of `zxid` has `digest`, while a quorum has `agreed`."""

    sid: Sid
    zxid: int
    digest: int
    agreed: int


@dataclass(frozen=True, slots=True)
class Dispute:
    """No quorum has the same state as of `zxid`."""

    zxid: int
    digests: tuple[tuple[Sid, int], ...] = ()
    """What each has reported; only the leader knows."""


class OwnDigests:
    """What one server knows of its own state: its digests, and what was agreed.

    Attributes:
        agreed_zxid: the last one at which this server's state is that of a quorum; 0 before the first.
    """

    def __init__(self, sid: Sid) -> None:
        self._sid = sid
        self._digests: dict[int, int] = {}
        self._agreed: dict[int, int] = {}
        """What was agreed at zxids that this server has not come to."""
        self.agreed_zxid = 0
        self._disputed_zxid = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(zxid, digest), oldest first."""
        return iter(self._digests.items())

    @property
    def latest(self) -> tuple[int, int] | None:
        return next(reversed(self._digests.items()), None)

    @property
    def is_disputed(self) -> bool:
        """Nothing was agreed since the last dispute."""
        return self._disputed_zxid > self.agreed_zxid

    def note(self, zxid: int, digest: int) -> Mismatch | None:
        """This server's state as of `zxid`; later than the one before."""
        self._digests[zxid] = digest
        if len(self._digests) > POINTS_MAX:
            del self._digests[next(iter(self._digests))]
        if not self._agreed:
            return None
        agreed = self._agreed.get(zxid)
        self._agreed = {other: known for other, known in self._agreed.items() if other > zxid}
        return None if agreed is None else self.judge(zxid, agreed)

    def judge(self, zxid: int, agreed: int) -> Mismatch | None:
        """A quorum has the digest `agreed` at `zxid`; does this server differ?"""
        digest = self._digests.get(zxid)
        if digest == agreed:
            self.agreed_zxid = max(self.agreed_zxid, zxid)
        elif digest is not None:
            return Mismatch(self._sid, zxid, digest, agreed)
        elif zxid > (self.latest or (0, 0))[0]:
            self._agreed[zxid] = agreed
            if len(self._agreed) > POINTS_MAX:
                del self._agreed[next(iter(self._agreed))]
        return None

    def dispute(self, zxid: int) -> None:
        self._disputed_zxid = max(self._disputed_zxid, zxid)

    def replaced(self) -> None:
        """The state is another from now on, which the leader has vouched for."""
        self._digests.clear()
        self._agreed.clear()


@dataclass(slots=True)
class _Point:
    """What was reported for one zxid."""

    digests: dict[Sid, int] = field(default_factory=dict)
    agreed: int | None = None
    rounds_in_dispute: int = 0

    def is_agreed(self, digest: int, quorum: Quorum) -> bool:
        return quorum.contains({sid for sid, one in self.digests.items() if one == digest})

    def is_disputed(self, quorum: Quorum) -> bool:
        """By the quorum of today: the membership may have changed since the reports came."""
        return quorum.contains(self.digests) and not any(
            self.is_agreed(digest, quorum) for digest in set(self.digests.values())
        )


class Comparison:
    """The reports of one leadership, its own among them."""

    def __init__(self) -> None:
        self._points: dict[int, _Point] = {}

    def note(self, sid: Sid, zxid: int, digest: int, quorum: Quorum) -> bool:
        """A report; True where a quorum agrees with it that did not before."""
        point = self._points.get(zxid)
        if point is None:
            if len(self._points) >= POINTS_MAX:
                oldest = min(self._points)
                if zxid < oldest:
                    return False
                del self._points[oldest]
            point = self._points[zxid] = _Point()
        point.digests[sid] = digest
        if point.agreed is not None:
            return False
        if not point.is_agreed(digest, quorum):
            return False
        point.agreed = digest
        return True

    def agreed(self, zxid: int) -> int | None:
        """The digest that a quorum has, if one is known."""
        point = self._points.get(zxid)
        return None if point is None else point.agreed

    def mismatches(self, zxid: int) -> list[Mismatch]:
        """Who differs from what was agreed."""
        point = self._points[zxid]
        agreed = point.agreed
        if agreed is None:
            return []
        return [Mismatch(sid, zxid, one, agreed) for sid, one in point.digests.items() if one != agreed]

    def forget(self, sid: Sid) -> None:
        """This server comes anew, perhaps with another state."""
        for point in self._points.values():
            if point.agreed is None:
                point.digests.pop(sid, None)

    def take_disputes(self, quorum: Quorum) -> list[Dispute]:
        """Called once per round of heartbeats: where a quorum has reported for a whole round and no digest
        has one; each once.
        """
        found = []
        for zxid, point in self._points.items():
            if point.agreed is None and point.is_disputed(quorum):
                point.rounds_in_dispute += 1
                if point.rounds_in_dispute == 2:
                    found.append(Dispute(zxid, tuple(sorted(point.digests.items()))))
        return found
