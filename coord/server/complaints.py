"""Lines of the event log that clients can cause: a few of each kind in a time, the others counted."""

from typing import Final

from coord.clock import Clock
from coord.eventlog import EventLog

PERIOD_MS: Final = 10_000
LINES_MAX: Final = 10
"""Lines of one kind in a period."""


class Complaints:
    """Warnings about what clients do.

    Args:
        log: where they go.
    """

    def __init__(self, log: EventLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._kinds: dict[str, tuple[int, int]] = {}  # when the period began, and lines asked for in it

    def warn(self, event: str, *, do: str, **fields: object) -> None:
        """One line, unless there were enough of its kind; the first of a period says how many were left
        out.

        Args:
            event: a constant text, the kind.
        """
        now_ms = self._clock.monotonic_ms()
        began_ms, count = self._kinds.get(event, (now_ms, 0))
        left_out = 0
        if now_ms - began_ms >= PERIOD_MS:
            left_out = max(0, count - LINES_MAX)
            began_ms, count = now_ms, 0
        self._kinds[event] = began_ms, count + 1
        if count < LINES_MAX:
            if left_out:
                fields["left_out"] = left_out
            self._log.warning(event, do=do, **fields)
