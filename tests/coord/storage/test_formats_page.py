"""The worked examples of docs/formats.md are what the code reads and writes."""

import re
from pathlib import Path

import pytest

from coord.disk import FaultyDisk, SavedSession, SessionFile, read_checked
from coord.storage import CheckpointStore, DiskEnvironments, Owner, SnapshotReader, read_owner
from coord.storage.checkpoint import STATE_KEY, Checkpoint, decode_state, unseal
from coord.storage.environment import META, NODES
from coord.storage.txnlog import KIND_BATCH, KIND_MARK, LoggedBatch, decode_record

KEY = (7).to_bytes(8, "big")


def example(name: str) -> str:
    text = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
    return text.split(f"<!-- {name} -->")[1].split("```")[1].strip("\n")


def bytes_of(text: str) -> bytes:
    """Hex pairs up to the two blanks before a line's comment."""
    return b"".join(bytes.fromhex(re.split(r"  +", line)[0]) for line in text.splitlines())


def test_small_files() -> None:
    disk = FaultyDisk()
    disk.make_directory("/d")
    found = []
    for number, line in enumerate(example("small file examples").splitlines()):
        kind = line.split()[0]
        path = {"zoolog-session": "/d/session", "zoolog-owner": "/d/owner"}.get(kind, f"/d/{number}")
        disk.open(path, create=True).pwrite_durable((line.encode() + b"\n",), 0)
        found.append(read_checked(disk, path, kind))
    generation, log_generation = "00112233445566ff", "8899aabbccddeeff"
    assert found[:3] == [(generation,), (generation, log_generation), (generation, generation, "2")]
    del found[2]
    lost = (generation, "2", log_generation, "12884901895", "exact")
    assert found[2:5] == [("3", "2"), lost, (log_generation, "12884901895", "passed")]
    assert found[5] == (generation, "12884901895", "00000000000000ff", "0123456789abcdef")
    assert read_owner(disk, "/d") == Owner(2, "my zoo")
    assert SessionFile(disk, "/d").load() == SavedSession(0x1234, bytes(range(16)))


def test_transaction_records() -> None:
    batch, mark = map(bytes_of, example("transaction record example").split("\n\n"))
    e = 1 << 32
    assert decode_record(batch, "f", 0) == LoggedBatch(KIND_BATCH, e + 1, e + 2, e + 3, e + 4, b"batch")
    assert decode_record(mark, "f", 0) == LoggedBatch(KIND_MARK, e + 4, e + 4, e + 4, e + 4, b"")


def test_checkpoint_values() -> None:
    node, state = map(bytes_of, example("checkpoint example").split("\n\n"))
    assert unseal(NODES, KEY, node, "p") == b"node"
    assert decode_state(state, "p") == Checkpoint((1 << 32) + 4, 1, b"facts")


@pytest.fixture
def store() -> CheckpointStore:
    """A checkpoint of exactly the example's values."""
    node, state = map(bytes_of, example("checkpoint example").split("\n\n"))
    disk = FaultyDisk()
    disk.make_directory("/g")
    store = CheckpointStore(disk, "/g/checkpoint", DiskEnvironments(disk))
    write = store.open().write()
    write.put_many(NODES, [(KEY, node)])
    write.put_many(META, [(STATE_KEY, state)])
    write.commit()
    store.close()
    return store


def test_snapshot_stream(store: CheckpointStore) -> None:
    reader = SnapshotReader(store)
    assert reader.next_chunk() == bytes_of(example("snapshot example"))
    assert reader.next_chunk() is None
