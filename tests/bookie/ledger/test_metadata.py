"""The ledger record: round trips, validation in both directions (R-M1, R-M4), states that never go back."""

from dataclasses import replace
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookie.ledger.distribution import Schedule
from bookie.ledger.errors import IncorrectParameterError, MetadataError
from bookie.ledger.extent import SealKind
from bookie.ledger.metadata import Fragment, LedgerMetadata, LedgerState, Member, check_quorums

A, B, C, D = (Member(name, number) for number, name in enumerate("abcd"))


def record(**changes: Any) -> LedgerMetadata:
    fields: dict[str, Any] = {
        "schedule": Schedule(3, 3, 2),
        "state": LedgerState.OPEN,
        "fragments": (Fragment(0, (A, B, C)),),
        "token": 99,
    }
    return LedgerMetadata(**fields | changes)


@st.composite
def records(draw: st.DrawFn) -> LedgerMetadata:
    size = draw(st.integers(1, 4))
    write = draw(st.integers(1, size))
    schedule = Schedule(size, write, draw(st.integers(1, write)), draw(st.integers(1, 1000)))
    starts = [0, *sorted(draw(st.sets(st.integers(1, 10**6), max_size=3)))]
    names = st.lists(st.integers(0, 9), min_size=size, max_size=size, unique=True)
    fragments = tuple(
        Fragment(start, tuple(Member(f"b{n}", draw(st.integers(0, 2**64 - 1))) for n in draw(names)))
        for start in starts
    )
    state = draw(st.sampled_from(LedgerState))
    closed = state is LedgerState.CLOSED
    return LedgerMetadata(
        schedule=schedule,
        state=state,
        fragments=fragments,
        token=draw(st.integers(0, 2**64 - 1)),
        last_entry_id=draw(st.integers(starts[-1] - 1, 2**40)) if closed else None,
        length=draw(st.integers(0, 2**50)) if closed else None,
        seal=draw(st.sampled_from(SealKind)),
        password=draw(st.binary(max_size=8)),
        created_ms=draw(st.none() | st.integers(0, 2**45)),
        custom=draw(st.dictionaries(st.text(max_size=5), st.binary(max_size=5), max_size=3)),
        unknown=draw(st.dictionaries(st.sampled_from(["later", "even_later"]), st.integers() | st.text())),
    )


@given(records())
def test_a_record_comes_back_with_fields_of_later_versions(metadata: LedgerMetadata) -> None:
    data = metadata.encode()
    assert LedgerMetadata.decode(data) == metadata
    assert LedgerMetadata.decode(data).encode() == data


@given(st.binary(max_size=60))
def test_garbage_is_a_metadata_error_and_nothing_else(data: bytes) -> None:
    """15.3: never treated as deleted."""
    with pytest.raises(MetadataError):
        LedgerMetadata.decode(data)


@given(records(), st.data())
def test_damage_is_a_metadata_error_or_another_valid_record(
    metadata: LedgerMetadata, data: st.DataObject
) -> None:
    encoded = bytearray(metadata.encode())
    position = data.draw(st.integers(0, len(encoded) * 8 - 1))
    encoded[position // 8] ^= 1 << position % 8
    try:
        LedgerMetadata.decode(bytes(encoded))
    except MetadataError:
        pass


@pytest.mark.parametrize(
    "changes",
    [
        {"fragments": ()},
        {"fragments": (Fragment(1, (A, B, C)),)},
        {"fragments": (Fragment(0, (A, B)),)},
        {"fragments": (Fragment(0, (A, B, A)),)},
        {"fragments": (Fragment(0, (A, B, Member("a", 77))),)},
        {"fragments": (Fragment(0, (A, B, C)), Fragment(0, (A, B, D)))},
        {"fragments": (Fragment(0, (A, B, C)), Fragment(9, (A, B, D)), Fragment(5, (A, C, D)))},
        {"last_entry_id": 5},
        {"length": 5},
        {"last_entry_id": 5, "length": 5},
        {"state": LedgerState.CLOSED},
        {"state": LedgerState.CLOSED, "last_entry_id": -2, "length": 0},
        {"state": LedgerState.CLOSED, "last_entry_id": 5, "length": -1},
        {
            "state": LedgerState.CLOSED, "last_entry_id": 7, "length": 1,
            "fragments": (Fragment(0, (A, B, C)), Fragment(9, (A, B, D))),
        },
        {"schedule": Schedule(3, 2, 3)},
        {"schedule": Schedule(3, 3, 0)},
        {"schedule": Schedule(3, 3, 2, 0)},
    ],
)  # fmt: skip
def test_nonsense_can_neither_be_made_nor_written(changes: dict[str, Any]) -> None:
    """R-M4, R-W8."""
    with pytest.raises(MetadataError):
        record(**changes)


def test_an_empty_last_fragment_is_fine_when_closed() -> None:
    """2.1: first key == lastEntry + 1."""
    fragments = (Fragment(0, (A, B, C)), Fragment(9, (A, B, D)))
    assert record(state=LedgerState.CLOSED, last_entry_id=8, length=1, fragments=fragments).closed


@pytest.mark.parametrize(
    "quorums", [(2, 3, 2, 1), (3, 2, 3, 1), (3, 3, 0, 1), (3, 3, -1, 1), (0, 0, 0, 1), (3, 3, 2, 0)]
)
def test_quorums_that_make_no_sense_are_the_callers_mistake(quorums: tuple[int, int, int, int]) -> None:
    """R-M1."""
    with pytest.raises(IncorrectParameterError):
        check_quorums(Schedule(*quorums))


def plain(**changes: Any) -> bytes:
    fields = cbor2.loads(record().encode()) | changes
    return cbor2.dumps({key: value for key, value in fields.items() if value is not None}, canonical=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2}, {"version": None}, {"version": True}, {"state": 4}, {"state": "OPEN"},
        {"token": None}, {"token": -1}, {"password": None}, {"password": "text"}, {"seal": 3},
        {"custom": [1]},
        {"custom": {"k": "text"}}, {"fragments": None}, {"fragments": [[0]]}, {"fragments": [["0", []]]},
        {"fragments": [[0, [["a", 1], ["b", 1], ["c"]]]]},
        {"fragments": [[0, [["a", 1], ["b", 1], ["c", -1]]]]},
        {"ensemble_size": 0}, {"stripe_unit": 0}, {"created_ms": "now"},
    ],
)  # fmt: skip
def test_a_bad_field_is_named(changes: dict[str, Any]) -> None:
    with pytest.raises(MetadataError):
        LedgerMetadata.decode(plain(**changes))


def test_bytes_that_are_not_canonical_are_refused() -> None:
    """R-N13: indefinite sizes, duplicate keys, bytes behind the end."""
    good = record().encode()
    assert good[0] & 0xE0 == 0xA0
    indefinite = b"\xbf" + good[1:] + b"\xff"
    duplicate = bytes([good[0] + 1]) + good[1:] + cbor2.dumps("token") + cbor2.dumps(1)
    for data in (indefinite, duplicate, good + b"\x00", b"\xc1" + good):
        with pytest.raises(MetadataError):
            LedgerMetadata.decode(data)


def test_an_ensemble_change_replaces_or_appends() -> None:
    """4.5 step 7."""
    first = record().with_ensemble(0, (A, B, D))
    assert first.fragments == (Fragment(0, (A, B, D)),)
    second = first.with_ensemble(5, (A, C, D))
    assert second.fragments == (Fragment(0, (A, B, D)), Fragment(5, (A, C, D)))
    with pytest.raises(MetadataError):
        second.with_ensemble(4, (A, B, C))


def test_fragments_are_found_by_entry() -> None:
    metadata = record().with_ensemble(5, (A, B, D)).with_ensemble(9, (A, C, D))
    assert [metadata.fragment_of(e)[0].first_entry_id for e in (0, 4, 5, 8, 9, 10**12)] == [0, 0, 5, 5, 9, 9]
    assert metadata.fragment_of(4)[1] == 4
    assert metadata.fragment_of(9)[1] == 2**63 - 1
    assert metadata.lac_floor == 8
    assert replace(metadata).closed_at(20, 5).lac_floor == 20


def test_repair_changes_one_place_of_one_fragment() -> None:
    """12.5 step 5."""
    metadata = record().with_ensemble(5, (A, B, D)).with_member(0, 1, D)
    assert metadata.fragments == (Fragment(0, (A, D, C)), Fragment(5, (A, B, D)))
