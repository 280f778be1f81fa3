"""How late the loop is: the time between when a sleeping task should run and when it does.

Everything a server does on its loop adds up here: a long tick, a slice that was no slice, a thread that holds
the interpreter, a machine without processor time. The timer's own grain is a millisecond.
"""

import trio

from coord.clock import SYSTEM_CLOCK, Clock
from coord.metrics import Registry, Summary

INTERVAL_MS = 100


async def measure_loop_lag(
    lag_us: Summary,
    *,
    interval_ms: int = INTERVAL_MS,
    registry: Registry | None = None,
    clock: Clock = SYSTEM_CLOCK,
    lag_ms: Summary | None = None,
) -> None:
    """Record the lag, in microseconds, until cancelled.

    Args:
        lag_us: where to.
        interval_ms: how often.
        registry: whose windows to rotate on the way.
        clock: for that.
        lag_ms: the same in milliseconds.
    """
    while True:
        due = trio.current_time() + interval_ms / 1000
        await trio.sleep_until(due)
        lag = int((trio.current_time() - due) * 1_000_000)
        lag_us.record(lag)
        if lag_ms is not None:
            lag_ms.record(lag // 1000)
        if registry is not None:
            registry.rotate(clock.monotonic_ms())
