"""The delivery window (spec 2.15, checklist 4.3: never negative beyond one batch)."""

from hypothesis import given
from hypothesis import strategies as st

from pubsub.core.credit import CREDIT_MAX, CreditRefill, CreditWindow


def test_a_window_is_open_while_messages_and_bytes_are_left() -> None:
    assert CreditWindow(1, 1).open
    assert not CreditWindow(0, 100).open
    assert not CreditWindow(100, 0).open


def test_one_batch_may_drive_it_below_zero_and_the_deficit_is_kept() -> None:
    window = CreditWindow(10, 1000)
    window.spend(25, 200)
    assert not window.open
    window.grant(15, 200)
    assert not window.open
    window.grant(1, 0)
    assert window.open


def test_hostile_grants_neither_take_back_nor_overflow() -> None:
    window = CreditWindow(5, 5)
    window.grant(-100, -100)
    assert (window.messages, window.bytes) == (5, 5)
    window.grant(2**62, 2**62)
    assert (window.messages, window.bytes) == (CREDIT_MAX, CREDIT_MAX)


@given(
    st.integers(1, 20),
    st.integers(1, 400),
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 900)), max_size=50),
)
def test_p5_no_window_and_no_batch_size_deadlock(
    messages: int, byte_count: int, batches: list[tuple[int, int]]
) -> None:
    """Whatever the sizes, an application that takes everything gets everything."""
    window = CreditWindow(messages, byte_count)
    refill = CreditRefill(messages, byte_count)
    low_messages = 0
    for batch_messages, batch_bytes in batches:
        assert window.open
        window.spend(batch_messages, batch_bytes)
        low_messages = min(low_messages, window.messages)
        assert window.messages > -batch_messages
        refill.taken(batch_messages, batch_bytes)
        grant = refill.take_grant()
        if grant is not None:
            window.grant(*grant)
