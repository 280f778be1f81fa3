"""The client through TLS: to our server, behind an endpoint that ends TLS."""

import ssl
from functools import partial

import pytest
import trio
import trustme

import coord
from tests.coord_servers import CoordServers

pytestmark = pytest.mark.interop


async def pump(source: trio.abc.ReceiveStream, target: trio.abc.SendStream, done: trio.CancelScope) -> None:
    try:
        while data := await source.receive_some(65536):
            await target.send_all(data)
    except trio.BrokenResourceError:
        pass
    done.cancel()


async def forward(port: int, stream: "trio.SSLStream[trio.SocketStream]") -> None:
    async with (
        await trio.open_tcp_stream("127.0.0.1", port) as server,
        stream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(pump, stream, server, nursery.cancel_scope)
        nursery.start_soon(pump, server, stream, nursery.cancel_scope)


async def test_sessions_and_watches_through_tls(standalone: CoordServers) -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_ssl_over_tcp, host="127.0.0.1")
        listeners = await nursery.start(
            serve, partial(forward, standalone.servers[0].port), 0, server_context
        )
        hosts = f"localhost:{listeners[0].transport_listener.socket.getsockname()[1]}"
        async with coord.connect(hosts, ssl_context=client_context) as zk:
            await zk.create("/tls", b"x" * 100_000)
            async with zk.watch("/tls") as events:
                await events.__anext__()
                await zk.set("/tls", b"y")
                with trio.fail_after(20):
                    assert (await events.__anext__()).kind is coord.EventKind.CHANGED
            await zk.delete("/tls")
        with pytest.raises(coord.NotConnectedError, match=r"certificate|CERTIFICATE"):
            async with coord.connect(
                hosts, ssl_context=ssl.create_default_context(), connect_timeout_ms=1000
            ):
                pass
        nursery.cancel_scope.cancel()
