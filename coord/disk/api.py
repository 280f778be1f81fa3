"""The disk interface: what a log, a store or a small state file may ask of a file system.

Paths are absolute strings with `/`. Every error is an `OSError` with its errno (`ENOSPC`, `EIO`,
`ENOENT`...), whichever disk answers. Durability is explicit and in two halves, as on a real file system:
bytes of a file are durable after `fdatasync` (or `pwrite_durable`) of that file returned, the name of a file
after `fsync_directory` of its directory returned.
"""

from collections.abc import Sequence
from typing import Protocol

__all__ = ["SECTOR_BYTES", "Disk", "DiskFile", "DiskLock", "DiskLockedError"]

SECTOR_BYTES = 512
"""What a device writes whole or not at all; frames start at multiples of it, so a write never touches a
sector with durable bytes.
"""


class DiskLockedError(Exception):
    """Somebody else holds the lock: another server uses this directory."""


class DiskLock(Protocol):
    """An exclusive lock on a file, gone with the process at the latest."""

    def release(self) -> None: ...


class DiskFile(Protocol):
    """An open file. Not closed by garbage collection: `close` it."""

    @property
    def path(self) -> str: ...

    def size(self) -> int: ...

    def pread(self, length: int, offset: int) -> bytes:
        """The bytes at `offset`; fewer than `length` only at the end of the file."""
        ...

    def pwrite(self, parts: Sequence[bytes], offset: int) -> None:
        """Write all parts, run together, at `offset`. After an error any part may have been written."""
        ...

    def pwrite_durable(self, parts: Sequence[bytes], offset: int) -> None:
        """`pwrite`, and these bytes and the file's size are durable once it returns; what `pwrite` wrote
        elsewhere need not be. After an error nothing may be assumed about the bytes (see `fdatasync`).
        """
        ...

    def fdatasync(self) -> None:
        """Everything written to this file so far, and its size, is durable once this returns.

        A failure is final: the kernel may have dropped the dirty pages and a later success would prove
        nothing, so the process must stop (`coord.log.fail_stop`).
        """
        ...

    def allocate(self, offset: int, length: int) -> None:
        """Reserve space and grow the file to `offset + length`, reading as zeros; ENOSPC if there is none."""
        ...

    def bypass_cache(self) -> None:
        """For a file that nobody is going to read soon: from now on `pwrite_durable` leaves nothing in the
        system's cache, where offset and length are whole sectors and the file system can do that.
        """
        ...

    def truncate(self, size: int) -> None: ...

    def close(self) -> None: ...


class Disk(Protocol):
    """A file system."""

    def open(self, path: str, *, writable: bool = True, create: bool = False) -> DiskFile:
        """Open an existing file, or with `create` a new one (EEXIST if it is there)."""
        ...

    def exists(self, path: str) -> bool: ...

    def list(self, directory: str) -> list[str]:
        """Names in a directory, sorted."""
        ...

    def make_directory(self, path: str) -> None:
        """Make a directory with its parents, if it is not there; its name is durable when this returns."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Atomically, replacing `target`; durable after `fsync_directory` of both parents."""
        ...

    def unlink(self, path: str) -> None: ...

    def remove_tree(self, path: str) -> None:
        """Remove a directory with everything in it; no error if it is not there. A crash may leave part of
        it.
        """
        ...

    def fsync_directory(self, path: str) -> None: ...

    def free_bytes(self, path: str) -> int: ...

    def lock(self, path: str) -> DiskLock:
        """Lock a file, made if needed.

        Raises:
            DiskLockedError: at once, if another process or another holder in this one has it.
        """
        ...
