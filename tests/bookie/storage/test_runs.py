"""Runs of entry ids in memory against a plain dict, and id ranges against a plain set."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bookie.storage.id_ranges import IdRanges
from bookie.storage.runs import ExtentRef, RunIndex

extents = st.tuples(st.integers(0, 40), st.integers(1, 12))


@given(st.lists(extents, max_size=25), st.sets(st.integers(0, 24)))
def test_the_newest_insertion_is_found_for_every_id(inserted, removed):
    """R-B7, R-B8."""
    index, model, refs = RunIndex(), {}, []
    for first, count in inserted:
        ref = ExtentRef(first, count, 100, None)
        refs.append(ref)
        index.insert(ref.first, ref.last, ref)
        model.update(dict.fromkeys(range(first, first + count), ref))
    for number in removed:
        if number < len(refs):
            index.remove(refs[number])
            model = {entry: ref for entry, ref in model.items() if ref is not refs[number]}
    runs = list(index)
    assert {e: run.extent for run in runs for e in range(run.first, run.last + 1)} == model
    assert all(low.last < high.first for low, high in pairwise(runs))
    assert index.last == max(model, default=-1)
    for entry in range(55):
        found = index.find(entry)
        if entry in model:
            assert found is not None
            assert found.first <= entry <= found.last
            assert found.extent is model[entry]
        else:
            later = [e for e in model if e > entry]
            assert (found.first if found else None) == (min(later) if later else None)


def test_appending_in_order_keeps_one_run_per_extent():
    index = RunIndex()
    for first in range(0, 30, 3):
        index.insert(first, first + 2, ExtentRef(first, 3, 10, None))
    assert [(run.first, run.last) for run in index.runs_from(7)][:2] == [(6, 8), (9, 11)]
    assert len(index) == 10


@given(st.lists(extents, max_size=20))
def test_id_ranges_hold_what_was_added_and_join_neighbours(added):
    ranges, model = IdRanges(), set()
    for first, count in added:
        ranges.add(first, first + count - 1)
        model.update(range(first, first + count))
    assert {n for first, last in ranges for n in range(first, last + 1)} == model
    assert all((n in ranges) == (n in model) for n in range(60))
    pairs = list(ranges)
    assert all(low[1] + 1 < high[0] for low, high in pairwise(pairs))
