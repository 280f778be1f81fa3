"""When the leader asks for the deletion of containers and TTL nodes (specification 8.3). Pure.

Every `interval_ms` a round begins: it goes through the tree's index of such nodes, a bounded number at a
time, and names those that are due, no more than the rate allows since the last call. Whether a node really
goes is decided when its deleteContainer request is executed (`coord.tree.reaping`), so a candidate may be
named twice, or be gone or used again by then.
"""

from dataclasses import dataclass
from typing import Final

from coord.tree import DataTree
from coord.tree.reaping import is_due

LOOKED_AT_MAX: Final = 2000
"""Nodes that one call looks at, about a millisecond."""
BURST_MS_MAX: Final = 1000
"""Time without a call that counts for the rate: after a pause there is no burst."""


@dataclass(frozen=True, slots=True)
class ReaperSettings:
    """How eagerly nodes that have had their time are deleted.

    `never_used_ms`: how long a container may stay that never had a child; 0 is for ever.
    """

    interval_ms: int = 60_000
    per_minute_max: int = 10_000
    never_used_ms: int = 0


class Reaper:
    """The candidates of one leadership; `rest` while there is none."""

    def __init__(self, settings: ReaperSettings) -> None:
        self.settings = settings
        self._round_ms: int | None = None
        self._waiting: list[int] = []
        self._allowed = 0.0
        self._called_ms = 0

    def rest(self) -> None:
        """Not the leader: what was begun is forgotten."""
        self._round_ms = None
        self._waiting.clear()

    def take_due(self, tree: DataTree, wall_ms: int, now_ms: int) -> list[bytes]:
        """The paths whose deletion should be proposed now; call it regularly while leading.

        Args:
            wall_ms: the clock of the stamps, which nodes' ages are told by.
            now_ms: the monotonic clock, which rounds and rate go by.
        """
        if self._round_ms is None:
            self._round_ms = now_ms + self.settings.interval_ms
            self._allowed, self._called_ms = 1.0, now_ms
        if not self._waiting:
            if now_ms < self._round_ms:
                self._called_ms = now_ms
                return []
            self._round_ms = now_ms + self.settings.interval_ms
            self._waiting = list(reversed(tree.reapable))
        elapsed_ms = min(now_ms - self._called_ms, BURST_MS_MAX)
        self._called_ms = now_ms
        most = max(1.0, self.settings.per_minute_max * BURST_MS_MAX / 60_000)
        self._allowed = min(most, self._allowed + self.settings.per_minute_max * elapsed_ms / 60_000)
        return self._look(tree, wall_ms)

    def _look(self, tree: DataTree, wall_ms: int) -> list[bytes]:
        due: list[bytes] = []
        waiting, never_used_ms = self._waiting, self.settings.never_used_ms
        for _ in range(min(len(waiting), LOOKED_AT_MAX)):
            if self._allowed < 1:
                break
            path = tree.reapable.get(waiting.pop())
            if path is not None and is_due(tree.nodes[path], wall_ms, never_used_ms):
                self._allowed -= 1
                due.append(path)
        return due
