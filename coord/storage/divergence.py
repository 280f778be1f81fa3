"""That this server's state is known to differ from a majority's, over restarts.

    <dataDir>/zoolog/diverged    zoolog-diverged 1 <generation> <zxid> <digest> <agreed> <crc>

What is executed again at the next start may lead to the right state or to the wrong one, and either may agree
with the others' for a while. So what was found out is written down, and the server stays out of service until
a leader has given it a state. That is another generation: with the switch to it (`DataDirectory.switch`) the
file speaks of nothing that is in use, and is removed. A damaged one is believed to say that there is a
difference, which is what is safe.
"""

import os
from dataclasses import dataclass

from coord.disk import DamagedFileError, read_checked, replace_checked
from coord.storage.directory import DataDirectory

__all__ = ["DIVERGED_FILE", "Divergence", "forget_divergence", "note_divergence", "read_divergence"]

DIVERGED_FILE = "diverged"
_KIND = "zoolog-diverged"


@dataclass(frozen=True, slots=True)
class Divergence:
    """The state as of `zxid` had `digest`, a majority's `agreed`; all 0 where the file is damaged."""

    zxid: int = 0
    digest: int = 0
    agreed: int = 0


def note_divergence(directory: DataDirectory, found: Divergence) -> None:
    """Durable when this returns. Raises: OSError."""
    words = directory.generation, str(found.zxid), f"{found.digest:016x}", f"{found.agreed:016x}"
    replace_checked(directory.disk, _path(directory), _KIND, words)


def read_divergence(directory: DataDirectory) -> Divergence | None:
    """What is known of the state in use; a file about another one is removed.

    Raises:
        OSError: the disk failed.
    """
    try:
        words = read_checked(directory.disk, _path(directory), _KIND)
        if words is None:
            return None
        if len(words) != 4:
            return Divergence()
        if words[0] != directory.generation:
            forget_divergence(directory)
            return None
        return Divergence(int(words[1]), int(words[2], 16), int(words[3], 16))
    except (DamagedFileError, ValueError):
        return Divergence()


def forget_divergence(directory: DataDirectory) -> None:
    """Another state is in use. Raises: OSError."""
    path = _path(directory)
    if directory.disk.exists(path):
        directory.disk.unlink(path)
        directory.disk.fsync_directory(directory.root)


def _path(directory: DataDirectory) -> str:
    return os.path.join(directory.root, DIVERGED_FILE)
