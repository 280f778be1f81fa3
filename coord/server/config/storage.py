"""Keys of log, checkpoints and their purge."""

from dataclasses import dataclass
from typing import Final

from coord.server.config.keys import boolean, count, key

FSYNC_WARNING_MS_DEFAULT: Final = 1000


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """What is kept on disk."""

    fsync_warning_ms: int = key(
        "fsync.warningthresholdms",
        count,
        FSYNC_WARNING_MS_DEFAULT,
        "a write of the log that takes longer is named in the server's log, in ms",
    )
    creates_directories: bool = key(
        "datadir.autocreate",
        boolean,
        True,
        "make `dataDir` and `dataLogDir` where they do not exist; false guards against a disk that is not "
        "mounted",
    )
