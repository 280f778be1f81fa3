"""Recovery from every disk that a power loss may leave of a server's life (see `tests.crash_states`).

The life has everything that changes the disk: groups of one and of several records, rotation, zeros written
ahead, checkpoints, purge, epochs, a truncation by the leader (TRUNC), a snapshot from the leader with its
switch of generation. Whatever survives, start-up finds a history that the server had, with at least what was
acknowledged in it, and the epochs that were promised; and so it does after a second power loss in the middle
of that start-up.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from coord.disk import Disk, FaultyDisk
from coord.log import LogDamagedError
from coord.storage import (
    Checkpointer,
    CheckpointStore,
    DataDirectoryError,
    DiskEnvironments,
    Environments,
    Epochs,
    RecoveryError,
    SnapshotReader,
    SnapshotReceiver,
    begin_log,
)
from coord.storage.txnlog import KIND_BATCH
from tests.coord.storage.conftest import Server, SmallKind, SmallState, batch
from tests.crash_states import CrashPoint, RecordingDisk, record, run, run_after_kills

EPOCH = 1 << 32
SIZES = {"segment_bytes_max": 4096, "zero_ahead_bytes": 1024}


@dataclass(frozen=True)
class Promised:
    """What a server must, and may, have after a crash.

    Attributes:
        histories: (least, zxids): one of these histories, at least so many of its batches.
        executed_min: at least so many are executed: records or a checkpoint say that they are committed.
        epochs, epochs_max: the saved ones or those being saved.
    """

    histories: tuple[tuple[int, tuple[int, ...]], ...] = ((0, ()),)
    executed_min: int = 0
    epochs: Epochs = field(default_factory=Epochs)
    epochs_max: Epochs = field(default_factory=Epochs)

    def find(self, last_zxid: int) -> tuple[int, ...]:
        """The history that a server has whose log ends at `last_zxid`."""
        for least, zxids in self.histories:
            history = tuple(zxid for zxid in zxids if zxid <= last_zxid)
            if len(history) >= least and (history[-1] if history else 0) == last_zxid:
                return history
        raise AssertionError(f"found a history up to {last_zxid:#x}; promised was {self}")


class StillClock:
    def monotonic_ms(self) -> int:
        return 0

    def wall_ms(self) -> int:
        return 0


def nodes_of(history: tuple[int, ...]) -> dict[int, bytes]:
    state = SmallState()
    for zxid in history:
        SmallKind().apply(state, batch(zxid))
    return state.nodes


class Life:
    """A member's storage, and the promises that go with what it does."""

    def __init__(self, disk: Disk, data_dir: str = "/data", environments: Environments | None = None) -> None:
        self.disk = disk
        self.data_dir = data_dir
        self.environments = environments
        self.promised = Promised()
        self.history: tuple[int, ...] = ()
        self.applied = 0

    def start(self) -> None:
        where = {"data_dir": self.data_dir, "environments": self.environments}
        self.server = Server(self.disk, 1, standalone=False, **where, **SIZES)  # type: ignore[arg-type]

    def epochs(self, accepted: int, current: int) -> None:
        self.promised = replace(self.promised, epochs_max=Epochs(accepted, current))
        self.server.directory.save_epochs(Epochs(accepted, current))
        self.promised = replace(self.promised, epochs=Epochs(accepted, current))

    def log(self, *zxids: int, committed: int) -> None:
        """One group of batches, acknowledged when they are durable."""
        before = len(self.history)
        self.history += zxids
        self.promised = replace(self.promised, histories=((before, self.history),))
        for zxid in zxids:
            self.server.append(zxid, committed=committed)
        self.server.step()
        assert self.server.log.take_durable() == list(zxids)
        self.promised = replace(self.promised, histories=((len(self.history), self.history),))
        while self.applied < len(self.history) and self.history[self.applied] <= committed:
            SmallKind().apply(self.server.state, batch(self.history[self.applied]))
            self.applied += 1
        self.promised = replace(self.promised, executed_min=self.applied)

    def mark(self, committed: int) -> None:
        self.server.log.append_mark(committed, None)
        self.server.step()
        self.server.log.take_durable()
        self.promised = replace(self.promised, executed_min=sum(zxid <= committed for zxid in self.history))

    def checkpoint(self) -> None:
        checkpointer = Checkpointer(self.server.found.store, StillClock(), lambda: None, threaded=False)
        checkpointer.begin(self.server.state)
        while (finished := checkpointer.take_finished()) is None:
            checkpointer.work()
        assert finished.failure is None
        checkpointer.close()

    def purge(self) -> None:
        self.server.log.remove_below(self.server.found.store.zxid, keep_bytes=0)
        self.server.step()
        self.server.log.take_durable()

    def truncate(self, zxid: int) -> None:
        kept = tuple(other for other in self.history if other <= zxid)
        both = (len(kept), self.history), (len(kept), kept)
        self.promised = replace(self.promised, histories=both)
        self.history = kept
        self.server.directory.forget_log_end()
        self.server.log.truncate_above(zxid, "cut")
        self.server.step()
        assert self.server.log.take_durable() == ["cut"]
        self.promised = replace(self.promised, histories=((len(kept), kept),))

    def install(self, history: tuple[int, ...]) -> None:
        both = (len(self.history), self.history), (len(history), history)
        self.promised = replace(self.promised, histories=both)
        receiver = SnapshotReceiver(
            self.server.directory, self.server.environments, SmallKind(), lambda: None, threaded=False
        )
        for chunk in snapshot_of(history):
            receiver.feed(chunk)
        self.server.log.close()
        installed = receiver.take_installed()
        assert installed is not None
        self.server.found.store = installed.store
        self.server.state = installed.state
        self.server.log = begin_log(self.server.directory, installed.zxid, self.server.options)
        self.history, self.applied = history, len(history)
        self.promised = replace(
            self.promised, histories=((len(history), history),), executed_min=len(history)
        )

    def live(self) -> None:
        first = tuple(EPOCH + number for number in range(1, 20))
        self.start()
        self.epochs(1, 0)
        self.log(first[0], committed=0)
        self.epochs(1, 1)
        self.log(*first[1:5], committed=first[1])
        self.log(first[5], committed=first[4])
        self.checkpoint()
        for at in range(6, 14, 2):
            self.log(*first[at : at + 2], committed=first[at - 1])
        self.mark(first[13])
        self.checkpoint()
        self.purge()
        self.log(*first[14:19], committed=first[13])
        self.server.directory.save_log_end(first[18])
        self.epochs(2, 1)
        self.truncate(first[15])
        self.log(2 * EPOCH + 1, committed=first[15])
        self.epochs(2, 2)
        self.log(2 * EPOCH + 2, committed=2 * EPOCH + 1)
        self.epochs(4, 2)
        self.install((*first[:16], 2 * EPOCH + 1, *(3 * EPOCH + number for number in range(1, 15))))
        self.epochs(4, 4)
        self.log(4 * EPOCH + 1, committed=3 * EPOCH + 14)
        self.log(4 * EPOCH + 2, 4 * EPOCH + 3, committed=4 * EPOCH + 1)
        self.checkpoint()
        self.server.close()


def snapshot_of(history: tuple[int, ...]) -> list[bytes]:
    """What a leader with this history sends."""
    disk = FaultyDisk()
    disk.make_directory("/leader")
    store = CheckpointStore(disk, "/leader/checkpoint", DiskEnvironments(disk))
    nodes = nodes_of(history)
    state = SmallState(nodes, history[-1], dirty=set(nodes))
    checkpointer = Checkpointer(store, StillClock(), lambda: None, threaded=False)
    checkpointer.begin(state)
    while checkpointer.take_finished() is None:
        checkpointer.work()
    reader = SnapshotReader(store)
    chunks = []
    while (chunk := reader.next_chunk()) is not None:
        chunks.append(chunk)
    reader.close()
    return chunks


class Restarted:
    """A server that starts from a disk that a crash left, and what it promises by that."""

    def __init__(
        self,
        disk: Disk,
        promised: Promised,
        data_dir: str = "/data",
        environments: Environments | None = None,
    ) -> None:
        self.disk = disk
        self.promised = promised
        self.where = {"data_dir": data_dir, "environments": environments}

    def start(self) -> None:
        server = Server(self.disk, 99, standalone=False, **self.where, **SIZES)  # type: ignore[arg-type]
        found: Any = server.found
        assert not found.history_lost
        assert found.set_aside is None
        epochs = server.directory.epochs
        assert epochs in (self.promised.epochs, self.promised.epochs_max)
        history = self.promised.find(found.log.last_zxid)
        executed = tuple(zxid for zxid in history if zxid <= found.executed_zxid)
        assert (executed[-1] if executed else 0) == found.executed_zxid
        assert len(executed) >= self.promised.executed_min
        assert found.state.nodes == nodes_of(executed)
        logged = [one.last for one in found.batches if one.kind == KIND_BATCH]
        assert logged == [zxid for zxid in history if zxid > found.after_zxid]
        assert all(one.payload == batch(one.last) for one in found.batches if one.kind == KIND_BATCH)
        self.promised = Promised(((len(history), history),), len(executed), epochs, epochs)
        if epochs.accepted:
            self._go_on(server, history)
        server.close()

    def _go_on(self, server: Server, history: tuple[int, ...]) -> None:
        following = max(server.log.last_zxid + 1, (self.promised.epochs.accepted << 32) + 1)
        self.promised = replace(self.promised, histories=((len(history), (*history, following)),))
        server.append(following, committed=0)
        server.step()
        assert server.log.take_durable() == [following]
        self.promised = replace(self.promised, histories=((len(history) + 1, (*history, following)),))


@pytest.fixture(scope="module")
def points() -> list[CrashPoint[Promised]]:
    disk = RecordingDisk()
    life = Life(disk)
    return record(disk, lambda: life.promised, life.live)


def test_the_recorded_life_has_every_kind_of_change(points: list[CrashPoint[Promised]]) -> None:
    seen = {point.what.split()[0] for point in points}
    assert {"open", "pwrite", "fdatasync", "rename", "unlink", "truncate", "fsync_directory"} <= seen
    paths = " ".join(point.what for point in points)
    for part in ("epochs.new", "current.new", "checkpoint/tables.new", "txn.0000000000000003"):
        assert part in paths
    assert len(points) > 150


def test_a_power_loss_at_any_point_leaves_what_was_acknowledged(points: list[CrashPoint[Promised]]) -> None:
    """A bounded sample at every point; many more are for `make soak`."""
    assert run(points, Restarted, states_max=16, second_max=1, seed=1) > 900


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2))
def test_many_more_disks_after_a_power_loss(points: list[CrashPoint[Promised]], seed: int) -> None:
    assert run(points, Restarted, states_max=128, second_max=4, seed=100 + seed) > 2500


def test_what_a_killed_process_has_left_is_durable_before_it_counts(
    points: list[CrashPoint[Promised]],
) -> None:
    assert run_after_kills(points, Restarted, states_max=3, seed=1) > 200


@pytest.mark.parametrize(
    "forgotten",
    [
        ("fdatasync", "/txn."),
        ("fdatasync", "/epochs.new"),
        ("fdatasync", "/current.new"),
        ("fdatasync", "/tables.new"),
        ("fsync_directory", "/data/zoolog"),
        ("fsync_directory", "/log-"),
        ("fsync_directory", "/checkpoint"),
    ],
)
def test_a_forgotten_sync_is_found(forgotten: tuple[str, str]) -> None:
    """Test the tester: without any one of the syncs some disk breaks a promise."""
    disk = RecordingDisk(forgotten)
    life = Life(disk)
    recorded = record(disk, lambda: life.promised, life.live)
    with pytest.raises((AssertionError, DataDirectoryError, LogDamagedError, RecoveryError)):
        run(recorded, Restarted, states_max=24, seed=1)
