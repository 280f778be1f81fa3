"""`zoolog inspect txnlog --transactions`: each request of a batch is a row, whatever is in it."""

import json
import struct
from pathlib import Path

import pytest

from coord.inspection import read_transactions
from coord.protocol import opcodes as o
from coord.protocol.batch import OP_REFUSED, Stamp, encode_batch, encode_block
from coord.protocol.jute import encode_int
from coord.protocol.records import (
    MULTI_END,
    OPEN_ACL,
    encode_create,
    encode_create_ttl,
    encode_path_version,
    encode_set_data,
)
from coord.server.transaction_rows import transaction_rows
from coord.storage import TxnRow
from coord.tree.execute import encode_create_session
from coord.tree.reaping import encode_delete_container
from pubsub.command.main import run
from tests.coord.server.operated import operated
from tests.coord.server.wire_client import CREATE, Wire, create

WALL_MS = 1_700_000_000_123
ZXID = 0x500000007


def batch_row(*requests: tuple[int, bytes], wall_ms: int = WALL_MS) -> TxnRow:
    count = len(requests)
    ops, bodies = [op for op, _ in requests], [body for _, body in requests]
    block = encode_block(3, [-2] * count, [9] * count, ops, [0xFFFF] * count, [], bodies)
    return TxnRow("batch", 40, 1000, {}, encode_batch(Stamp(1, wall_ms, ZXID, count), [block]))


def facts(op: int, body: bytes, **options: int) -> dict[str, str]:
    (row,) = transaction_rows(batch_row((op, body), **options))
    assert (row.kind, row.offset, row.length) == ("transaction", 40, len(body))
    common = {
        "zxid": f"{ZXID:#x}",
        "time": "2023-11-14T22:13:20.123+00:00",
        "session": "0xfffffffffffffffe",
        "owner": "3",
    }
    return {name: value for name, value in row.facts.items() if common.get(name) != value}


@pytest.mark.parametrize(
    ("op", "body", "expected"),
    [
        (
            o.CREATE,
            encode_create("/a", b"data", OPEN_ACL, 0),
            {"type": "create", "path": "/a", "data_bytes": "4"},
        ),
        (
            o.CREATE_TTL,
            encode_create_ttl("/t", None, OPEN_ACL, 5, 9),
            {"type": "createTTL", "path": "/t", "data_bytes": "0"},
        ),
        (o.SET_DATA, encode_set_data("/a", b"xy", 1), {"type": "setData", "path": "/a", "data_bytes": "2"}),
        (o.DELETE, encode_path_version("/a b", -1), {"type": "delete", "path": "/a b"}),
        (o.DELETE_CONTAINER, encode_delete_container(b"/c", 5), {"type": "deleteContainer", "path": "/c"}),
        (o.CREATE_SESSION, encode_create_session(5000, b"p" * 16), {"type": "createSession"}),
        (o.CLOSE_SESSION, b"", {"type": "closeSession"}),
        (OP_REFUSED, encode_int(o.SESSION_MOVED), {"type": "refused", "error": "-118"}),
        (o.DELETE, b"\0\0\0\3/\xff\n" + encode_int(0), {"type": "delete", "path": "/\\xff\\n"}),
        (o.SET_DATA, b"\0\0\0\x09/a", {"type": "setData", "undecodable": "000000092f61"}),
        (999, b"x", {"type": "999"}),
    ],
)
def test_a_row_says_what_was_asked_for(op: int, body: bytes, expected: dict[str, str]) -> None:
    assert facts(op, body) == expected


def test_a_multi_names_its_operations() -> None:
    operations = (
        (o.CHECK, encode_path_version("/a", 1)),
        (o.SET_DATA, encode_set_data("/b", b"x", -1)),
        (o.CREATE, encode_create("/c", b"x", OPEN_ACL, 0)),
    )
    body = b"".join(struct.pack(">i?i", op, False, -1) + record for op, record in operations) + MULTI_END
    assert facts(o.MULTI, body) == {"type": "multi", "operations": "check /a, setData /b, create /c"}


def test_zxids_rise_through_a_batch_and_other_rows_stay() -> None:
    requests = [(o.DELETE, encode_path_version(f"/{number}", -1)) for number in range(3)]
    rows = list(transaction_rows(batch_row(*requests)))
    assert [row.facts["zxid"] for row in rows] == [f"{ZXID + number:#x}" for number in range(3)]
    mark = TxnRow("mark", 1, 2, {})
    assert list(transaction_rows(mark)) == [mark]


def test_bytes_that_are_no_batch_are_damage() -> None:
    (row,) = transaction_rows(TxnRow("batch", 40, 1000, {}, b"nonsense"))
    assert row.kind == "damage"
    assert "expected a batch" in row.facts["problem"]


def test_a_time_beyond_the_calendar_is_told_in_milliseconds() -> None:
    assert facts(o.CLOSE_SESSION, b"", wall_ms=1 << 62)["time"] == f"{1 << 62} ms"


async def test_the_command_shows_a_servers_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with operated(tmp_path) as port, await Wire.session(port) as wire:
        await wire.call(1, CREATE, create(b"/made", b"x" * 300))
    (segment,) = (tmp_path / "zoolog").glob("log-*/txn.*")
    created = [row for row in read_transactions(str(segment)) if row.facts.get("path") == "/made"]
    assert [(row.kind, row.facts["type"], row.facts["data_bytes"]) for row in created] == [
        ("transaction", "create", "300")
    ]
    command = ["inspect", "txnlog", str(segment), "--transactions"]
    assert run(command) == 0
    assert "type=create  path=/made  data_bytes=300" in capsys.readouterr().out
    assert run([*command, "--json"]) == 0
    assert "/made" in [row.get("path") for row in json.loads(capsys.readouterr().out)]
