"""Whom a leader sends to and counts: its learners by how far they have come.

The sets of recipients are kept, because every proposal and commit asks for them; `refresh` brings them up to
date after a learner came, went, or came further.
"""

from collections.abc import Iterator

from coord.zab.follower import Follower, Progress
from coord.zab.messages import Sid


class Followers:
    """The learners of one leadership; bounded by the links.

    Attributes:
        joined: get every batch as it is proposed.
        observers: get every batch when it is committed.
        established: whether the epoch is.
        up_to_date: those of `joined` that are synchronized, once the epoch is established.
    """

    def __init__(self) -> None:
        self._by_sid: dict[Sid, Follower] = {}
        self.established = False
        self.joined: tuple[Sid, ...] = ()
        self.observers: tuple[Sid, ...] = ()
        self.up_to_date: tuple[Sid, ...] = ()

    def __iter__(self) -> Iterator[Follower]:
        return iter(self._by_sid.values())

    @property
    def sids(self) -> tuple[Sid, ...]:
        return tuple(self._by_sid)

    def get(self, sid: Sid) -> Follower | None:
        return self._by_sid.get(sid)

    def add(self, follower: Follower) -> None:
        self._by_sid[follower.sid] = follower

    def pop(self, sid: Sid) -> Follower | None:
        return self._by_sid.pop(sid, None)

    def refresh(self) -> None:
        joined = [each for each in self if each.progress >= Progress.JOINED]
        self.joined = tuple(each.sid for each in joined if not each.observes)
        self.observers = tuple(each.sid for each in joined if each.observes)
        self.up_to_date = tuple(
            each.sid
            for each in joined
            if self.established and each.progress is Progress.SYNCED and not each.observes
        )

    @property
    def synced_observers(self) -> tuple[Sid, ...]:
        return tuple(each.sid for each in self if each.observes and each.progress is Progress.SYNCED)

    @property
    def reporting(self) -> tuple[Sid, ...]:
        """Who reports digests."""
        return tuple(each.sid for each in self if each.reports)

    @property
    def staying(self) -> set[Sid]:
        """Those that count, and those that will once they are synchronized."""
        return {
            each.sid
            for each in self
            if not each.observes and (each.counts or (each.voice and each.progress >= Progress.ACCEPTED))
        }

    @property
    def counting(self) -> set[Sid]:
        """Whose log and support count."""
        return {each.sid for each in self if each.counts and not each.observes}

    def successors(self, electable: frozenset[Sid]) -> list[Follower]:
        """Who could take over."""
        return [each for each in self if each.counts and not each.observes and each.sid in electable]
