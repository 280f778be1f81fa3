"""Keys of TLS of the client port and between servers."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from coord.server.config.keys import (
    ConfigError,
    boolean,
    integer,
    key,
    names,
    optional_port,
    positive,
    string,
)

HANDSHAKES_MAX: Final = 2_000
"""TLS handshakes under way at once, where the file sets no limit."""

_STORES: Final = {".jks": "JKS", ".p12": "PKCS12", ".pfx": "PKCS12", ".bcfks": "BCFKS"}
_CONVERT: Final = "convert it: `keytool -importkeystore -deststoretype pkcs12`, then `openssl pkcs12 -nodes`"
_VERSIONS: Final = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


def pem_file(text: str) -> str:
    """A file's name; those of Java's stores are refused by their endings."""
    kind = _STORES.get(Path(text).suffix.lower())
    if kind is not None:
        raise ValueError(f"must name a PEM file, {kind} stores cannot be read here; {_CONVERT}")
    return text


def pem_type(text: str) -> str:
    if text.upper() not in ("", "PEM"):
        raise ValueError(f"must be PEM, {text.upper()} stores cannot be read here; {_CONVERT}")
    return text.upper()


def client_auth(text: str) -> str:
    if text.lower() not in ("none", "want", "need"):
        raise ValueError("must be none, want or need")
    return text.lower()


def tls_version(text: str) -> str:
    if text not in _VERSIONS:
        raise ValueError(f"must be one of {', '.join(_VERSIONS)}; older ones are not safe")
    return text


def tls_versions(text: str) -> tuple[str, ...]:
    return tuple(map(tls_version, names(text)))


def refused(expected: str, why: str) -> Callable[[str], str]:
    """The form of a key whose meaning cannot be honoured, but for one value."""

    def form(text: str) -> str:
        if text.lower() != expected:
            raise ValueError(f"must be {expected or 'unset'}: {why}")
        return text.lower()

    return form


@dataclass(frozen=True, slots=True, repr=False)
class TlsConfig:
    """TLS on the client ports.

    `secure_port` None means no TLS port, 0 one that the system gives.
    """

    secure_port: int | None = key(
        "secureClientPort", optional_port, None, "port for clients with TLS", shown="none"
    )
    secure_address: str = key(
        "secureClientPortAddress", string, "0.0.0.0", "address that `secureClientPort` listens on"
    )
    port_unification: bool = key(
        "client.portUnification", boolean, False, "clients may speak TLS on `clientPort` as well"
    )
    key_store: str = key(
        "ssl.keyStore.location", pem_file, "", "PEM file with the server's key, certificate and chain"
    )
    key_store_type: str = key("ssl.keyStore.type", pem_type, "", "only PEM", shown="PEM")
    key_password: str = key("ssl.keyStore.password", string, "", "password of an encrypted key")
    key_password_path: str = key(
        "ssl.keyStore.passwordPath", string, "", "file with that password, which counts before the key above"
    )
    trust_store: str = key(
        "ssl.trustStore.location",
        pem_file,
        "",
        "PEM file with the authorities that sign clients' certificates",
    )
    trust_store_type: str = key("ssl.trustStore.type", pem_type, "", "only PEM", shown="PEM")
    trust_password: str = key("ssl.trustStore.password", string, "", "without a meaning for PEM")
    trust_password_path: str = key("ssl.trustStore.passwordPath", string, "", "without a meaning for PEM")
    client_auth: str = key(
        "ssl.clientAuth", client_auth, "need", "whether clients must show a certificate: none, want, need"
    )
    protocol: str = key(
        "ssl.protocol", tls_version, "TLSv1.2", "oldest version, where ssl.enabledProtocols is not set"
    )
    enabled_protocols: tuple[str, ...] = key(
        "ssl.enabledProtocols", tls_versions, (), "versions that are spoken", shown="TLSv1.2,TLSv1.3"
    )
    cipher_suites: tuple[str, ...] = key(
        "ssl.ciphersuites", names, (), "suites by their Java names", shown="OpenSSL's"
    )
    crl: bool = key(
        "ssl.crl",
        boolean,
        False,
        "clients' certificates are looked up in the CRLs in ssl.trustStore.location",
    )
    ocsp: str = key("ssl.ocsp", refused("false", "there is no OCSP here, use ssl.crl"), "false", "only false")
    client_hostname_verification: str = key(
        "ssl.clientHostnameVerification",
        refused("false", "names in clients' certificates are not compared with their addresses here"),
        "false",
        "only false",
    )
    hostname_verification: bool = key(
        "ssl.hostnameVerification", boolean, True, "without a meaning for a server"
    )
    context_supplier: str = key(
        "ssl.context.supplier.class", refused("", "classes cannot be loaded here"), "", "only unset"
    )
    auth_provider: str = key(
        "ssl.authProvider", refused("x509", "classes cannot be loaded here"), "x509", "only x509"
    )
    cert_id_type: str = key(
        "ssl.X509AuthenticationProvider.clientCertIdType",
        refused("subject", "the identity of a certificate is its subject"),
        "subject",
        "only the subject",
        aliases=("X509AuthenticationProvider.clientCertIdType",),
    )
    cert_reload: bool = key(
        "client.certReload", boolean, False, "changed files of keys and authorities are taken up at once"
    )
    handshake_ms_max: int = key(
        "ssl.handshakeDetectionTimeoutMillis", positive, 10_000, "milliseconds a client has for its handshake"
    )
    handshakes_max: int = key(
        "netty.server.outstandingHandshake.limit",
        integer,
        HANDSHAKES_MAX,
        f"handshakes under way at once; below 1 means {HANDSHAKES_MAX}",
    )

    def __post_init__(self) -> None:
        if not self.is_wanted:
            return
        where = "secureClientPort" if self.secure_port is not None else "client.portUnification"
        if not self.key_store:
            raise ConfigError(f"{where} is set: ssl.keyStore.location must name a PEM file")
        if self.client_auth != "none" and not self.trust_store:
            raise ConfigError(
                f"ssl.clientAuth is {self.client_auth}: ssl.trustStore.location must name a PEM file with "
                "the authorities that sign clients' certificates"
            )

    def __repr__(self) -> str:
        """Without the password."""
        return f"TlsConfig(secure_port={self.secure_port}, key_store={self.key_store!r})"

    @property
    def is_wanted(self) -> bool:
        return self.secure_port is not None or self.port_unification

    @property
    def asks_for_certificates(self) -> bool:
        return self.is_wanted and self.client_auth != "none"

    @property
    def versions(self) -> tuple[ssl.TLSVersion, ssl.TLSVersion]:
        """The oldest and the newest version that is spoken."""
        if not self.enabled_protocols:
            return _VERSIONS[self.protocol], ssl.TLSVersion.TLSv1_3
        wanted = sorted(_VERSIONS[name] for name in self.enabled_protocols)
        return wanted[0], wanted[-1]

    @property
    def handshake_count_max(self) -> int:
        return self.handshakes_max if self.handshakes_max > 0 else HANDSHAKES_MAX
