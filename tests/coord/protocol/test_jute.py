"""Spec chapter 2: null is not empty, and bytes that are no record raise DecodeError and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord.protocol.jute import (
    DecodeError,
    Reader,
    encode_buffer,
    encode_int,
    encode_long,
    encode_strings,
    encode_text,
)

_READS = ("read_int", "read_long", "read_bool", "read_buffer", "read_text", "read_count", "read_strings")


@given(
    st.integers(-(2**31), 2**31 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.one_of(st.none(), st.binary(max_size=50)),
    st.one_of(st.none(), st.text(max_size=20)),
    st.lists(st.binary(max_size=9), max_size=5),
)
def test_what_was_encoded_is_read_back(
    number: int, long: int, buffer: bytes | None, text: str | None, strings: list[bytes]
) -> None:
    data = b"".join(
        (
            encode_int(number),
            encode_long(long),
            encode_buffer(buffer),
            encode_text(text),
            encode_strings(strings),
        )
    )
    reader = Reader(data)
    assert reader.read_int() == number
    assert reader.read_long() == long
    assert reader.read_buffer() == buffer
    assert reader.read_text() == text
    assert reader.read_strings() == strings
    assert reader.remaining == 0


@given(st.binary(max_size=64), st.lists(st.sampled_from(_READS), min_size=1, max_size=12))
def test_hostile_bytes_raise_only_decode_errors_and_never_overrun(data: bytes, reads: list[str]) -> None:
    reader = Reader(data)
    try:
        for read in reads:
            getattr(reader, read)()
            assert 0 <= reader.offset <= len(data)
    except DecodeError:
        pass


def test_null_and_empty_differ() -> None:
    assert encode_buffer(None) == b"\xff\xff\xff\xff"
    assert encode_buffer(b"") == b"\0\0\0\0"
    assert Reader(encode_buffer(None)).read_buffer() is None
    assert Reader(encode_buffer(b"")).read_buffer() == b""


def test_a_buffer_of_another_negative_length_is_an_error() -> None:
    with pytest.raises(DecodeError):
        Reader(encode_int(-2)).read_buffer()


def test_a_vector_of_another_negative_length_is_empty() -> None:
    assert Reader(encode_int(-1)).read_strings() is None
    assert Reader(encode_int(-7)).read_strings() == []


def test_a_vector_longer_than_the_frame_is_refused_before_it_is_built() -> None:
    with pytest.raises(DecodeError):
        Reader(encode_int(2**31 - 1) + bytes(100)).read_strings()


def test_any_byte_but_zero_is_true() -> None:
    assert [Reader(bytes([byte])).read_bool() for byte in (0, 1, 5, 255)] == [False, True, True, True]


def test_text_that_is_not_utf8_is_replaced() -> None:
    """Spec 2.3: as in Java, so that a path with it is illegal rather than undecodable."""
    assert Reader(encode_buffer(b"/a\xff")).read_text() == "/a\ufffd"


def test_a_reader_stops_at_its_end() -> None:
    with pytest.raises(DecodeError):
        Reader(bytes(8), 0, 3).read_int()
