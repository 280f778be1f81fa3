"""TLS between the servers of an ensemble: beneath the introduction, on links and snapshots alike.

The links read and write their sockets without waiting (`coord.server.link`), so the TLS engine works on bytes
alone: `encrypt` and `decrypt` move them, and only the handshake and the introduction wait.
"""

import ssl
from dataclasses import dataclass
from typing import Protocol

import trio
import trio.abc

from coord import tls
from coord.server.config import ConfigError
from coord.server.config.ensemble import EnsembleConfig

READ_BYTES = 1 << 16


class ByteStream(Protocol):
    """What an introduction and a snapshot need of a connection."""

    async def send_all(self, data: bytes) -> None: ...

    async def receive_some(self, max_bytes: int) -> bytes | bytearray: ...


@dataclass(frozen=True, slots=True)
class PeerContexts:
    """What this server presents and expects, as listener and as dialler."""

    listener: ssl.SSLContext
    dialler: ssl.SSLContext


def make_peer_contexts(config: EnsembleConfig) -> PeerContexts | None:
    """None without `sslQuorum`. Each server shows its certificate to the other.

    Raises:
        ConfigError: a file cannot be used.
    """
    if not config.peer_tls:
        return None
    store, trust = config.peer_key_store, config.peer_trust_store
    if not store or not trust:
        raise ConfigError(
            "sslQuorum=true needs ssl.quorum.keyStore.location and ssl.quorum.trustStore.location, PEM files"
        )
    try:
        return PeerContexts(
            tls.server_context(store, store, client_ca_path=trust),
            tls.client_context(
                trust, certificate_path=store, check_hostname=config.peer_hostname_verification
            ),
        )
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"ssl.quorum.keyStore.location={store}, trustStore.location={trust}: {error}"
        ) from error


class TlsStream(trio.abc.AsyncResource):
    """One connection with TLS on it."""

    def __init__(
        self, stream: trio.SocketStream, context: ssl.SSLContext, *, listens: bool, host: str | None = None
    ) -> None:
        self._stream = stream
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._engine = context.wrap_bio(self._incoming, self._outgoing, listens, host)
        self.socket = stream.socket
        self.setsockopt = stream.setsockopt

    async def handshake(self) -> None:
        """Raises: ssl.SSLError, OSError, trio.BrokenResourceError."""
        while True:
            try:
                self._engine.do_handshake()
                await self._flush()
                return
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                await self._flush()  # the alert says to the other side what is wrong
                raise

    async def send_all(self, data: bytes) -> None:
        await self._stream.send_all(self.encrypt(data))

    async def receive_some(self, max_bytes: int) -> bytes:
        while True:
            try:
                return self._engine.read(max_bytes)
            except ssl.SSLWantReadError:
                if not await self._fill():
                    return b""
            except ssl.SSLZeroReturnError:
                return b""

    def encrypt(self, data: bytes) -> bytes:
        if data:
            self._engine.write(data)
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> bytes:
        """All that is readable once `data` has come.

        Raises:
            ssl.SSLError: it is not what the other side has sent.
        """
        self._incoming.write(data)
        parts: list[bytes] = []
        try:
            while part := self._engine.read(READ_BYTES):
                parts.append(part)
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        return b"".join(parts)

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._stream.send_all(data)

    async def _fill(self) -> bool:
        data = await self._stream.receive_some(READ_BYTES)
        if not data:
            self._incoming.write_eof()
            return False
        self._incoming.write(data)
        return True

    async def aclose(self) -> None:
        await self._stream.aclose()


LinkStream = trio.SocketStream | TlsStream
