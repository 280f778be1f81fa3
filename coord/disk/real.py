"""`RealDisk`: the operating system's files through `os`, with positioned calls only.

A file that bypasses the cache is written by O_DIRECT: a page of the cache that is new costs a write more than
the disk does on a virtual machine, whose host has to find the memory first (up to 1.5 us for each KB).

One `pwritev` with `RWF_DSYNC` is a write and its fdatasync in one system call: the log's thread takes the GIL
back once per group instead of twice, which a busy event loop feels.
"""

import contextlib
import errno
import fcntl
import mmap
import os
import shutil
from collections.abc import Sequence

from coord.disk.api import DiskFile, DiskLock, DiskLockedError

__all__ = ["RealDisk"]

_PARTS_MAX = 512  # below every system's IOV_MAX; longer lists are joined
_SECTOR_BYTES = 512
_STAGING_BYTES = (1 << 20) + (64 << 10)
"""A group of the logs with its header; of what is longer, so much at a time."""


class _RealLock:
    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _DirectWriter:
    """Writes to a file past the cache, from memory that is aligned as the disk wants it.

    Raises:
        OSError: the file system cannot do that.
    """

    __slots__ = ("_fd", "_staging", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
        self._staging = memoryview(mmap.mmap(-1, _STAGING_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

    def write(self, parts: Sequence[bytes | memoryview], total: int, offset: int) -> None:
        """Durable once it returns; `total`, the bytes of `parts`, and `offset` are whole sectors."""
        if total > _STAGING_BYTES:
            rest = memoryview(b"".join(parts))
            for start in range(0, total, _STAGING_BYTES):
                piece = rest[start : start + _STAGING_BYTES]
                self.write((piece,), len(piece), offset + start)
            return
        staging = self._staging
        end = 0
        for part in parts:
            start, end = end, end + len(part)
            staging[start:end] = part
        written = 0
        while written < total:
            count = os.pwritev(self._fd, (staging[written:total],), offset + written, os.RWF_DSYNC)
            if count == 0:
                raise OSError(errno.ENOSPC, "the disk takes no more bytes", self.path)
            written += count

    def close(self) -> None:
        os.close(self._fd)


class _RealFile:
    __slots__ = ("_direct", "_dsync_flag", "_fd", "path")

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._direct: _DirectWriter | None = None
        self._dsync_flag = os.RWF_DSYNC

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def pread(self, length: int, offset: int) -> bytes:
        data = os.pread(self._fd, length, offset)
        if len(data) == length or not data:
            return data
        # A short read is the end of the file or a signal: only an empty one says which.
        parts = [data]
        missing = length - len(data)
        while missing > 0:
            data = os.pread(self._fd, missing, offset + length - missing)
            if not data:
                break
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def pwrite(self, parts: Sequence[bytes], offset: int) -> None:
        self._write_all(parts, offset, 0)

    def pwrite_durable(self, parts: Sequence[bytes], offset: int) -> None:
        if self._direct is not None:
            total = sum(map(len, parts))
            if not (total % _SECTOR_BYTES or offset % _SECTOR_BYTES):
                try:
                    self._direct.write(parts, total, offset)
                    return
                except OSError as error:
                    if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                        raise
                    # Its sectors may be larger. What was written already is written again.
                    self._leave_direct()
        if self._dsync_flag:
            try:
                self._write_all(parts, offset, self._dsync_flag)
                return
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
                self._dsync_flag = 0
        self._write_all(parts, offset, 0)
        os.fdatasync(self._fd)

    def _write_all(self, parts: Sequence[bytes], offset: int, flags: int) -> None:
        if len(parts) > _PARTS_MAX:
            parts = (b"".join(parts),)
        total = sum(map(len, parts))
        written = os.pwritev(self._fd, parts, offset, flags)
        if written == total:
            return
        rest = memoryview(b"".join(parts))
        while written < total:
            count = os.pwritev(self._fd, (rest[written:],), offset + written, flags)
            if count == 0:
                raise OSError(errno.ENOSPC, "the disk takes no more bytes", self.path)
            written += count

    def fdatasync(self) -> None:
        os.fdatasync(self._fd)

    def allocate(self, offset: int, length: int) -> None:
        os.posix_fallocate(self._fd, offset, length)

    def bypass_cache(self) -> None:
        if self._direct is None:
            with contextlib.suppress(OSError):
                self._direct = _DirectWriter(self.path)

    def _leave_direct(self) -> None:
        if self._direct is not None:
            self._direct.close()
            self._direct = None

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def close(self) -> None:
        self._leave_direct()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class RealDisk:
    """The file systems of this machine."""

    def open(self, path: str, *, writable: bool = True, create: bool = False) -> DiskFile:
        flags = os.O_CLOEXEC | (os.O_RDWR if writable else os.O_RDONLY)
        if create:
            flags |= os.O_CREAT | os.O_EXCL
        return _RealFile(path, os.open(path, flags, 0o644))

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def list(self, directory: str) -> list[str]:
        return sorted(os.listdir(directory))

    def make_directory(self, path: str) -> None:
        parent = os.path.dirname(path) or "."
        if os.path.isdir(path):
            # Who made it may have been killed before its name was durable; where we may not look, it was not
            # one of us.
            with contextlib.suppress(PermissionError):
                self.fsync_directory(parent)
            return
        if parent != path:
            self.make_directory(parent)
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
        self.fsync_directory(parent)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def remove_tree(self, path: str) -> None:
        if os.path.lexists(path):
            shutil.rmtree(path)

    def fsync_directory(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def free_bytes(self, path: str) -> int:
        facts = os.statvfs(path)
        return facts.f_bavail * facts.f_frsize

    def lock(self, path: str) -> DiskLock:
        # flock, not a file's existence: it goes with the process, so a killed server leaves nothing to clean
        # up.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise DiskLockedError(f"{path} is locked: another server uses this directory") from error
            raise
        return _RealLock(fd)
