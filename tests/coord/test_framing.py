"""Frames of a 4-byte length: limits, and every way of cutting a stream into reads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord.framing import FrameCutter, FrameTooLargeError, frame, split_frames

payloads = st.lists(st.binary(max_size=50), max_size=10)


def payloads_of(buffer: bytes, positions: list[tuple[int, int]]) -> list[bytes]:
    return [buffer[start:end] for start, end in positions]


@given(payloads, st.binary(max_size=3))
def test_whole_frames_are_found_and_the_rest_is_left(sent: list[bytes], rest: bytes) -> None:
    stream = b"".join(map(frame, sent))
    positions, used = split_frames(stream + rest, 50)
    assert payloads_of(stream, positions) == sent
    assert used == len(stream)


@given(payloads, st.lists(st.integers(1, 20), min_size=1))
def test_frames_survive_any_cutting_into_reads(sent: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(map(frame, sent))
    cutter = FrameCutter(50)
    received: list[bytes] = []
    position = turn = 0
    while position < len(stream):
        size = sizes[turn % len(sizes)]
        buffer, positions = cutter.cut(stream[position : position + size])
        received += payloads_of(buffer, positions)
        position += size
        turn += 1
    assert received == sent
    assert cutter.held_bytes == 0


def test_a_frame_that_arrives_whole_is_not_copied() -> None:
    data = frame(b"one") + frame(b"two")
    buffer, positions = FrameCutter().cut(data)
    assert buffer is data
    assert positions == [(4, 7), (11, 14)]


def test_a_length_over_the_limit_is_refused_before_its_bytes_come() -> None:
    with pytest.raises(FrameTooLargeError, match="at most 10 bytes, got one of 11"):
        split_frames(b"\0\0\0\x0b", 10)


def test_a_negative_length_is_over_any_limit() -> None:
    with pytest.raises(FrameTooLargeError):
        FrameCutter().cut(b"\xff\xff\xff\xff")


def test_the_limit_holds_also_for_a_length_cut_in_two() -> None:
    cutter = FrameCutter(10)
    cutter.cut(b"\0\0")
    with pytest.raises(FrameTooLargeError):
        cutter.cut(b"\0\x0b")


def test_empty_frames_are_frames() -> None:
    assert split_frames(bytes(8), 0) == ([(4, 4), (8, 8)], 8)


def test_a_frame_is_joined_from_parts() -> None:
    assert frame(b"ab", memoryview(b"c")) == b"\0\0\0\x03abc"
