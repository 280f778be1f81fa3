"""The garbage policy of DESIGN 3: automatic off, young collections on a timer, survivors frozen."""

import gc
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from coord import gc as policy
from coord.metrics import Summary


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


async def test_while_serving_only_the_timer_collects(autojump_clock: trio.testing.MockClock) -> None:
    pause_us = Summary()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(policy.tend, pause_us)
        await trio.testing.wait_all_tasks_blocked()
        assert not gc.isenabled()
        await trio.sleep(3.5)
        assert pause_us.count == 3
        nursery.cancel_scope.cancel()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


async def test_many_new_containers_make_a_collection_due_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pause_us = Summary()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(policy.tend, pause_us)
        await trio.testing.wait_all_tasks_blocked()
        kept = [[number] for number in range(policy.YOUNG_MAX + 100)]
        await trio.sleep(policy.CHECK_MS * 1.5 / 1000)
        assert pause_us.count == 1
        assert len(kept) > policy.YOUNG_MAX
        nursery.cancel_scope.cancel()


def test_what_is_built_in_a_pause_is_set_aside_and_python_goes_on_as_before() -> None:
    gc.collect()
    frozen, collections = gc.get_freeze_count(), gc.get_stats()[0]["collections"]
    with policy.paused():
        built = [[number] for number in range(10_000)]
        assert gc.get_stats()[0]["collections"] == collections
    assert gc.isenabled()
    assert gc.get_freeze_count() - frozen >= len(built)


def test_survivors_are_frozen_and_young_cycles_are_freed() -> None:
    gc.disable()
    gc.collect()
    gc.freeze()
    frozen = gc.get_freeze_count()
    kept = [[number] for number in range(1000)]
    policy.collect_young()
    assert gc.get_freeze_count() >= frozen + len(kept)
    cycle: list[object] = []
    cycle.append(cycle)
    del cycle
    assert gc.collect(0) >= 1
