"""The extent codec: what is encoded comes back, everything else is refused (R-N4, R-N5, R-N13)."""

import struct
from array import array

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookie.ledger.extent import (
    CRC_SEALER,
    EXTENT_ENTRIES_MAX,
    EXTENT_PAYLOAD_BYTES_MAX,
    Extent,
    ExtentError,
    Sealer,
    SealKind,
    encode_extent,
    iterate_extents,
)

HMAC = Sealer(SealKind.HMAC_SHA256, b"secret")
PAYLOADS = st.lists(st.binary(max_size=40), min_size=1, max_size=12)
SEALERS = st.sampled_from([CRC_SEALER, HMAC])
IDS = st.integers(0, 2**62)


@given(IDS, IDS, IDS, st.integers(-1, 2**62), PAYLOADS, SEALERS)
def test_what_is_encoded_is_decoded(
    ledger_id: int, first: int, base: int, lac: int, payloads: list[bytes], sealer: Sealer
) -> None:
    encoded = encode_extent(ledger_id, first, lac, base, payloads, sealer)
    extent = Extent(b"before" + encoded.data + b"after", 6)
    extent.verify_seal(sealer)
    extent.verify_payloads()
    assert extent.payloads() == payloads
    assert (extent.ledger_id, extent.first_entry_id, extent.base_length) == (ledger_id, first, base)
    assert extent.lac == min(lac, first - 1)  # R-N13: capped by every sender
    assert extent.count == encoded.count == len(payloads)
    assert extent.last_entry_id == encoded.last_entry_id == first + len(payloads) - 1
    assert extent.end_length == base + sum(map(len, payloads))
    assert extent.size == len(encoded.data)
    assert bytes(extent.data) == encoded.data
    assert encoded.checksum == google_crc32c.value(encoded.data)


@given(PAYLOADS, SEALERS, st.data())
def test_a_cut_keeps_payloads_lengths_and_proof(
    payloads: list[bytes], sealer: Sealer, data: st.DataObject
) -> None:
    """R-N4, R-N5: any run of an extent stands alone, with the same cumulative lengths, and cuts again."""
    extent = Extent(encode_extent(3, 10, 9, 100, payloads, sealer).data)
    low = data.draw(st.integers(0, len(payloads) - 1))
    high = data.draw(st.integers(low, len(payloads) - 1))
    cut = Extent(extent.cut(10 + low, 10 + high))
    cut.verify_seal(sealer)
    assert cut.verified_payloads() == payloads[low : high + 1]
    assert (cut.first_entry_id, cut.last_entry_id) == (10 + low, 10 + high)
    assert cut.length_at(10 + high) == 100 + sum(map(len, payloads[: high + 1]))
    again = Extent(cut.cut(10 + high, 10 + high))
    again.verify_seal(sealer)
    assert again.verified_payloads() == payloads[high : high + 1]
    assert again.end_length == cut.end_length
    assert cut.is_slice == (sealer is HMAC and (low, high) != (0, len(payloads) - 1))


def test_rewriting_changes_the_lac_and_nothing_else() -> None:
    """R-F8, R-N5: recovery writes back with its own LAC, payloads and lengths as they were."""
    extent = Extent(encode_extent(3, 10, 9, 100, [b"a", b"bb", b"ccc"]).data)
    copy = Extent(extent.rewrite(11, 12, 4, HMAC).data)
    copy.verify_seal(HMAC)
    assert (copy.lac, copy.first_entry_id, copy.base_length) == (4, 11, 101)
    assert copy.verified_payloads() == [b"bb", b"ccc"]
    assert copy.digests == extent.digests[1:]


@pytest.mark.parametrize("sealer", [CRC_SEALER, HMAC])
def test_every_truncation_is_refused(sealer: Sealer) -> None:
    data = encode_extent(3, 10, 9, 100, [b"abc", b"", b"defg"], sealer).data
    whole = Extent(data)
    for piece in (data, whole.cut(11, 12)):
        for end in range(len(piece)):
            with pytest.raises(ExtentError):
                Extent(piece[:end])


@pytest.mark.parametrize("sealer", [CRC_SEALER, HMAC])
def test_every_bit_flip_is_found(sealer: Sealer) -> None:
    """By size checks, the seal or a payload digest; never another exception."""
    data = encode_extent(3, 10, 9, 100, [b"abc", b"", b"defg"], sealer).data
    for piece in (data, Extent(data).cut(11, 12)):
        for position in range(len(piece) * 8):
            flipped = bytearray(piece)
            flipped[position // 8] ^= 1 << position % 8
            with pytest.raises(ExtentError):
                extent = Extent(bytes(flipped))
                extent.verify_seal(sealer)
                extent.verify_payloads()
                # A slice's own skip count stands outside the seal, so the ids it claims have to be asked for.
                if (extent.first_entry_id, extent.count) != (
                    Extent(piece).first_entry_id,
                    Extent(piece).count,
                ):
                    raise ExtentError("another run than the one asked for")


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    for prefix in (b"", b"zlx1", b"zls1", b"zls1" + bytes(8) + b"zlx1"):
        with pytest.raises(ExtentError):
            Extent(prefix + data)


def sealed_head(**changes: int) -> bytes:
    """A CRC extent of one 3-byte entry with some head fields replaced, sealed correctly."""
    fields = {
        "kind": 1, "zero": 0, "zeros": 0, "ledger": 3, "first": 10, "lac": 9, "base": 100, "count": 1,
        "bytes": 3,
    } | changes  # fmt: skip
    head = struct.pack("<4sBBHQQqQII", b"zlx1", *fields.values())
    vectors = struct.pack("<II", 3, google_crc32c.value(b"abc"))
    return head + struct.pack("<I", google_crc32c.value(head + vectors)) + vectors + b"abc"


def test_a_correctly_sealed_head_is_accepted() -> None:
    assert Extent(sealed_head()).payloads() == [b"abc"]


@pytest.mark.parametrize(
    "changes",
    [
        {"lac": 10},
        {"lac": -2},
        {"count": 0},
        {"count": EXTENT_ENTRIES_MAX + 1},
        {"bytes": 4},
        {"bytes": EXTENT_PAYLOAD_BYTES_MAX + 1},
        {"ledger": 2**63},
        {"first": 2**63 - 1},
        {"base": 2**63 - 2},
        {"kind": 3},
        {"zero": 1},
        {"zeros": 1},
    ],
)
def test_a_head_that_makes_no_sense_is_refused_though_its_seal_holds(changes: dict[str, int]) -> None:
    """R-N13."""
    with pytest.raises(ExtentError):
        Extent(sealed_head(**changes))


def test_a_damaged_payload_ends_the_valid_prefix() -> None:
    """5.5: later bad = truncate before it."""
    data = bytearray(encode_extent(3, 0, -1, 0, [b"aaa", b"bbb", b"ccc"]).data)
    data[-4] ^= 1
    extent = Extent(bytes(data))
    assert extent.verified_payloads() == [b"aaa"]
    with pytest.raises(ExtentError, match="entry 1"):
        extent.verify_payloads()
    with pytest.raises(ExtentError):
        extent.cut(1, 2)
    with pytest.raises(ExtentError):
        extent.rewrite(1, 1, -1, CRC_SEALER)


def test_an_hmac_with_another_key_or_kind_is_not_believed() -> None:
    extent = Extent(encode_extent(3, 0, -1, 0, [b"a"], HMAC).data)
    with pytest.raises(ExtentError):
        extent.verify_seal(Sealer(SealKind.HMAC_SHA256, b"other"))
    with pytest.raises(ExtentError):
        extent.verify_seal(CRC_SEALER)


def test_extents_run_together_are_walked_up_to_the_damage() -> None:
    one, two = (encode_extent(3, first, -1, 0, [b"x"]).data for first in (0, 1))
    assert [e.first_entry_id for e in iterate_extents(one + two)] == [0, 1]
    walked = []
    with pytest.raises(ExtentError):
        walked += [walked.append(e.first_entry_id) for e in iterate_extents(one + two[:-1])]
    assert walked == [0]


def test_too_much_for_one_extent_is_refused() -> None:
    """R-N11."""
    with pytest.raises(ExtentError):
        encode_extent(3, 0, -1, 0, [])
    with pytest.raises(ExtentError):
        encode_extent(3, 0, -1, 0, [b""] * (EXTENT_ENTRIES_MAX + 1))
    with pytest.raises(ExtentError):
        encode_extent(3, 0, -1, 0, [bytes(EXTENT_PAYLOAD_BYTES_MAX), b"x"])


def test_vectors_are_little_endian_unsigned() -> None:
    extent = Extent(encode_extent(3, 0, -1, 0, [b"", b"x" * 300]).data)
    assert extent.lengths == array("I", [0, 300])
    assert bytes(extent.data[52:60]) == struct.pack("<II", 0, 300)
