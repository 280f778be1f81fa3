"""Keys of log, checkpoints and their purge."""

from dataclasses import dataclass
from typing import Final

from coord.server.config.keys import count, key

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
