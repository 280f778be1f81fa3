"""TLS of the client ports: from the keys of zoo.cfg to a context, and a new one when its files change.

Java's names of protocols and cipher suites become OpenSSL's; PEM files stand where ZooKeeper has stores. What
Python's ssl cannot do as the file says is an error, never something weaker.
"""

import os
import re
import ssl
from pathlib import Path
from typing import Final

import trio

from coord import eventlog, tls
from coord.server.config.keys import ConfigError
from coord.server.config.tls import TlsConfig

RELOAD_SECONDS: Final = 1
"""How often the files are looked at, when they are to be reloaded."""

_SUITE: Final = re.compile(
    r"TLS_(?:(ECDHE|DHE)_)?(RSA|ECDSA)_WITH_"
    r"(?:AES_(128|256)_(?:(GCM)|CBC)_(SHA(?:256|384)?)|CHACHA20_POLY1305_SHA256)"
)
_SUITES_OF_1_3: Final = frozenset(
    {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
)

log = eventlog.get("coord.server")


class ClientTls:
    """The context of the client ports.

    Raises:
        ConfigError: the files or names cannot be used.
    """

    def __init__(self, config: TlsConfig) -> None:
        self._config = config
        self._files = _state_of_files(config)
        self._context = make_context(config)

    def current(self) -> ssl.SSLContext:
        """For each new connection."""
        return self._context

    def check(self) -> bool:
        """Takes up changed files; bad ones are named in the log and change nothing. Returns whether there is
        a new context.
        """
        files = _state_of_files(self._config)
        if files == self._files:
            return False
        self._files = files
        try:
            self._context = make_context(self._config)
        except ConfigError as error:
            log.error("changed TLS files cannot be used", do="mend them, the old ones go on", error=error)
            return False
        log.info("has new TLS files", key_store=self._config.key_store, trust_store=self._config.trust_store)
        return True

    async def watch(self) -> None:
        """Checks for ever."""
        while True:
            await trio.sleep(RELOAD_SECONDS)
            self.check()


def make_context(config: TlsConfig) -> ssl.SSLContext:
    """The context that the configuration describes.

    Raises:
        ConfigError: it describes none.
    """
    password = _password(config)
    _check_pem("ssl.keyStore.location", config.key_store)
    if config.trust_store:
        _check_pem("ssl.trustStore.location", config.trust_store)
    asks = config.client_auth != "none"
    try:
        context = tls.server_context(
            config.key_store,
            key_password=password,
            client_ca_path=config.trust_store if asks else None,
            requires_certificate=config.client_auth == "need",
        )
    except (OSError, ValueError) as error:  # OpenSSL's errors are OSErrors
        raise ConfigError(_explain(config, error)) from error
    oldest, newest = config.versions
    context.minimum_version, context.maximum_version = oldest, newest
    if config.cipher_suites:
        _choose_suites(context, config.cipher_suites)
    if config.crl and asks:
        if b"-----BEGIN X509 CRL" not in Path(config.trust_store).read_bytes():
            raise ConfigError(f"ssl.crl is true: expected CRLs (PEM) in {config.trust_store}, found none")
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def openssl_name(suite: str) -> str:
    """OpenSSL's name of a cipher suite of TLS 1.2 that has Java's.

    Raises:
        ConfigError: there is none that is safe.
    """
    found = _SUITE.fullmatch(suite)
    if found is None:
        raise ConfigError(f"ssl.ciphersuites names {suite}, which is not known here or not safe")
    exchange, signature, bits, gcm, digest = found.groups()
    cipher = "CHACHA20-POLY1305" if bits is None else f"AES{bits}{'-GCM' if gcm else ''}-{digest}"
    return f"{exchange}-{signature}-{cipher}" if exchange else cipher


def _choose_suites(context: ssl.SSLContext, suites: tuple[str, ...]) -> None:
    of_1_3 = _SUITES_OF_1_3.intersection(suites)
    older = [openssl_name(suite) for suite in suites if suite not in _SUITES_OF_1_3]
    if of_1_3 and of_1_3 != _SUITES_OF_1_3:
        missing = ", ".join(sorted(_SUITES_OF_1_3 - of_1_3))
        raise ConfigError(
            f"ssl.ciphersuites: TLS 1.3 comes with all its suites here or not at all; add {missing}, or name "
            "none of them"
        )
    if older:
        try:
            context.set_ciphers(":".join(older))
        except ssl.SSLError as error:
            raise ConfigError(f"ssl.ciphersuites: OpenSSL has none of {', '.join(older)}") from error
    wanted = (context.minimum_version, context.maximum_version)
    if not of_1_3:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    elif not older:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    if context.minimum_version > context.maximum_version:
        raise ConfigError(f"ssl.ciphersuites has none for {wanted[0].name} to {wanted[1].name}")


def _password(config: TlsConfig) -> str:
    if not config.key_password_path:
        return config.key_password
    try:
        return Path(config.key_password_path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(
            f"ssl.keyStore.passwordPath {config.key_password_path} cannot be read: {reason}"
        ) from error


def _check_pem(key: str, path: str) -> None:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{key} {path} cannot be read: {error.strerror or error}") from error
    if b"-----BEGIN " not in data:
        raise ConfigError(
            f"{key} {path} is no PEM file; Java's stores are converted with `keytool -importkeystore "
            "-deststoretype pkcs12` and `openssl pkcs12 -nodes`"
        )


def _explain(config: TlsConfig, error: Exception) -> str:
    reason = getattr(error, "reason", None) or str(error)
    stores = f"ssl.keyStore.location {config.key_store} or ssl.trustStore.location {config.trust_store}"
    return (
        f"{stores.strip()} cannot be used: {reason} (expected certificate and key in the first, the password "
        "of an encrypted key in ssl.keyStore.password, authorities in the second)"
    )


def _state_of_files(config: TlsConfig) -> tuple[tuple[int, int, int] | None, ...]:
    return tuple(map(_state_of, (config.key_store, config.trust_store, config.key_password_path)))


def _state_of(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
