"""The worked examples of docs/formats.md are decoded, and encoded again to the same bytes."""

import re
from pathlib import Path

from pubsub.core.batch import (
    decode_batch_header,
    decode_columns,
    decode_hub_header,
    encode_batch,
    encode_hub_header,
    split_entries,
)
from pubsub.core.index import decode_marker
from pubsub.core.positions import (
    CursorRow,
    ProducersRow,
    RemovedRow,
    decode_positions,
    encode_positions,
)
from pubsub.core.record import Owner, decode_record, encode_record
from pubsub.core.subscription import SubscriptionRecord, decode_subscription, encode_subscription

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "formats.md"
TOPIC_ID = PRODUCER = bytes(range(16))


def example(name: str) -> bytes:
    text = DOCUMENT.read_text()
    block = text.split(f"<!-- {name} example -->\n```\n", 1)[1].split("```", 1)[0]
    found = b""
    for line in block.splitlines():
        digits = re.match(r"([0-9a-f]{4})  ((?:[0-9a-f]{2} ?){1,16})(?:  |$)", line)
        assert digits is not None, line
        assert int(digits[1], 16) == len(found)
        found += bytes.fromhex(digits[2])
    return found


def test_the_topic_entry() -> None:
    data = example("topic entry")
    ((header, start, end),) = split_entries(data)
    assert (header.epoch, header.first, header.last, header.append_time_ms) == (2, 41, 42, 1_700_000_000_000)
    batch = decode_batch_header(data, start, end)
    assert (batch.producer_id, batch.sequence, batch.count) == (PRODUCER, 7, 2)
    columns = decode_columns(data, batch, start)
    assert (columns.payloads, columns.keys) == ([b"one", b"three"], [b"k", None])
    again = b"".join(encode_batch(PRODUCER, 7, [b"one", b"three"], keys=[b"k", None]))
    assert encode_hub_header(2, 41, 1_700_000_000_000, 2, len(again)) + again == data


def test_the_topic_index() -> None:
    data = example("topic index")
    assert decode_hub_header(data).count == 0
    index = decode_marker(data, 41)
    assert [index.entry_of(sequence) for sequence in (41, 42, 43, 47)] == [0, 0, 1, 1]
    assert index.encode_marker(2, 1_700_000_000_000) == data


def test_the_topic_record() -> None:
    data = example("topic record")
    record = decode_record(data, "example")
    assert (record.topic_id, record.epoch, record.owner) == (TOPIC_ID, 1, Owner("127.0.0.1:4080", 77))
    assert [(one.ledger_id, one.first, one.last) for one in record.ranges] == [(5, 1, 40), (9, 41, None)]
    assert (record.sealed, record.cursors) == (40, (6,))
    assert encode_record(record) == data


def test_the_subscription_record() -> None:
    data = example("subscription record")
    assert decode_subscription(data, "example") == SubscriptionRecord(99, 12, 1_700_000_000_000)
    assert encode_subscription(decode_subscription(data, "example")) == data


def test_the_cursor_entry() -> None:
    data = example("cursor entry")
    entry = decode_positions(data, "example")
    assert (entry.snapshot_first, entry.registration) == (3, 77)
    assert entry.rows == (
        CursorRow(TOPIC_ID, 2, "billing", 99, 40, (2, 5)),
        ProducersRow(TOPIC_ID, 2, 47, ((PRODUCER, 13, 9, 43, 0),)),
        RemovedRow(TOPIC_ID, 2, "audit", 98),
    )
    assert encode_positions(entry.rows, 77, 3) == data
