"""A coordination server's disk: data directory, epochs, transaction log, checkpoints, snapshots.

    directory = open_data_directory(RealDisk(), data_dir, data_log_dir)  # .epochs, .save_epochs()
    found = open_state(directory, LmdbEnvironments(), kind, LogOptions(wakeup.set), standalone=...)
    found.state, found.executed_zxid, found.batches                          what Zab is told at birth
    found.log.append(first, last, parts, committed, token)                   take_durable() after notify
    checkpointer = Checkpointer(found.store, clock, wakeup.set)              begin(tree), work() each tick
    SnapshotReader(found.store) -> chunks -> SnapshotReceiver(directory, ...) -> begin_log(directory, zxid,
    ...)

Failures: a `failure` of the log, or a checkpoint's that is not `disk_full`, ends the process
(`coord.log.fail_stop`).
"""

from coord.storage.checkpoint import (
    Checkpoint,
    CheckpointDamagedError,
    Checkpointed,
    Checkpointer,
    CheckpointStore,
)
from coord.storage.directory import (
    DataDirectory,
    DataDirectoryError,
    Epochs,
    ForeignDataError,
    open_data_directory,
)
from coord.storage.divergence import Divergence, forget_divergence, note_divergence, read_divergence
from coord.storage.environment import DiskEnvironments, EnvironmentFailedError, Environments, LmdbEnvironments
from coord.storage.inspect import CheckpointRow, TxnRow, inspect_checkpoint, inspect_txnlog
from coord.storage.owner import Owner, bind_directory, read_owner
from coord.storage.recovery import LogOptions, RecoveredState, RecoveryError, begin_log, open_state
from coord.storage.salvage import LogsToGive, LostLog, RestoredBatch, restore, salvage
from coord.storage.schedule import CheckpointSchedule
from coord.storage.snapshot import Installed, SnapshotDamagedError, SnapshotReader, SnapshotReceiver
from coord.storage.source import CheckpointSource, FrozenState, StateKind, StateLoader
from coord.storage.txnlog import LoggedBatch, TxnLog, TxnLogGapError

__all__ = [
    "Checkpoint",
    "CheckpointDamagedError",
    "CheckpointRow",
    "CheckpointSchedule",
    "CheckpointSource",
    "CheckpointStore",
    "Checkpointed",
    "Checkpointer",
    "DataDirectory",
    "DataDirectoryError",
    "DiskEnvironments",
    "Divergence",
    "EnvironmentFailedError",
    "Environments",
    "Epochs",
    "ForeignDataError",
    "FrozenState",
    "Installed",
    "LmdbEnvironments",
    "LogOptions",
    "LoggedBatch",
    "LogsToGive",
    "LostLog",
    "Owner",
    "RecoveredState",
    "RecoveryError",
    "RestoredBatch",
    "SnapshotDamagedError",
    "SnapshotReader",
    "SnapshotReceiver",
    "StateKind",
    "StateLoader",
    "TxnLog",
    "TxnLogGapError",
    "TxnRow",
    "begin_log",
    "bind_directory",
    "forget_divergence",
    "inspect_checkpoint",
    "inspect_txnlog",
    "note_divergence",
    "open_data_directory",
    "open_state",
    "read_divergence",
    "read_owner",
    "restore",
    "salvage",
]
