"""Keys of the HTTP admin server, metrics and four-letter words."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AdminConfig:
    """The operators' side."""
