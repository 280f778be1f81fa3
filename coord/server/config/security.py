"""Keys of authentication, ACLs, SASL and audit."""

from dataclasses import dataclass
from typing import Final

from coord.server.config.keys import family

PROVIDERS: Final = {
    "DigestAuthenticationProvider": "digest",
    "EnsembleAuthenticationProvider": "ensemble",
    "IPAuthenticationProvider": "ip",
    "SASLAuthenticationProvider": "sasl",
    "X509AuthenticationProvider": "x509",
}
_PACKAGE: Final = "org.apache.zookeeper.server.auth."


def provider(text: str) -> str:
    """The scheme of one of ZooKeeper's own provider classes."""
    scheme = PROVIDERS.get(text.removeprefix(_PACKAGE))
    if scheme is None:
        raise ValueError(
            "must be one of ZooKeeper's own classes, since classes of Java cannot be loaded "
            f"({_PACKAGE}{', '.join(PROVIDERS)})"
        )
    return scheme


@dataclass(frozen=True, slots=True)
class SecurityConfig:
    """Who may do what."""

    providers: tuple[tuple[str, str], ...] = family(
        "authProvider.", provider, f"`{_PACKAGE}…`: ZooKeeper's own providers only; any name after the dot"
    )
