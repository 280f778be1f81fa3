"""Whose data directory it is: the member of an ensemble that made the promises in it.

    <dataDir>/zoolog/owner    zoolog-owner 1 <server id> <ensemble id, percent-encoded> <crc>

Epochs and log are promises of one server to its peers. Two directories that were exchanged would each be
taken for the other's: a server could vote twice, and claim to have logged what it has not. So a member writes
its id down at its first start, and a member of another id is refused.

A standalone server promises nothing to anybody and neither writes nor reads this file, so that its directory
may become a member's. The file belongs to no generation, and no state file needs it: a release that does not
know it leaves it alone.
"""

import os
from dataclasses import dataclass
from urllib.parse import quote, unquote

from coord.disk import DamagedFileError, Disk, read_checked, replace_checked
from coord.storage.directory import DataDirectory, DataDirectoryError

__all__ = ["OWNER_FILE", "Owner", "bind_directory", "read_owner"]

OWNER_FILE = "owner"
_KIND = "zoolog-owner"


@dataclass(frozen=True, slots=True)
class Owner:
    """A member: `server.N` of the ensemble that its configuration names (`ensemble.id`)."""

    sid: int
    ensemble: str

    def __str__(self) -> str:
        return f"server {self.sid} of ensemble {self.ensemble!r}"


def bind_directory(directory: DataDirectory, owner: Owner) -> None:
    """Write the owner down in a directory that has none; to be called before anything is promised.

    Raises:
        DataDirectoryError: it is another one's, or the file is damaged.
        OSError: the disk failed.
    """
    path = os.path.join(directory.root, OWNER_FILE)
    try:
        found = read_owner(directory.disk, directory.root)
    except DamagedFileError as damage:
        what = f"{damage}; whose directory it is cannot be told: if it is that of {owner}, remove the file"
        raise DataDirectoryError(what) from damage
    if found is None:
        replace_checked(directory.disk, path, _KIND, (str(owner.sid), quote(owner.ensemble, safe="")))
    elif found != owner:
        raise DataDirectoryError(
            f"{path}: the directory is that of {found}, and this is {owner}: correct dataDir or the id, or "
            f"remove the file if this server shall go on with that state"
        )


def read_owner(disk: Disk, root: str) -> Owner | None:
    """Whose it is; None if no member has started on it since the file exists.

    Args:
        root: the directory that holds `current`.

    Raises:
        DamagedFileError
        OSError: the disk failed.
    """
    path = os.path.join(root, OWNER_FILE)
    words = read_checked(disk, path, _KIND)
    if words is None:
        return None
    if len(words) != 2 or not words[0].isdigit():
        raise DamagedFileError(f"{path}: expected a server id and an ensemble id, got {words!r}")
    return Owner(int(words[0]), unquote(words[1]))
