"""Finding the entry of a sequence (spec 2.1, checklist 4.1: index and binary search agree with a linear
scan).
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsub.core.batch import KIND_INDEX, decode_hub_header
from pubsub.core.errors import CorruptBatchError
from pubsub.core.index import EntryIndex, EntrySearch, decode_marker

counts_lists = st.lists(st.integers(1, 50), min_size=1, max_size=60)


@given(counts_lists, st.integers(1, 10**12), st.data())
def test_index_and_search_agree_with_a_linear_scan(
    counts: list[int], first: int, data: st.DataObject
) -> None:
    index = EntryIndex(first)
    firsts = []
    for count in counts:
        firsts.append(index.end)
        index.add(count)
    sequence = data.draw(st.integers(first, index.end - 1))
    expected = max(i for i, start in enumerate(firsts) if start <= sequence)
    assert index.entry_of(sequence) == expected
    search = EntrySearch(sequence, len(counts) - 1)
    steps = 0
    while (probe := search.probe) is not None:
        search.found(probe, firsts[probe])
        steps += 1
    assert search.result == expected
    assert steps <= len(counts).bit_length()


def test_a_sequence_behind_the_end_has_the_next_entry() -> None:
    index = EntryIndex(5)
    assert index.entry_of(5) == 0
    index.add(3)
    assert (index.entry_of(7), index.entry_of(8)) == (0, 1)


@given(counts_lists, st.integers(1, 10**12))
def test_a_marker_restores_the_index(counts: list[int], first: int) -> None:
    index = EntryIndex(first)
    for count in counts:
        index.add(count)
    marker = index.encode_marker(epoch=4, append_time_ms=99)
    header = decode_hub_header(marker)
    assert (header.kind, header.count, header.first, header.last) == (KIND_INDEX, 0, index.end, index.end - 1)
    restored = decode_marker(marker, first)
    assert [restored.entry_of(s) for s in range(first, index.end)] == [
        index.entry_of(s) for s in range(first, index.end)
    ]
    assert (restored.end, len(restored)) == (index.end, len(index))


def test_a_marker_with_a_wrong_count_is_refused() -> None:
    index = EntryIndex(1)
    index.add(4)
    with pytest.raises(CorruptBatchError):
        decode_marker(index.encode_marker(1, 1)[:-1], 1)
