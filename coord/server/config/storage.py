"""Keys of log, checkpoints and their purge."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """What is kept on disk."""
