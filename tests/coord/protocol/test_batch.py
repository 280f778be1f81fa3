"""The batch: what went in comes out, and bytes that are not a batch are refused as a whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord.protocol import batch
from coord.protocol.batch import (
    NO_AUTH_INDEX,
    Stamp,
    block_count,
    decode_batch,
    decode_block,
    encode_batch,
    encode_block,
)
from coord.protocol.jute import DecodeError
from coord.protocol.records import Identity

_I64 = st.integers(-(2**63), 2**63 - 1)
_TABLE = (
    (Identity("ip", "10.0.0.1"),),
    (Identity("ip", "10.0.0.2"), Identity("digest", "bob:x"), Identity("super", "")),
)
_REQUEST = st.tuples(
    _I64,
    st.integers(-(2**31), 2**31 - 1),
    st.integers(-(2**15), 2**15 - 1),
    st.sampled_from([0, 1, NO_AUTH_INDEX]),
    st.binary(max_size=20),
)
_BLOCK = st.tuples(st.integers(0, 255), st.booleans(), st.lists(_REQUEST, min_size=1, max_size=8))


def _encode(owner: int, requests: list[tuple[int, int, int, int, bytes]], *, is_local: bool = False) -> bytes:
    sessions, xids, ops, indices, bodies = zip(*requests, strict=True)
    return encode_block(owner, sessions, xids, ops, indices, _TABLE, bodies, is_local=is_local)


@given(st.lists(_BLOCK, max_size=4), st.integers(0, 2**40), st.integers(0, 2**62), st.integers(0, 2**20))
def test_what_was_encoded_is_decoded(
    blocks: list[tuple[int, bool, list[tuple[int, int, int, int, bytes]]]],
    wall_ms: int,
    zxid: int,
    policy: int,
) -> None:
    count = sum(len(requests) for _, _, requests in blocks)
    stamp = Stamp(1, wall_ms, zxid, count, policy)
    encoded = [_encode(owner, requests, is_local=is_local) for owner, is_local, requests in blocks]
    decoded_stamp, decoded = decode_batch(encode_batch(stamp, encoded))
    assert decoded_stamp == stamp
    for (owner, is_local, requests), data, block in zip(blocks, encoded, decoded, strict=True):
        assert block_count(data) == len(requests)
        assert (block.owner, block.is_local) == (owner, is_local)
        auth = [() if index == NO_AUTH_INDEX else _TABLE[index] for *_, index, _ in requests]
        assert list(block.auth) == auth
        rows = zip(block.sessions, block.xids, block.ops, block.bodies, strict=True)
        assert list(rows) == [(s, x, op, body) for s, x, op, _, body in requests]


def _batch() -> bytes:
    first = _encode(1, [(5, 1, 1, 0, b"one"), (6, 2, 5, 1, b"")])
    second = _encode(2, [(7, 3, -11, NO_AUTH_INDEX, b"three")])
    return encode_batch(Stamp(1, 1_700_000_000_000, 0x100000001, 3, 1), [first, second])


def test_a_batch_cut_anywhere_is_refused() -> None:
    data = _batch()
    for size in range(len(data)):
        with pytest.raises(DecodeError):
            decode_batch(data[:size])


def test_a_batch_with_bytes_behind_it_is_refused() -> None:
    with pytest.raises(DecodeError):
        decode_batch(_batch() + b"\0")


def test_every_bit_flip_decodes_or_raises_decode_error() -> None:
    """Checksums are the log's and the link's; here nothing but DecodeError may come of damage."""
    data = _batch()
    for position in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        try:
            stamp, blocks = decode_batch(bytes(flipped))
        except DecodeError:
            continue
        assert stamp.count == sum(len(block.bodies) for block in blocks)


@given(st.binary(max_size=200))
def test_hostile_bytes_raise_only_decode_errors(data: bytes) -> None:
    for attempt in (data, b"zlb1" + data, b"zlb1\0\0\0\6\x85\1\2\3\0\0" + data):
        try:
            decode_batch(attempt)
        except DecodeError:
            pass
    try:
        decode_block(data)
    except DecodeError:
        pass


@pytest.mark.parametrize(
    "stamp",
    [
        Stamp(1, 2**63, 1, 0),
        Stamp(1, -1, 1, 0),
        Stamp(1, 0, 2**63, 0),
        Stamp(1, 0, -1, 0),
        Stamp(1, 0, 1, 0, 2**64),
        Stamp(-1, 0, 1, 0),
    ],
)
def test_a_stamp_that_does_not_fit_into_a_stat_is_refused(stamp: Stamp) -> None:
    with pytest.raises(DecodeError, match="range"):
        decode_batch(encode_batch(stamp, []))


def test_a_count_that_is_not_the_blocks_is_refused() -> None:
    with pytest.raises(DecodeError, match="requests"):
        decode_batch(encode_batch(Stamp(1, 0, 1, 2), [_encode(1, [(5, 1, 1, 0, b"")])]))


def test_an_auth_index_outside_the_table_is_refused() -> None:
    with pytest.raises(DecodeError, match="auth table"):
        decode_block(encode_block(1, [5], [1], [1], [2], _TABLE, [b""]))


def test_an_identity_that_is_not_two_texts_is_refused() -> None:
    table = ((Identity("ip", 5),),)  # type: ignore[arg-type]
    with pytest.raises(DecodeError, match="auth table"):
        decode_block(encode_block(1, [5], [1], [1], [0], table, [b""]))


def test_a_block_of_an_unknown_kind_of_session_is_refused() -> None:
    data = bytearray(encode_block(1, [5], [1], [1], [0], _TABLE, [b""]))
    data[5] = 2
    with pytest.raises(DecodeError, match="kind"):
        decode_block(bytes(data))


@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=600)), max_size=6))
def test_every_table_of_identities_comes_out_as_it_went_in(identities: list[tuple[str, str]]) -> None:
    """Small ones are kept for the next block, large ones are not."""
    table = (tuple(Identity(*each) for each in identities), ())
    for _ in range(2):
        block, _ = decode_block(encode_block(1, [7, 7], [1, 2], [5, 5], [0, 1], table, [b"", b"x"]))
        assert list(block.auth) == list(table)


def test_no_more_tables_are_kept_than_the_limit_says() -> None:
    for number in range(2 * batch.KEPT_TABLES_MAX):
        encode_block(1, [7], [1], [5], [0], ((Identity("ip", str(number)),),), [b""])
    assert len(batch._encoded_tables) <= batch.KEPT_TABLES_MAX
