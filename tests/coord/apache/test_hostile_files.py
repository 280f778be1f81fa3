"""Whatever bytes a file holds, under a checksum that fits: it is read, or it is named as damaged."""

import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coord.apache import ApacheDataError
from coord.apache.convert import tree_of
from coord.apache.directory import load_state
from coord.apache.snapshot import read_snapshot
from coord.apache.txnlog import Transaction, encode_transaction, read_transactions
from tests.coord.apache.files import GOLDEN, LOG, SNAPSHOT, golden_directory, log_file

BEHIND = 67
"""Bytes of the golden snapshot behind its nodes."""

EDITS = st.lists(
    st.tuples(st.integers(0, 1 << 16), st.one_of(st.binary(min_size=1, max_size=4), st.integers(1, 64))),
    min_size=1,
    max_size=3,
)


def edited(data: bytes, edits: list[tuple[int, bytes | int]]) -> bytes:
    """Bytes overwritten, or a number of them left out, here and there."""
    for place, edit in edits:
        at = place % max(1, len(data))
        data = data[:at] + (edit + data[at + len(edit) :] if isinstance(edit, bytes) else data[at + edit :])
    return data


def sealed(content: bytes) -> bytes:
    """A snapshot file with this content, as before 3.6."""
    return content + struct.pack(">qi", zlib.adler32(content), 1) + b"/"


@settings(max_examples=150)
@given(edits=EDITS)
def test_a_snapshot_is_read_or_named(edits: list[tuple[int, bytes | int]]) -> None:
    content = (GOLDEN / SNAPSHOT).read_bytes()[:-BEHIND]
    assert read_snapshot("s", sealed(content)).database.nodes
    try:
        database = read_snapshot("s", sealed(edited(content, edits))).database
        for node in database.nodes.values():
            node.acl = node.acl or ()
        tree_of(database, 1)
    except ApacheDataError:
        pass


@settings(max_examples=150)
@given(which=st.integers(0, 39), edits=EDITS)
def test_a_transaction_is_replayed_or_named(
    tmp_path_factory: pytest.TempPathFactory, which: int, edits: list[tuple[int, bytes | int]]
) -> None:
    records = []
    for number, txn in enumerate(read_transactions(LOG, (GOLDEN / LOG).read_bytes())):
        assert isinstance(txn, Transaction)
        body = edited(txn.body, edits) if number == which else txn.body
        records.append(encode_transaction(txn.session_id, txn.zxid, txn.time_ms, txn.type, body))
    directory = golden_directory(tmp_path_factory.mktemp("log"))
    log_file(directory, 0x100000001, records)
    try:
        state = load_state(str(directory), check_digests=False)
        tree_of(state.database, state.zxid)
    except ApacheDataError:
        pass


@given(data=st.binary(max_size=300))
def test_any_bytes_are_read_or_named(data: bytes) -> None:
    for name in ("snapshot.1", "snapshot.1.gz", "snapshot.1.snappy"):
        with pytest.raises(ApacheDataError):
            read_snapshot(name, data)
    try:
        assert len(list(read_transactions("log.1", data))) <= 1
    except ApacheDataError:
        pass


def test_a_node_whose_path_is_no_path_is_named() -> None:
    content = (GOLDEN / SNAPSHOT).read_bytes()[:-BEHIND]
    with pytest.raises(ApacheDataError, match=r"b'xapp' is no path of a node"):
        read_snapshot("s", sealed(content.replace(b"\0\0\0\x04/app", b"\0\0\0\x04xapp", 1)))
