"""The worked examples of docs/formats.md decode to what the page says, and encode to its bytes."""

import re
from pathlib import Path

from bookie.ledger.extent import Extent, encode_extent
from bookie.server.cookie import Cookie
from bookie.storage import record as records
from bookie.storage.index_format import (
    LedgerRecord,
    RunRecord,
    decode_ledger,
    decode_number,
    decode_pair,
    decode_run,
    encode_ledger,
    encode_number,
    encode_pair,
    encode_run,
    id_key,
    run_key,
)

PAGE = Path(__file__).parents[3] / "docs" / "formats.md"
KEY = bytes(range(20))
INCARNATION = 0x1122334455667788


def example(name: str) -> bytes:
    """The bytes of the dump after the comment of this name."""
    block = re.search(rf"<!-- {name} example -->\n```\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    rows = (re.match(r"[0-9a-f]{4}  ((?:[0-9a-f]{2} ?)+)", line) for line in block[1].splitlines())
    return b"".join(bytes.fromhex(row[1]) for row in rows if row)


def test_the_records_example() -> None:
    data = example("bookie records")
    opened, key, extent, lac, fence, moved, tombstone = records.iterate_records(data)
    encoded = encode_extent(7, 5, 4, 100, [b"hello", b"log"])
    assert (records.ledger_of(key), key.body[8:]) == (7, KEY)
    assert Extent(extent.body).verified_payloads() == [b"hello", b"log"]
    assert (records.ledger_of(lac), records.lac_of(lac)) == (7, 6)
    assert records.ledger_of(fence) == records.ledger_of(tombstone) == 7
    assert records.moved_from(moved) == (3, 4096, encoded.data)
    assert opened.body == INCARNATION.to_bytes(8, "little")
    assert data == b"".join(
        (
            records.opened_record(INCARNATION),
            records.key_record(7, KEY),
            records.encode_header(records.EXTENT, encoded.data, encoded.checksum) + encoded.data,
            records.lac_record(7, 6),
            records.fence_record(7),
            records.moved_record(3, 4096, encoded.data),
            records.tombstone_record(7),
        )
    )


def test_the_index_example() -> None:
    ledger = LedgerRecord(KEY, fenced=True, lac=6, last_entry_id=6, runs=1)
    run = RunRecord(5, 6, 3, 4096, 92, 92, -1)
    pairs = [
        (id_key(7), encode_ledger(id_key(7), ledger)),
        (run_key(7, 6), encode_run(run_key(7, 6), run)),
        (id_key(3), encode_pair(id_key(3), 1, 92)),
        (id_key(9), encode_number(id_key(9), 8)),
        (b"mark", encode_pair(b"mark", 3, 4608)),
    ]
    assert example("bookie index") == b"".join(key + value for key, value in pairs)
    assert decode_ledger(*pairs[0]) == ledger
    assert decode_run(*pairs[1]) == (7, run)
    assert decode_pair(*pairs[2]) == (1, 92)
    assert decode_number(*pairs[3]) == 8
    assert decode_pair(*pairs[4]) == (3, 4608)


def test_the_cookie_example() -> None:
    cookie = Cookie("b1", INCARNATION, "zoo")
    assert Cookie.decode(example("bookie cookie")) == cookie
    assert cookie.encode() == example("bookie cookie")
