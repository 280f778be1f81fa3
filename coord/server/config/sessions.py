"""Keys of sessions."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SessionsConfig:
    """How sessions live."""
