"""Whatever the bytes, a decoder of the client protocol returns or raises its own error, and nothing else."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coord.protocol.batch import Stamp, decode_batch, decode_block, encode_batch, encode_block
from coord.protocol.jute import DecodeError, Reader
from coord.protocol.records import (
    OPEN_ACL,
    Identity,
    decode_connect_request,
    decode_watcher_event,
    encode_acl,
    encode_create,
    encode_multi,
    encode_set_data,
    read_multi_header,
    read_stat,
)
from coord.tree.acl import read_acl
from coord.tree.multi import decode_multi

BLOCK = encode_block(
    1,
    [7, 7, 8],
    [1, 2, 3],
    [1, 5, -11],
    [0, 0, 1],
    [(Identity("ip", "127.0.0.1"), Identity("digest", "bob:x")), ()],
    [encode_create("/a", b"x", OPEN_ACL, 0), encode_set_data("/a", b"y", -1), b""],
)
BATCH = encode_batch(Stamp(1, 1_700_000_000_000, 1 << 32, 3), [BLOCK])
CONNECT = struct.pack(">iqiqi", 0, 5, 1000, 7, 16) + bytes(16) + b"\0"
MULTI = encode_multi([(1, encode_create("/a", b"x", OPEN_ACL, 0)), (5, encode_set_data("/a", b"y", -1))])

Decoder = Callable[[bytes], object]

DECODERS: dict[str, tuple[Decoder, bytes]] = {
    "connect request": (decode_connect_request, CONNECT),
    "watcher event": (decode_watcher_event, struct.pack(">iii", 1, 3, 2) + b"/a"),
    "multi": (decode_multi, MULTI),
    "multi header": (lambda data: read_multi_header(Reader(data)), MULTI[:9]),
    "ACL": (lambda data: read_acl(Reader(data)), encode_acl(OPEN_ACL)),
    "Stat": (lambda data: read_stat(Reader(data)), bytes(68)),
    "strings": (lambda data: Reader(data).read_strings(), struct.pack(">ii", 2, 1) + b"a\0\0\0\0"),
    "block": (decode_block, BLOCK),
    "batch": (decode_batch, BATCH),
}


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes with some changed, put in, taken out, or the end cut off; or noise."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.binary(max_size=120))
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, 5))):
        position = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.integers(0, 3)):
            case 0 if data:
                data[position] = draw(st.integers(0, 255))
            case 1:
                data[position:position] = draw(st.binary(max_size=8))
            case 2:
                del data[position : position + draw(st.integers(1, 8))]
            case _:
                data[position : position + 4] = draw(
                    st.sampled_from([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\0"])
                )
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_2_5_damaged_bytes_decode_or_are_a_decode_error(name: str, data: st.DataObject) -> None:
    decode, whole = DECODERS[name]
    try:
        decode(data.draw(damaged(whole)))
    except DecodeError:
        pass


@pytest.mark.parametrize("name", DECODERS)
def test_the_whole_record_decodes(name: str) -> None:
    decode, whole = DECODERS[name]
    decode(whole)
