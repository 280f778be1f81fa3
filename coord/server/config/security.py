"""Keys of authentication, ACLs, SASL and audit."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SecurityConfig:
    """Who may do what."""
