"""How two servers of an ensemble prove to each other who they are, before anything else is said: pure.

Both know the ensemble's secret; neither sends it. The dialler is D, the listener L:

    D -> L   Hello        ensemble, D's sid, the sid it means to reach, what the link is for, a nonce
    L -> D   Challenge    L's own nonce, and HMAC-SHA256(secret, "listener" | everything said so far)
    D -> L   Proof        HMAC-SHA256(secret, "dialler" | everything said so far)

Who refuses the other says why, in a Refusal, before it closes: so both logs have the reason.

Each nonce is 32 fresh random bytes, so nothing recorded can be played again; the role inside the HMAC keeps
a proof from being reflected to its sender; the sids inside keep it from being passed on to a third server.
What follows on the link is not encrypted unless `sslQuorum` puts TLS beneath it all: plain links belong on a
private network, as ZooKeeper's do.
"""

import hashlib
import hmac
from typing import Final

from coord.message import message

NONCE_BYTES: Final = 32
PURPOSE_MESSAGES: Final = "messages"
PURPOSE_SNAPSHOT: Final = "snapshot"
PURPOSE_REPAIR: Final = "repair"
PURPOSES: Final = (PURPOSE_MESSAGES, PURPOSE_SNAPSHOT, PURPOSE_REPAIR)
PROTOCOL_VERSION: Final = 1
SID_MAX: Final = 255


class IntroductionError(Exception):
    """The other side is not who it must be, or not a server of ours at all; the connection is closed."""


@message(1)
class Hello:
    """The dialler's first words."""

    version: int
    ensemble: str
    sid: int
    target_sid: int
    purpose: str
    nonce: bytes


@message(2)
class Challenge:
    """The listener proves itself and asks for the same."""

    nonce: bytes
    proof: bytes


@message(3)
class Proof:
    """The dialler's answer; the link is open once the listener has checked it."""

    proof: bytes


@message(4)
class Refusal:
    """In place of a Challenge or a Proof: why the conversation ends, for the log of the other side."""

    reason: str


def check_hello(hello: Hello, ensemble: str, sid: int, members: frozenset[int] | None) -> None:
    """The listener's first look. `members`: who may come; None: everybody who proves the secret.

    Raises:
        IntroductionError: names what does not fit.
    """
    if hello.version != PROTOCOL_VERSION:
        raise IntroductionError(f"peer protocol version {hello.version}, expected {PROTOCOL_VERSION}")
    if hello.ensemble != ensemble:
        raise IntroductionError(f"ensemble.id {hello.ensemble[:40]!r}, expected {ensemble!r}")
    if hello.target_sid != sid:
        raise IntroductionError(f"looks for server.{hello.target_sid}, this is server.{sid}")
    if hello.sid == sid or (members is not None and hello.sid not in members):
        raise IntroductionError(f"server.{hello.sid} is no other member of this ensemble")
    if not 0 < hello.sid <= SID_MAX:
        raise IntroductionError(f"server.{hello.sid} is no server's number, expected 1 to {SID_MAX}")
    if hello.purpose not in PURPOSES:
        raise IntroductionError(f"unknown purpose {hello.purpose[:40]!r}")
    if len(hello.nonce) != NONCE_BYTES:
        raise IntroductionError(f"nonce of {len(hello.nonce)} bytes, expected {NONCE_BYTES}")


def listener_proof(secret: bytes, hello_bytes: bytes, nonce: bytes) -> bytes:
    return _proof(secret, b"listener", hello_bytes, nonce)


def dialler_proof(secret: bytes, hello_bytes: bytes, nonce: bytes) -> bytes:
    return _proof(secret, b"dialler", hello_bytes, nonce)


def check_proof(expected: bytes, got: bytes) -> None:
    """Compares in constant time.

    Raises:
        IntroductionError: the other side does not have our secret.
    """
    if not hmac.compare_digest(expected, got):
        raise IntroductionError("the other side does not have this ensemble's secret")


def _proof(secret: bytes, role: bytes, hello_bytes: bytes, nonce: bytes) -> bytes:
    said = b"".join(len(part).to_bytes(4, "big") + part for part in (role, hello_bytes, nonce))
    return hmac.digest(secret, said, hashlib.sha256)
