"""`FaultyDisk`: a file system in memory that loses what was not synced, and fails when told to.

What it takes literally, and real disks only sometimes do:

* A write is in the cache until the file is synced. A power loss keeps any subset of the unsynced *sectors*,
  in no order. A durable write syncs its own bytes alone.
* A name (create, rename, unlink, mkdir) is in the cache until its directory is synced. A power loss keeps a
  prefix of the unsynced ones, as a journalling file system does; a file may be named and empty.
* After a failed fdatasync the pages count as clean though they never reached the disk: reading shows them, a
  later fdatasync succeeds, a power loss loses them. That is what kernels do, and why a failed sync must stop
  the process.

Nothing here is random by itself: faults are listed, and `restart` asks a `random.Random` or a function which
sectors survive.
"""

import errno
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from coord.disk.api import SECTOR_BYTES, DiskFile, DiskLock, DiskLockedError

__all__ = ["DiskFault", "FaultyDisk", "PowerLossError"]

NOWHERE = -1
"""Where a lost write is misdirected to."""


class PowerLossError(Exception):
    """The power is off: this operation, and every later one until `restart`, did not happen."""


@dataclass(slots=True)
class DiskFault:
    """One thing that goes wrong.

    Attributes:
        operation: "pread", "pwrite", "fdatasync" (also as part of pwrite_durable), "allocate", "truncate",
            "open", "rename", "unlink" or "fsync_directory".
        error: the errno it raises, 0 if it only lies.
        path_part: only for paths that contain this.
        skip: lets so many pass first.
        times: and then hits so many.
        misdirect: a pwrite silently lands so many bytes further on.
        lost: a pwrite silently lands nowhere.
    """

    operation: str
    error: int = 0
    path_part: str = ""
    skip: int = 0
    times: int = 1
    misdirect: int = 0
    lost: bool = False


@dataclass(slots=True, eq=False)
class _Inode:
    cached: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # (size, None) is a truncate

    def sync(self) -> None:
        for offset, data in self.pending:
            _apply(self.durable, offset, data)
        self.pending.clear()

    def sync_range(self, start: int, end: int) -> None:
        """What a synchronous write does: its bytes and the file's size are durable, not what was written
        elsewhere.
        """
        waiting: list[tuple[int, bytes | None]] = []
        for offset, data in self.pending:
            if data is None:
                waiting = [(at, held[: max(offset - at, 0)]) for at, held in waiting if held and at < offset]
                _apply(self.durable, offset, None)
                continue
            first, last = max(start, offset), min(end, offset + len(data))
            if first >= last:
                waiting.append((offset, data))
                continue
            _apply(self.durable, first, data[first - offset : last - offset])
            if offset < first:
                waiting.append((offset, data[: first - offset]))
            if last < offset + len(data):
                waiting.append((last, data[last - offset :]))
        self.pending = waiting


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        if offset <= len(content):
            del content[offset:]
        else:
            content.extend(bytes(offset - len(content)))
        return
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class _FaultyLock:
    def __init__(self, held: set[str], path: str) -> None:
        self._held = held
        self._path = path

    def release(self) -> None:
        self._held.discard(self._path)


class _FaultyFile:
    def __init__(self, disk: "FaultyDisk", path: str, inode: _Inode, writable: bool) -> None:
        self._disk = disk
        self._inode = inode
        self._writable = writable
        self._boot = disk.boots
        self._open = True
        self.path = path

    def _check(self, operation: str, *, changes: bool) -> int:
        """As `FaultyDisk.check`."""
        if not self._open or (changes and not self._writable):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self.path)
        if self._boot != self._disk.boots:
            raise PowerLossError(f"{self.path} was opened before the power loss")
        return self._disk.check(operation, self.path, changes=changes)

    def size(self) -> int:
        return len(self._inode.cached)

    def pread(self, length: int, offset: int) -> bytes:
        self._check("pread", changes=False)
        return bytes(self._inode.cached[offset : offset + length])

    def pwrite(self, parts: Sequence[bytes], offset: int) -> None:
        shift = self._check("pwrite", changes=True)
        if shift == NOWHERE:
            return
        offset += shift
        data = b"".join(parts)
        room = self._disk.free_bytes(self.path)
        growth = offset + len(data) - len(self._inode.cached)
        written = data if growth <= room else data[: max(len(data) - (growth - room), 0)]
        if written:
            self._inode.pending.append((offset, written))
            _apply(self._inode.cached, offset, written)
        if len(written) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)

    def pwrite_durable(self, parts: Sequence[bytes], offset: int) -> None:
        self.pwrite(parts, offset)
        self._check_sync()
        self._inode.sync_range(offset, offset + sum(map(len, parts)))

    def fdatasync(self) -> None:
        self._check_sync()
        self._inode.sync()

    def _check_sync(self) -> None:
        try:
            self._check("fdatasync", changes=True)
        except OSError:
            self._inode.pending.clear()
            raise

    def allocate(self, offset: int, length: int) -> None:
        self._check("allocate", changes=True)
        growth = offset + length - len(self._inode.cached)
        if growth > self._disk.free_bytes(self.path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        if growth > 0:
            self._inode.pending.append((offset + length, None))
            _apply(self._inode.cached, offset + length, None)

    def bypass_cache(self) -> None:
        pass

    def truncate(self, size: int) -> None:
        self._check("truncate", changes=True)
        self._inode.pending.append((size, None))
        _apply(self._inode.cached, size, None)

    def close(self) -> None:
        self._open = False


class FaultyDisk:
    """Files in memory with faults to order.

    Args:
        capacity_bytes: ENOSPC beyond it.

    Attributes:
        faults: what will go wrong; tests append to it.
        changes: number of changing operations so far.
        boots: number of restarts so far.
    """

    def __init__(self, *, capacity_bytes: int = 1 << 40) -> None:
        self.capacity_bytes = capacity_bytes
        self.faults: list[DiskFault] = []
        self.changes = 0
        self.boots = 0
        self._names: dict[str, _Inode | None] = {"/": None}  # None: a directory
        self._durable_names: dict[str, _Inode | None] = {"/": None}
        self._pending_names: list[
            tuple[str, str, _Inode | None]
        ] = []  # (path, "" or rename's target, what path names)
        self._locks: set[str] = set()
        self._changes_left: int | None = None

    # Faults.

    def check(self, operation: str, path: str, *, changes: bool) -> int:
        """Called before each operation; returns by how many bytes it is misdirected, or `NOWHERE`.

        Raises:
            OSError: a listed fault.
            PowerLossError: the power went off.
        """
        if self._changes_left is not None:
            if changes:
                self._changes_left -= 1
            if self._changes_left < 0:
                raise PowerLossError(f"the power went off at {operation} of {path}")
        self.changes += changes
        for fault in self.faults:
            if fault.operation != operation or fault.path_part not in path or fault.times == 0:
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            fault.times -= 1
            if fault.error:
                raise OSError(fault.error, os.strerror(fault.error), path)
            return NOWHERE if fault.lost else fault.misdirect
        return 0

    def power_off_after(self, changes: int) -> None:
        """Let so many changing operations pass; from the next one on nothing happens any more."""
        self._changes_left = changes

    def unsynced_sectors(self) -> int:
        """How many sectors a power loss would ask about now."""
        inodes = {id(inode): inode for inode in self._names.values() if inode is not None}
        return sum(len(_sectors(inode)) for inode in inodes.values())

    def restart(
        self,
        survives: Callable[[int], bool] | random.Random,
        *,
        names_kept: int | None = None,
    ) -> None:
        """Lose power and come back with what survived; open files and locks are gone.

        Args:
            survives: called with 0, 1, 2... for each unsynced sector, oldest first; or a random source that
                decides, for all, none or each.
            names_kept: how many of the unsynced changes of names survive, oldest first; None: all, or as the
                random source decides.
        """
        if isinstance(survives, random.Random):
            chance = survives.choice((0.0, 0.5, 0.9, 1.0))
            source = survives
            if names_kept is None:
                names_kept = source.randint(0, len(self._pending_names))
            survives = lambda _: source.random() < chance  # noqa: E731
        for path, target, inode in self._pending_names[:names_kept]:
            _rename(self._durable_names, path, target, inode)
        self._pending_names.clear()
        for name in sorted(self._durable_names):
            if os.path.dirname(name) not in self._durable_names:
                del self._durable_names[name]  # the directory that it is in has no name
        # A file is reached by its last durable name; what only lost names led to is gone.
        inodes = {id(inode): inode for inode in self._durable_names.values() if inode is not None}
        index = 0
        for inode in inodes.values():
            for offset, data in _sectors(inode):
                if survives(index):
                    _apply(inode.durable, offset, data)
                index += 1
            inode.pending.clear()
            inode.cached = bytearray(inode.durable)
        self._names = dict(self._durable_names)
        self._locks.clear()
        self._changes_left = None
        self.boots += 1

    def flip_bit(self, path: str, bit: int) -> None:
        """Bit rot, in the cache and on the medium."""
        inode = self._inode(path)
        inode.sync()
        inode.cached[bit // 8] ^= 1 << (bit % 8)
        inode.durable[bit // 8] ^= 1 << (bit % 8)

    def content(self, path: str) -> bytes:
        return bytes(self._inode(path).cached)

    def replace_content(self, path: str, data: bytes) -> None:
        """Make a file hold exactly these durable bytes."""
        inode = self._inode(path)
        inode.pending.clear()
        inode.cached = bytearray(data)
        inode.durable = bytearray(data)

    # The disk.

    def _inode(self, path: str) -> _Inode:
        inode = self._names.get(path)
        if inode is None:
            number = errno.EISDIR if path in self._names else errno.ENOENT
            raise OSError(number, os.strerror(number), path)
        return inode

    def _change_name(self, path: str, target: str, inode: _Inode | None) -> None:
        _rename(self._names, path, target, inode)
        self._pending_names.append((path, target, inode))

    def _require_directory(self, path: str) -> None:
        if self._names.get(path, ...) is not None:
            number = errno.ENOTDIR if path in self._names else errno.ENOENT
            raise OSError(number, os.strerror(number), path)

    def open(self, path: str, *, writable: bool = True, create: bool = False) -> DiskFile:
        self.check("open", path, changes=create)
        if not create:
            return _FaultyFile(self, path, self._inode(path), writable)
        self._require_directory(os.path.dirname(path))
        if path in self._names:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        inode = _Inode()
        self._change_name(path, "", inode)
        return _FaultyFile(self, path, inode, writable)

    def exists(self, path: str) -> bool:
        self.check("exists", path, changes=False)
        return path in self._names

    def list(self, directory: str) -> list[str]:
        self.check("list", directory, changes=False)
        self._require_directory(directory)
        return sorted(
            os.path.basename(path) for path in self._names if os.path.dirname(path) == directory != path
        )

    def make_directory(self, path: str) -> None:
        parent = os.path.dirname(path)
        if path in self._names:
            self._require_directory(path)
            self.fsync_directory(parent)
            return
        self.make_directory(parent)
        self.check("make_directory", path, changes=True)
        self._change_name(path, "", None)
        self.fsync_directory(parent)

    def rename(self, source: str, target: str) -> None:
        self.check("rename", source, changes=True)
        self._require_directory(os.path.dirname(target))
        if source not in self._names:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), source)
        self._change_name(source, target, self._names[source])

    def unlink(self, path: str) -> None:
        self.check("unlink", path, changes=True)
        self._change_name(path, path, self._inode(path))

    def remove_tree(self, path: str) -> None:
        for name in sorted(self._names, reverse=True):
            if name == path or name.startswith(path + "/"):
                self.check("unlink", name, changes=True)
                self._change_name(name, name, self._names[name])

    def fsync_directory(self, path: str) -> None:
        self._require_directory(path)
        self.check("fsync_directory", path, changes=True)
        kept: list[tuple[str, str, _Inode | None]] = []
        for number, change in enumerate(self._pending_names):
            source, target, inode = change
            if path not in (self._place_now(source, number), self._place_now(target, number)):
                kept.append(change)
                continue
            _rename(self._durable_names, source, target, inode)
            if source == target and inode is None:  # what was in a directory has gone with it
                kept = [earlier for earlier in kept if not earlier[0].startswith(source + "/")]
            elif target and inode is None:  # or goes with it
                kept = [(_moved(a, source, target), _moved(b, source, target), it) for a, b, it in kept]
        self._pending_names = kept

    def _place_now(self, name: str, number: int) -> str:
        """The directory of a name of a pending change, where later renames have moved it."""
        place = os.path.dirname(name)
        for source, target, inode in self._pending_names[number + 1 :]:
            if inode is None and target not in ("", source):
                place = _moved(place, source, target)
        return place

    def free_bytes(self, path: str) -> int:
        used = sum(len(inode.cached) for inode in self._names.values() if inode is not None)
        return max(self.capacity_bytes - used, 0)

    def lock(self, path: str) -> DiskLock:
        self.check("lock", path, changes=False)
        if path in self._locks:
            raise DiskLockedError(f"{path} is locked: another server uses this directory")
        self._require_directory(os.path.dirname(path))
        self._locks.add(path)
        return _FaultyLock(self._locks, path)


def _rename(names: dict[str, _Inode | None], path: str, target: str, inode: _Inode | None) -> None:
    """Apply one change of names: made (no target), removed (target is the path itself) or renamed, a
    directory with what is in it.
    """
    if not target:
        names[path] = inode
        return
    names.pop(path, None)
    if target != path:
        names[target] = inode
    if inode is not None:
        return
    for name in [name for name in names if name.startswith(path + "/")]:
        moved = names.pop(name)
        if target != path:
            names[target + name[len(path) :]] = moved


def _moved(name: str, source: str, target: str) -> str:
    """A name after a directory was renamed."""
    if name == source or name.startswith(source + "/"):
        return target + name[len(source) :]
    return name


def _sectors(inode: _Inode) -> list[tuple[int, bytes | None]]:
    """The unsynced changes of a file in pieces that a device writes whole."""
    pieces: list[tuple[int, bytes | None]] = []
    for offset, data in inode.pending:
        if data is None:
            pieces.append((offset, None))
            continue
        at = 0
        while at < len(data):
            end = min(at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES, len(data))
            pieces.append((offset + at, data[at:end]))
            at = end
    return pieces
