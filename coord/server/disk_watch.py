"""Whether this server's disk is too slow to lead with: pure.

A leader with a slow disk holds everybody up: what it proposes waits for its own log before its clients are
answered. So each follower tells how long its log's writes take, and a leader that is several times slower
than the best of them, for a while, hands leadership over. It does so seldom: two servers whose disks are slow
in turns must not play ball.
"""

from collections.abc import Collection
from typing import Final

from coord.metrics import Registry

SMOOTHING: Final = 5
"""A write of the log moves the smoothed latency by this part of the difference."""
IDLE_MS: Final = 2_000
"""Without a write for this long nothing is known, and nothing waits."""
RATIO: Final = 4
"""How many times slower than the best follower a leader must be."""
LASTING_MS: Final = 5_000
"""For how long it must have been so."""
REST_MS: Final = 60_000
"""How long a leader keeps what it has got, or tries again."""


class DiskWatch:
    """The latency of one server's log.

    Args:
        slow_ms: a disk whose writes take less is never too slow; 0: leadership stays where it is.
    """

    def __init__(self, slow_ms: int) -> None:
        self._slow_ms = slow_ms
        self._smoothed_us = 0
        self._noted_ms = -IDLE_MS
        self._writing_since_ms: int | None = None
        self._slow_since_ms: int | None = None
        self._rest_until_ms = 0
        self.handed_over = 0

    def register(self, registry: Registry) -> None:
        registry.gauge(
            "log_disk_latency_ms", "Smoothed time of the log's writes", lambda: self._smoothed_us / 1000
        )
        registry.counter(
            "slow_disk_hand_overs_total", "Leaderships given up for a slow disk", lambda: self.handed_over
        )

    def note(self, elapsed_ms: int, now_ms: int) -> None:
        """A group has been written."""
        before_us = self._smoothed_us if now_ms - self._noted_ms < IDLE_MS else elapsed_ms * 1000
        self._smoothed_us = before_us + (elapsed_ms * 1000 - before_us) // SMOOTHING
        self._noted_ms = now_ms
        self._writing_since_ms = None

    def latency_ms(self, now_ms: int, *, writing: bool) -> int:
        """As it is now; `writing`: the log has something that is not durable. A write that never comes to its
        end counts as well.
        """
        if not writing:
            self._writing_since_ms = None
        elif self._writing_since_ms is None:
            self._writing_since_ms = now_ms
        stuck_ms = 0 if self._writing_since_ms is None else now_ms - self._writing_since_ms
        known = now_ms - self._noted_ms < IDLE_MS
        return max(stuck_ms, self._smoothed_us // 1000 if known else 0)

    def on_leading(self, now_ms: int) -> None:
        self._slow_since_ms = None
        self._rest_until_ms = now_ms + REST_MS

    def is_too_slow(self, now_ms: int, mine_ms: int, others_ms: Collection[int]) -> bool:
        """Should this leader hand over to one of those with these latencies? Asked often; True once."""
        slow = self._slow_ms > 0 and mine_ms >= self._slow_ms and bool(others_ms)
        if not slow or mine_ms < RATIO * max(1, min(others_ms)):
            self._slow_since_ms = None
            return False
        if self._slow_since_ms is None:
            self._slow_since_ms = now_ms
        if now_ms - self._slow_since_ms < LASTING_MS or now_ms < self._rest_until_ms:
            return False
        self._rest_until_ms = now_ms + REST_MS
        self.handed_over += 1
        return True
