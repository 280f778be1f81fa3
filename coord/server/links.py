"""The links between the servers of an ensemble: one authenticated TCP connection for each pair.

The server with the higher number dials, the other listens on its quorum port; a link that breaks is dialled
again. Where none comes for a while, the other dials too: a server that is about to join is known to nobody.
Both directions carry frames in order, so what one server tells another arrives in the order it was told, and
is lost only from some point on, together with the link: `on_disconnected` says so exactly once for each
`on_connected`. Sending never waits (`coord.server.link`).
"""

import errno
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import trio

from coord import eventlog
from coord.clock import SYSTEM_CLOCK, Clock
from coord.framing import FrameTooLargeError
from coord.listening import ListenError, named_listener
from coord.message import MessageError
from coord.server.election_port import WHAT_TO_DO, tell_foreign_peers
from coord.server.greeting import (
    INTRODUCTION_SECONDS_MAX,
    Address,
    ForeignPeerError,
    LinkIdentity,
    hear_introduction,
    introduce,
)
from coord.server.introduction import (
    NONCE_BYTES,
    PURPOSE_MESSAGES,
    PURPOSE_REPAIR,
    PURPOSE_SNAPSHOT,
    IntroductionError,
)
from coord.server.link import Frame, Link, LinkUser, Watcher
from coord.server.peer_tls import ByteStream, LinkStream, PeerContexts, TlsStream
from coord.server.repetitions import Repetitions

INTRODUCTIONS_MAX: Final = 64
"""Connections at once that have not proven themselves."""
DIAL_SECONDS_MAX: Final = 1.0
REDIAL_SECONDS: Final = 0.05
REDIAL_SECONDS_MAX: Final = 0.5
HIGHER_DIALS_SECONDS: Final = 0.5
"""How long the server with the lower number waits for the other to dial."""
CHECK_BOTH: Final = "check ensemble.id, the ensemble's secret and myid on both servers"
CHECK_PEER: Final = "check its configuration, and that it is no server of Apache ZooKeeper's"

log = eventlog.get("coord.server.links")


class PeerLinks:
    """All links of this server; `run` keeps them up until cancelled.

    Args:
        watcher: the reactor in whose ticks links are read.
        serve_snapshot: what a connection opened with `open_snapshot` is served with, on the listener's side;
            the stream is closed afterwards.
        serve_repair: the same for `open_repair`.
        is_busy: whether too much of what peers have sent waits for the disk: they are then not read.
        contexts: for TLS; None without.
        election_port: where servers of Apache ZooKeeper's are told that they are in the wrong place.
    """

    def __init__(
        self,
        identity: LinkIdentity,
        listen_addresses: Sequence[Address],
        watcher: Watcher,
        user: LinkUser,
        serve_snapshot: Callable[[int, ByteStream], Awaitable[None]],
        serve_repair: Callable[[int, ByteStream], Awaitable[None]],
        make_nonce: Callable[[int], bytes],
        is_busy: Callable[[], bool] = lambda: False,
        election_port: int | None = None,
        contexts: PeerContexts | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._identity = identity
        self._listen_addresses = tuple(listen_addresses)
        self._watcher = watcher
        self._user = user
        self._serving = {PURPOSE_SNAPSHOT: serve_snapshot, PURPOSE_REPAIR: serve_repair}
        self._make_nonce = make_nonce
        self._is_busy = is_busy
        self._election_port = election_port
        self._contexts = contexts
        self._refused = Repetitions(clock)
        self._unreached = Repetitions(clock)
        self._links: dict[int, Link] = {}
        self._link_ended = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._accepting = trio.CancelScope()
        self._dialling: dict[int, trio.CancelScope] = {}
        self._introductions = trio.CapacityLimiter(INTRODUCTIONS_MAX)

    @property
    def connected(self) -> frozenset[int]:
        return frozenset(self._links)

    @property
    def members(self) -> list[int]:
        """All that can be dialled."""
        return sorted(self._identity.addresses)

    def queued_bytes(self, sid: int) -> int:
        link = self._links.get(sid)
        return link.queued_bytes if link else 0

    def send(self, sid: int, frame: Frame) -> None:
        """Queues a frame of `encode_frame` until `flush`; dropped when there is no link."""
        link = self._links.get(sid)
        if link is not None:
            link.send(frame)

    def flush(self) -> None:
        """Sends what is queued: the end of a round of work."""
        for link in self._links.values():
            if link.queued_bytes:
                link.flush()

    def drop(self, sid: int, reason: str) -> None:
        """Breaks a link; it is dialled again."""
        link = self._links.get(sid)
        if link is not None:
            link.close(reason)

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Listens, dials, and keeps dialling.

        Reports the bound quorum port once listening.

        Raises:
            ListenError: the quorum port cannot be listened on.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            port = await nursery.start(self._listen_forever)
            self._dial_members()
            if self._election_port is not None:
                host, _ = self._listen_addresses[0]
                nursery.start_soon(tell_foreign_peers, self._own_line, host, self._election_port)
            task_status.started(port)

    def set_members(self, addresses: Mapping[int, tuple[Address, ...]]) -> None:
        """The other members have these addresses from now on. A link to a server that is no member any more
        is kept while it lasts; one to a server that has moved is dialled anew.
        """
        before = self._identity.addresses
        self._identity = replace(self._identity, addresses=dict(addresses))
        for sid, known in before.items():
            if addresses.get(sid, known) != known:
                scope = self._dialling.pop(sid, None)
                if scope is not None:
                    scope.cancel()
                self.drop(sid, "it has another address now")
        self._dial_members()

    def listen_on(self, addresses: Sequence[Address]) -> None:
        """This server's own addresses have changed: peers are listened for there; open links stay."""
        if tuple(addresses) != self._listen_addresses:
            self._listen_addresses = tuple(addresses)
            self._accepting.cancel()

    async def _listen_forever(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Until another address is to be listened on, and then there; only the first must succeed."""
        started = False
        while True:
            with trio.CancelScope() as self._accepting:
                try:
                    listeners = await _listen(self._own_line, self._listen_addresses)
                except ListenError as error:
                    if not started:
                        raise
                    log.error("cannot listen for peers", do=error.advice, error=error.what)
                    await trio.sleep(REDIAL_SECONDS_MAX)
                    continue
                if not started:
                    started = True
                    task_status.started(listeners[0].socket.getsockname()[1])
                async with trio.open_nursery() as nursery:
                    for listener in listeners:
                        nursery.start_soon(self._accept, listener)

    @property
    def _own_line(self) -> str:
        return f"server.{self._identity.sid}"

    def _dial_members(self) -> None:
        if self._nursery is None:
            return
        for sid in self._identity.addresses:
            if sid not in self._dialling and sid != self._identity.sid:
                self._dialling[sid] = scope = trio.CancelScope()
                self._nursery.start_soon(self._dial_within, scope, sid)

    async def _dial_within(self, scope: trio.CancelScope, sid: int) -> None:
        with scope:
            await self._dial_forever(sid)
        if self._dialling.get(sid) is scope:
            del self._dialling[sid]

    async def open_snapshot(self, sid: int) -> LinkStream:
        """A connection of its own to a peer, for a snapshot to be read from; the caller closes it.

        Raises:
            OSError, trio.BrokenResourceError, trio.TooSlowError: not reachable.
            IntroductionError, MessageError: not who it should be.
        """
        return await self._open(sid, PURPOSE_SNAPSHOT)

    async def open_repair(self, sid: int) -> LinkStream:
        """As `open_snapshot`, for batches of the peer's log."""
        return await self._open(sid, PURPOSE_REPAIR)

    async def _open(self, sid: int, purpose: str) -> LinkStream:
        stream = await self._dial(sid, purpose)
        _set_options(stream)
        return stream

    async def _accept(self, listener: trio.SocketListener) -> None:
        assert self._nursery is not None
        async with listener:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:
                    if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                        raise
                    log.error("cannot accept peers", do="raise the limit of open files", error=error)
                    await trio.sleep(REDIAL_SECONDS_MAX)
                    continue
                self._nursery.start_soon(self._receive_peer, stream)

    async def _receive_peer(self, raw: trio.SocketStream) -> None:
        stream: LinkStream = raw
        if self._contexts is not None:
            stream = TlsStream(raw, self._contexts.listener, listens=True)
        async with stream:
            try:
                self._introductions.acquire_on_behalf_of_nowait(stream)
            except trio.WouldBlock:
                return
            try:
                await _shake_hands(stream)
                hello = await hear_introduction(stream, self._identity, self._make_nonce(NONCE_BYTES))
            except (
                IntroductionError,
                MessageError,
                OSError,
                trio.BrokenResourceError,
                trio.TooSlowError,
            ) as error:
                self._tell_refusal(stream, error)
                return
            finally:
                self._introductions.release_on_behalf_of(stream)
            serve = self._serving.get(hello.purpose)
            if serve is None:
                await self._run_link(hello.sid, stream)
                return
            try:
                await serve(hello.sid, stream)
            except (OSError, trio.BrokenResourceError) as error:
                what = f"a {hello.purpose} was not taken to its end"
                log.warning(what, sid=hello.sid, error=error)

    def _tell_refusal(self, stream: LinkStream, error: Exception) -> None:
        """A server that was refused comes again twice a second; so the same is told once a minute."""
        peer = _peer_address(stream)
        left_out = self._refused.take(peer[0] if peer else "", f"{type(error).__name__} {error}")
        if left_out is not None:
            log.warning(
                "refused a connection to the quorum port",
                do=WHAT_TO_DO if isinstance(error, ForeignPeerError) else CHECK_BOTH,
                peer=peer or "gone",
                error=error,
                left_out=left_out,
            )

    def _tell_unreached(self, sid: int, error: Exception) -> None:
        left_out = self._unreached.take(str(sid), f"{type(error).__name__} {error}")
        if left_out is not None:
            log.warning("a peer cannot be reached", do=CHECK_PEER, sid=sid, error=error, left_out=left_out)

    async def _dial_forever(self, sid: int) -> None:
        wait = REDIAL_SECONDS
        while sid in self._identity.addresses:
            if sid in self._links:
                await self._link_ended.wait()
                continue
            if sid > self._identity.sid:
                await trio.sleep(HIGHER_DIALS_SECONDS)
                if sid in self._links:
                    continue
            try:
                stream = await self._dial(sid, PURPOSE_MESSAGES)
            except (
                IntroductionError,
                MessageError,
                OSError,
                trio.BrokenResourceError,
                trio.TooSlowError,
            ) as error:
                if not isinstance(error, OSError):
                    self._tell_unreached(sid, error)
                await trio.sleep(wait)
                wait = min(2 * wait, REDIAL_SECONDS_MAX)
                continue
            wait = REDIAL_SECONDS
            async with stream:
                await self._run_link(sid, stream)
            await trio.sleep(REDIAL_SECONDS)

    async def _dial(self, sid: int, purpose: str) -> LinkStream:
        addresses = self._identity.addresses.get(sid)
        if addresses is None:
            raise IntroductionError(f"server.{sid} is no member, and no line of zoo.cfg has its address")
        raw, host = await _reach(addresses)
        stream: LinkStream = raw
        try:
            if self._contexts is not None:
                stream = TlsStream(raw, self._contexts.dialler, listens=False, host=host)
                await _shake_hands(stream)
            await introduce(stream, self._identity, sid, purpose, self._make_nonce(NONCE_BYTES))
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream

    async def _run_link(self, sid: int, stream: LinkStream) -> None:
        """One link's life, from the introduction to its end; never raises for what the peer does."""
        old = self._links.pop(sid, None)
        if old is not None:
            # A peer that restarted is back before its old connection was seen to end.
            old.close("replaced by a new connection")
            self._user.on_disconnected(sid)
        link = self._links[sid] = Link(sid, stream, self._watcher, self._user, self._is_busy)
        _set_options(stream)
        log.info("connected to a peer", sid=sid)
        self._user.on_connected(sid)
        try:
            await link.run()
        except (MessageError, FrameTooLargeError) as error:
            log.error(
                "a peer sent what we do not understand", do="run the same release", sid=sid, error=error
            )
        if self._links.get(sid) is link:
            del self._links[sid]
            self._link_ended.set()
            self._link_ended = trio.Event()
            log.info("lost a peer", sid=sid, reason=link.closing)
            self._user.on_disconnected(sid)


async def _reach(addresses: Sequence[Address]) -> tuple[trio.SocketStream, str]:
    """A connection to the first address that can be reached, and its host. Raises: as the last attempt."""
    for host, port in addresses[:-1]:
        with suppress(OSError, trio.TooSlowError), trio.fail_after(DIAL_SECONDS_MAX):
            return await trio.open_tcp_stream(host, port), host
    host, port = addresses[-1]
    with trio.fail_after(DIAL_SECONDS_MAX):
        return await trio.open_tcp_stream(host, port), host


async def _shake_hands(stream: LinkStream) -> None:
    """Raises: IntroductionError, where it is a certificate that does not fit, or no TLS at all."""
    if isinstance(stream, TlsStream):
        try:
            with trio.fail_after(INTRODUCTION_SECONDS_MAX):
                await stream.handshake()
        except ssl.SSLError as error:
            raise IntroductionError(f"no TLS with the other server: {error}") from error


async def _listen(own_line: str, addresses: Sequence[Address]) -> list[trio.SocketListener]:
    """Listens on the member's own addresses, or on all of the machine's where none of them is its (NAT,
    containers).

    Args:
        own_line: the key of zoo.cfg that gives them.
    """
    listeners: list[trio.SocketListener] = []
    try:
        for host, port in addresses:
            try:
                with named_listener(own_line, own_line, host, port):
                    listeners += await trio.open_tcp_listeners(port, host=host)
            except ListenError as error:
                if error.errno == errno.EADDRINUSE:
                    raise
        if not listeners:
            _, port = addresses[0]
            with named_listener(own_line, own_line, "", port):
                listeners = await trio.open_tcp_listeners(port)
        return listeners
    except BaseException:
        for listener in listeners:
            await trio.aclose_forcefully(listener)
        raise


def _set_options(stream: LinkStream) -> None:
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _peer_address(stream: LinkStream) -> Address | None:
    """None when it is gone."""
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:
        return None
    return str(host), int(port)
