"""The first frames of a connection: who we are, what the server grants, and a SASL login.

Nothing else is on its way meanwhile, so each step is a request and its answer.
"""

import struct
from dataclasses import dataclass
from typing import Protocol

import trio

from coord.errors import AuthFailedError, ProtocolError
from coord.protocol import opcodes
from coord.protocol.digest_md5 import SaslError
from coord.protocol.jute import DecodeError, Reader, encode_buffer

#: What a ConnectResponse may measure; the longest known has 41 bytes.
CONNECT_RESPONSE_BYTES_MAX = 4096
#: What an answer to a SASL token may measure; a challenge has some hundred bytes.
SASL_RESPONSE_BYTES_MAX = 64 * 1024

_CONNECT = struct.Struct(">iqiqi16s?")
_CONNECTED = struct.Struct(">iiqi16s")
_LENGTH = struct.Struct(">i")
_REQUEST = struct.Struct(">iii")
_REPLY = struct.Struct(">iqi")


@dataclass(frozen=True, slots=True)
class Granted:
    """What a server's answer says; a `timeout_ms` of 0 or less: the session asked for is over."""

    timeout_ms: int
    session_id: int
    password: bytes
    read_only: bool


class Login(Protocol):
    """The client's side of a SASL mechanism; one for each connection."""

    def begin(self) -> bytes:
        """The first token."""
        ...

    def step(self, token: bytes) -> bytes | None:
        """Takes the server's token; the next of ours, or None when both sides are satisfied."""
        ...


def encode_connect(last_zxid: int, timeout_ms: int, identity: tuple[int, bytes], *, read_only: bool) -> bytes:
    """The frame of a ConnectRequest; `read_only` says that a server without a quorum will do."""
    session_id, password = identity
    body = _CONNECT.pack(0, last_zxid, timeout_ms, session_id, 16, password, read_only)
    return _LENGTH.pack(len(body)) + body


async def receive_granted(stream: trio.abc.ReceiveStream) -> tuple[Granted, bytes]:
    """The ConnectResponse, and what has come behind it.

    Raises:
        ProtocolError: the server closed the connection (it does not serve now), or this is none.
    """
    frame, rest = await _receive_frame(stream, b"", CONNECT_RESPONSE_BYTES_MAX, "a ConnectResponse")
    if len(frame) < _CONNECTED.size:
        raise ProtocolError(f"expected a ConnectResponse of {_CONNECTED.size} bytes, got {len(frame)}")
    _, timeout_ms, session_id, password_bytes, password = _CONNECTED.unpack_from(frame)
    if password_bytes != 16:
        raise ProtocolError(f"expected a session password of 16 bytes, got {password_bytes}")
    # Servers before 3.4 do not send the flag.
    read_only = frame[_CONNECTED.size : _CONNECTED.size + 1] not in (b"", b"\0")
    return Granted(timeout_ms, session_id, password, read_only), rest


async def log_in(stream: trio.abc.Stream, login: Login, rest: bytes) -> bytes:
    """A SASL login, by requests of type 102 (spec 11.5); what has come behind its last answer.

    Raises:
        AuthFailedError: the server rejected us, or did not prove that it knows the password itself.
        ProtocolError: an answer is none.
    """
    token: bytes | None = login.begin()
    while token is not None:
        answer, rest = await _exchange_token(stream, token, rest)
        if answer is None:
            raise AuthFailedError("the server knows no SASL users")
        try:
            token = login.step(answer)
        except SaslError as error:
            raise AuthFailedError(f"the SASL login failed: {error}") from error
    return rest


async def _exchange_token(stream: trio.abc.Stream, token: bytes, rest: bytes) -> tuple[bytes | None, bytes]:
    """Sends a token; the server's, and what has come behind it."""
    body = encode_buffer(token)
    await stream.send_all(_REQUEST.pack(len(body) + 8, 0, opcodes.SASL) + body)
    frame, rest = await _receive_frame(stream, rest, SASL_RESPONSE_BYTES_MAX, "an answer to a SASL token")
    if len(frame) < _REPLY.size:
        raise ProtocolError(f"expected an answer to a SASL token, got {len(frame)} bytes")
    err = _REPLY.unpack_from(frame)[2]
    if err:
        raise AuthFailedError(f"the server rejected the SASL login with error code {err}")
    try:
        return Reader(frame, _REPLY.size).read_buffer(), rest
    except DecodeError as error:
        raise ProtocolError(f"the answer to a SASL token cannot be decoded: {error}") from error


async def _receive_frame(
    stream: trio.abc.ReceiveStream, buffer: bytes, size_max: int, what: str
) -> tuple[bytes, bytes]:
    """One frame, which begins with `buffer`, and what has come behind it."""
    while len(buffer) < 4 or len(buffer) < 4 + _LENGTH.unpack_from(buffer)[0]:
        if len(buffer) >= 4 and _LENGTH.unpack_from(buffer)[0] > size_max:
            raise ProtocolError(f"expected {what}, got something that begins with {buffer[:4]!r}")
        data = await stream.receive_some(CONNECT_RESPONSE_BYTES_MAX)
        if not data:
            raise ProtocolError(
                "the server closed the connection: it is not in service, or its port is for TLS"
            )
        buffer += data
    end = 4 + max(0, _LENGTH.unpack_from(buffer)[0])
    return buffer[4:end], buffer[end:]
