"""What files of a coordination server hold, for people: rows, a verdict, or the whole state as JSON. The
public face of `coord.storage`'s inspectors and of what `coord.server` builds on them.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from coord.disk import RealDisk
from coord.server.json_state import JsonStateError, decode_state, encode_state
from coord.server.state_files import OURS, NoStateError, read_state, write_state
from coord.server.transaction_rows import transaction_rows
from coord.server.verification import Finding, verify_directory
from coord.storage import (
    CheckpointRow,
    LmdbEnvironments,
    TxnRow,
    inspect_checkpoint,
    inspect_txnlog,
)

__all__ = [
    "CheckpointRow",
    "Finding",
    "JsonStateError",
    "NoStateError",
    "StateReport",
    "TxnRow",
    "json_to_state",
    "read_checkpoint",
    "read_transactions",
    "read_txnlog",
    "state_to_json",
    "verify_directory",
]


def read_txnlog(path: str) -> Iterator[TxnRow]:
    """Rows of one segment of a transaction log; damage is a row.

    Raises:
        OSError: the file cannot be read.
    """
    return inspect_txnlog(RealDisk(), path)


def read_transactions(path: str) -> Iterator[TxnRow]:
    """As `read_txnlog`, with a row for each transaction in place of its batch.

    Raises:
        OSError: the file cannot be read.
    """
    for row in read_txnlog(path):
        yield from transaction_rows(row)


def read_checkpoint(path: str) -> Iterator[CheckpointRow]:
    """Rows of a checkpoint's directory, every value verified; its server must not be running."""
    return inspect_checkpoint(LmdbEnvironments(), path)


@dataclass(frozen=True, slots=True)
class StateReport:
    """What was written; `digest` is the same for the same state."""

    nodes: int
    sessions: int
    zxid: int
    digest: int


def state_to_json(data_dir: str, data_log_dir: str | None = None) -> Iterator[str]:
    """The whole state of a stopped server as JSON, in pieces (`coord.server.json_state`).

    Raises:
        NoStateError: there is none.
        DataDirectoryError, RecoveryError, LogDamagedError, DiskLockedError: it cannot be read.
        OSError: the disk failed.
    """
    return encode_state(*read_state(data_dir, data_log_dir))


def json_to_state(text: str, data_dir: str, data_log_dir: str | None = None) -> StateReport:
    """Makes such a text the first state of a server.

    Raises:
        JsonStateError: the text is no state, or the directory has one.
        OSError: the disk failed; the directory has no state.
    """
    tree, epochs = decode_state(text)
    for place in dict.fromkeys((data_dir, data_log_dir or data_dir)):
        if os.path.exists(os.path.join(place, OURS)):
            raise JsonStateError(f"{os.path.join(place, OURS)} exists: this server has a state already")
    write_state(RealDisk(), tree, epochs, data_dir, data_log_dir or data_dir)
    return StateReport(len(tree.nodes), len(tree.sessions), tree.last_zxid, tree.state_digest())
