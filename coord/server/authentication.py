"""Who a client is (specification 11.4 to 11.6): from credentials to the identities of its connection.

Nothing here waits or touches a connection: functions of what the client sent and what the operator has
configured. An identity counts for the requests received after it, on its connection only.

An auth packet can do no more than add an identity; there is no database of digest users. So what a client
may pile up is bounded, in number and bytes: each write carries its connection's identities through the log.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Final

from coord.protocol.digest_md5 import DigestMd5Server
from coord.protocol.jute import Reader
from coord.protocol.records import Identity
from coord.protocol.x509 import subject_name
from coord.server.config.security import SecurityConfig
from coord.server.statistics import ServerStatistics

IDENTITIES_MAX: Final = 64
"""Identities of one connection."""
IDENTITY_BYTES_MAX: Final = 8 * 1024
"""Characters of all of them together."""
NONCE_BYTES: Final = 30

SUPER: Final = Identity("super", "")

_PRINCIPAL: Final = re.compile(r"([^/@]*)(/[^/@]*)?(@[^/@]*)")


class CredentialError(Exception):
    """The scheme takes no credentials, or these are none of it; the connection ends with AuthFailed."""


class WrongEnsembleError(Exception):
    """The client looks for another ensemble; its connection ends without a reply, so that it tries the next
    server.
    """


class Authentication:
    """The schemes of one server.

    Args:
        x509: whether clients may show certificates.
        make_random: fresh random bytes.

    Attributes:
        enforced: schemes of which a connection must have an identity before it is served; empty for none.
    """

    def __init__(
        self,
        config: SecurityConfig,
        statistics: ServerStatistics,
        *,
        x509: bool,
        make_random: Callable[[int], bytes],
    ) -> None:
        self._config = config
        self._statistics = statistics
        self._x509 = x509
        self._make_random = make_random
        self.enforced = frozenset(config.enforced_schemes)

    # -- auth packets (100) --------------------------------------------------------------------------------

    def read_auth_packet(self, body: bytes, mine: tuple[Identity, ...]) -> tuple[Identity, ...]:
        """The identities of a connection that had `mine`, after an AuthPacket.

        Raises:
            CredentialError: refused.
            WrongEnsembleError: it names other ensembles.
            DecodeError: the bytes are no AuthPacket.
        """
        reader = Reader(body)
        reader.read_int()
        scheme = reader.read_text()
        credentials = reader.read_buffer()
        if scheme == "digest" and self._config.digest_enabled and credentials is not None:
            return extend(mine, self._digest_identities(credentials))
        if scheme == "ensemble" and self._config.has_ensemble_provider:
            self._check_ensemble(credentials)
            return mine
        if scheme == "ip" or (scheme == "x509" and any(one.scheme == "x509" for one in mine)):
            return mine  # such an identity comes with the connection; to ask for it again is no mistake
        raise CredentialError(f"no credentials of scheme {scheme!r} are accepted")

    def _digest_identities(self, credentials: bytes) -> tuple[Identity, ...]:
        """Whatever password is given makes an identity (specification 11.4)."""
        user = credentials.decode("utf-8", "replace").partition(":")[0]
        digest = hashlib.new(self._config.digest_algorithm, credentials, usedforsecurity=False).digest()
        name = f"{user}:{base64.b64encode(digest).decode()}"
        identity = Identity("digest", name)
        return (identity, SUPER) if name == self._config.super_digest else (identity,)

    def _check_ensemble(self, credentials: bytes | None) -> None:
        name = (credentials or b"").decode("utf-8", "replace")
        if not name or not self._config.ensemble_names:
            self._statistics.ensemble_auth_skip += 1
        elif name in self._config.ensemble_names:
            self._statistics.ensemble_auth_success += 1
        else:
            self._statistics.ensemble_auth_fail += 1
            raise WrongEnsembleError(f"the client looks for the ensemble {name[:100]!r}")

    # -- SASL (102) ----------------------------------------------------------------------------------------

    def begin_sasl(self) -> DigestMd5Server | None:
        """A new exchange; None where no users are configured."""
        if not self._config.sasl_passwords:
            return None
        nonce = base64.b64encode(self._make_random(NONCE_BYTES)).decode()
        return DigestMd5Server(self._config.sasl_passwords.get, nonce)

    def sasl_identities(self, user: str) -> tuple[Identity, ...]:
        """What a login as `user` proves (specification 11.5)."""
        principal = _PRINCIPAL.fullmatch(user)
        name = user
        if principal is not None:
            host = "" if self._config.remove_host else principal[2] or ""
            realm = "" if self._config.remove_realm else principal[3]
            name = principal[1] + host + realm
        identity = Identity("sasl", name)
        return (identity, SUPER) if name in self._config.all_super_users else (identity,)

    @property
    def is_sasl_required(self) -> bool:
        return "sasl" in self.enforced

    @property
    def is_sasl_failure_allowed(self) -> bool:
        return self._config.allow_sasl_failed and not self.is_sasl_required

    # -- certificates --------------------------------------------------------------------------------------

    def certificate_identities(self, certificate: bytes | None) -> tuple[Identity, ...]:
        """What a verified client certificate (DER) proves; nothing without one.

        Raises:
            CredentialError: its subject is too long.
            DecodeError: it is none, or its subject cannot be read.
        """
        if certificate is None or not self._x509:
            return ()
        name = subject_name(certificate)
        identity = Identity("x509", name)
        is_super = bool(name) and name == self._config.x509_super_user
        return extend((), (identity, SUPER) if is_super else (identity,))

    # -- enforcement ---------------------------------------------------------------------------------------

    def is_sufficient(self, identities: Iterable[Identity]) -> bool:
        """Whether a connection with these identities is served (specification 11.6)."""
        return not self.enforced or any(identity.scheme in self.enforced for identity in identities)


def extend(mine: tuple[Identity, ...], added: tuple[Identity, ...]) -> tuple[Identity, ...]:
    """`mine` and `added`, each once.

    Raises:
        CredentialError: there would be more than one connection may have.
    """
    identities = tuple(dict.fromkeys(mine + added))
    size = sum(len(identity.id) for identity in identities)
    if len(identities) > IDENTITIES_MAX or size > IDENTITY_BYTES_MAX:
        raise CredentialError(
            f"expected at most {IDENTITIES_MAX} identities of {IDENTITY_BYTES_MAX} characters, "
            f"got {len(identities)} of {size}"
        )
    return identities
