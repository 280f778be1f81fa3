"""Planned hand-over (19.5's designated leader, on shutdown and away from a slow disk)."""

from pathlib import Path

import pytest
import trio

import coord
from coord.server.disk_watch import IDLE_MS, LASTING_MS, RATIO, REST_MS, DiskWatch
from tests.coord.ensemble import Ensemble, member_lines
from tests.coord.server.ensembles import figure

SLOW_MS = 100


async def test_a_leader_that_stops_hands_over_without_an_election(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody looks for a leader, and the next epoch follows at once; what was acknowledged is there."""
    # All of the ensemble is in this process: how soon a leader gives up says how busy the machine is.
    monkeypatch.setattr("coord.server.server.HAND_OVER_SECONDS_MAX", 60)
    ensemble = Ensemble(tmp_path, nursery, member_lines(3))
    await ensemble.start()
    for _ in range(2):
        leader = await ensemble.leader()
        others = [sid for sid in (1, 2, 3) if sid != leader]
        looked = [await figure(ensemble, sid, "looking_count") for sid in others]
        async with coord.connect(f"127.0.0.1:{ensemble.port(others[0])}") as client:
            path = await client.create("/n-", b"x", sequential=True)
        await ensemble.stop(leader)
        await ensemble.until(lambda: "leader" in ensemble.modes.values(), "a successor leads")
        await ensemble.until(lambda: all(ensemble.modes.values()), "all serve")
        assert [await figure(ensemble, sid, "looking_count") for sid in others] == looked
        async with coord.connect(f"127.0.0.1:{ensemble.port(others[1])}") as client:
            assert await client.exists(path) is not None
        await ensemble.start(leader)
    await ensemble.stop()
    assert ensemble.failures == {}


async def test_the_last_of_two_just_stops(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could take over; it is not waited for."""
    monkeypatch.setattr("coord.server.server.HAND_OVER_SECONDS_MAX", 3600)
    ensemble = Ensemble(tmp_path, nursery, member_lines(2))
    await ensemble.start()
    leader = await ensemble.leader()
    await ensemble.stop(3 - leader)
    with trio.fail_after(60):
        await ensemble.stop(leader)
    assert ensemble.failures == {}


# Slow disks


def watch_after(*elapsed_ms: int) -> DiskWatch:
    watch = DiskWatch(SLOW_MS)
    for number, each in enumerate(elapsed_ms):
        watch.note(each, number)
    return watch


def is_too_slow(watch: DiskWatch, mine_ms: int, others_ms: list[int], start_ms: int = REST_MS) -> bool:
    """Asked four times a second for as long as it must last."""
    return any(
        watch.is_too_slow(start_ms + elapsed_ms, mine_ms, others_ms)
        for elapsed_ms in range(0, LASTING_MS + 1, 250)
    )


def test_one_slow_write_is_no_slow_disk() -> None:
    assert watch_after(10, 10, 10, 100).latency_ms(4, writing=False) == 28


def test_a_write_that_does_not_end_counts() -> None:
    watch = watch_after(10)
    assert watch.latency_ms(1000, writing=True) == 10
    assert watch.latency_ms(1900, writing=True) == 900
    assert watch.latency_ms(IDLE_MS + 1, writing=False) == 0, "idle, nothing is known"


def test_a_leader_slower_than_all_others_hands_over_once() -> None:
    watch = DiskWatch(SLOW_MS)
    watch.on_leading(0)
    assert not is_too_slow(watch, 4 * SLOW_MS, [SLOW_MS, 900], REST_MS // 2), "it has just begun to lead"
    assert is_too_slow(watch, 4 * SLOW_MS, [SLOW_MS, 900])
    assert not is_too_slow(watch, 4 * SLOW_MS, [SLOW_MS], REST_MS + LASTING_MS + 1), "one attempt a while"
    assert watch.handed_over == 1


def test_who_is_as_slow_as_the_others_stays() -> None:
    watch = DiskWatch(SLOW_MS)
    assert not is_too_slow(watch, 4 * SLOW_MS, [SLOW_MS + 1, SLOW_MS + 2])
    assert not is_too_slow(watch, SLOW_MS - 1, [1])
    assert not is_too_slow(watch, 10 * SLOW_MS, [])
    assert not is_too_slow(DiskWatch(0), 10 * SLOW_MS, [1])


def test_slowness_must_last() -> None:
    watch = DiskWatch(SLOW_MS)
    now_ms = REST_MS
    for _ in range(10):
        assert not watch.is_too_slow(now_ms, RATIO * SLOW_MS, [1])
        assert not watch.is_too_slow(now_ms + LASTING_MS - 1, RATIO * SLOW_MS, [1])
        assert not watch.is_too_slow(now_ms + LASTING_MS, 1, [1])
        now_ms += LASTING_MS + 1
