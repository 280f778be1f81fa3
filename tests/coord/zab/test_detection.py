"""Failure detection (issue "Zab that can be trusted", 8): the detectors alone, and in a peer."""

from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord.zab import Detection, Role
from coord.zab.detection import WINDOW, AwakeClock, Detector, FixedTimeout, PhiAccrual, deviations_at
from coord.zab.messages import Heartbeat, HeartbeatAck, Notification
from tests.coord.zab.stage import Stage, batches, recovered

OLD = batches(1, 3)
END = OLD[-1].last_zxid
HEARTBEAT = 1000
MINIMUM = 2000
MAXIMUM = 10_000

silences = st.lists(st.integers(0, 3 * MAXIMUM), max_size=300)


def phi(threshold: int = 8, minimum_ms: int = MINIMUM, maximum_ms: int = MAXIMUM) -> PhiAccrual:
    return PhiAccrual(
        threshold=threshold, heartbeat_ms=HEARTBEAT, minimum_ms=minimum_ms, maximum_ms=maximum_ms, now_ms=0
    )


def hear(detector: Detector, times_ms: list[int]) -> int:
    """Messages with these times between them; returns when the last came."""
    for time_ms in times_ms:
        detector.heard(detector.heard_ms + time_ms)
    return detector.heard_ms


def silence_allowed(detector: Detector) -> int:
    return detector.deadline_ms - detector.heard_ms


@given(silences, st.integers(1, 100))
def test_the_verdict_falls_at_the_deadline_whatever_was_heard(times_ms: list[int], threshold: int) -> None:
    for detector in (FixedTimeout(MAXIMUM, 0), phi(threshold)):
        hear(detector, times_ms)
        assert detector.level(detector.deadline_ms - 1) < 1
        assert detector.level(detector.deadline_ms) >= 1


@given(silences, st.integers(1, 100), st.lists(st.integers(0, 20 * MAXIMUM), min_size=2))
def test_suspicion_never_falls_in_silence(times_ms: list[int], threshold: int, later: list[int]) -> None:
    for detector in (FixedTimeout(MAXIMUM, 0), phi(threshold)):
        now_ms = hear(detector, times_ms)
        levels = [detector.level(now_ms + after) for after in sorted(later)]
        assert levels == sorted(levels)
        assert levels[0] >= 0


@given(silences, st.integers(1, 100), st.integers(0, 2 * MAXIMUM))
def test_phi_keeps_between_its_minimum_and_the_fixed_timeout(
    times_ms: list[int], threshold: int, minimum_ms: int
) -> None:
    detector = phi(threshold, minimum_ms)
    hear(detector, times_ms)
    assert min(minimum_ms, MAXIMUM) <= silence_allowed(detector) <= MAXIMUM


@given(st.lists(st.integers(HEARTBEAT, 5 * HEARTBEAT), min_size=WINDOW, max_size=3 * WINDOW))
def test_phi_is_the_improbability_by_the_last_window(times_ms: list[int]) -> None:
    """Hayashibara et al. 2004, 3.2: mean and deviation of the window, however many were heard before."""
    detector = phi(8, 0, 1 << 40)
    hear(detector, times_ms)
    mean = fmean(times_ms[-WINDOW:])
    deviation = max(pstdev(times_ms[-WINDOW:]), HEARTBEAT / 10)
    assert silence_allowed(detector) == pytest.approx(mean + deviations_at(8) * deviation, abs=1.5)
    assert detector.phi(round(mean)) == pytest.approx(0.30103, abs=0.01)  # half of all come later
    assert detector.phi(round(mean + 1.2815515655 * deviation)) == pytest.approx(1.0, abs=0.02)  # one in ten


def test_phi_adapts_to_how_regularly_a_peer_is_heard() -> None:
    """Steady heartbeats are missed soon, irregular ones late, and steady ones again soon."""
    steady, irregular = [HEARTBEAT] * WINDOW, [HEARTBEAT, 2 * HEARTBEAT] * (WINDOW // 2)
    detector = phi(8, 0)
    hear(detector, steady)
    soon = silence_allowed(detector)
    assert soon < 1.6 * HEARTBEAT
    hear(detector, irregular)
    assert silence_allowed(detector) > 4 * HEARTBEAT
    hear(detector, steady)
    assert silence_allowed(detector) == soon


def test_a_burst_of_messages_teaches_no_impatience() -> None:
    """Under load a peer is heard all the time; when the load ends only its heartbeats are left."""
    detector = phi(8, 0)
    hear(detector, [HEARTBEAT] * 20)
    before = silence_allowed(detector)
    hear(detector, [1] * 10_000)
    assert silence_allowed(detector) == before


# The clock.


@given(st.lists(st.integers(0, 1000), max_size=50))
def test_who_is_called_in_time_loses_no_time(gaps_ms: list[int]) -> None:
    clock, real_ms = AwakeClock(1000, 50), 50
    for gap_ms in gaps_ms:
        real_ms += gap_ms
        assert clock.advance(real_ms) == real_ms
    assert clock.stood_still_ms == 0


@given(st.lists(st.integers(0, 100_000), max_size=50))
def test_no_more_passes_between_two_calls_than_was_asked_for(gaps_ms: list[int]) -> None:
    """And always that much, if it passed: who is dead is found out even by a loop that is always late."""
    clock, real_ms = AwakeClock(1000, 0), 0
    for gap_ms in gaps_ms:
        before, real_ms = clock.now_ms, real_ms + gap_ms
        assert clock.advance(real_ms) - before == min(gap_ms, 1000)
        assert clock.now_ms + clock.stood_still_ms == real_ms
        assert real_ms <= clock.wake_at_ms(clock.now_ms + 500) == real_ms + 500
        assert clock.wake_at_ms(1 << 62) == real_ms + 1000


# In a peer.


def heartbeats(stage: Stage, count: int) -> None:
    """From its leader, server 3, in epoch 2."""
    for _ in range(count):
        stage.pass_time(stage.config.heartbeat_ms)
        stage.hear(3, Heartbeat(2, 0, END))


def answers(stage: Stage, epoch: int, count: int) -> None:
    """Of its only follower, server 1."""
    for _ in range(count):
        stage.pass_time(stage.config.heartbeat_ms)
        stage.hear(1, HeartbeatAck(epoch, 0))


def following(detection: Detection) -> Stage:
    stage = Stage(recovered(1, 1, OLD), peers=detection)
    stage.serve_under(2, END)
    heartbeats(stage, 20)
    return stage


@pytest.mark.parametrize(
    ("detection", "ticks"), [(Detection(), 5), (Detection("phi"), 2), (Detection("phi", 8, 8000), 4)]
)
def test_a_silent_leader_is_left_when_its_detector_says_so(detection: Detection, ticks: int) -> None:
    stage = following(detection)
    stage.pass_time(ticks * stage.config.tick_ms - 1)
    assert stage.role is Role.FOLLOWING
    assert stage.peer.suspicions(stage.now_ms)[3] < 1
    stage.pass_time(1)
    assert stage.role is Role.LOOKING


@pytest.mark.parametrize(("detection", "ticks"), [(Detection(), 5), (Detection("phi"), 2)])
def test_a_leader_without_a_quorum_steps_down_when_its_detectors_say_so(
    detection: Detection, ticks: int
) -> None:
    stage = Stage(recovered(1, 1, OLD), peers=detection)
    answers(stage, stage.lead(1), 20)
    stage.pass_time(ticks * stage.config.tick_ms - 1)
    assert stage.role is Role.LEADING
    stage.pass_time(1)
    assert stage.role is Role.LOOKING


def test_observers_are_watched_as_their_own_class_of_links_says() -> None:
    stage = Stage(recovered(1, 1, OLD), observers=Detection("phi"))
    stage.serve_under(2, END)
    heartbeats(stage, 20)
    stage.pass_time(2 * stage.config.tick_ms)
    assert stage.role is Role.FOLLOWING


@pytest.mark.parametrize("detection", [Detection(), Detection("phi")])
def test_a_server_that_was_stopped_convicts_nobody_for_it(detection: Detection) -> None:
    """The health guard: the first thing it does may be a tick that is an hour late."""
    stage = following(detection)
    stage.now_ms += 3_600_000
    stage.peer.tick(stage.now_ms)
    stage.carry_out()
    assert stage.role is Role.FOLLOWING
    heartbeats(stage, 20)
    assert stage.peer.status.serving
    stage.pass_time(stage.config.silence_ms)
    assert stage.role is Role.LOOKING


@pytest.mark.parametrize("detection", [Detection(), Detection("phi")])
def test_a_leader_that_was_stopped_drops_nobody_for_it(detection: Detection) -> None:
    stage = Stage(recovered(1, 1, OLD), peers=detection)
    epoch = stage.lead(1)
    answers(stage, epoch, 20)
    stage.now_ms += 3_600_000
    stage.peer.tick(stage.now_ms)
    stage.carry_out()
    assert stage.role is Role.LEADING
    answers(stage, epoch, 3)
    assert stage.peer.followers == (1,)


def test_a_leader_that_was_left_while_it_was_stopped_steps_down_when_it_hears_of_it() -> None:
    """It does not wait for a quorum that has another leader, nor for its own detectors."""
    stage = Stage(recovered(1, 1, OLD))
    stage.lead(1)
    stage.now_ms += 3_600_000
    stage.hear(1, Notification(Role.LOOKING, 2, 1, 1, END, 1, END))
    stage.hear(1, Notification(Role.FOLLOWING, 2, 3, 0, 0, 3, END))
    assert stage.role is Role.LEADING
    stage.hear(3, Notification(Role.LEADING, 2, 3, 0, 0, 3, END))
    assert stage.role is Role.FOLLOWING
    assert stage.peer.status.leader == 3


def test_a_loop_that_is_always_late_finds_a_dead_leader_in_the_end() -> None:
    stage = following(Detection())
    started_ms = stage.now_ms
    while stage.role is Role.FOLLOWING:
        stage.now_ms = stage.peer.next_deadline_ms() + 4 * stage.config.heartbeat_ms
        stage.peer.tick(stage.now_ms)
        stage.carry_out()
    assert stage.now_ms - started_ms == 5 * stage.config.silence_ms
    assert stage.peer.stood_still_ms == 4 * stage.config.silence_ms
