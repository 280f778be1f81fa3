"""The small HTTP server: what it answers, and what bounds it."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
import trustme

from coord.http import HEAD_BYTES_MAX, Handler, HttpServer, Request, Response, open_listeners
from tests.coord.http_client import fetch

Start = Callable[..., Awaitable[int]]


@pytest.fixture
def start(nursery: trio.Nursery) -> Start:
    async def start(handle: Handler, **options: object) -> int:
        listeners = await open_listeners("127.0.0.1", 0)
        server = HttpServer(handle, **options)  # type: ignore[arg-type]
        await nursery.start(server.serve, listeners)
        return int(listeners[0].socket.getsockname()[1])

    return start


async def echo(request: Request) -> Response:
    received = b""
    while piece := await request.receive():
        received += piece
    facts = f"{request.method} {request.path} {dict(request.query)} {request.is_secure} ".encode()
    return Response(200, facts + received)


async def raw(port: int, data: bytes) -> bytes:
    """All that comes back for some bytes."""
    answer = b""
    with trio.fail_after(60):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(data)
            try:
                while part := await stream.receive_some():
                    answer += part
            except trio.BrokenResourceError:
                pass
    return answer


async def test_a_request_is_handed_over_and_answered(start: Start) -> None:
    port = await start(echo)
    answer = await fetch(port, "/a%20b?x=1&x=2&y=", "POST", body=b"hello")
    assert answer.status == 200
    assert answer.body == b"POST /a b {'x': ['1', '2'], 'y': ['']} False hello"


async def test_requests_of_one_connection_are_answered_one_after_the_other(start: Start) -> None:
    port = await start(echo)
    head = b"GET /%d HTTP/1.1\r\nHost: x\r\n%s\r\n"
    answers = await raw(port, head % (1, b"") + head % (2, b"Connection: close\r\n"))
    assert answers.count(b"HTTP/1.1 200") == 2
    assert answers.index(b"GET /1") < answers.index(b"GET /2")


async def test_head_has_no_body(start: Start) -> None:
    async def page(request: Request) -> Response:
        return Response(200, b"12345")

    answer = await fetch(await start(page), "/", "HEAD")
    assert (answer.headers["content-length"], answer.body) == ("5", b"")


async def test_a_body_in_pieces_is_sent_in_chunks(start: Start) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d" % number

    async def page(request: Request) -> Response:
        return Response(200, pieces())

    answer = await fetch(await start(page), "/")
    assert (answer.headers["transfer-encoding"], answer.body) == ("chunked", b"012")


async def test_a_handler_that_fails_costs_its_request_only(start: Start) -> None:
    async def page(request: Request) -> Response:
        raise RuntimeError("secret")

    port = await start(page)
    for _ in range(2):
        answer = await fetch(port, "/")
        assert (answer.status, b"secret" in answer.body) == (500, False)


async def test_garbage_gets_400_and_the_connection_ends(start: Start) -> None:
    assert (await raw(await start(echo), b"garbage\r\n\r\n")).startswith(b"HTTP/1.1 400")


async def test_a_head_without_end_is_refused(start: Start) -> None:
    endless = b"GET / HTTP/1.1\r\nX: " + b"x" * (2 * HEAD_BYTES_MAX)
    assert (await raw(await start(echo), endless)).startswith(b"HTTP/1.1 431")


async def test_one_connection_too_many_is_closed(start: Start) -> None:
    port = await start(echo, connections_max=1)
    async with await trio.open_tcp_stream("127.0.0.1", port) as first:
        await first.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await first.receive_some()
        assert await raw(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") == b""


async def test_a_silent_client_is_let_go(start: Start) -> None:
    assert await raw(await start(echo, idle_seconds=0.05), b"GET / HT") == b""


async def test_a_head_that_comes_byte_by_byte_has_only_so_much_time(start: Start) -> None:
    port = await start(echo, idle_seconds=0.2)
    with trio.fail_after(60):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"GET / HTTP/1.1\r\nX: ")
                while True:
                    await stream.send_all(b"x")
                    await trio.sleep(0.02)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def contexts(authority: trustme.CA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    return server, client


async def test_tls_and_plain_requests_share_a_port(start: Start, authority: trustme.CA) -> None:
    server, client = contexts(authority)
    port = await start(echo, context=server)
    assert (await fetch(port, "/", context=client)).body == b"GET / {} True "
    assert (await fetch(port, "/")).body == b"GET / {} False "


async def test_plain_requests_can_be_refused(start: Start, authority: trustme.CA) -> None:
    server, client = contexts(authority)
    port = await start(echo, context=server, plain=False)
    assert (await fetch(port, "/", context=client)).status == 200
    assert await raw(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") == b""
