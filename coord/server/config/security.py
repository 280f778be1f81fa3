"""Keys of authentication, ACLs, SASL and audit."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Final

from coord.server.config.keys import ConfigError, boolean, family, key, names, string
from coord.server.properties import read_properties

DIGEST_ALGORITHMS: Final = {
    "MD5": "md5",
    "SHA": "sha1",
    "SHA1": "sha1",
    "SHA-1": "sha1",
    "SHA-224": "sha224",
    "SHA-256": "sha256",
    "SHA-384": "sha384",
    "SHA-512": "sha512",
}
"""Java's names of digest algorithms, and Python's."""

PROVIDERS: Final = {
    "DigestAuthenticationProvider": "digest",
    "EnsembleAuthenticationProvider": "ensemble",
    "IPAuthenticationProvider": "ip",
    "SASLAuthenticationProvider": "sasl",
    "X509AuthenticationProvider": "x509",
}
_PACKAGE: Final = "org.apache.zookeeper.server.auth."
_SECRETS: Final = frozenset({"sasl_users", "sasl_passwords", "sasl_super_password", "super_digest"})
_USER_PREFIX: Final = "sasl.digest.user."


def yes_no(text: str) -> bool:
    """ZooKeeper takes `yes`, and everything else for no; here a word that is neither is a mistake."""
    match text.lower():
        case "yes":
            return True
        case "no":
            return False
    raise ValueError("must be yes or no")


def digest_algorithm(text: str) -> str:
    found = DIGEST_ALGORITHMS.get(text.upper())
    if found is None:
        raise ValueError(f"must be one of {', '.join(DIGEST_ALGORITHMS)}")
    return found


def provider(text: str) -> str:
    """The scheme of one of ZooKeeper's own provider classes."""
    scheme = PROVIDERS.get(text.removeprefix(_PACKAGE))
    if scheme is None:
        raise ValueError(
            "must be one of ZooKeeper's own classes, since classes of Java cannot be loaded "
            f"({_PACKAGE}{', '.join(PROVIDERS)})"
        )
    return scheme


def super_digest(text: str) -> str:
    user, colon, digest = text.partition(":")
    if not (user and colon and digest) or ":" in digest:
        raise ValueError("must be user:base64-digest")
    return text


@dataclass(frozen=True, slots=True, repr=False)
class SecurityConfig:
    """Who may do what.

    `sasl_passwords` are those of all users of SASL DIGEST-MD5, wherever they stand.
    """

    skip_acl: bool = key("skipACL", yes_no, False, "`yes` lets everybody do everything", shown="no")
    super_digest: str = key(
        "DigestAuthenticationProvider.superDigest",
        super_digest,
        "",
        "`user:digest` of the super user; none without it",
    )
    digest_enabled: bool = key(
        "DigestAuthenticationProvider.enabled", boolean, True, "`false` removes the scheme `digest`"
    )
    digest_algorithm: str = key(
        "DigestAuthenticationProvider.digestAlg",
        digest_algorithm,
        "sha1",
        f"algorithm of the digests in ACLs: {', '.join(DIGEST_ALGORITHMS)}",
        shown="SHA1",
    )
    providers: tuple[tuple[str, str], ...] = family(
        "authProvider.", provider, f"`{_PACKAGE}…`: ZooKeeper's own providers only; any name after the dot"
    )
    super_user: str = key("superUser", string, "", "name that is super after a SASL login")
    super_users: tuple[tuple[str, str], ...] = family("superUser.", string, "more such names")
    x509_super_user: str = key(
        "X509AuthenticationProvider.superUser", string, "", "certificate subject that is super"
    )
    ensemble_names: tuple[str, ...] = key(
        "ensembleAuthName", names, (), "names of the ensemble that clients of the scheme `ensemble` may give"
    )
    sasl_users: tuple[tuple[str, str], ...] = family(
        _USER_PREFIX, string, "password of a user of SASL DIGEST-MD5"
    )
    sasl_user_file: str = key(
        "sasl.digest.userFile", string, "", "file with more users, one `NAME=PASSWORD` a line"
    )
    sasl_super_password: str = key(
        "SASLAuthenticationProvider.superPassword", string, "", "password of the SASL user `super`"
    )
    require_sasl: bool = key(
        "sessionRequireClientSASLAuth", boolean, False, "only clients that have logged in by SASL are served"
    )
    allow_sasl_failed: bool = key(
        "allowSaslFailedClients", boolean, False, "a failed SASL login does not end the connection"
    )
    remove_host: bool = key(
        "kerberos.removeHostFromPrincipal", boolean, False, "SASL names `name/host@REALM` lose their host"
    )
    remove_realm: bool = key(
        "kerberos.removeRealmFromPrincipal", boolean, False, "SASL names `name/host@REALM` lose their realm"
    )
    enforce_enabled: bool = key(
        "enforce.auth.enabled", boolean, False, "only clients of an enforced scheme are served"
    )
    enforce_schemes: tuple[str, ...] = key(
        "enforce.auth.schemes", names, (), "schemes of which a client needs one, when enforced"
    )
    audit_enabled: bool = key("audit.enable", boolean, False, "every change is a line in the audit log")
    audit_file: str = key("audit.logFile", string, "", "file of the audit log", shown="the server's log")

    sasl_passwords: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sasl_passwords", _passwords(self))
        if self.require_sasl and self.allow_sasl_failed:
            raise ConfigError("sessionRequireClientSASLAuth and allowSaslFailedClients contradict each other")
        if self.enforce_enabled and not self.enforced_schemes:
            raise ConfigError("enforce.auth.enabled is true: enforce.auth.schemes must name a scheme")

    def __repr__(self) -> str:
        """Without what must not get into a log."""
        shown = [
            f"{one.name}={getattr(self, one.name)!r}" for one in fields(self) if one.name not in _SECRETS
        ]
        return f"SecurityConfig({', '.join(shown)})"

    @property
    def enforced_schemes(self) -> tuple[str, ...]:
        """The schemes of which a client needs one before anything else; empty where none is enforced."""
        schemes = self.enforce_schemes if self.enforce_enabled else ()
        return tuple(dict.fromkeys((*schemes, "sasl"))) if self.require_sasl else schemes

    @property
    def all_super_users(self) -> frozenset[str]:
        """SASL names that are super."""
        return frozenset(name for name in (self.super_user, *dict(self.super_users).values()) if name)

    @property
    def has_ensemble_provider(self) -> bool:
        return "ensemble" in dict(self.providers).values()


def check_schemes(security: SecurityConfig, *, x509: bool) -> None:
    """Refuses an enforcement that no client could ever satisfy: the server would serve nobody.

    Args:
        x509: whether clients may show certificates.

    Raises:
        ConfigError: an enforced scheme cannot be proved here.
    """
    obstacles = {
        "digest": "" if security.digest_enabled else "DigestAuthenticationProvider.enabled is false",
        "sasl": "" if security.sasl_passwords else "there are no SASL users (sasl.digest.user.NAME=PASSWORD)",
        "x509": ""
        if x509
        else "clients show certificates on a TLS port only, with ssl.clientAuth want or need",
        "ip": "",
    }
    where = "enforce.auth.schemes" if security.enforce_enabled else "sessionRequireClientSASLAuth"
    for scheme in security.enforced_schemes:
        obstacle = obstacles.get(scheme, f"expected one of {', '.join(obstacles)}")
        if obstacle:
            raise ConfigError(f"{where}: no client can authenticate by {scheme!r}: {obstacle}")


def _passwords(security: SecurityConfig) -> dict[str, str]:
    passwords = _read_users(security.sasl_user_file) if security.sasl_user_file else {}
    passwords |= dict(security.sasl_users)
    if security.sasl_super_password:
        passwords["super"] = security.sasl_super_password
    for name, password in passwords.items():
        if not password:
            raise ConfigError(f"{_USER_PREFIX}{name}: the password is empty")
    return passwords


def _read_users(path: str) -> dict[str, str]:
    """A properties file of `NAME=PASSWORD`, or of the keys that zoo.cfg would have."""
    try:
        pairs = read_properties(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"sasl.digest.userFile {path} cannot be read: {reason}") from error
    return {name.removeprefix(_USER_PREFIX): password for name, password in pairs.items()}
