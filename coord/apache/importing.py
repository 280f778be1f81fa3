"""`zoolog coord import`: a data directory of ours from ZooKeeper's files.

The state is written as a checkpoint of exactly ZooKeeper's last zxid, and the epochs begin at the highest
that ZooKeeper had, so that the first leader's epoch is above it and zxids go on rising for every client.

All is written in a staging directory beside its final place; one rename makes it the state. Until then the
target has none, and ZooKeeper's files are only read.
"""

import os
from dataclasses import dataclass
from typing import Final

from coord.apache.convert import tree_of
from coord.apache.directory import ApacheState, load_state
from coord.apache.errors import ApacheDataError
from coord.clock import SYSTEM_CLOCK
from coord.disk import Disk, RealDisk
from coord.storage import Checkpointer, CheckpointStore, Epochs, LmdbEnvironments, open_data_directory
from coord.tree import DataTree

OURS: Final = "zoolog"
_STAGING: Final = "zoolog-import"


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What was taken over; `digest` is the same wherever the same files are imported."""

    snapshot: str | None
    transactions: int
    digests: int
    zxid: int
    epoch: int
    nodes: int
    sessions: int
    ephemerals: int
    digest: int
    notes: tuple[str, ...]


def import_directory(
    source: str,
    target: str | None,
    *,
    source_log_dir: str | None = None,
    target_log_dir: str | None = None,
    snapshot: str | None = None,
    check_digests: bool = True,
) -> ImportReport:
    """Reads ZooKeeper's state and writes it as the first state of a server of ours.

    Args:
        source: ZooKeeper's dataDir (and `source_log_dir`, where it had another dataLogDir), its server
            stopped.
        target: our dataDir, which may be the same directory; None only reads and checks.
        snapshot: begin with this file instead of the newest complete snapshot.
        check_digests: compare the digests in ZooKeeper's files with the tree's.

    Raises:
        ApacheDataError: nothing was written: the files are damaged or incomplete, or the target has a state.
        OSError: the disk failed; the target has no state.
    """
    log_target = target_log_dir or target
    if target is not None and log_target is not None:
        for directory in (target, log_target):
            if os.path.exists(os.path.join(directory, OURS)):
                raise ApacheDataError(
                    f"{os.path.join(directory, OURS)} exists: this server has a state already"
                )
    state = load_state(source, source_log_dir, snapshot=snapshot, check_digests=check_digests)
    tree = tree_of(state.database, state.zxid)
    if target is not None and log_target is not None:
        _write(RealDisk(), tree, state.epoch, target, log_target)
    return _report(state, tree)


def _write(disk: Disk, tree: DataTree, epoch: int, target: str, log_target: str) -> None:
    places = list(dict.fromkeys((target, log_target)))
    for place in places:
        os.makedirs(place, exist_ok=True)
        disk.remove_tree(os.path.join(place, _STAGING))
    staging, log_staging = os.path.join(target, _STAGING), os.path.join(log_target, _STAGING)
    directory = open_data_directory(disk, staging, log_staging)
    try:
        directory.save_epochs(Epochs(accepted=epoch, current=epoch))
        store = CheckpointStore(disk, directory.checkpoint_path(), LmdbEnvironments())
        checkpointer = Checkpointer(store, SYSTEM_CLOCK, lambda: None, threaded=False)
        checkpointer.begin(tree)
        while (finished := checkpointer.take_finished()) is None:
            checkpointer.work()
        checkpointer.close()
        if finished.failure is not None:
            raise OSError(f"{target}: {finished.failure}")
    finally:
        directory.close()
    # The log's place first: without the other it is no state, and a second import says so.
    for place in reversed(places):
        disk.rename(os.path.join(place, _STAGING, OURS), os.path.join(place, OURS))
        disk.remove_tree(os.path.join(place, _STAGING))
        disk.fsync_directory(place)


def _report(state: ApacheState, tree: DataTree) -> ImportReport:
    return ImportReport(
        snapshot=state.snapshot_path,
        transactions=state.transactions,
        digests=state.digests,
        zxid=state.zxid,
        epoch=state.epoch,
        nodes=len(tree.nodes),
        sessions=len(tree.sessions),
        ephemerals=tree.ephemeral_count,
        digest=tree.state_digest(),
        notes=tuple(state.notes),
    )
