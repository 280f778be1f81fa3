"""`zoolog coord export`: a dataDir that ZooKeeper starts from, from a stopped server of ours.

    DIR/version-2/snapshot.ZXID                    everything that is known to be committed
    DIR/version-2/currentEpoch, acceptedEpoch      so that ZooKeeper's next epoch is above ours

Sessions come along with their timeouts. ZooKeeper derives passwords from ids, so only clients whose session
it had created itself take theirs up again; the others are told that their session has expired, and their
ephemerals go when it times out.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from coord.apache.convert import database_of
from coord.apache.directory import VERSION_DIRECTORY
from coord.apache.errors import ApacheDataError
from coord.apache.passwords import session_password
from coord.apache.snapshot import write_snapshot
from coord.disk import RealDisk
from coord.server.state_files import read_state

_BUFFER_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written; `lost_sessions` are those whose clients ZooKeeper will not know."""

    snapshot: str
    zxid: int
    epoch: int
    nodes: int
    sessions: int
    lost_sessions: int


def export_directory(data_dir: str, target: str, *, data_log_dir: str | None = None) -> ExportReport:
    """Writes ZooKeeper's files from the state of a stopped server.

    Raises:
        ApacheDataError: the target holds a state of ZooKeeper's, or the source none of ours.
        DataDirectoryError, RecoveryError, LogDamagedError, DiskLockedError: the source cannot be read.
        OSError: the disk failed.
    """
    versioned = os.path.join(target, VERSION_DIRECTORY)
    if os.path.exists(versioned):
        raise ApacheDataError(f"{versioned} exists: name a directory without a state of ZooKeeper's")
    if not os.path.isdir(os.path.join(data_dir, "zoolog")):
        raise ApacheDataError(f"{data_dir} holds no state of zoolog's")
    tree, epochs = read_state(data_dir, data_log_dir)
    epoch = max(epochs.accepted, tree.last_zxid >> 32)
    database = database_of(tree)
    # The draft has another name until it is complete: ZooKeeper would begin with nothing.
    draft = versioned + ".draft"
    disk = RealDisk()
    disk.remove_tree(draft)
    disk.make_directory(draft)
    name = f"snapshot.{tree.last_zxid:x}"
    _write(os.path.join(draft, name), write_snapshot(database, tree.last_zxid))
    for file in ("currentEpoch", "acceptedEpoch"):
        _write(os.path.join(draft, file), iter([str(epoch).encode()]))
    disk.fsync_directory(draft)
    disk.rename(draft, versioned)
    disk.fsync_directory(target)
    lost = sum(session.password != session_password(one) for one, session in tree.sessions.items())
    return ExportReport(
        os.path.join(versioned, name), tree.last_zxid, epoch, len(tree.nodes), len(tree.sessions), lost
    )


def _write(path: str, parts: Iterator[bytes]) -> None:
    with open(path, "xb", buffering=_BUFFER_BYTES) as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
