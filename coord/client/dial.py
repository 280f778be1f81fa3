"""Opening TCP connections to servers that are named: names are looked up anew at each attempt.

A name may stand for several servers, and they may change while the client lives (a headless service, a
server that was replaced). Each attempt therefore begins with an address taken at random, and goes on to the
others where nobody listens.
"""

import random
import ssl
from collections.abc import Awaitable, Callable

import trio

#: How long one of several addresses may take to accept a connection.
ADDRESS_TIMEOUT_S = 1.0


#: Opens a stream to (host, port).
Dial = Callable[[str, int], Awaitable[trio.abc.Stream]]


class TcpDial:
    """Opens streams to (host, port), with TLS where there is a context, which checks the name."""

    def __init__(self, ssl_context: ssl.SSLContext | None, rng: random.Random) -> None:
        self._ssl_context = ssl_context
        self._rng = rng

    async def __call__(self, host: str, port: int) -> trio.abc.Stream:
        """Connects to one of the host's addresses.

        Raises:
            OSError: the name is not known, or nobody listens at any of its addresses.
        """
        stream = await self._connect(host, port)
        if self._ssl_context is None:
            return stream
        return trio.SSLStream(stream, self._ssl_context, server_hostname=host)

    async def _connect(self, host: str, port: int) -> trio.SocketStream:
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        self._rng.shuffle(addresses)
        failure: OSError = OSError(f"no address is known for {host}")
        for number, address in enumerate(addresses, 1):
            # The last one may take what the caller has left.
            patience_s = ADDRESS_TIMEOUT_S if number < len(addresses) else float("inf")
            with trio.move_on_after(patience_s):
                try:
                    return await trio.open_tcp_stream(address, port)
                except OSError as error:
                    failure = error
        raise failure
