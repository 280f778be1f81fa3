"""The worked examples of docs/formats.md decode to what the page says, and encode to its bytes."""

import re
from pathlib import Path

from bookie.ledger.distribution import Schedule
from bookie.ledger.extent import Extent, SealKind, encode_extent
from bookie.ledger.keys import sealer_of
from bookie.ledger.layout import Registration
from bookie.ledger.metadata import Fragment, LedgerMetadata, LedgerState, Member
from bookie.ledger.wire import BOOKIE_PROTOCOL, Add, FenceReply

PAGE = Path(__file__).parents[3] / "docs" / "formats.md"
PAYLOADS = [b"one", b"", b"three"]


def example(name: str) -> bytes:
    """The bytes of the dump after the comment of this name."""
    block = re.search(rf"<!-- {name} example -->\n```\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    rows = (re.match(r"[0-9a-f]{4}  ((?:[0-9a-f]{2} ?)+)", line) for line in block[1].splitlines())
    return b"".join(bytes.fromhex(row[1]) for row in rows if row)


def test_the_extent_example() -> None:
    data = example("extent")
    extent = Extent(data)
    assert extent.verified_payloads() == PAYLOADS
    assert (extent.ledger_id, extent.first_entry_id, extent.lac, extent.base_length) == (7, 2, 1, 10)
    assert encode_extent(7, 2, 1, 10, PAYLOADS).data == data


def test_the_slice_example() -> None:
    sealer = sealer_of(SealKind.HMAC_SHA256, b"pw")
    data = example("extent slice")
    extent = Extent(data)
    extent.verify_seal(sealer)
    assert (extent.first_entry_id, extent.base_length) == (4, 13)
    assert extent.verified_payloads() == [b"three"]
    assert Extent(encode_extent(7, 2, 1, 10, PAYLOADS, sealer).data).cut(4, 4) == data


def test_the_message_examples() -> None:
    add, reply = Add(7, 1, b"kkkk", 0x01020304), FenceReply(3, 4, ((5, 6), (8, 8)))
    (add_code, add_bytes), (reply_code, reply_bytes) = map(BOOKIE_PROTOCOL.encode, (add, reply))
    assert example("bookie messages") == add_bytes + reply_bytes
    assert BOOKIE_PROTOCOL.decode(add_code, add_bytes) == add
    assert BOOKIE_PROTOCOL.decode(reply_code, reply_bytes) == reply


def test_the_metadata_example() -> None:
    a, b, c, d = (Member(name, number) for number, name in enumerate("abcd", 1))
    fragments = (Fragment(0, (a, b, c)), Fragment(5, (a, d, c)))
    record = LedgerMetadata(Schedule(3, 3, 2), LedgerState.OPEN, fragments, token=9, created_ms=1000)
    record = record.closed_at(6, 20)
    assert LedgerMetadata.decode(example("ledger metadata")) == record
    assert record.encode() == example("ledger metadata")


def test_the_registration_example() -> None:
    registration = Registration("127.0.0.1", 3181, 258)
    assert Registration.decode(example("bookie registration")) == registration
    assert registration.encode() == example("bookie registration")
