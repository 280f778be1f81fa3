"""When garbage is collected: by a timer of ours, young objects only, and survivors are set aside.

Python's own policy walks the whole heap every so often: 325 ms with a growing tree of a million nodes. Here
automatic collection is off while serving. Every `CHECK_MS` a task looks at how many containers were made and
not freed since the last collection; from `YOUNG_MAX` on, and at the latest after `INTERVAL_MS`, it collects
the young generation and freezes what survived, so that nothing is ever walked twice. The price: a reference
cycle that lived through one collection is never found again, so hot objects make none
(`tests/coord/test_garbage.py`).
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter_ns

import trio

from coord.metrics import Summary

INTERVAL_MS = 1_000
CHECK_MS = 100

YOUNG_MAX = 20_000
"""New containers that make a collection due; walking them takes about 2 ms."""


@contextmanager
def paused() -> Iterator[None]:
    """For building what stays, a tree of a million nodes say: collections on the way would take as long as
    the building. Nothing is collected, and what has been built is set aside, never to be walked.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def collect_young() -> int:
    """Collect the young generation, freeze the survivors, and return the pause in microseconds."""
    begun_ns = perf_counter_ns()
    gc.collect(0)
    gc.freeze()
    return (perf_counter_ns() - begun_ns) // 1000


async def tend(
    pause_us: Summary,
    *,
    interval_ms: int = INTERVAL_MS,
    check_ms: int = CHECK_MS,
    young_max: int = YOUNG_MAX,
) -> None:
    """Keep to the policy above until cancelled; then Python's own is in force again, as it was found.

    Args:
        pause_us: gets the length of each pause.
        interval_ms: a collection is due at least this often.
        check_ms: how often to look.
        young_max: how many new containers make one due.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    gc.collect()  # what start-up left, while nobody waits
    gc.freeze()
    try:
        due = trio.current_time() + interval_ms / 1000
        while True:
            await trio.sleep(check_ms / 1000)
            now = trio.current_time()
            if gc.get_count()[0] >= young_max or now >= due:
                pause_us.record(collect_young())
                due = now + interval_ms / 1000
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
