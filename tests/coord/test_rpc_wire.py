"""The RPC frame: round trips, cuts, and lengths that lie."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord.message import decode_message, encode_message
from coord.rpc import wire
from coord.rpc.wire import FrameReader, WireError, encode_prefix

frames = st.tuples(
    st.integers(wire.REQUEST, wire.ONE_WAY),
    st.integers(0, 0xFFFF),
    st.integers(0, wire.REQUEST_ID_MAX),
    st.binary(max_size=30),
    st.binary(max_size=30),
)
Sent = tuple[int, int, int, bytes, bytes]


def encode(sent: Sent) -> bytes:
    kind, code, request_id, header, body = sent
    return encode_prefix(kind, code, request_id, len(header), len(body)) + header + body


def plain(frame: wire.Frame) -> Sent:
    return frame.kind, frame.code, frame.request_id, frame.header, bytes(frame.body)


@given(st.lists(frames, max_size=6), st.integers(1, 40))
def test_frames_survive_any_cutting(sent: list[Sent], size: int) -> None:
    stream = b"".join(map(encode, sent))
    reader = FrameReader()
    received = []
    for start in range(0, len(stream), size):
        received += map(plain, reader.read(stream[start : start + size]))
    assert received == sent
    assert reader.held_bytes == 0


@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_frames_or_a_wire_error(data: bytes) -> None:
    try:
        frames = FrameReader(1000).read(data)
    except WireError:
        return
    assert all(len(frame.header) + len(frame.body) + 12 == frame.size for frame in frames)


def test_the_bytes_of_a_frame() -> None:
    assert encode((wire.REQUEST, 0x0203, 0x04050607, b"\x80", b"body")).hex(" ", -4) == (
        "00000011 01010203 04050607 00000001 80626f64 79"
    )


def test_a_body_is_a_view_of_what_was_read() -> None:
    data = encode((wire.REPLY, 1, 1, b"\x80", b"payload"))
    (frame,) = FrameReader().read(data)
    assert frame.body.obj is data


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("a frame over the limit", b"\0\0\x03\xe9"),
        ("a frame too short for its fixed part", b"\0\0\0\x0b" + bytes(11)),
        ("a kind of 0", b"\0\0\0\x0c\0\x01" + bytes(10)),
        ("a kind of 5", b"\0\0\0\x0c\x05\x01" + bytes(10)),
        ("another version", b"\0\0\0\x0c\x01\x02" + bytes(10)),
        ("a header longer than its frame", b"\0\0\0\x0c\x01\x01" + bytes(6) + b"\0\0\0\x01"),
        ("a header of 2^32 - 1 bytes", b"\0\0\0\x0c\x01\x01" + bytes(6) + b"\xff\xff\xff\xff"),
    ],
)
def test_lengths_and_kinds_are_checked(what: str, data: bytes) -> None:
    with pytest.raises(WireError):
        FrameReader(1000).read(data)


def test_the_example_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    block = text.split("<!-- rpc example -->")[1].split("```")[1]
    data = b"".join(bytes.fromhex(line[6:53]) for line in block.strip().splitlines())
    request, error = FrameReader().read(data)
    assert plain(request) == (wire.REQUEST, 3, 9, encode_message(Fence(7, b"k")), b"body")
    assert plain(error)[:3] == (wire.ERROR, 0, 9)
    assert decode_message(wire.ErrorHeader, error.header) == wire.ErrorHeader(-7, "fenced")


@dataclass(frozen=True, slots=True)
class Fence:
    ledger_id: int
    key: bytes
    floor: int = -1
