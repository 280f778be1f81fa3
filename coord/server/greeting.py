"""The introduction of two servers over a connection, said and checked (`coord.server.introduction` has the
words).
"""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import trio

from coord.message import MessageError, decode_message, encode_message
from coord.server.election_port import MIXED, is_apache_length
from coord.server.introduction import (
    PROTOCOL_VERSION,
    Challenge,
    Hello,
    IntroductionError,
    Proof,
    Refusal,
    check_hello,
    check_proof,
    dialler_proof,
    listener_proof,
)
from coord.server.peer_tls import ByteStream

INTRODUCTION_BYTES_MAX: Final = 4096
INTRODUCTION_SECONDS_MAX: Final = 2.0
REASON_MAX: Final = 200

T = TypeVar("T")


Address = tuple[str, int]
"""Host and quorum port."""


class ForeignPeerError(IntroductionError):
    """The other side is a server of Apache ZooKeeper's."""


@dataclass(frozen=True, slots=True)
class LinkIdentity:
    """Who we are and whom we may meet: `addresses` are the other members', tried in order.
    `takes_strangers`: who proves the secret may come and learn though it is no member (yet).
    """

    ensemble: str
    secret: bytes
    sid: int
    addresses: dict[int, tuple[Address, ...]]
    takes_strangers: bool = False


async def introduce(stream: ByteStream, identity: LinkIdentity, sid: int, purpose: str, nonce: bytes) -> None:
    """The dialler's side.

    Raises:
        IntroductionError, MessageError: the listener is not who it should be.
        OSError, trio.BrokenResourceError, trio.TooSlowError: the connection ended, or nothing came.
    """
    with trio.fail_after(INTRODUCTION_SECONDS_MAX):
        hello = Hello(PROTOCOL_VERSION, identity.ensemble, identity.sid, sid, purpose, nonce)
        hello_bytes = encode_message(hello)
        await _send(stream, hello_bytes)
        challenge = _expect(Challenge, await _receive(stream))
        async with _refusing(stream):
            check_proof(listener_proof(identity.secret, hello_bytes, challenge.nonce), challenge.proof)
        proof = dialler_proof(identity.secret, hello_bytes, challenge.nonce)
        await _send(stream, encode_message(Proof(proof)))


async def hear_introduction(stream: ByteStream, identity: LinkIdentity, nonce: bytes) -> Hello:
    """The listener's side; the dialler is who its Hello says once this returns.

    Raises:
        As `introduce`.
    """
    with trio.fail_after(INTRODUCTION_SECONDS_MAX):
        hello_bytes = await _receive(stream)
        hello = decode_message(Hello, hello_bytes)
        members = None if identity.takes_strangers else frozenset(identity.addresses) | {identity.sid}
        async with _refusing(stream):
            check_hello(hello, identity.ensemble, identity.sid, members)
        challenge = Challenge(nonce, listener_proof(identity.secret, hello_bytes, nonce))
        await _send(stream, encode_message(challenge))
        proof = _expect(Proof, await _receive(stream))
        check_proof(dialler_proof(identity.secret, hello_bytes, nonce), proof.proof)
        return hello


@asynccontextmanager
async def _refusing(stream: ByteStream) -> AsyncIterator[None]:
    """Tells the other side what is wrong with it."""
    try:
        yield
    except IntroductionError as error:
        with contextlib.suppress(OSError, trio.BrokenResourceError):
            await _send(stream, encode_message(Refusal(str(error))))
        raise


def _expect(kind: type[T], data: bytes) -> T:
    """One message, or the reason why it does not come."""
    try:
        return decode_message(kind, data)
    except MessageError:
        try:
            refusal = decode_message(Refusal, data)
        except MessageError:
            refusal = None
        if refusal is None:
            raise
        raise IntroductionError(f"the other server refuses this one: {refusal.reason[:REASON_MAX]}") from None


async def _send(stream: ByteStream, payload: bytes) -> None:
    await stream.send_all(len(payload).to_bytes(4, "big") + payload)


async def _receive(stream: ByteStream) -> bytes:
    """One short message, read exactly: not a byte of what follows is taken."""
    length = int.from_bytes(await _receive_exactly(stream, 4), "big")
    if is_apache_length(length):
        raise ForeignPeerError(f"a server of Apache ZooKeeper's wants to join: {MIXED}")
    if length > INTRODUCTION_BYTES_MAX:
        raise IntroductionError(f"expected an introduction, got a frame of {length} bytes")
    return await _receive_exactly(stream, length)


async def _receive_exactly(stream: ByteStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = await stream.receive_some(count - len(data))
        if not part:
            raise IntroductionError("the connection ended during the introduction")
        data += part
    return data
