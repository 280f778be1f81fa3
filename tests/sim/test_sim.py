"""Seeds of the simulator that always run, and the test of the tester: each known defect is found within a
stated number of seeds. `python -m tests.sim --seeds N` runs more.
"""

from functools import partial

import pytest

from coord.zab import Detection, Status
from tests.sim.defects import DEFECTS, introduced
from tests.sim.faults import CALM
from tests.sim.world import run_seed

pytestmark = pytest.mark.sim

SEEDS = range(1, 41)
SEEDS_TO_FIND = {
    "ack-before-fsync": 10,
    "ack-without-history": 10,
    "commit-of-anything": 10,
    "epoch-before-history": 30,
    "executed-unlogged": 10,
    "late-joiner-misses": 10,
    "observers-told-early": 10,
    "own-log-not-awaited": 10,
    "new-quorum-at-once": 10,
    "old-quorum-until-commit": 10,
    "change-survives-cut": 10,
    "promise-not-persisted": 60,
    "stale-leader-confirms": 60,
    "tail-kept-in-state": 10,
    "wiped-server-counts": 20,
}


@pytest.mark.parametrize("first", SEEDS[::10])
def test_all_laws_hold_under_faults(first: int) -> None:
    """Chapter 21, durability and progress."""
    for seed in range(first, first + 10):
        outcome = run_seed(seed)
        assert outcome.law is None, f"{outcome.text}\nreplay: python -m tests.sim --replay {seed}"
        assert outcome.simulated_ms > 0


@pytest.mark.parametrize("minimum_ms", [0, 1])
def test_all_laws_hold_with_phi_accrual(minimum_ms: int) -> None:
    """Chapter 21, with detectors that wait two ticks at least, and with some that wait as long as they like:
    faults make them wrong now and then, which costs elections and breaks no law.
    """
    for seed in range(101, 111):
        outcome = run_seed(seed, detection=Detection("phi", 4, minimum_ms))
        assert outcome.law is None, outcome.text


def test_phi_accrual_convicts_nobody_in_a_calm_network() -> None:
    """Without faults every server serves from its first day to its last."""
    for seed in range(1, 6):
        serving: set[int] = set()
        interrupted: list[object] = []
        note = partial(_note_interruption, serving, interrupted)
        outcome = run_seed(seed, note, CALM, Detection("phi"))
        assert outcome.law is None, outcome.text
        assert interrupted == []


def test_one_seed_is_one_story() -> None:
    """Replay shows what happened: the same seed gives the same events."""
    assert run_seed(7) == run_seed(7)


def test_epochs_that_run_out_of_zxids_are_followed_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """20.1: with 60 zxids in an epoch instead of 2^32 leaders take new ones all the time; all laws hold."""
    monkeypatch.setattr("coord.zab.leader.COUNTER_MAX", 60)
    for seed in range(1, 6):
        outcome = run_seed(seed)
        assert outcome.law is None, outcome.text
        assert outcome.epochs >= outcome.executed // 60


def test_epochs_that_run_out_of_zxids_interrupt_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """20.1, chapter 24: without faults every server serves from its first day to its last."""
    monkeypatch.setattr("coord.zab.leader.COUNTER_MAX", 60)
    for seed in range(1, 11):
        serving: set[int] = set()
        interrupted: list[object] = []
        outcome = run_seed(seed, partial(_note_interruption, serving, interrupted), CALM)
        assert outcome.law is None, outcome.text
        assert outcome.epochs >= outcome.executed // 60 > 5
        assert interrupted == []


def _note_interruption(
    serving: set[int], interrupted: list[object], now_us: int, kind: str, sid: int, what: object
) -> None:
    if kind == "status" and isinstance(what, Status):
        if what.serving:
            serving.add(sid)
        elif sid in serving:
            interrupted.append((now_us, sid, what))


@pytest.mark.parametrize("name", sorted(DEFECTS))
def test_known_defect_is_found(name: str) -> None:
    """DESIGN 9, test the tester."""
    with introduced(name) as profile:
        found = (run_seed(seed, profile=profile).law for seed in range(1, SEEDS_TO_FIND[name] + 1))
        assert any(law is not None for law in found)
