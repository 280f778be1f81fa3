"""What somebody speaks who does not speak the protocol of the port he has reached. Pure."""

from typing import Final

from coord.server.words import WORD_NAMES

TLS_RECORD: Final = b"\x16\x03"
"""A TLS client's first record: a handshake, of version 3."""
HTTP_METHODS: Final = frozenset(
    {b"GET ", b"POST", b"HEAD", b"PUT ", b"DELE", b"OPTI", b"PATC", b"CONN", b"TRAC", b"PRI "}
)
"""First four bytes of a request; the last is the preface of HTTP/2."""


def spoken_by(first: bytes) -> tuple[str, str] | None:
    """What is spoken, by the first four bytes of a connection, and what its people should do; None when it is
    nothing known.
    """
    if first.startswith(TLS_RECORD):
        return "TLS", "give this client the TLS port (secureClientPort), or turn its TLS off"
    if first in HTTP_METHODS:
        return "HTTP", "this port is ZooKeeper's; give this client the port of the admin server"
    return None


def spoken_without_tls(first: bytes) -> str:
    """The same of a TLS port, for who speaks no TLS there: what it is, and what to do."""
    if first[:4] in HTTP_METHODS:
        return "plain HTTP (this port is ZooKeeper's; give this client the port of the admin server)"
    if first[:4] in WORD_NAMES:
        return "a four-letter word in plain text (ask clientPort, or ask with TLS)"
    if first[:2] == b"\0\0":  # the length of a frame with a connect request
        return "plain ZooKeeper protocol (turn this client's TLS on, or give it clientPort)"
    return "no TLS (it is no client of ZooKeeper's)"
