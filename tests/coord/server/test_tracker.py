"""Session liveness (specification 4.2, 4.3)."""

from hypothesis import given
from hypothesis import strategies as st

from coord.server.tracker import SessionIds, SessionTracker, first_session_id


def test_a_session_lives_between_its_timeout_and_one_tick_more() -> None:
    for start in range(0, 1000, 37):
        tracker = SessionTracker(tick_ms=500)
        tracker.add(7, 1500, start)
        last_alive = max(now for now in range(start, start + 2100) if not _expires_by(start, now))
        assert 1500 <= last_alive - start + 1 <= 2000


def _expires_by(start: int, now: int) -> bool:
    tracker = SessionTracker(tick_ms=500)
    tracker.add(7, 1500, start)
    return bool(tracker.take_expired(now, 10))


def test_a_touch_postpones_expiry() -> None:
    tracker = SessionTracker(tick_ms=100)
    tracker.add(1, 1000, 0)
    assert tracker.touch(1, 900)
    assert tracker.take_expired(1500, 10) == []
    assert tracker.take_expired(2000, 10) == [1]


def test_an_unknown_session_is_not_touched() -> None:
    assert not SessionTracker(100).touch(5, 0)


def test_an_expired_session_is_named_again_until_it_is_removed() -> None:
    tracker = SessionTracker(tick_ms=100)
    tracker.add(1, 1000, 0)
    assert tracker.take_expired(1100, 10) == [1]
    assert tracker.take_expired(1200, 10) == []
    assert tracker.take_expired(2300, 10) == [1]
    tracker.remove(1)
    assert tracker.take_expired(9999, 10) == []
    assert len(tracker) == 0


def test_expiry_is_taken_in_bounded_portions() -> None:
    tracker = SessionTracker(tick_ms=100)
    for session_id in range(10):
        tracker.add(session_id, 1000, 0)
    assert [len(tracker.take_expired(1100, 4)) for _ in range(4)] == [4, 4, 2, 0]


def test_the_next_deadline_is_the_oldest_bucket() -> None:
    tracker = SessionTracker(tick_ms=100)
    assert tracker.next_deadline_ms() is None
    tracker.add(1, 1000, 50)
    tracker.add(2, 5000, 50)
    assert tracker.next_deadline_ms() == 1100
    tracker.touch(1, 7000)
    assert tracker.next_deadline_ms() == 5100


def test_a_new_leader_gives_every_session_its_full_timeout() -> None:
    tracker = SessionTracker(tick_ms=100)
    tracker.add(1, 1000, 0)
    tracker.restart([(2, 1000), (3, 2000)], 10_000)
    assert 1 not in tracker
    assert tracker.take_expired(10_999, 10) == []
    assert tracker.take_expired(11_100, 10) == [2]


def test_a_new_timeout_counts_from_the_reattachment() -> None:
    tracker = SessionTracker(tick_ms=100)
    tracker.add(1, 1000, 0)
    assert tracker.retime(1, 5000, 500)
    assert tracker.take_expired(5000, 10) == []
    assert not tracker.retime(2, 5000, 500)


def test_session_ids_carry_the_server_on_top_and_the_clock_below() -> None:
    wall_ms = 0x0123456789AB
    assert first_session_id(3, wall_ms) == (3 << 56) | (wall_ms & 0xFFFFFFFFFF) << 16
    assert first_session_id(0x81, wall_ms) < 0


def test_a_clock_set_back_does_not_repeat_a_living_session() -> None:
    first = SessionIds(1, 1_000_000)
    living = [first.take() for _ in range(3)]
    assert SessionIds(1, 900_000, living).take() == living[-1] + 1


def test_sessions_expire_until_they_weigh_enough() -> None:
    """DESIGN 3: expiry in batches of bounded size, one session staying atomic."""
    tracker = SessionTracker(100)
    tracker.restart([(number, 1000) for number in range(10)], 0)
    weights = {3: 50, 4: 1000}
    rounds = [tracker.take_expired(1100, 100, lambda session: weights.get(session, 30)) for _ in range(4)]
    assert rounds == [[0, 1, 2, 3], [4], [5, 6, 7, 8], [9]]


steps = st.lists(
    st.tuples(
        st.sampled_from(("touch", "add", "retime", "pass", "stall", "expire")),
        st.integers(1, 4),
        st.integers(1, 4000),
    ),
    max_size=80,
)


@given(steps, st.sampled_from((1, 100, 500, 3000)))
def test_no_session_expires_before_its_negotiated_timeout(
    steps: list[tuple[str, int, int]], tick_ms: int
) -> None:
    """4.3: whatever is heard of whom, however the judge stands still: time in which it could hear is all that
    counts, and there is as much of it as was negotiated since the last touch.
    """
    tracker, now_ms, silent_ms = SessionTracker(tick_ms), 0, dict[int, int]()
    timeouts_ms: dict[int, int] = {}
    for step, session, amount in steps:
        if step == "touch":
            if tracker.touch(session, now_ms):
                silent_ms[session] = 0
        elif step == "add" or (step == "retime" and session in timeouts_ms):
            tracker.add(session, amount, now_ms)
            timeouts_ms[session], silent_ms[session] = amount, 0
        elif step == "pass":
            now_ms += amount
            silent_ms = {one: silence + amount for one, silence in silent_ms.items()}
        elif step == "stall":
            now_ms += amount
            tracker.stand_still(amount)
        for expired in tracker.take_expired(now_ms, 100):
            assert silent_ms[expired] >= timeouts_ms[expired]
            tracker.remove(expired)
            del silent_ms[expired], timeouts_ms[expired]
    for one, silence in silent_ms.items():
        assert silence <= timeouts_ms[one] + tick_ms  # and nobody is forgotten
