"""What `zoolog inspect` shows of transaction logs and checkpoints: facts, and damage as a row."""

from collections.abc import Callable
from typing import Any

from coord.disk import FaultyDisk
from coord.storage import Checkpointer, inspect_checkpoint, inspect_txnlog


class StillClock:
    def monotonic_ms(self) -> int:
        return 0

    def wall_ms(self) -> int:
        return 0


def test_a_transaction_log_shows_batches_marks_and_damage(
    disk: FaultyDisk, server: Callable[..., Any]
) -> None:
    running = server(disk, zero_ahead_bytes=0)
    running.append(1, 3)
    running.append(4, committed=3)
    running.log.append_mark(4, None)
    running.log.writer.append((b"no record",), None)
    running.step()
    path = running.directory.log_path() + "/txn.0000000000000001"
    rows = list(inspect_txnlog(disk, path))
    assert [row.kind for row in rows] == ["segment", "batch", "batch", "mark", "damage"]
    assert rows[0].facts["tag"] == running.directory.generation
    assert rows[1].facts["zxids"] == "0x1-0x3"
    assert rows[2].facts["committed"] == "0x3"
    assert "at least 40 bytes" in rows[4].facts["problem"]


def test_a_checkpoint_shows_its_state_nodes_and_damage(disk: FaultyDisk, server: Callable[..., Any]) -> None:
    running = server(disk)
    path = running.found.store.path
    assert [row.kind for row in inspect_checkpoint(running.environments, path)] == ["damage"]
    running.write(1, 2, 3)
    checkpointer = Checkpointer(running.found.store, StillClock(), lambda: None, threaded=False)
    checkpointer.begin(running.state)
    checkpointer.work()
    while checkpointer.take_finished() is None:
        checkpointer.work()
    rows = list(inspect_checkpoint(running.environments, path))
    assert rows[0].facts == {"zxid": "0x3", "nodes": str(len(running.state.nodes))}
    assert [(row.number, row.payload) for row in rows[1:]] == sorted(running.state.nodes.items())
    disk.flip_bit(path + "/tables", 300)
    assert [row.kind for row in inspect_checkpoint(running.environments, path)] == ["damage"]
