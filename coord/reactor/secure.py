"""A TLS connection on the same epoll: `ssl.MemoryBIO` on both sides, so that nothing about it can block.

A handshake costs up to 0.8 ms of the loop, so ready ones queue at the reactor, which grants them a budget per
tick. Until it is done the service does not know of the connection.
"""

import socket
import ssl
from collections.abc import Callable
from select import EPOLLIN
from typing import TYPE_CHECKING, Final

from coord.reactor.connection import FLUSHING, GONE, OPEN, Address, Connection, Service

if TYPE_CHECKING:
    from coord.reactor.loop import Reactor

TLS_HANDSHAKE: Final = 0x16
"""The first byte of whoever speaks TLS."""

RECORD_HEAD_BYTES: Final = 5
"""Who sends less than the head of a TLS record is waited for, as Apache does."""

FIRST_BYTES: Final = 16
"""Bytes by which others are told apart."""

PlainName = Callable[[bytes], str]
"""What somebody speaks who does not speak TLS, by his first bytes, for the log."""

HANDSHAKE_BYTES_MAX = 128 * 1024
"""Bytes a peer may have sent ahead of a handshake that we have not worked off yet."""

ENCRYPT_BYTES_MAX = 4 * 1024 * 1024
"""Plain bytes encrypted at once, about 2 ms of the loop; the rest follows when these are sent."""

DECRYPT_BYTES = 8 * 1024
"""Ciphertext decrypted between two looks at the clock: records can be tiny, or carry nothing but new keys."""

DECRYPT_MS_MAX = 2
"""Time for one connection's ciphertext in one tick; the rest waits for the next."""

ANSWERS_BYTES_MAX = 64 * 1024
"""Bytes of answers that TLS itself makes (to key updates) and the peer has not taken."""

_RECORD_BYTES_MAX = 16 * 1024


class SecureConnection(Connection):
    """A connection whose bytes pass through an `ssl.SSLObject`."""

    __slots__ = (
        "_incoming",
        "_name_plain",
        "_outgoing",
        "_rest",
        "_said_goodbye",
        "_tls",
        "is_handshake_queued",
    )

    def __init__(
        self,
        reactor: "Reactor",
        service: Service,
        accepted: socket.socket,
        peer_address: Address,
        generation: int,
        opened_ms: int,
        context: ssl.SSLContext,
        name_plain: PlainName,
    ) -> None:
        super().__init__(reactor, service, accepted, peer_address, generation, opened_ms)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._name_plain = name_plain
        self._said_goodbye = False
        self._rest = b""
        """Ciphertext that was read and has to wait for its turn; nothing is read while there is any."""
        self.is_handshake_queued = False
        # Called as a plain function by on_event: what is read goes to TLS, and only then to the service.
        self._deliver = SecureConnection._on_ciphertext  # type: ignore[assignment]

    @property
    def is_secure(self) -> bool:
        return True

    @property
    def peer_certificate(self) -> bytes | None:
        return self._tls.getpeercert(binary_form=True)

    @property
    def tls(self) -> ssl.SSLObject:
        """For the peer's certificate and the cipher."""
        return self._tls

    def _on_ciphertext(self, data: bytes) -> None:
        if self.is_announced:
            self._decrypt(data)
            return
        is_first = self.bytes_in == len(data)
        if is_first and len(data) >= RECORD_HEAD_BYTES and data[0] != TLS_HANDSHAKE:
            self._lose(f"spoke {self._name_plain(data[:FIRST_BYTES])} on a TLS port")
            return
        self._incoming.write(data)
        if self._incoming.pending > HANDSHAKE_BYTES_MAX:
            self._lose(f"over {HANDSHAKE_BYTES_MAX} bytes of TLS handshake")
        elif not self.is_handshake_queued:
            self.is_handshake_queued = True
            self._reactor.handshakes.on_due(self)

    def handshake(self) -> bool:
        """One step, for the reactor. True once it is done; a failed one closes the connection."""
        self.is_handshake_queued = False
        if self._state != OPEN:
            return False
        try:
            self._tls.do_handshake()
            return True
        except ssl.SSLWantReadError:
            return False
        except (ssl.SSLError, ValueError) as error:
            self.close(reason=f"TLS handshake failed: {getattr(error, 'reason', None) or error}")
            return False
        finally:
            self._owe_ciphertext()

    def on_announced(self) -> None:
        """For the reactor, once the service knows us: bytes may have come right behind the handshake."""
        self._decrypt(self._incoming.read())

    def _decrypt(self, data: bytes) -> None:
        """What of `data` there is time for goes to the service, in one piece."""
        clock = self._reactor.clock
        chunks: list[bytes] = []
        ended = False
        view = memoryview(data)
        until_ms = clock.monotonic_ms() + DECRYPT_MS_MAX
        while view and not ended:
            self._incoming.write(view[:DECRYPT_BYTES])
            view = view[DECRYPT_BYTES:]
            ended = self._read_records(chunks)
            if view and not ended and clock.monotonic_ms() >= until_ms:
                self._rest = bytes(view)
                self._watch(self._events & ~EPOLLIN)
                self._reactor.postpone(self)
                break
        if self._state == OPEN and chunks:
            self.service.on_bytes(self, b"".join(chunks))
        if ended:
            self.close(reason="closed by peer")

    def _read_records(self, chunks: list[bytes]) -> bool:
        """Everything that can be decrypted now; returns whether that was the end."""
        ended = False
        while True:
            try:
                chunk = self._tls.read(_RECORD_BYTES_MAX)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as error:
                self._lose(f"TLS failed: {error.reason or error}")
                return True
            if not chunk:  # the peer's goodbye
                ended = True
                break
            chunks.append(chunk)
        if self._outgoing.pending:  # answers TLS itself owes, such as to a key update
            if self._outgoing.pending > ANSWERS_BYTES_MAX:
                self._lose(f"over {ANSWERS_BYTES_MAX} bytes of TLS answers that it did not take")
                return True
            self._owe_ciphertext()
        return ended

    def go_on(self) -> None:
        """For the reactor, in the tick after `postpone`. A paused connection goes on when it is resumed."""
        if not self._rest or self._paused or self._state != OPEN:
            return
        rest, self._rest = self._rest, b""
        self._watch(self._events | EPOLLIN)
        self._decrypt(rest)

    def resume(self) -> None:
        if self._rest and self._paused and self._state == OPEN:
            self._paused = False
            self._reactor.postpone(self)  # reading goes on behind what was read
        else:
            super().resume()

    def _owe_ciphertext(self) -> None:
        if self._state != GONE and self._outgoing.pending and self._head is None:
            self._owe(self)

    def flush(self) -> None:
        if self._head is None:
            chunk = self._next_chunk()
            if not chunk:
                return
            self._head = memoryview(chunk)
        super().flush()
        self._owe_rest()

    def _owe_rest(self) -> None:
        """If the kernel took a whole chunk and more is to be encrypted, no event will remind us."""
        if self._parts and self._head is None and self._state != GONE:
            self._owe(self)

    def _next_chunk(self) -> bytes:
        plain = self._take_plain()
        if plain:
            view = memoryview(plain)
            while view:
                view = view[self._tls.write(view) :]
            self.pending_output -= len(plain)
        chunk = self._outgoing.read()
        self.pending_output += len(chunk)
        return chunk

    def _take_plain(self) -> bytes:
        if not self.is_announced:
            return b""
        taken = taken_bytes = 0
        for part in self._parts:
            if taken_bytes >= ENCRYPT_BYTES_MAX:
                break
            taken += 1
            taken_bytes += len(part)
        plain = b"".join(self._parts[:taken])
        del self._parts[:taken]
        return plain

    def _on_drained(self) -> None:
        if self._outgoing.pending:
            self.flush()
        else:
            super()._on_drained()

    def finish(self) -> None:
        """As for a plain connection, with TLS's own goodbye before the FIN."""
        if self._state == FLUSHING and not self.pending_output and not self._said_goodbye:
            self._said_goodbye = True
            try:
                self._tls.unwrap()
            except (ssl.SSLError, ValueError):
                pass  # wants the peer's goodbye, which we do not wait for; or there was no handshake
            self.flush()
        super().finish()
