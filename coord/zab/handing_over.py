"""How a leader gives its leadership to a follower without a vote.

It proposes nothing more; when everything is committed and a follower has it, that one is named, and leads;
once it says that it does, whoever followed us is sent to it. If nothing comes of it within a tick, the
leadership goes on.
"""

from coord.zab.follower import Follower
from coord.zab.messages import Sid
from coord.zab.replica import Replica


class HandingOver:
    """The hand-over of one leadership, if there is one."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.successor: Sid | None = None
        """Named; its word that it leads is awaited."""
        self.until_ms: int | None = None
        """Until when it may take; while it is set, nothing is proposed."""

    @property
    def is_under_way(self) -> bool:
        return self.until_ms is not None

    def begin(self, now_ms: int) -> None:
        if self.until_ms is None:
            self.until_ms = now_ms + self._replica.config.tick_ms

    def is_complete(self, best: Follower | None) -> bool:
        """Is it time to name `best`: all that was proposed is committed, and it has that?"""
        if self.until_ms is None or self.successor is not None or best is None:
            return False
        history = self._replica.history
        return best.logged == history.last_appended == history.committed

    def give_up(self) -> None:
        """The successor does not answer: this leadership goes on, if it may."""
        self.until_ms = self.successor = None
        if self._replica.sid not in self._replica.quorum.electable:
            self._replica.leave("it is no participant any more")


def best_successor(successors: list[Follower]) -> Follower | None:
    """The most recent one; of several that with the quickest disk."""
    return max(successors, key=lambda each: (each.logged, -each.disk_ms, each.sid), default=None)
