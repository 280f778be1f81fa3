"""Keys of TLS of the client port and between servers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Certificates and protocols."""
