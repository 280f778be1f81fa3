"""Names of servers: looked up anew at each attempt, all their addresses tried."""

import random
import socket
import ssl
from collections.abc import AsyncIterator
from functools import partial

import pytest
import trio
import trustme

from coord.client.dial import TcpDial


class Names(trio.abc.HostnameResolver):
    """A resolver whose answers a test decides."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.asked = 0

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # type: ignore[no-untyped-def]
        assert host == b"ensemble.test"
        self.asked += 1
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]

    async def getnameinfo(self, sockaddr, flags):  # type: ignore[no-untyped-def]
        raise NotImplementedError


@pytest.fixture
async def names() -> AsyncIterator[Names]:
    made = Names()
    before = trio.socket.set_custom_hostname_resolver(made)
    yield made
    trio.socket.set_custom_hostname_resolver(before)


async def greet(stream: trio.abc.Stream) -> None:
    await stream.send_all(b"hello")


async def address_of(dial: TcpDial, port: int) -> str:
    stream = await dial("ensemble.test", port)
    async with stream:
        assert await stream.receive_some(5) == b"hello"
        inner = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        return str(inner.socket.getpeername()[0])


async def test_a_name_is_looked_up_at_each_attempt(names: Names, nursery: trio.Nursery) -> None:
    (listener,) = await nursery.start(partial(trio.serve_tcp, greet, 0, host="127.0.0.1"))
    port = listener.socket.getsockname()[1]
    dial = TcpDial(None, random.Random(1))
    with pytest.raises(OSError, match="Name or service not known"):
        await dial("ensemble.test", port)
    names.addresses = ["127.0.0.1"]
    assert await address_of(dial, port) == "127.0.0.1"
    names.addresses = ["127.0.0.2"]
    with pytest.raises(OSError, match=r"127\.0\.0\.2"):
        await dial("ensemble.test", port)
    assert names.asked == 3


async def test_the_addresses_of_a_name_share_the_clients_and_stand_in_for_each_other(
    names: Names, nursery: trio.Nursery
) -> None:
    """Nobody listens at the third."""
    (listener,) = await nursery.start(partial(trio.serve_tcp, greet, 0, host="127.0.0.1"))
    port = listener.socket.getsockname()[1]
    await nursery.start(partial(trio.serve_tcp, greet, port, host="127.0.0.2"))
    names.addresses = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    dial = TcpDial(None, random.Random(1))
    found = [await address_of(dial, port) for _ in range(30)]
    assert set(found) == {"127.0.0.1", "127.0.0.2"}


async def test_a_certificate_must_be_for_the_name_and_not_for_the_address(
    names: Names, nursery: trio.Nursery
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("ensemble.test").configure_cert(context)
    (listener,) = await nursery.start(partial(trio.serve_ssl_over_tcp, greet, 0, context, host="127.0.0.1"))
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    names.addresses = ["127.0.0.1"]
    port = listener.transport_listener.socket.getsockname()[1]
    assert await address_of(TcpDial(trusting, random.Random(1)), port) == "127.0.0.1"
