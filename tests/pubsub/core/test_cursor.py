"""Cursors (spec 2.2): a model of acknowledged numbers, and P2."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsub.core.cursor import Cursor
from pubsub.core.errors import InvalidRequestError, RecordError

HIGH = 60

acks = st.lists(
    st.one_of(
        st.integers(0, HIGH).map(lambda n: (0, n)),
        st.tuples(st.integers(1, HIGH), st.integers(0, 8)).map(lambda t: (t[0], min(HIGH, t[0] + t[1]))),
    ),
    max_size=40,
)


def apply(cursor: Cursor, model: set[int], ack: tuple[int, int]) -> bool:
    first, last = ack
    if first == 0:
        model.update(range(1, last + 1))
        return cursor.acknowledge_to(last, HIGH)
    model.update(range(first, last + 1))
    return cursor.acknowledge(first, last, HIGH)


@given(acks)
def test_a_cursor_is_the_set_of_acknowledged_numbers(steps: list[tuple[int, int]]) -> None:
    cursor, model = Cursor(), set[int]()
    for step in steps:
        before = set(model)
        assert apply(cursor, model, step) == (model != before)
        assert {n for n in range(1, HIGH + 2) if cursor.is_acknowledged(n)} == model
        # Canonical: ranges neither touch each other nor the mark.
        previous = cursor.mark
        for first, last in cursor.ranges:
            assert previous + 1 < first <= last
            previous = last


@given(acks)
def test_the_record_restores_the_cursor(steps: list[tuple[int, int]]) -> None:
    cursor, model = Cursor(), set[int]()
    for step in steps:
        apply(cursor, model, step)
    restored = Cursor.decode(cursor.mark, cursor.encode_ranges())
    assert (restored.mark, restored.ranges) == (cursor.mark, cursor.ranges)


@given(acks, acks)
def test_merging_two_records_is_the_union(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> None:
    a, b, model = Cursor(), Cursor(), set[int]()
    for step in one:
        apply(a, model, step)
    for step in two:
        apply(b, model, step)
    a.merge(b)
    assert {n for n in range(1, HIGH + 2) if a.is_acknowledged(n)} == model


def test_p2_a_lower_consume_never_moves_the_pointer_back() -> None:
    cursor = Cursor(10)
    assert not cursor.acknowledge_to(7, 100)
    assert cursor.mark == 10


def test_an_acknowledgement_above_the_high_watermark_is_an_error() -> None:
    cursor = Cursor()
    with pytest.raises(InvalidRequestError):
        cursor.acknowledge_to(6, 5)
    with pytest.raises(InvalidRequestError):
        cursor.acknowledge(3, 6, 5)
    assert (cursor.mark, cursor.ranges) == (0, [])


def test_an_empty_or_negative_range_is_an_error() -> None:
    for first, last in ((3, 2), (0, 1), (-4, -2)):
        with pytest.raises(InvalidRequestError):
            Cursor().acknowledge(first, last, 5)


def test_a_damaged_record_is_refused() -> None:
    for mark, ranges in ((-1, []), (0, [1]), (0, [0, 1]), (0, [1, 0]), (0, [-1, 2])):
        with pytest.raises(RecordError):
            Cursor.decode(mark, ranges)
