"""The topic and subscription records (spec 2.1): versioned, forward compatible, damage refused."""

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsub.core.errors import RecordError
from pubsub.core.record import LedgerRange, Owner, TopicRecord, decode_record, encode_record
from pubsub.core.subscription import SubscriptionRecord, decode_subscription, encode_subscription

ME = Owner("127.0.0.1:4080", 77)
NEW = TopicRecord(bytes(16), created_ms=5)


def chain() -> TopicRecord:
    """Two closed ledgers (1..10, 11..30) and an open one."""
    record = NEW.claimed(ME)
    for ledger_id, last in ((100, 10), (101, 30)):
        record = record.opened(LedgerRange(ledger_id, record.next_first)).closed(last, 1000, 50)
    return record.opened(LedgerRange(102, record.next_first, copies=3))


def test_a_record_round_trips() -> None:
    record = chain().with_cursors((5, 6))
    assert decode_record(encode_record(record), "/t") == record


def test_unknown_fields_survive_being_written_back() -> None:
    fields = cbor2.loads(encode_record(chain()))
    fields["offload"] = {"bucket": "b"}
    fields["ranges"][0].append("later")
    record = decode_record(cbor2.dumps(fields), "/t").claimed(Owner("h:1", 9))
    again = cbor2.loads(encode_record(record))
    assert again["offload"] == {"bucket": "b"}
    assert again["ranges"][0][7:] == ["later"]


def test_acquisition_raises_the_epoch_by_one() -> None:
    other = Owner("127.0.0.1:4081", 80)
    record = chain().claimed(other)
    assert (record.epoch, record.owner) == (chain().epoch + 1, other)


def test_an_empty_last_ledger_leaves_the_chain_and_its_first_number_is_used_again() -> None:
    record = chain().closed(30, 0, 0)
    assert [one.ledger_id for one in record.ranges] == [100, 101]
    assert record.deleting == (102,)
    assert record.next_first == 31


def test_a_trimmed_chain_repeats_no_number() -> None:
    record = chain().closed(30, 0, 0).trimmed(2)
    assert record.ranges == ()
    assert record.next_first == 31
    assert record.log_start == 31
    assert decode_record(encode_record(record), "/t").next_first == 31


def test_only_a_closed_prefix_can_be_trimmed() -> None:
    record = chain().trimmed(1)
    assert [one.ledger_id for one in record.ranges] == [101, 102]
    assert record.deleting == (100,)
    assert record.forgotten(frozenset((100,))).deleting == ()
    with pytest.raises(AssertionError):
        chain().trimmed(3)


def test_p14_a_lost_answer_is_settled_by_reading_again() -> None:
    wanted = chain()
    assert decode_record(encode_record(wanted), "/t").landed(wanted)
    assert not chain().claimed(ME).landed(wanted)
    assert not chain().closed(40, 1, 1).landed(wanted)
    assert not wanted.landed(wanted.with_cursors((9,)))


def change(name: str, value: Any) -> bytes:
    fields = cbor2.loads(encode_record(chain()))
    fields[name] = value
    return cbor2.dumps(fields)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        cbor2.dumps([1, 2]),
        cbor2.dumps({1: 2}),
        change("version", 2),
        change("id", "text"),
        change("owner", ["h:1"]),
        change("owner", ["h:1", True]),
        change("epoch", None),
        change("ranges", [[1, 1, None, 0, 0, 0, 3], [2, 5, None, 0, 0, 0, 3]]),
        change("ranges", [[1, 1, 4, 0, 0, 0, 3], [2, 6, None, 0, 0, 0, 3]]),
        change("ranges", [[1, 1, 4, 0]]),
        change("ranges", [[1, 1, 4, 0, 0, 0, 3]]),
        change("properties", {"a": 1}),
    ],
)
def test_damaged_and_newer_records_are_refused_with_their_path(data: bytes) -> None:
    with pytest.raises(RecordError, match="/t/x"):
        decode_record(data, "/t/x")


@given(st.binary(max_size=100))
def test_noise_raises_nothing_but_record_error(noise: bytes) -> None:
    with pytest.raises(RecordError):
        decode_record(noise, "/t")
    with pytest.raises(RecordError):
        decode_subscription(noise, "/t")


def test_a_subscription_record_round_trips_with_unknown_fields() -> None:
    record = SubscriptionRecord(12345, 7, 99, {"bound": 5}, {"later": [1]})
    assert decode_subscription(encode_subscription(record), "/s") == record


def test_a_newer_subscription_record_is_refused() -> None:
    with pytest.raises(RecordError, match="version 1, got 2"):
        decode_subscription(cbor2.dumps({"version": 2}), "/s")
