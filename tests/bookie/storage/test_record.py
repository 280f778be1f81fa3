"""Segment records as bytes: the format of docs/formats.md, and what damage does to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookie.storage import record as records
from bookie.storage.record import RecordDamagedError, RecordUnknownError

ids = st.integers(0, records.LEDGER_ID_MAX)
bodies = st.binary(max_size=100)


@given(ids, bodies, st.integers(-1, 1 << 62), st.integers(0, 1 << 63), st.integers(0, 1 << 63))
def test_every_kind_comes_back_as_it_was(ledger_id, body, lac, segment, offset):
    payload = b"".join(
        (
            records.opened_record(segment),
            records.key_record(ledger_id, body),
            records.encode_header(records.EXTENT, body) + body,
            records.lac_record(ledger_id, lac),
            records.fence_record(ledger_id),
            records.moved_record(segment, offset, body),
            records.tombstone_record(ledger_id),
        )
    )
    opened, key, extent, explicit, fence, moved, tombstone = records.iterate_records(payload)
    assert [r.kind for r in (opened, key, extent, explicit, fence, moved, tombstone)] == [7, 2, 1, 4, 3, 6, 5]
    assert int.from_bytes(opened.body, "little") == segment
    assert (records.ledger_of(key), key.body[8:]) == (ledger_id, body)
    assert extent.body == body
    assert (records.ledger_of(explicit), records.lac_of(explicit)) == (ledger_id, lac)
    assert records.ledger_of(fence) == ledger_id
    assert records.moved_from(moved) == (segment, offset, body)
    assert records.ledger_of(tombstone) == ledger_id
    assert payload[extent.start : extent.start + extent.length][records.HEADER_BYTES :] == body


@given(bodies, st.data())
def test_every_flipped_bit_is_found(body, data):
    record = bytearray(records.encode_header(records.EXTENT, body) + body)
    bit = data.draw(st.integers(0, 8 * len(record) - 1))
    record[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RecordDamagedError):
        list(records.iterate_records(bytes(record)))


@given(bodies, st.data())
def test_every_truncation_is_found(body, data):
    record = records.encode_header(records.EXTENT, body) + body
    end = data.draw(st.integers(1, len(record) - 1))
    with pytest.raises(RecordDamagedError):
        list(records.iterate_records(record[:end]))


def test_an_unknown_kind_stops_unless_it_may_be_skipped():
    """9.3."""
    unknown = records.encode_header(99, b"news") + b"news"
    with pytest.raises(RecordUnknownError):
        list(records.iterate_records(unknown))
    skippable = records.encode_header(99, b"news", flags=records.SKIPPABLE) + b"news"
    (kept,) = records.iterate_records(skippable + records.fence_record(3))
    assert records.ledger_of(kept) == 3
    with pytest.raises(RecordUnknownError):
        list(records.iterate_records(records.encode_header(records.FENCE, b"x" * 8, flags=2) + b"x" * 8))


def test_bodies_that_are_too_short_or_out_of_range_are_damage():
    for kind in (records.KEY, records.FENCE, records.LAC, records.TOMBSTONE):
        (short,) = records.iterate_records(records.encode_header(kind, b"1234") + b"1234")
        with pytest.raises(RecordDamagedError):
            records.ledger_of(short)
        (huge,) = records.iterate_records(records.encode_header(kind, b"\xff" * 8) + b"\xff" * 8)
        with pytest.raises(RecordDamagedError):
            records.ledger_of(huge)
    (short,) = records.iterate_records(records.encode_header(records.LAC, b"12345678") + b"12345678")
    with pytest.raises(RecordDamagedError):
        records.lac_of(short)
    (short,) = records.iterate_records(records.encode_header(records.MOVED, b"12345678") + b"12345678")
    with pytest.raises(RecordDamagedError):
        records.moved_from(short)
