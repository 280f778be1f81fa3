"""`Bodies` is the sequence that it was made of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord.protocol.bodies import Bodies

lists = st.lists(st.binary(max_size=8), max_size=6)


@given(lists, st.binary(max_size=5), st.binary(max_size=5))
def test_a_sequence_that_lies_among_other_bytes(expected: list[bytes], before: bytes, after: bytes) -> None:
    bodies = Bodies(before + b"".join(expected) + after, len(before), map(len, expected))
    assert list(bodies) == list(Bodies.of(expected)) == expected
    assert len(bodies) == len(expected)
    assert bodies[1:] == expected[1:]
    for index in range(-len(expected), len(expected)):
        assert bodies[index] == expected[index]


@pytest.mark.parametrize("index", [2, -3])
def test_there_is_none_beyond_the_last(index: int) -> None:
    with pytest.raises(IndexError, match="expected a body below 2"):
        Bodies.of([b"a", b"b"])[index]
