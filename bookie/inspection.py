"""What files of a bookie hold, as rows for people: the public face of `bookie.storage`'s inspectors."""

from collections.abc import Iterator

from bookie.storage.inspect import Row, inspect_index, inspect_segment_records
from coord.disk import RealDisk

__all__ = ["Row", "read_index", "read_segment"]


def read_segment(path: str) -> Iterator[Row]:
    """Every record of one segment; damage is a row.

    Raises:
        OSError: the file cannot be read.
    """
    return inspect_segment_records(RealDisk(), path)


def read_index(path: str) -> Iterator[Row]:
    """Every value of an index's directory; its bookie must not be running.

    Raises:
        OSError: there is no index.
    """
    return inspect_index(path)
