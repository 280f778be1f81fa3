"""The one place that reads the machine's clocks.

Cores take `now_ms` as an argument; shells take a `Clock`, so that a test or the simulator can pass its own.
Monotonic time decides timeouts; wall time is only shown to people or written into stamps (it may jump).
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Where a shell gets the time from."""

    def monotonic_ms(self) -> int:
        """Milliseconds that never go back; the origin means nothing."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since 1970 (UTC), as this machine believes."""
        ...


class SystemClock:
    """The machine's own clocks."""

    __slots__ = ()

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


SYSTEM_CLOCK = SystemClock()
