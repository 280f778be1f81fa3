"""A server whose log is damaged, from every disk that a power loss may leave while it gives its history up,
is repaired, and goes on (see `tests.crash_states`).

Whatever survives, the next start either has the whole history, or says that it has not and claims nothing:
the current epoch is 0, what it accepted stays, the checkpoint is there, and a repair leads to what it was.
"""

import random
from collections.abc import Container
from dataclasses import dataclass
from itertools import pairwise

import pytest

from coord.disk import FaultyDisk
from coord.storage import DataDirectoryError, Epochs, RestoredBatch, restore, salvage
from coord.storage.txnlog import KIND_BATCH
from tests import crash_states
from tests.coord.storage.conftest import Server, batch
from tests.coord.storage.test_crash_states import EPOCH, SIZES, Life, nodes_of
from tests.crash_states import CrashPoint, RecordingDisk, photograph, record

HISTORY = tuple(EPOCH + number for number in range(1, 15))
CHECKPOINT = HISTORY[:6]
FOLLOWING = HISTORY[-1] + 1
CHANGES_OF_REPAIR = 80
"""About so many; a second crash comes before one of them."""


@dataclass(frozen=True)
class Promised:
    """What a start must find: the history, or else it may say that it is lost."""

    is_whole: bool = False
    history: tuple[int, ...] = HISTORY
    history_max: tuple[int, ...] = HISTORY


def damaged_disk(*, stopped: bool) -> RecordingDisk:
    """A server with a checkpoint in the middle of its log, a bit of which has flipped behind that."""
    disk = RecordingDisk()
    life = Life(disk)
    life.start()
    life.epochs(1, 1)
    for at in range(0, 6, 2):
        life.log(*HISTORY[at : at + 2], committed=HISTORY[at])
    life.log(HISTORY[6], committed=HISTORY[5])
    life.checkpoint()
    for zxid in HISTORY[7:]:
        life.log(zxid, committed=zxid - 1)
    life.mark(HISTORY[-1])
    if stopped:
        life.server.directory.save_log_end(HISTORY[-1])
    life.server.close()
    disk.restart(lambda _: True)
    for path in disk._names:
        if "/txn." in path and batch(HISTORY[8]) in disk.content(path):
            disk.flip_bit(path, 8 * disk.content(path).index(batch(HISTORY[8])))
            return photograph(disk)
    raise AssertionError("the batch to be damaged is in no segment")


class Repair:
    """Starts until the server is whole, and logs one more batch."""

    def __init__(self, disk: FaultyDisk, promised: Promised) -> None:
        self.disk = disk
        self.promised = promised

    def start(self) -> None:
        server = Server(self.disk, random.getrandbits(64), standalone=False, **SIZES)
        if server.found.history_lost:
            assert not self.promised.is_whole
            self._repair(server)
            server = Server(self.disk, random.getrandbits(64), standalone=False, **SIZES)
        found = server.found
        assert not found.history_lost
        assert server.directory.epochs == Epochs(1, 1)
        history = tuple(zxid for zxid in self.promised.history_max if zxid <= found.log.last_zxid)
        assert history in (self.promised.history, self.promised.history_max)
        assert found.state.nodes == nodes_of(tuple(zxid for zxid in history if zxid <= found.executed_zxid))
        logged = [one for one in found.batches if one.kind == KIND_BATCH]
        assert [one.last for one in logged] == [zxid for zxid in history if zxid > found.after_zxid]
        assert all(one.payload == batch(one.last) for one in logged)
        self.promised = Promised(True, history, (*HISTORY, FOLLOWING))
        if FOLLOWING not in history:
            server.append(FOLLOWING)
            server.step()
            assert server.log.take_durable() == [FOLLOWING]
            self.promised = Promised(True, (*HISTORY, FOLLOWING), (*HISTORY, FOLLOWING))
        server.close()

    def _repair(self, server: Server) -> None:
        directory = server.directory
        assert directory.epochs == Epochs(1, 0)
        # Behind the checkpoint, or with the repaired log, whose epoch was not claimed yet.
        executed_zxid = server.found.executed_zxid
        assert executed_zxid in (CHECKPOINT[-1], HISTORY[-1])
        assert server.found.state.nodes == nodes_of(HISTORY[: HISTORY.index(executed_zxid) + 1])
        lost = salvage(directory, server.found.store.zxid)
        assert lost is not None
        server.log.close()
        restore(directory, lost, history_of(lost.batches), server.options)
        directory.close()
        self.promised = Promised(is_whole=True)


def history_of(kept: Container[int]) -> list[RestoredBatch]:
    """What the peers have of it fills the gaps."""
    return [
        RestoredBatch(previous, zxid, zxid, None if zxid in kept else batch(zxid))
        for previous, zxid in pairwise(HISTORY[len(CHECKPOINT) - 1 :])
    ]


def points(*, stopped: bool) -> list[CrashPoint[Promised]]:
    disk = damaged_disk(stopped=stopped)
    repair = Repair(disk, Promised())
    return record(disk, lambda: repair.promised, repair.start)


def run(recorded: list[CrashPoint[Promised]], *, states_max: int, seed: int) -> int:
    random.seed(seed)
    return crash_states.run(
        recorded, Repair, states_max=states_max, second_max=1, changes=CHANGES_OF_REPAIR, seed=seed
    )


def test_a_power_loss_during_a_repair_costs_nothing() -> None:
    """A bounded sample; many more are for `make soak`."""
    recorded = points(stopped=True)
    paths = " ".join(point.what for point in recorded)
    for part in (
        "history-lost.new",
        "rename /data/zoolog/log-",
        "current.new",
        "unlink /data/zoolog/history-",
    ):
        assert part in paths
    assert run(recorded[::2], states_max=3, seed=1) > 40


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2))
def test_many_more_disks_after_a_power_loss(seed: int) -> None:
    assert run(points(stopped=bool(seed)), states_max=64, seed=100 + seed) > 300


@pytest.mark.parametrize(
    "forgotten",
    [
        ("fdatasync", "/history-lost.new"),
        ("fdatasync", "/current.new"),
        ("fdatasync", "/txn."),
        ("fsync_directory", "/data/zoolog"),
    ],
)
def test_a_forgotten_sync_is_found(forgotten: tuple[str, str]) -> None:
    """Test the tester: without any one of the syncs some disk breaks a promise."""
    disk = damaged_disk(stopped=True)
    disk.ignores = forgotten
    repair = Repair(disk, Promised())
    recorded = record(disk, lambda: repair.promised, repair.start)
    random.Random(1).shuffle(recorded)
    with pytest.raises((AssertionError, DataDirectoryError)):
        run(recorded, states_max=16, seed=1)
