"""Damaged and incomplete files are named with the place, and refused; a torn end is accepted, as by
ZooKeeper.
"""

import random
import struct
from contextlib import suppress
from pathlib import Path

import pytest

from coord.apache import ApacheDataError, DamagedApacheFileError
from coord.apache.convert import tree_of
from coord.apache.directory import follows, load_state
from coord.apache.snapshot import read_snapshot
from coord.apache.txnlog import TornEnd, encode_transaction, read_transactions
from tests.coord.apache.files import (
    GOLDEN,
    LAST_ZXID,
    LOG,
    NEXT_LOG,
    SNAPSHOT,
    create_record,
    golden_directory,
    log_file,
)


def flipped(data: bytes, position: int, bit: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]


@pytest.mark.parametrize("name", [SNAPSHOT, SNAPSHOT + ".gz", SNAPSHOT + ".snappy"])
def test_a_flipped_bit_of_a_snapshot_is_named_or_changes_nothing(name: str) -> None:
    """Some bytes say nothing: the number of the database, gzip's time stamp, which copy of a zero it is."""
    data = (GOLDEN / name).read_bytes()
    chance = random.Random(1)
    intact = tree_of(read_snapshot(name, data).database, 1).state_digest()
    places = sorted({chance.randrange(len(data)) for _ in range(300)} | set(range(40)))
    seen = 0
    for position in places:
        try:
            database = read_snapshot(name, flipped(data, position, chance.randrange(8))).database
        except DamagedApacheFileError as damage:
            seen += str(damage).startswith(f"{name} at ")
        else:
            seen += tree_of(database, 1).state_digest() == intact
    assert seen == len(places)


@pytest.mark.parametrize("name", [SNAPSHOT, SNAPSHOT + ".gz", SNAPSHOT + ".snappy"])
def test_no_snapshot_that_ends_early_is_read(name: str) -> None:
    data = (GOLDEN / name).read_bytes()
    whole = (len(data) - 54, len(data) - 21)  # a release before 3.6, and one before 3.9, ends there
    for length in [*range(0, len(data), 97), len(data) - 1, len(data) - 14]:
        if name == SNAPSHOT and length in whole:
            continue
        with pytest.raises(DamagedApacheFileError):
            read_snapshot(name, data[:length])


@pytest.mark.parametrize("behind", [54, 21])
def test_a_snapshot_of_an_older_release_ends_earlier(behind: int) -> None:
    """Without the digest (before 3.6), without the last zxid processed (before 3.9)."""
    data = (GOLDEN / SNAPSHOT).read_bytes()
    snapshot = read_snapshot(SNAPSHOT, data[:-behind])
    assert snapshot.database.digest == read_snapshot(SNAPSHOT, data).database.digest
    assert (snapshot.digest is None) == (behind == 54)


def test_a_flipped_bit_of_a_log_is_named_or_takes_only_the_last_record() -> None:
    """The end of the last record may look as if it was being written."""
    data = (GOLDEN / NEXT_LOG).read_bytes()
    intact = list(read_transactions(NEXT_LOG, data))
    last = intact[-1].offset
    assert len(intact) == 3
    for position in range(len(data)):
        damaged = flipped(data, position, position % 8)
        if 8 <= position < 16:  # the number of the database
            assert list(read_transactions(NEXT_LOG, damaged)) == intact
        elif position < last:
            with pytest.raises(DamagedApacheFileError, match=NEXT_LOG):
                list(read_transactions(NEXT_LOG, damaged))
        else:
            with suppress(DamagedApacheFileError):
                assert list(read_transactions(NEXT_LOG, damaged))[:2] == intact[:2]


def test_a_log_that_ends_within_its_last_record_is_torn_there() -> None:
    data = (GOLDEN / NEXT_LOG).read_bytes().rstrip(b"\0")
    *_, last = read_transactions(NEXT_LOG, data)
    for length in range(last.offset + 5, len(data)):
        assert list(read_transactions(NEXT_LOG, data[:length]))[-1] == TornEnd(last.offset)
        padded = data[:length] + bytes(100)
        assert list(read_transactions(NEXT_LOG, padded))[-1] == TornEnd(last.offset)


def test_a_torn_end_of_the_last_log_is_left_out_with_a_note(tmp_path: Path) -> None:
    directory = golden_directory(tmp_path, SNAPSHOT, NEXT_LOG)
    path = directory / "version-2" / NEXT_LOG
    path.write_bytes(path.read_bytes().rstrip(b"\0")[:-5])
    state = load_state(str(directory))
    assert state.zxid == 0x200000002
    assert "a record that was being written is left out" in state.notes[0]


def test_a_snapshot_that_was_not_finished_is_passed_over(tmp_path: Path) -> None:
    directory = golden_directory(tmp_path, "snapshot.0", LOG, SNAPSHOT)
    path = directory / "version-2" / SNAPSHOT
    path.write_bytes(path.read_bytes()[:5000])
    state = load_state(str(directory))
    assert (state.zxid, state.transactions) == (LAST_ZXID, 40)
    assert "was not written to its end" in state.notes[0]


def test_a_damaged_snapshot_is_refused_and_an_older_one_can_be_named(tmp_path: Path) -> None:
    directory = golden_directory(tmp_path, "snapshot.0", LOG, SNAPSHOT)
    path = directory / "version-2" / SNAPSHOT
    path.write_bytes(flipped(path.read_bytes(), 5000, 3))
    with pytest.raises(ApacheDataError, match=rf"{SNAPSHOT} at \d+: expected checksum .* an older snapshot"):
        load_state(str(directory))
    state = load_state(str(directory), snapshot=str(directory / "version-2" / "snapshot.0"))
    assert state.zxid == LAST_ZXID


def test_a_missing_log_is_a_gap_and_refused(tmp_path: Path) -> None:
    directory = golden_directory(tmp_path, "snapshot.0")
    log_file(directory, 0x100000001, [create_record(0x100000001, "/a"), create_record(0x100000002, "/b")])
    log_file(directory, 0x100000005, [create_record(0x100000005, "/c")])
    with pytest.raises(
        DamagedApacheFileError, match=r"log\.100000005 at 16: .*0x100000005 does not follow 0x100000002"
    ):
        load_state(str(directory))


def test_a_log_without_its_snapshot_is_no_history(tmp_path: Path) -> None:
    """ZooKeeper: "No snapshot found, but there are log entries. Something is broken!" """
    log_file(tmp_path, 0x200000001, [create_record(0x200000001, "/a")])
    with pytest.raises(DamagedApacheFileError, match=r"at 16: there is no snapshot, .* 0x200000001"):
        load_state(str(tmp_path))


@pytest.mark.parametrize(
    ("zxid", "last", "is_next"),
    [
        (0x100000002, 0x100000001, True),
        (0x200000001, 0x100000007, True),
        (0x500000001, 0x100000007, True),
        (0x100000003, 0x100000001, False),
        (0x200000002, 0x100000007, False),
    ],
)
def test_zxids_follow_each_other_within_an_epoch_and_begin_with_one(
    zxid: int, last: int, is_next: bool
) -> None:
    assert follows(zxid, last) == is_next


def test_a_tree_that_is_not_what_the_log_says_is_refused(tmp_path: Path) -> None:
    directory = golden_directory(tmp_path, "snapshot.0", LOG)
    wrong = create_record(0x100000029, "/a")[:-1]
    body = wrong[12 + 32 :] + struct.pack(">iq", 2, 4711)
    log = directory / "version-2" / LOG
    log.write_bytes(log.read_bytes().rstrip(b"\0") + encode_transaction(1, 0x100000029, 5, 1, body))
    with pytest.raises(ApacheDataError, match=r"expected a tree with digest 0000000000001267"):
        load_state(str(directory))
    assert load_state(str(directory), check_digests=False).zxid == 0x100000029


def test_a_snapshot_that_is_ahead_of_the_log_is_refused(tmp_path: Path) -> None:
    """A fuzzy snapshot holds effects of transactions that the log must have, up to the zxid of its digest."""
    directory = golden_directory(tmp_path, SNAPSHOT)
    (directory / "version-2" / SNAPSHOT).rename(directory / "version-2" / "snapshot.100000020")
    with pytest.raises(ApacheDataError, match="the end of the log is missing"):
        load_state(str(directory))


def test_what_is_no_directory_of_zookeepers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ApacheDataError, match="holds no version-2"):
        load_state(str(tmp_path))
    (tmp_path / "version-2").mkdir()
    with pytest.raises(ApacheDataError, match="neither a snapshot nor a log"):
        load_state(str(tmp_path))
    (tmp_path / "version-2" / "snapshot.5").write_bytes(b"ZKSN")
    with pytest.raises(ApacheDataError, match="was written to its end"):
        load_state(str(tmp_path))


def test_an_epoch_file_that_holds_no_number_is_named(tmp_path: Path) -> None:
    directory = golden_directory(tmp_path, SNAPSHOT)
    (directory / "version-2" / "currentEpoch").write_text("x")
    with pytest.raises(ApacheDataError, match=r"currentEpoch: expected a number, got b'x'"):
        load_state(str(directory))


def test_a_transaction_of_an_unknown_type_is_refused(tmp_path: Path) -> None:
    directory = golden_directory(tmp_path, "snapshot.0")
    log_file(directory, 0x100000001, [encode_transaction(1, 0x100000001, 0, 77, b"")])
    with pytest.raises(DamagedApacheFileError, match=r"type 77: .* are not known"):
        load_state(str(directory))
