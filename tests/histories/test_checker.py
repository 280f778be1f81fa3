"""The linearizability checker: known histories, random ones, and every small one beside a search by brute
force.
"""

import random
from collections.abc import Hashable, Sequence
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.histories import checker
from tests.histories.checker import Model, Operation, Read, UndecidedError, violation, violations
from tests.histories.models import (
    BAD_VERSION,
    DONE,
    REFUSED,
    Acquire,
    Add,
    Counter,
    FencedRegister,
    FencedWrite,
    Pair,
    Register,
    Tokens,
    Write,
)

REGISTER = Register(b"0")


def op(invoked: int, returned: int | None, call: Hashable, answer: Hashable | None) -> Operation:
    return Operation("c", call, invoked, returned, answer)


def is_linearizable(model: Model, *history: Operation) -> bool:
    return violation(model, history) is None


def test_a_read_during_a_write_may_show_either_value() -> None:
    write = op(1, 10, Write(b"1"), 1)
    assert is_linearizable(REGISTER, write, op(2, 3, Read(), (b"0", 0)))
    assert is_linearizable(REGISTER, write, op(2, 3, Read(), (b"1", 1)))
    assert is_linearizable(REGISTER, write, op(2, 3, Read(), (b"0", 0)), op(4, 5, Read(), (b"1", 1)))


def test_a_read_never_goes_back_behind_another_that_ended_before() -> None:
    write = op(1, 10, Write(b"1"), 1)
    first, second = op(2, 3, Read(), (b"1", 1)), op(4, 5, Read(), (b"0", 0))
    assert not is_linearizable(REGISTER, write, first, second)


def test_a_stale_read_is_refused() -> None:
    assert not is_linearizable(REGISTER, op(1, 2, Write(b"1"), 1), op(3, 4, Read(), (b"0", 0)))


def test_equal_times_count_as_overlap() -> None:
    assert is_linearizable(REGISTER, op(1, 2, Write(b"1"), 1), op(2, 2, Read(), (b"0", 0)))


def test_compare_and_set_succeeds_once_per_version() -> None:
    one = op(1, 10, Write(b"1", 0), 1)
    assert is_linearizable(REGISTER, one, op(2, 9, Write(b"2", 0), BAD_VERSION))
    assert not is_linearizable(REGISTER, one, op(2, 9, Write(b"2", 0), 1))
    assert not is_linearizable(REGISTER, op(1, 2, Write(b"1", 0), BAD_VERSION))


def test_a_lost_write_is_found() -> None:
    lost = op(1, 2, Write(b"1"), 1)
    assert not is_linearizable(REGISTER, lost, op(3, 4, Write(b"2"), 1))
    assert not is_linearizable(REGISTER, lost, op(3, 4, Read(), (b"0", 0)))


def test_an_unanswered_write_may_take_effect_at_any_later_time_or_never_but_only_once() -> None:
    unknown = op(1, None, Write(b"1"), None)
    old, new = (b"0", 0), (b"1", 1)
    assert is_linearizable(REGISTER, unknown)
    assert is_linearizable(REGISTER, unknown, op(50, 51, Read(), old))
    assert is_linearizable(REGISTER, unknown, op(50, 51, Read(), old), op(52, 53, Read(), new))
    assert not is_linearizable(REGISTER, unknown, op(50, 51, Read(), new), op(52, 53, Read(), old))
    again = [op(50, 51, Read(), new), op(52, 53, Write(b"2"), 2), op(54, 55, Read(), (b"1", 3))]
    assert not is_linearizable(REGISTER, unknown, *again)


def test_an_unanswered_write_takes_no_effect_after_what_ended_it() -> None:
    unknown = op(1, 10, Write(b"1"), None)
    old, new = (b"0", 0), (b"1", 1)
    assert is_linearizable(REGISTER, unknown, op(11, 12, Read(), old))
    assert is_linearizable(REGISTER, unknown, op(11, 12, Read(), new))
    assert not is_linearizable(REGISTER, unknown, op(11, 12, Read(), old), op(13, 14, Read(), new))


def test_an_effect_before_the_call_is_refused() -> None:
    assert not is_linearizable(REGISTER, op(1, 2, Read(), (b"1", 1)), op(3, None, Write(b"1"), None))


def test_a_counter_counts_each_addition_once() -> None:
    assert is_linearizable(Counter(), op(1, 5, Add(), 2), op(2, 4, Add(), 1), op(6, 7, Read(), 2))
    assert not is_linearizable(Counter(), op(1, 5, Add(), 1), op(2, 4, Add(), 1))
    assert not is_linearizable(Counter(), op(1, 2, Add(), 2), op(3, 4, Add(), 1))
    unknown = op(1, None, Add(), None)
    assert is_linearizable(Counter(), unknown, op(2, 3, Add(), 1), op(4, 5, Add(), 3))
    assert not is_linearizable(Counter(), unknown, op(2, 3, Add(), 1), op(4, 5, Add(), 4))


def test_half_a_multi_is_refused() -> None:
    write = op(1, 10, Write(b"1"), (1, 1))
    assert is_linearizable(Pair(b"0"), write, op(2, 3, Read(), ((b"1", 1), (b"1", 1))))
    assert not is_linearizable(Pair(b"0"), write, op(2, 3, Read(), ((b"1", 1), (b"0", 0))))
    assert not is_linearizable(Pair(b"0"), op(1, 2, Write(b"1"), (1, 0)))


def test_a_fenced_write_with_an_older_token_is_refused() -> None:
    new = op(1, 2, FencedWrite(7, b"new"), DONE)
    assert is_linearizable(FencedRegister(), new, op(3, 4, FencedWrite(6, b"old"), REFUSED))
    assert is_linearizable(FencedRegister(), new, op(3, 4, FencedWrite(7, b"more"), DONE))
    assert not is_linearizable(FencedRegister(), new, op(3, 4, FencedWrite(6, b"old"), DONE))
    assert not is_linearizable(FencedRegister(), new, op(3, 4, FencedWrite(7, b"more"), REFUSED))


def test_a_lock_grants_growing_tokens() -> None:
    assert is_linearizable(Tokens(), op(1, 9, Acquire(2), DONE), op(2, 8, Acquire(1), DONE))
    assert not is_linearizable(Tokens(), op(1, 2, Acquire(2), DONE), op(3, 4, Acquire(1), DONE))
    assert not is_linearizable(Tokens(), op(1, 2, Acquire(2), DONE), op(3, 4, Acquire(2), DONE))


def test_objects_are_judged_one_by_one_and_the_report_names_what_does_not_fit() -> None:
    good, bad = [op(1, 2, Add(), 1)], [op(1, 2, Add(), 1), op(3, 4, Read(), 0)]
    (wrong,) = violations({"a": Counter(), "b": Counter()}, {"a": good, "b": bad})
    assert wrong.startswith("b: no order explains")
    assert "[3, 4] c: Read() -> 0" in wrong
    assert "possible before: 1" in wrong


def test_a_search_that_grows_too_large_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker, "CONFIGURATIONS_MAX", 1000)
    unknown = [op(0, None, Write(b"%d" % number), None) for number in range(40)]
    with pytest.raises(UndecidedError):
        violation(REGISTER, [*unknown, op(1, 2, Read(), (b"x", 20))])


# -- random histories

MODELS: dict[str, tuple[Model, st.SearchStrategy[Any]]] = {
    "register": (
        REGISTER,
        st.one_of(st.just(Read()), st.builds(Write, st.sampled_from([b"1", b"2", b"3"]), st.integers(-1, 3))),
    ),
    "pair": (
        Pair(b"0"),
        st.one_of(st.just(Read()), st.builds(Write, st.sampled_from([b"1", b"2"]), st.integers(-1, 3))),
    ),
    "counter": (Counter(), st.sampled_from([Read(), Add()])),
    "tokens": (Tokens(), st.builds(Acquire, st.integers(0, 9))),
    "fenced": (
        FencedRegister(),
        st.one_of(st.just(Read()), st.builds(FencedWrite, st.integers(0, 4), st.sampled_from([b"1", b"2"]))),
    ),
}


def overlapping(
    model: Model, calls: Sequence[Any], chance: random.Random, spread: int, lost: float
) -> list[Operation]:
    """A history that is linearizable: calls are executed one after the other, each at a moment within its
    own interval; some lose their answer, some of those were never executed.
    """
    state, history = model.start(), []
    for number, call in enumerate(calls):
        moment = number * 10
        begin, end = moment - chance.randrange(spread), moment + chance.randrange(spread)
        client = f"c{number}"
        if chance.random() < lost:
            if chance.random() < 0.5:
                state, _ = model.execute(state, call)
            history.append(Operation(client, call, begin, chance.choice([end, None]), None))
        else:
            state, answer = model.execute(state, call)
            history.append(Operation(client, call, begin, end, answer))
    chance.shuffle(history)
    return history


@pytest.mark.parametrize("name", MODELS)
@given(data=st.data(), seed=st.integers(0, 2**32), spread=st.sampled_from([1, 5, 30, 80]))
def test_what_was_executed_in_some_order_is_accepted(
    name: str, data: st.DataObject, seed: int, spread: int
) -> None:
    model, calls = MODELS[name]
    chosen = data.draw(st.lists(calls, max_size=30))
    assert violation(model, overlapping(model, chosen, random.Random(seed), spread, 0.1)) is None


WRONG: dict[str, Hashable] = {
    "register": (b"never written", 1),
    "pair": ((b"1", 1), (b"2", 1)),
    "counter": -1,
    "tokens": "?",
    "fenced": (3, b"never written"),
}


@pytest.mark.parametrize("name", MODELS)
@given(data=st.data(), seed=st.integers(0, 2**32), spread=st.sampled_from([1, 30]))
def test_an_answer_that_nothing_explains_is_refused(
    name: str, data: st.DataObject, seed: int, spread: int
) -> None:
    model, calls = MODELS[name]
    history = overlapping(
        model, data.draw(st.lists(calls, min_size=1, max_size=20)), random.Random(seed), spread, 0.0
    )
    at = data.draw(st.integers(0, len(history) - 1))
    one = history[at]
    history[at] = Operation(one.client, one.call, one.invoked, one.returned, WRONG[name])
    assert violation(model, history) is not None


@given(data=st.data(), seed=st.integers(0, 2**32))
def test_an_addition_that_is_lost_is_refused_whatever_overlaps(data: st.DataObject, seed: int) -> None:
    """Every later answer is one lower, as if one acknowledged addition had not been there."""
    adds = data.draw(st.integers(2, 20))
    history = overlapping(Counter(), [Add()] * adds, random.Random(seed), 30, 0.0)
    at = data.draw(st.integers(1, adds - 1))
    lowered = [
        Operation(one.client, one.call, one.invoked, one.returned, one.answer - (one.answer > at))
        for one in history
        if isinstance(one.answer, int)
    ]
    assert violation(Counter(), history) is None
    assert violation(Counter(), lowered) is not None


def brute_force(model: Model, history: Sequence[Operation]) -> bool:
    """By the definition: some order of some of the operations, all answered ones among them."""
    answered = [one for one in history if one.answer is not None]
    for count in range(len(answered), len(history) + 1):
        for order in permutations(history, count):
            if all(one in order for one in answered) and fits(model, order):
                return True
    return False


def fits(model: Model, order: Sequence[Operation]) -> bool:
    state = model.start()
    for at, one in enumerate(order):
        if any(later.returned is not None and later.returned < one.invoked for later in order[at:]):
            return False
        state, answer = model.execute(state, one.call)
        if one.answer is not None and one.answer != answer:
            return False
    return True


SMALL: dict[str, tuple[Model, Sequence[Hashable], Sequence[Hashable]]] = {
    "register": (
        REGISTER,
        [Write(b"1"), Write(b"2"), Write(b"1", 0), Write(b"2", 1)],
        [(b"0", 0), (b"1", 1), (b"2", 1), (b"1", 2), 1, 2, BAD_VERSION],
    ),
    "counter": (Counter(), [Add()], [0, 1, 2, 3]),
    "fenced": (
        FencedRegister(),
        [FencedWrite(1, b"1"), FencedWrite(1, b"2"), FencedWrite(2, b"1")],
        [(-1, b""), (1, b"1"), (1, b"2"), (2, b"1"), DONE, REFUSED],
    ),
}
"""Models with calls and answers, right or wrong."""


@st.composite
def small_histories(
    draw: st.DrawFn, calls: Sequence[Hashable], answers: Sequence[Hashable]
) -> list[Operation]:
    history = []
    for number in range(draw(st.integers(1, 5))):
        begin, length = draw(st.integers(0, 9)), draw(st.integers(0, 6))
        call = draw(st.sampled_from([Read(), *calls]))
        fitting = [one for one in answers if isinstance(call, Read) == isinstance(one, tuple)]
        answer = draw(st.sampled_from([None, *(fitting or answers)]))
        forever = answer is None and draw(st.booleans())
        history.append(Operation(f"c{number}", call, begin, None if forever else begin + length, answer))
    return history


@pytest.mark.parametrize("name", SMALL)
@given(data=st.data())
def test_the_search_agrees_with_the_definition(name: str, data: st.DataObject) -> None:
    model, calls, answers = SMALL[name]
    history = data.draw(small_histories(calls, answers))
    assert (violation(model, history) is None) == brute_force(model, history)


def test_a_write_of_what_is_there_already_may_still_be_the_later_one() -> None:
    first, again = op(1, 2, FencedWrite(1, b"a"), DONE), op(3, 20, FencedWrite(1, b"a"), DONE)
    unknown, other = op(3, None, FencedWrite(1, b"b"), None), op(5, 6, Read(), (1, b"b"))
    history = [first, again, unknown, op(3, 4, Read(), (1, b"a")), other, op(21, 22, Read(), (1, b"a"))]
    assert is_linearizable(FencedRegister(), *history)


def test_a_long_history_of_many_clients_is_decided() -> None:
    """Ten thousand operations, eight at a time, one in fifty without an answer."""
    chance = random.Random(1)
    calls = [
        Read() if chance.random() < 0.3 else Write(b"%d" % number, chance.choice([-1, number]))
        for number in range(10_000)
    ]
    history = overlapping(REGISTER, calls, chance, 40, 0.0)
    bounded = [
        Operation(one.client, one.call, one.invoked, (one.returned or 0) + 200, None)
        if chance.random() < 0.02
        else one
        for one in history
    ]
    assert violation(REGISTER, bounded) is None
