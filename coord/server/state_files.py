"""The state of a stopped server, read from its files and written as the first state of another."""

import os
from typing import Final

from coord.clock import SYSTEM_CLOCK
from coord.disk import Disk, RealDisk
from coord.server.tree_kind import TreeKind
from coord.storage import (
    Checkpointer,
    CheckpointStore,
    Epochs,
    LmdbEnvironments,
    LogOptions,
    open_data_directory,
    open_state,
)
from coord.tree import DataTree

OURS: Final = "zoolog"
_STAGING: Final = "zoolog-import"


class NoStateError(Exception):
    """The directory holds no state of ours; the text is one line for the operator."""


def read_state(data_dir: str, data_log_dir: str | None = None) -> tuple[DataTree, Epochs]:
    """All that is in the log counts, as it would if this server became the leader.

    Raises:
        NoStateError: there is none.
        DataDirectoryError, RecoveryError, LogDamagedError, DiskLockedError: it cannot be read.
        OSError: the disk failed.
    """
    if not os.path.isdir(os.path.join(data_dir, OURS)):
        raise NoStateError(f"{data_dir} holds no state of zoolog's")
    directory = open_data_directory(RealDisk(), data_dir, data_log_dir)
    try:
        options = LogOptions(lambda: None, threaded=False)
        found = open_state(directory, LmdbEnvironments(), TreeKind(), options, standalone=True)
        found.log.close()
        return found.state, directory.epochs
    finally:
        directory.close()


def write_state(disk: Disk, tree: DataTree, epochs: Epochs, target: str, log_target: str) -> None:
    """Writes a checkpoint of the tree into directories without a state; one rename makes it the state.

    Raises:
        OSError: the disk failed; there is no state.
    """
    places = list(dict.fromkeys((target, log_target)))
    for place in places:
        disk.make_directory(place)
        disk.remove_tree(os.path.join(place, _STAGING))
    staging, log_staging = os.path.join(target, _STAGING), os.path.join(log_target, _STAGING)
    directory = open_data_directory(disk, staging, log_staging)
    try:
        directory.save_epochs(epochs)
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
    # The log's place first: without the other it is no state, and a second attempt says so.
    for place in reversed(places):
        disk.rename(os.path.join(place, _STAGING, OURS), os.path.join(place, OURS))
        disk.remove_tree(os.path.join(place, _STAGING))
        disk.fsync_directory(place)
