"""The cursor ledger's entries (DESIGN 6, P3, P9)."""

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsub.core.errors import RecordError
from pubsub.core.positions import (
    CursorRow,
    Positions,
    ProducersRow,
    RemovedRow,
    Row,
    cut_rows,
    decode_positions,
    encode_positions,
)

T = b"t" * 16
P = b"p" * 16


def test_an_entry_round_trips() -> None:
    rows: list[Row] = [
        CursorRow(T, 3, "billing", 99, 1000, (2, 5, 1, 1)),
        ProducersRow(T, 3, 1200, ((P, 50, 41, 1190, 0),)),
        RemovedRow(T, 3, "audit", 98),
    ]
    entry = decode_positions(encode_positions(rows, 77, 12), "ledger 5 entry 0")
    assert (entry.snapshot_first, entry.registration, list(entry.rows)) == (12, 77, rows)


def test_rows_and_fields_of_a_newer_program_are_skipped() -> None:
    data = cbor2.dumps([1, None, 7, [[9, "?"], [0, T, 1, "s", 4, 10, [], "later"]], "later"])
    entry = decode_positions(data, "x")
    assert entry.rows == (CursorRow(T, 1, "s", 4, 10, ()),)


def test_the_last_position_wins_and_never_moves_back() -> None:
    positions = Positions()
    positions.replay([CursorRow(T, 3, "s", 1, 50), CursorRow(T, 3, "s", 1, 40)])
    assert positions.topics[T].cursors[("s", 1)].mark == 50


def test_p3_rows_of_an_older_epoch_never_win() -> None:
    positions = Positions()
    positions.replay(
        [
            CursorRow(T, 4, "s", 1, 50),
            RemovedRow(T, 3, "s", 1),
            CursorRow(T, 3, "s", 1, 70),
            ProducersRow(T, 3, 90, ((P, 9, 9, 9, 0),)),
        ]
    )
    topic = positions.topics[T]
    assert (topic.cursors[("s", 1)].mark, topic.covered, topic.producers) == (50, 0, {})


def test_a_subscription_created_again_starts_fresh() -> None:
    positions = Positions()
    positions.replay([CursorRow(T, 3, "s", 1, 50), RemovedRow(T, 3, "s", 1), CursorRow(T, 3, "s", 2, 7)])
    assert {key: cursor.mark for key, cursor in positions.topics[T].cursors.items()} == {("s", 2): 7}


def test_later_rows_of_a_producer_replace_earlier_ones() -> None:
    positions = Positions()
    positions.replay(
        [ProducersRow(T, 1, 10, ((P, 5, 5, 10, 0),)), ProducersRow(T, 1, 20, ((P, 9, 6, 17, 0),))]
    )
    assert positions.topics[T].producers[P] == (P, 9, 6, 17, 0)
    assert positions.topics[T].covered == 20


@given(st.binary(max_size=60))
def test_noise_raises_nothing_but_record_error(noise: bytes) -> None:
    with pytest.raises(RecordError):
        decode_positions(noise, "x")


@pytest.mark.parametrize(
    "fields",
    [
        [2, None, 7, []],
        [1, None, "7", []],
        [1, "x", 7, []],
        [1, None, 7, [[0, T, 1, "s", 4, "10", []]]],
        [1, None, 7, [[0, "t", 1, "s", 4, 10, []]]],
        [1, None, 7, [[1, T, 1, 10, [[P, 1, 2]]]]],
        [1, None, 7, [["?"]]],
    ],
)
def test_damaged_entries_are_refused(fields: list[object]) -> None:
    with pytest.raises(RecordError, match="ledger 5"):
        decode_positions(cbor2.dumps(fields), "ledger 5")


def test_a_large_snapshot_is_cut_into_entries() -> None:
    rows: list[Row] = [CursorRow(T, 1, f"s{i}", i, i) for i in range(100)]
    groups = cut_rows(rows, bytes_target=1000)
    assert len(groups) > 5
    assert [row for group in groups for row in group] == rows
    assert cut_rows([]) == [[]]
