"""The first frames of a connection: whatever a server sends, it is an answer or says whose fault it is."""

import struct

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from coord.client.handshake import CONNECT_RESPONSE_BYTES_MAX, Granted, log_in, receive_granted
from coord.errors import AuthFailedError, ProtocolError
from coord.protocol.digest_md5 import DigestMd5Client
from coord.protocol.records import encode_connect_response, encode_expired_response

PASSWORD = bytes(range(16))


async def receive(*parts: bytes) -> tuple[Granted, bytes]:
    """What comes of a server that sends `parts` and closes."""
    stream = trio.testing.MemoryReceiveStream()
    for part in parts:
        stream.put_data(part)
    stream.put_eof()
    return await receive_granted(stream)


@pytest.mark.parametrize(("flag", "read_only"), [(None, False), (False, False), (True, True)])
async def test_an_answer_with_and_without_the_flag(flag: bool | None, read_only: bool) -> None:
    """Spec 4.1: servers before 3.4 do not send it."""
    frame = encode_connect_response(4000, 77, PASSWORD, flag=flag, read_only=read_only)
    assert await receive(frame, b"next") == (Granted(4000, 77, PASSWORD, read_only), b"next")


async def test_an_expired_session_is_a_timeout_of_nothing() -> None:
    granted, _ = await receive(encode_expired_response(False))
    assert granted.timeout_ms == 0


async def test_an_answer_may_come_byte_by_byte() -> None:
    server, client = trio.testing.lockstep_stream_pair()
    frame = encode_connect_response(4000, 77, PASSWORD, flag=False)

    async def trickle() -> None:
        for at in range(len(frame)):
            await server.send_all(frame[at : at + 1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle)
        assert await receive_granted(client) == (Granted(4000, 77, PASSWORD, False), b"")


@given(st.lists(st.binary(max_size=60), max_size=4))
async def test_any_bytes_are_an_answer_or_a_protocol_error(parts: list[bytes]) -> None:
    try:
        await receive(*parts)
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        (b"", "is not in service"),
        (b"\0\0", "is not in service"),
        (struct.pack(">i", 0), "expected a ConnectResponse of 36 bytes, got 0"),
        (struct.pack(">i", -5), "expected a ConnectResponse of 36 bytes, got 0"),
        (struct.pack(">i", CONNECT_RESPONSE_BYTES_MAX + 1), "expected a ConnectResponse, got something"),
        (b"HTTP/1.1 400 Bad Request\r\n", "begins with b'HTTP'"),
        (
            struct.pack(">iiiqi16s", 36, 0, 4000, 1, 15, PASSWORD),
            "expected a session password of 16 bytes, got 15",
        ),
    ],
)
async def test_what_is_no_answer_says_so(sent: bytes, problem: str) -> None:
    with pytest.raises(ProtocolError, match=problem):
        await receive(sent)


@given(st.binary(max_size=120))
async def test_any_bytes_in_a_login_are_a_failure_that_is_told(data: bytes) -> None:
    send, receive_end = trio.testing.MemorySendStream(), trio.testing.MemoryReceiveStream()
    receive_end.put_data(data)
    receive_end.put_eof()
    login = DigestMd5Client("bob", "secret", "c" * 32)
    with pytest.raises((ProtocolError, AuthFailedError)):
        await log_in(trio.StapledStream(send, receive_end), login, b"")
