"""Keys of bounds on what clients may ask of a server."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """What bounds a server's work for its clients."""
