"""Schedule and coverage against the definitions of 1.2 and 6.1, by brute force (17.1)."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookie.ledger.distribution import Schedule

QUORUMS = [(e, w, a) for e in range(1, 6) for w in range(1, e + 1) for a in range(1, w + 1)]
EDGES = (0, 1, 5, 2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**62)


def definition(entry_id: int, size: int, quorum: int, unit: int) -> list[int]:
    return [((entry_id // unit) + j) % size for j in range(quorum)]


@pytest.mark.parametrize(("size", "write", "ack"), QUORUMS)
def test_write_set_is_the_formula_also_around_powers_of_two(size: int, write: int, ack: int) -> None:
    """R-M2, R-M8: full integer width, absolute id, stripe unit."""
    for unit in (1, 2, 7):
        schedule = Schedule(size, write, ack, unit)
        for edge in EDGES:
            for entry_id in range(max(0, edge - 3), edge + 4):
                expected = definition(entry_id, size, write, unit)
                assert list(schedule.write_set(entry_id)) == expected
                assert [i for i in range(size) if schedule.holds(i, entry_id)] == sorted(expected)


@given(st.sampled_from(QUORUMS), st.integers(1, 5), st.integers(0, 40), st.integers(0, 12), st.integers(0, 4))
def test_holds_any_means_holding_one_of_the_range(
    quorums: tuple[int, int, int], unit: int, first: int, more: int, index: int
) -> None:
    """1.2 striped(i, a..b)."""
    schedule = Schedule(*quorums, unit)
    index %= schedule.ensemble_size
    expected = any(schedule.holds(index, e) for e in range(first, first + more + 1))
    assert schedule.holds_any(index, first, first + more) == expected


@given(st.sampled_from(QUORUMS), st.integers(1, 4), st.integers(0, 30), st.integers(0, 20))
def test_a_run_has_one_write_set(quorums: tuple[int, int, int], unit: int, first: int, more: int) -> None:
    """R-N12: batches are cut where the write set changes, and nowhere where E = Qw."""
    schedule = Schedule(*quorums, unit)
    end = schedule.run_end(first, first + more)
    assert first <= end <= first + more
    if schedule.ensemble_size == schedule.write_quorum:
        assert end == first + more
    else:
        assert len({schedule.write_set(e) for e in range(first, end + 1)}) == 1


def write_sets(schedule: Schedule) -> list[set[int]]:
    return [set(schedule.write_set_from(i)) for i in range(schedule.ensemble_size)]


@pytest.mark.parametrize(("size", "write", "ack"), QUORUMS)
def test_coverage_has_its_four_equivalent_forms(size: int, write: int, ack: int) -> None:
    """6.1: for every subset of known members, per write set."""
    schedule = Schedule(size, write, ack)
    for count in range(size + 1):
        for known in combinations(range(size), count):
            unknown = set(range(size)) - set(known)
            forms = [True] * 4
            for cohort in write_sets(schedule):
                quorums = list(combinations(sorted(cohort), ack))
                forms[0] &= len(cohort & set(known)) >= (write - ack) + 1
                forms[1] &= all(set(quorum) & set(known) for quorum in quorums)
                forms[2] &= len(cohort - set(known)) < ack
                forms[3] &= not any(set(quorum) <= cohort - set(known) for quorum in quorums)
            assert len(set(forms)) == 1
            assert schedule.covers(unknown) == forms[0]


@pytest.mark.parametrize(("size", "write", "ack"), QUORUMS)
def test_reachable_means_an_ack_quorum_is_left_in_every_write_set(size: int, write: int, ack: int) -> None:
    schedule = Schedule(size, write, ack)
    for count in range(size + 1):
        for down in combinations(range(size), count):
            expected = all(len(cohort - set(down)) >= ack for cohort in write_sets(schedule))
            assert schedule.reachable(down) == expected
    assert schedule.negatives_needed == write - ack + 1
