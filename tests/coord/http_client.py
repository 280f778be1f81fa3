"""A client for HTTP servers in the test's own loop: one request, one answer."""

import json
import ssl
from dataclasses import dataclass
from typing import Any

import h11
import trio


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


async def fetch(
    port: int,
    target: str,
    method: str = "GET",
    *,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    context: ssl.SSLContext | None = None,
) -> Answer:
    """Asks a server on 127.0.0.1; the whole answer."""
    with trio.fail_after(60):
        stream: trio.abc.Stream = await trio.open_tcp_stream("127.0.0.1", port)
        if context is not None:
            stream = trio.SSLStream(stream, context, server_hostname="localhost", https_compatible=True)
        async with stream:
            connection = h11.Connection(h11.CLIENT)
            sent = [("Host", "localhost"), *(headers or {}).items()]
            if body:
                sent.append(("Content-Length", str(len(body))))
            out = connection.send(h11.Request(method=method, target=target, headers=sent)) or b""
            if body:
                out += connection.send(h11.Data(data=body)) or b""
            await stream.send_all(out + (connection.send(h11.EndOfMessage()) or b""))
            return await _answer(connection, stream)


async def _answer(connection: h11.Connection, stream: trio.abc.Stream) -> Answer:
    head: h11.Response | None = None
    parts: list[bytes] = []
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = bytes(await stream.receive_some(65536))
            if not data and head is None:
                raise EOFError("the connection ended without an answer")
            connection.receive_data(data)
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            parts.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            names = {name.decode(): value.decode() for name, value in head.headers}
            return Answer(head.status_code, names, b"".join(parts))
        else:
            assert isinstance(event, h11.InformationalResponse), event
