"""What files of a coordination server hold, as rows for people: the public face of `coord.storage`'s
inspectors."""

from collections.abc import Iterator

from coord.disk import RealDisk
from coord.storage import (
    CheckpointRow,
    LmdbEnvironments,
    TxnRow,
    inspect_checkpoint,
    inspect_txnlog,
)

__all__ = ["CheckpointRow", "TxnRow", "read_checkpoint", "read_txnlog"]


def read_txnlog(path: str) -> Iterator[TxnRow]:
    """Rows of one segment of a transaction log; damage is a row.

    Raises:
        OSError: the file cannot be read.
    """
    return inspect_txnlog(RealDisk(), path)


def read_checkpoint(path: str) -> Iterator[CheckpointRow]:
    """Rows of a checkpoint's directory, every value verified; its server must not be running."""
    return inspect_checkpoint(LmdbEnvironments(), path)
