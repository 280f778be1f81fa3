"""Loop lag, on a clock that jumps."""

import trio
import trio.lowlevel
import trio.testing

from coord.looplag import measure_loop_lag
from coord.metrics import Registry, Summary


async def test_lag_is_what_a_task_was_late(autojump_clock: trio.testing.MockClock) -> None:
    lag_us = Summary()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(measure_loop_lag, lag_us)
        await trio.sleep(1.05)
        assert lag_us.count == 10
        assert lag_us.max == 0
        autojump_clock.jump(0.3)  # as if the loop had been held up
        await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert 240_000 <= lag_us.max <= 260_000
        nursery.cancel_scope.cancel()


async def test_windows_of_the_registry_are_rotated_on_the_way(autojump_clock: trio.testing.MockClock) -> None:
    class Clock:
        def monotonic_ms(self) -> int:
            return int(trio.current_time() * 1000)

        def wall_ms(self) -> int:
            return 0

    registry = Registry()
    seen = registry.summary("seen", "Seen")
    seen.record(5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: measure_loop_lag(Summary(), registry=registry, clock=Clock()))
        await trio.sleep(125)
        assert seen.quantile(1.0) == 0
        nursery.cancel_scope.cancel()
