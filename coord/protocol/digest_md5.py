"""SASL DIGEST-MD5 (RFC 2831) as ZooKeeper uses it (specification 11.5): both sides, without a socket.

    server                                          client
                     ◄── empty ───────────────────  begin()
    step(b"")        ─── realm, nonce … ──────────► step(challenge)
    step(response)   ◄── username, response … ────
                     ─── rspauth=… ───────────────► step(token), is_complete

Tokens travel in requests of type 102 (`GetSASLRequest{buffer token}`) and their replies
(`SetSASLResponse{buffer token}`). Realm, service and server name are ZooKeeper's own; there is no security
layer (`qop` is `auth`). Chance is an argument: nonces come from whoever makes the exchange.

The mechanism proves that both sides know the password without sending it. It is MD5: whoever listens can
guess weak passwords, so use it over TLS.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

REALM: Final = "zk-sasl-md5"
DIGEST_URI: Final = "zookeeper/zk-sasl-md5"

TOKEN_BYTES_MAX: Final = 4096
"""A token of RFC 2831 is shorter; a longer one is refused unread."""

_DIRECTIVE: Final = re.compile(
    rb'[\t\n\r ,]*([!#-\'*+.0-9A-Z^-z|~-]+)[\t\n\r ]*=[\t\n\r ]*(?:"((?:[^"\\]|\\.)*)"|([^\t\n\r ",]+))'
    rb"[\t\n\r ]*(?:,|$)",
    re.DOTALL,
)
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)
_NONCE_COUNT: Final = b"00000001"


class SaslError(Exception):
    """The other side did not prove what it must, or its token is none; the exchange is over."""


class DigestMd5Server:
    """One exchange, of one connection.

    Args:
        find_password: the password of a user, None for one that is unknown.
        nonce: fresh and unguessable, printable, without quotes.

    Attributes:
        user: who has logged in; None until then.
    """

    __slots__ = ("_challenged", "_find_password", "_nonce", "user")

    def __init__(self, find_password: Callable[[str], str | None], nonce: str) -> None:
        self._find_password = find_password
        self._nonce = nonce.encode("ascii")
        self._challenged = False
        self.user: str | None = None

    def step(self, token: bytes) -> bytes:
        """Takes the client's next token and returns ours; after the second call `user` is set.

        Raises:
            SaslError: refused.
        """
        if self.user is not None:
            raise SaslError("expected no token after the exchange is complete")
        if not self._challenged:
            self._challenged = True  # whatever the first token holds, as ZooKeeper's server does
            parts = (REALM.encode(), self._nonce)
            return b'realm="%b",nonce="%b",charset=utf-8,algorithm=md5-sess' % parts
        directives = parse_directives(token)
        user, proof = self._check(directives)
        self.user = user
        return b"rspauth=" + proof

    def _check(self, directives: Mapping[str, bytes]) -> tuple[str, bytes]:
        """The user, and what proves to him that we know the password as well."""
        expected = {"nonce": self._nonce, "nc": _NONCE_COUNT, "digest-uri": DIGEST_URI.encode()}
        for name, value in expected.items():
            if directives.get(name) != value:
                raise SaslError(f"expected {name} {value!r}, got {directives.get(name)!r}")
        if directives.get("qop", b"auth") != b"auth":
            raise SaslError(f"expected qop auth, got {directives['qop']!r}")
        if directives.get("realm", b"") != REALM.encode():
            raise SaslError(f"expected realm {REALM!r}, got {directives.get('realm')!r}")
        if directives.get("charset", b"utf-8").lower() != b"utf-8":
            raise SaslError(f"expected charset utf-8, got {directives['charset']!r}")
        for name in ("username", "cnonce", "response"):
            if not directives.get(name):
                raise SaslError(f"expected a {name}, got none")
        user = _text(directives["username"])
        password = self._find_password(user)
        cnonce, authzid = directives["cnonce"], directives.get("authzid")
        # The work is the same for a user we do not know, so that the time taken does not tell.
        for secret in _secrets(user, password or ""):
            session = _session(secret, self._nonce, cnonce, authzid)
            response = _response(session, self._nonce, cnonce, b"AUTHENTICATE:")
            if hmac.compare_digest(response, directives["response"]) and password is not None:
                return user, _response(session, self._nonce, cnonce, b":")
        raise SaslError(f"wrong user or password for {user!r}")


class DigestMd5Client:
    """One exchange, on one connection: send `begin()`, then what `step` makes of each token that comes back,
    until `is_complete`.

    Args:
        user: the name, and the identity asked for.
        cnonce: fresh and unguessable, printable, without quotes.
    """

    __slots__ = ("_cnonce", "_nonce", "_password", "_session", "_user", "is_complete")

    def __init__(self, user: str, password: str, cnonce: str) -> None:
        self._user = user
        self._password = password
        self._cnonce = cnonce.encode("ascii")
        self._nonce = b""
        self._session: bytes | None = None
        self.is_complete = False

    def begin(self) -> bytes:
        """The first token, which is empty."""
        return b""

    def step(self, token: bytes) -> bytes | None:
        """Takes the server's token and returns the next to send; None when the exchange is complete, and the
        server has proved that it knows the password.

        Raises:
            SaslError: the server speaks another mechanism, or does not know the password.
        """
        directives = parse_directives(token)
        if self._session is None:
            return self._respond(directives)
        expected = _response(self._session, self._nonce, self._cnonce, b":")
        if not hmac.compare_digest(directives.get("rspauth", b""), expected):
            raise SaslError("the server did not prove that it knows the password")
        self.is_complete = True
        return None

    def _respond(self, directives: Mapping[str, bytes]) -> bytes:
        if directives.get("algorithm") != b"md5-sess":
            raise SaslError(f"expected algorithm md5-sess, got {directives.get('algorithm')!r}")
        if b"auth" not in re.split(rb"[\t ]*,[\t ]*", directives.get("qop", b"auth")):
            raise SaslError(f"expected qop auth among those offered, got {directives['qop']!r}")
        self._nonce = directives.get("nonce", b"")
        if not self._nonce:
            raise SaslError("expected a nonce, got none")
        realm = _text(directives.get("realm", b""))
        as_utf8 = directives.get("charset", b"").lower() == b"utf-8"
        name = self._user.encode("utf-8" if as_utf8 else "latin-1", "replace")
        secret = _secret(*map(_rfc_bytes, (self._user, realm, self._password)))
        self._session = _session(secret, self._nonce, self._cnonce, None)
        response = _response(self._session, self._nonce, self._cnonce, b"AUTHENTICATE:")
        return b"".join(
            (
                b"charset=utf-8," if as_utf8 else b"",
                b'username="%b",realm="%b",' % (_escape(name), _escape(directives.get("realm", b""))),
                b'nonce="%b",nc=%b,cnonce="%b",' % (_escape(self._nonce), _NONCE_COUNT, self._cnonce),
                b'digest-uri="%b",maxbuf=65536,response=%b,qop=auth' % (DIGEST_URI.encode(), response),
            )
        )


def parse_directives(token: bytes) -> dict[str, bytes]:
    """The directives of a token, names in lower case, values unquoted.

    Raises:
        SaslError: the bytes are none, or one comes twice.
    """
    if len(token) > TOKEN_BYTES_MAX:
        raise SaslError(f"expected a token of at most {TOKEN_BYTES_MAX} bytes, got {len(token)}")
    directives: dict[str, bytes] = {}
    offset = 0
    while offset < len(token):
        found = _DIRECTIVE.match(token, offset)
        if found is None:
            raise SaslError(f"expected name=value at offset {offset} of a token")
        name = found[1].decode("ascii").lower()
        if name in directives:
            raise SaslError(f"expected one {name}, got two")
        directives[name] = found[3] if found[2] is None else _ESCAPED.sub(rb"\1", found[2])
        offset = found.end()
    return directives


def _secrets(user: str, password: str) -> Iterator[bytes]:
    """H(user:realm:password) in the two encodings that clients use: that of RFC 2831 2.1.2.1 (each part in
    ISO 8859-1 where it can be) and plain UTF-8, as pure-sasl has it. They are one unless a part is beyond
    ASCII.
    """
    yield _secret(_rfc_bytes(user), REALM.encode(), _rfc_bytes(password))
    if not (user.isascii() and password.isascii()):
        yield _secret(user.encode("utf-8", "replace"), REALM.encode(), password.encode("utf-8", "replace"))


def _secret(user: bytes, realm: bytes, password: bytes) -> bytes:
    return _md5(b":".join((user, realm, password)))


def _session(secret: bytes, nonce: bytes, cnonce: bytes, authzid: bytes | None) -> bytes:
    """HEX(H(A1)) of RFC 2831 2.1.2.1."""
    parts = (secret, nonce, cnonce) if authzid is None else (secret, nonce, cnonce, authzid)
    return _md5(b":".join(parts)).hex().encode()


def _response(session: bytes, nonce: bytes, cnonce: bytes, purpose: bytes) -> bytes:
    """The response-value; `purpose` is `AUTHENTICATE:` for the client's and `:` for the server's."""
    a2 = _md5(purpose + DIGEST_URI.encode()).hex().encode()
    return _md5(b":".join((session, nonce, _NONCE_COUNT, cnonce, b"auth", a2))).hex().encode()


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _rfc_bytes(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _text(value: bytes) -> str:
    """UTF-8, as every client of today sends it, whether it says so or not; else ISO 8859-1."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _escape(value: bytes) -> bytes:
    return value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
