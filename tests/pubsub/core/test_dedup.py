"""The table of spec 2.9, line by line, and its limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsub.core.dedup import PRODUCER_IDLE_MS_MAX, Accept, DedupTable, Pending, Stored
from pubsub.core.errors import OutOfOrderError

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16


@pytest.fixture
def table() -> DedupTable:
    """Producer A: 1..10 stored as topic sequence 101..110, 11..20 being written."""
    table = DedupTable()
    table.push(A, 10, 0)
    table.persist(A, 1, 10, 101)
    table.push(A, 20, 0)
    return table


def test_stored_is_answered_as_success_with_its_sequence(table: DedupTable) -> None:
    assert table.judge(A, 1, 10) == Stored(101)


def test_stored_long_ago_is_success_with_an_unknown_sequence(table: DedupTable) -> None:
    assert table.judge(A, 1, 5) == Stored(101)
    assert table.judge(A, 3, 5) == Stored(0)


def test_being_written_waits_for_the_pending_add(table: DedupTable) -> None:
    assert table.judge(A, 11, 20) == Pending()


def test_new_is_accepted_and_any_increase_will_do(table: DedupTable) -> None:
    assert table.judge(A, 21, 30) == Accept()
    assert table.judge(A, 1000, 1000) == Accept()


def test_partly_overlapping_batches_are_refused(table: DedupTable) -> None:
    for first, last in ((5, 12), (15, 25), (10, 21)):
        with pytest.raises(OutOfOrderError):
            table.judge(A, first, last)


def test_another_producer_is_on_its_own(table: DedupTable) -> None:
    assert table.judge(B, 1, 10) == Accept()


def test_judging_changes_nothing(table: DedupTable) -> None:
    table.judge(A, 21, 30)
    assert table.judge(A, 21, 30) == Accept()


def test_a_snapshot_and_the_headers_above_it_restore_the_table(table: DedupTable) -> None:
    rows = table.take_changes()
    assert table.take_changes() == []
    restored = DedupTable()
    restored.restore(rows, now_ms=5)
    restored.replay(A, 11, 20, 111, now_ms=5)
    assert restored.judge(A, 1, 10) == Stored(0)
    assert restored.judge(A, 11, 20) == Stored(111)
    assert restored.judge(A, 21, 21) == Accept()
    assert restored.last_persisted(A) == 20
    assert restored.last_persisted(B) == 0


def test_replaying_headers_the_snapshot_covers_is_harmless(table: DedupTable) -> None:
    table.persist(A, 11, 20, 111)
    restored = DedupTable()
    restored.restore(table.rows(), now_ms=0)
    restored.replay(A, 1, 10, 101, now_ms=0)
    assert restored.last_persisted(A) == 20


def test_the_longest_idle_producer_is_forgotten_first() -> None:
    table = DedupTable(producers_max=2)
    table.replay(A, 1, 1, 1, 0)
    table.replay(B, 1, 1, 2, 1)
    table.replay(A, 2, 2, 3, 2)
    table.replay(C, 1, 1, 4, 3)
    assert table.judge(B, 1, 1) == Accept()
    assert table.judge(A, 2, 2) == Stored(3)


def test_a_producer_with_a_batch_in_flight_is_not_forgotten() -> None:
    table = DedupTable(producers_max=1)
    table.push(A, 5, 0)
    table.push(B, 1, 0)
    assert table.judge(A, 1, 5) == Pending()
    table.forget_idle(PRODUCER_IDLE_MS_MAX)
    assert table.judge(A, 1, 5) == Pending()


def test_idle_producers_are_forgotten_after_their_time() -> None:
    table = DedupTable()
    table.replay(A, 1, 1, 1, now_ms=0)
    table.replay(B, 1, 1, 2, now_ms=10)
    table.forget_idle(PRODUCER_IDLE_MS_MAX)
    assert table.judge(A, 1, 1) == Accept()
    assert table.judge(B, 1, 1) == Stored(2)


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=30))
def test_each_batch_is_stored_once_whatever_is_resent(steps: list[tuple[int, bool]]) -> None:
    """A publisher that repeats any unanswered batch has each stored once, in order."""
    table = DedupTable()
    stored: list[int] = []
    sequence = 1
    for count, repeat in steps:
        last = sequence + count - 1
        for _ in range(2 if repeat else 1):
            if isinstance(table.judge(A, sequence, last), Accept):
                table.push(A, last, 0)
                stored.extend(range(sequence, last + 1))
                table.persist(A, sequence, last, sequence)
        sequence = last + 1
    assert stored == list(range(1, sequence))
