"""Small state files replaced whole: one line of text with its own checksum, and what is kept in them.

A file is written under a temporary name, fsynced, renamed, and its directory fsynced, so a reader after any
crash finds the old content or the new, never a mixture. The line is readable by an operator and ends in a
CRC32C, so a damaged file is told from an old one:

    <kind> 1 <word> <word> ... <crc32c of all before the last blank, 8 hex digits>\n
"""

import errno
import os
from dataclasses import dataclass

import google_crc32c

from coord.disk.api import Disk

__all__ = ["DamagedFileError", "SavedSession", "SessionFile", "read_checked", "replace_checked"]

_VERSION = "1"
_FILE_BYTES_MAX = 4096


class DamagedFileError(Exception):
    """A file's content is not what was written: expected, got and where are in the message."""


def replace_checked(disk: Disk, path: str, kind: str, words: tuple[str, ...]) -> None:
    """Replace the file's line atomically; durable when this returns.

    Args:
        words: non-empty, without blanks.
    """
    line = " ".join((kind, _VERSION, *words))
    data = f"{line} {google_crc32c.value(line.encode()):08x}\n".encode()
    temporary = path + ".new"
    if disk.exists(temporary):
        disk.unlink(temporary)
    file = disk.open(temporary, create=True)
    try:
        file.pwrite_durable((data,), 0)
    finally:
        file.close()
    disk.rename(temporary, path)
    disk.fsync_directory(os.path.dirname(path))


def read_checked(disk: Disk, path: str, kind: str) -> tuple[str, ...] | None:
    """The words of the file's line, or None if there is no such file.

    Raises:
        DamagedFileError: the line is not whole, or is of another kind or version.
    """
    try:
        file = disk.open(path, writable=False)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    try:
        data = file.pread(_FILE_BYTES_MAX, 0)
    finally:
        file.close()
    line, _, checksum = data.decode("ascii", "replace").removesuffix("\n").rpartition(" ")
    if not data.endswith(b"\n") or checksum != f"{google_crc32c.value(line.encode()):08x}":
        raise DamagedFileError(f"{path}: the checksum of its line does not match: {data[:80]!r}")
    words = line.split(" ")
    if words[:2] != [kind, _VERSION]:
        raise DamagedFileError(f"{path}: expected '{kind} {_VERSION}', got {' '.join(words[:2])!r}")
    return tuple(words[2:])


@dataclass(frozen=True, slots=True)
class SavedSession:
    """A coordination session that a server may have left open."""

    session_id: int
    password: bytes


class SessionFile:
    """The session of a server, kept so that its next start closes the old one instead of waiting for its
    ephemerals to expire.

    It lives in the server's locked data directory, so it is never the session of somebody alive.
    """

    _KIND = "zoolog-session"

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._path = os.path.join(directory, "session")

    def save(self, session: SavedSession) -> None:
        words = (f"{session.session_id & 0xFFFFFFFFFFFFFFFF:016x}", session.password.hex())
        replace_checked(self._disk, self._path, self._KIND, words)

    def load(self) -> SavedSession | None:
        """The saved session, or None. A damaged file counts as none: it costs only the wait for the session's
        expiry.
        """
        try:
            words = read_checked(self._disk, self._path, self._KIND)
            if words is None or len(words) != 2:
                return None
            unsigned = int(words[0], 16)
            signed = unsigned - (1 << 64) if unsigned >> 63 else unsigned
            return SavedSession(signed, bytes.fromhex(words[1]))
        except (DamagedFileError, ValueError):
            return None

    def forget(self) -> None:
        if self._disk.exists(self._path):
            self._disk.unlink(self._path)
            self._disk.fsync_directory(os.path.dirname(self._path))
