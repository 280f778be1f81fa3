"""Where checkpoints are kept: a transactional map of tables, in LMDB, or in one file of a `Disk` for tests
and simulation.

Both do what a checkpoint needs and no more: one write transaction at a time that replaces the content
atomically and durably, read transactions that see one committed content throughout, keys in order.
"""

import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import google_crc32c
import lmdb

from coord.disk import Disk, RealDisk

__all__ = [
    "META",
    "NODES",
    "DiskEnvironments",
    "Environment",
    "EnvironmentFailedError",
    "Environments",
    "LmdbEnvironments",
    "ReadTransaction",
    "WriteTransaction",
]

NODES = 0
"""Key: node number, 8 bytes big-endian."""
META = 1
"""The checkpoint's record of itself."""
_TABLE_NAMES = (b"nodes", b"meta")
_MAP_BYTES = (
    1 << 38
)  # address space, not disk: far above any tree, as growing it later would need all readers gone
_PROBE_TIMEOUT_S = 600


class EnvironmentFailedError(Exception):
    """The environment could not be read or written.

    Attributes:
        disk_full: it was for want of space; nothing was changed.
    """

    def __init__(self, text: str, *, disk_full: bool = False) -> None:
        super().__init__(text)
        self.disk_full = disk_full


class ReadTransaction(Protocol):
    """One committed content, however long it is read."""

    def items(self, table: int) -> Iterator[tuple[bytes, bytes]]: ...

    def get(self, table: int, key: bytes) -> bytes | None: ...

    def close(self) -> None: ...


class WriteTransaction(Protocol):
    """Changes that become the content all at once. Belongs to the thread that began it."""

    def put_many(self, table: int, items: Sequence[tuple[bytes, bytes]]) -> None: ...

    def remove_many(self, table: int, keys: Sequence[bytes]) -> None: ...

    def count(self, table: int) -> int: ...

    def commit(self) -> None:
        """Durable when this returns."""

    def abort(self) -> None: ...


class Environment(Protocol):
    """An open environment. Every method may raise `EnvironmentFailedError`."""

    def read(self) -> ReadTransaction: ...

    def write(self) -> WriteTransaction: ...

    def close(self) -> None: ...


class Environments(Protocol):
    """One way of keeping environments."""

    def open(self, path: str) -> Environment:
        """Open, or make, the environment in a directory; at most once at a time."""
        ...

    def probe(self, path: str) -> str | None:
        """Whether reading all of it would end this process: what went wrong when another process tried, or
        None.
        """
        ...


# LMDB.


def _failed(path: str, error: lmdb.Error) -> EnvironmentFailedError:
    text = str(error)
    return EnvironmentFailedError(
        f"{path}: {text}", disk_full="No space left" in text or isinstance(error, lmdb.MapFullError)
    )


class _LmdbRead:
    def __init__(self, path: str, transaction: Any, tables: Sequence[Any]) -> None:
        self._path = path
        self._transaction = transaction
        self._tables = tables

    def items(self, table: int) -> Iterator[tuple[bytes, bytes]]:
        try:
            yield from self._transaction.cursor(self._tables[table])
        except lmdb.Error as error:
            raise _failed(self._path, error) from error

    def get(self, table: int, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._transaction.get(key, db=self._tables[table])
        except lmdb.Error as error:
            raise _failed(self._path, error) from error
        return value

    def close(self) -> None:
        self._transaction.abort()


class _LmdbWrite:
    def __init__(self, path: str, transaction: Any, tables: Sequence[Any]) -> None:
        self._path = path
        self._transaction = transaction
        self._tables = tables

    def put_many(self, table: int, items: Sequence[tuple[bytes, bytes]]) -> None:
        try:
            self._transaction.cursor(self._tables[table]).putmulti(items)
        except lmdb.Error as error:
            raise _failed(self._path, error) from error

    def remove_many(self, table: int, keys: Sequence[bytes]) -> None:
        try:
            for key in keys:
                self._transaction.delete(key, db=self._tables[table])
        except lmdb.Error as error:
            raise _failed(self._path, error) from error

    def count(self, table: int) -> int:
        try:
            entries: int = self._transaction.stat(self._tables[table])["entries"]
        except lmdb.Error as error:
            raise _failed(self._path, error) from error
        return entries

    def commit(self) -> None:
        try:
            self._transaction.commit()
        except lmdb.Error as error:
            raise _failed(self._path, error) from error

    def abort(self) -> None:
        self._transaction.abort()


class _LmdbEnvironment:
    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._environment = lmdb.open(
                path, map_size=_MAP_BYTES, max_dbs=len(_TABLE_NAMES), max_readers=16
            )
            self._tables = [self._environment.open_db(name) for name in _TABLE_NAMES]
            # Who was killed within a commit may have left it in the system's cache.
            self._environment.sync(True)
        except lmdb.Error as error:
            raise _failed(path, error) from error

    def read(self) -> ReadTransaction:
        try:
            return _LmdbRead(self._path, self._environment.begin(), self._tables)
        except lmdb.Error as error:
            raise _failed(self._path, error) from error

    def write(self) -> WriteTransaction:
        try:
            return _LmdbWrite(self._path, self._environment.begin(write=True), self._tables)
        except lmdb.Error as error:
            raise _failed(self._path, error) from error

    def close(self) -> None:
        self._environment.close()


def _make_lmdb(disk: RealDisk, path: str) -> None:
    """An empty environment, whole or not at all: a file half made looks like a damaged one."""
    draft = path + ".new"
    disk.remove_tree(draft)
    disk.make_directory(draft)
    _LmdbEnvironment(draft).close()
    disk.fsync_directory(draft)
    disk.remove_tree(path)
    disk.rename(draft, path)
    disk.fsync_directory(os.path.dirname(path))


class LmdbEnvironments:
    """LMDB in the file system of this machine.

    With no flag that leaves out a sync: the pages of a transaction are durable before its meta page names
    them, and that is written synchronously. Nor with a writable map, whose pages reach the disk when they
    like. What LMDB does not sync is the name of its file, nor the first pages of a new one.
    """

    def open(self, path: str) -> Environment:
        disk = RealDisk()
        if not disk.exists(os.path.join(path, "data.mdb")):
            _make_lmdb(disk, path)
        environment = _LmdbEnvironment(path)
        try:
            disk.fsync_directory(path)
        except OSError as error:
            environment.close()
            raise EnvironmentFailedError(f"{path}: {error}") from error
        return environment

    def probe(self, path: str) -> str | None:
        # A mapped file that lies about its pages can end the process that reads it: let that be another one.
        command = [sys.executable, "-m", "coord.storage.environment", path]
        try:
            result = subprocess.run(command, capture_output=True, timeout=_PROBE_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            return f"reading it took longer than {_PROBE_TIMEOUT_S} s"
        if result.returncode == 0:
            return None
        last_line = result.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return f"reading it ended with status {result.returncode}: {last_line}"


# One file of a disk.

_ENTRY = struct.Struct("<BII")
_U32 = struct.Struct("<I")
_Tables = list[dict[bytes, bytes]]


class _DiskRead:
    def __init__(self, tables: _Tables) -> None:
        self._tables = tables

    def items(self, table: int) -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted(self._tables[table].items()))

    def get(self, table: int, key: bytes) -> bytes | None:
        return self._tables[table].get(key)

    def close(self) -> None:
        """Nothing is held."""


class _DiskWrite:
    def __init__(self, environment: "_DiskEnvironment") -> None:
        self._environment = environment
        self._tables = [dict(table) for table in environment.tables]

    def put_many(self, table: int, items: Sequence[tuple[bytes, bytes]]) -> None:
        self._tables[table].update(items)

    def remove_many(self, table: int, keys: Sequence[bytes]) -> None:
        for key in keys:
            self._tables[table].pop(key, None)

    def count(self, table: int) -> int:
        return len(self._tables[table])

    def commit(self) -> None:
        self._environment.replace(self._tables)

    def abort(self) -> None:
        self._tables.clear()


class _DiskEnvironment:
    """All tables in memory; a commit replaces the file by rename."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._file = os.path.join(path, "tables")
        self.tables: _Tables = [{} for _ in _TABLE_NAMES]
        disk.make_directory(path)
        if disk.exists(self._file):
            self._load()

    def _load(self) -> None:
        file = self._disk.open(self._file, writable=False)
        data = file.pread(file.size(), 0)
        file.close()
        if len(data) < 4 or _U32.unpack(data[-4:])[0] != google_crc32c.value(data[:-4]):
            raise EnvironmentFailedError(f"{self._file}: the checksum does not match")
        at = 0
        while at < len(data) - 4:
            table, key_length, value_length = _ENTRY.unpack_from(data, at)
            at += _ENTRY.size
            self.tables[table][data[at : at + key_length]] = data[
                at + key_length : at + key_length + value_length
            ]
            at += key_length + value_length

    def replace(self, tables: _Tables) -> None:
        parts = []
        for number, table in enumerate(tables):
            for key, value in sorted(table.items()):
                parts += [_ENTRY.pack(number, len(key), len(value)), key, value]
        data = b"".join(parts)
        temporary = self._file + ".new"
        try:
            if self._disk.exists(temporary):
                self._disk.unlink(temporary)
            file = self._disk.open(temporary, create=True)
            file.pwrite_durable((data, _U32.pack(google_crc32c.value(data))), 0)
            file.close()
            self._disk.rename(temporary, self._file)
            self._disk.fsync_directory(os.path.dirname(self._file))
        except OSError as error:
            full = error.errno == 28
            raise EnvironmentFailedError(f"{self._file}: {error}", disk_full=full) from error
        self.tables = tables

    def read(self) -> ReadTransaction:
        return _DiskRead(self.tables)

    def write(self) -> WriteTransaction:
        return _DiskWrite(self)

    def close(self) -> None:
        """Nothing is held."""


class DiskEnvironments:
    """Environments on any `Disk`, deterministic; for small states."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def open(self, path: str) -> Environment:
        return _DiskEnvironment(self._disk, path)

    def probe(self, path: str) -> str | None:
        return None


def _read_all(path: str) -> None:
    """What `probe` runs in its own process."""
    environment = _LmdbEnvironment(path)
    transaction = environment.read()
    for table in range(len(_TABLE_NAMES)):
        for _ in transaction.items(table):
            pass
    transaction.close()
    environment.close()


if __name__ == "__main__":
    _read_all(sys.argv[1])
