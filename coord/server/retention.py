"""Which part of the transaction log may go, and when: `autopurge.*`, on by default. Pure.

The log behind the last checkpoint is needed to start. What lies before it serves learners that lag a little,
and those who want to look back: it is kept as far as the last few checkpoints reach, and goes with the next
checkpoint, or so many hours after the last purge. While space is short everything goes that is not needed.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

HOUR_MS: Final = 3_600_000
KEPT_BYTES: Final = 128 << 20
"""Kept behind the oldest of these checkpoints all the same."""
SHORT_BYTES: Final = 1 << 30
"""Free bytes on the log's disk below which space is short."""
SHORT_INTERVAL_MS: Final = 10_000
"""Between two attempts to make room."""
SHORT_LOG_BYTES: Final = 32 << 20
"""With more log than this since the last checkpoint another one makes room."""


@dataclass(frozen=True, slots=True)
class Purge:
    """Segments that hold nothing above `below_zxid` may go, but for the newest `keep_bytes` of them."""

    below_zxid: int
    keep_bytes: int


class Retention:
    """Remembers the checkpoints of this process.

    Args:
        checkpoints: how many of them the log reaches back (`autopurge.snapRetainCount`).
        interval_hours: between two purges (`autopurge.purgeInterval`); 0: with every checkpoint.
    """

    def __init__(self, checkpoints: int, interval_hours: int, now_ms: int) -> None:
        self._kept: deque[int] = deque(maxlen=max(1, checkpoints))
        self._interval_ms = interval_hours * HOUR_MS
        self._purged_ms = now_ms
        self._made_room_ms: int | None = None

    def on_checkpoint(self, zxid: int, now_ms: int) -> Purge | None:
        """A checkpoint has become durable; what may go now."""
        self._kept.append(zxid)
        if now_ms - self._purged_ms < self._interval_ms or len(self._kept) < (self._kept.maxlen or 1):
            return None
        self._purged_ms = now_ms
        return Purge(self._kept[0], KEPT_BYTES)

    def when_short(self, checkpoint_zxid: int, free_bytes: int, now_ms: int) -> Purge | None:
        """What may go because space is short; seldom enough."""
        if free_bytes >= SHORT_BYTES:
            self._made_room_ms = None
            return None
        if self._made_room_ms is not None and now_ms - self._made_room_ms < SHORT_INTERVAL_MS:
            return None
        self._made_room_ms = now_ms
        return Purge(checkpoint_zxid, 0)

    def forget(self) -> None:
        """The log began anew with another state."""
        self._kept.clear()
