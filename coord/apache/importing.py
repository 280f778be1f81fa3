"""`zoolog coord import`: a data directory of ours from ZooKeeper's files.

The state is written as a checkpoint of exactly ZooKeeper's last zxid, and the epochs begin at the highest
that ZooKeeper had, so that the first leader's epoch is above it and zxids go on rising for every client.

All is written in a staging directory beside its final place; one rename makes it the state. Until then the
target has none, and ZooKeeper's files are only read.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

from coord.apache.convert import tree_of
from coord.apache.directory import ApacheState, load_state
from coord.apache.errors import ApacheDataError
from coord.disk import RealDisk
from coord.server.state_files import OURS, write_state
from coord.storage import Epochs
from coord.tree import DataTree


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
    tell: Callable[[int], None] = lambda count: None,
) -> ImportReport:
    """Reads ZooKeeper's state and writes it as the first state of a server of ours.

    Args:
        source: ZooKeeper's dataDir (and `source_log_dir`, where it had another dataLogDir), its server
            stopped.
        target: our dataDir, which may be the same directory; None only reads and checks.
        snapshot: begin with this file instead of the newest complete snapshot.
        check_digests: compare the digests in ZooKeeper's files with the tree's.
        tell: hears of so many nodes or transactions more, now and then.

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
    state = load_state(source, source_log_dir, snapshot=snapshot, check_digests=check_digests, tell=tell)
    tree = tree_of(state.database, state.zxid, consume=True)
    if target is not None and log_target is not None:
        write_state(RealDisk(), tree, Epochs(accepted=state.epoch, current=state.epoch), target, log_target)
    return _report(state, tree)


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
