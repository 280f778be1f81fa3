"""When a server that has lost the quorum serves reads (specification 14.1): pure, time is an argument.

What it then serves is its executed state, and only what was committed is ever executed: what it shows may be
old, but it cannot be taken back.
"""

from typing import Final

LOOKING_MS_MIN: Final = 2000


class ReadOnlyMode:
    """On once this server has looked for a leader in vain for a while; off as soon as it has found one."""

    def __init__(self, *, enabled: bool, tick_ms: int, now_ms: int) -> None:
        self._enabled = enabled
        self._wait_ms = max(LOOKING_MS_MIN, tick_ms)
        self._looking_since_ms: int | None = now_ms
        self.is_on = False

    def on_looking(self, now_ms: int) -> None:
        """The server is without a leader from now on."""
        self._looking_since_ms = now_ms

    def on_leader(self) -> bool:
        """The server has a leader, or is one; whether that ends the mode."""
        was_on, self.is_on = self.is_on, False
        self._looking_since_ms = None
        return was_on

    def begin_when_due(self, now_ms: int) -> bool:
        """Whether the mode begins at this moment."""
        since_ms = self._looking_since_ms
        if not self._enabled or self.is_on or since_ms is None or now_ms - since_ms < self._wait_ms:
            return False
        self.is_on = True
        return True
