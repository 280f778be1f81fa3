"""TLS on the reactor: memory BIOs, the handshake budget, and peers that misbehave."""

import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trustme

from coord import tls
from coord.reactor import Connection, Reactor, handshakes, secure

WAIT_S = 60


class SteppingClock:
    """Moves by `step_ms` at each look, so that time passes inside a tick."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.step_ms = 0

    def monotonic_ms(self) -> int:
        self.now_ms += self.step_ms
        return self.now_ms

    def wall_ms(self) -> int:
        return self.now_ms


class Echo:
    """Sends back what it gets."""

    def __init__(self) -> None:
        self.opened: list[Connection] = []
        self.closed: list[str] = []
        self.received = b""

    def on_open(self, conn: Connection) -> None:
        self.opened.append(conn)

    def on_bytes(self, conn: Connection, data: bytes) -> None:
        self.received += data
        conn.send(data)

    def on_close(self, conn: Connection, reason: str) -> None:
        self.closed.append(reason)

    def on_tick_end(self) -> None:
        pass


class Authority:
    """A certificate authority and what it signed, as files."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        self.ca = directory / "ca.pem"
        self.certificate = directory / "server.pem"
        self.key = directory / "server.key"
        authority.cert_pem.write_to_path(self.ca)
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(self.key)

    def server(self, *, mutual: bool = False) -> ssl.SSLContext:
        return tls.server_context(self.certificate, self.key, client_ca_path=self.ca if mutual else None)

    def client(self) -> ssl.SSLContext:
        return tls.client_context(self.ca)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    with closing(Reactor(SteppingClock())) as made:
        yield made


def turn(reactor: Reactor, until: Callable[[], object]) -> None:
    while not until():
        ready, _, _ = select.select([reactor], [], [], WAIT_S)
        assert ready, "nothing became ready"
        reactor.tick()


class MemoryClient:
    """The client's side of TLS over a plain socket, stepped by hand so that nothing blocks."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setblocking(False)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.ended = False
        self.secured = False

    def pump(self) -> None:
        if self.outgoing.pending:
            self.socket.sendall(self.outgoing.read())
        try:
            data = self.socket.recv(1 << 20)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if data:
            self.incoming.write(data)
        else:
            self.ended = True

    def shake_hands(self) -> bool:
        if not self.secured:
            try:
                self.tls.do_handshake()
                self.secured = True
            except ssl.SSLWantReadError:
                pass
            self.pump()
        return self.secured

    def close(self) -> None:
        self.socket.close()


async def test_a_trio_client_talks_to_it_both_ways_at_length(authority: Authority) -> None:
    reactor, service = Reactor(), Echo()
    _, port = reactor.listen("127.0.0.1", 0, service, ssl_context=authority.server())
    data = bytes(range(251)) * 20_000
    received = bytearray()
    async with trio.open_nursery() as nursery:
        await nursery.start(reactor.run)
        plain = await trio.open_tcp_stream("127.0.0.1", port)
        async with trio.SSLStream(plain, authority.client(), server_hostname="localhost") as stream:
            nursery.start_soon(stream.send_all, data)
            with trio.fail_after(WAIT_S):
                while len(received) < len(data):
                    received += await stream.receive_some()
        assert bytes(received) == data
        assert service.opened[0].is_secure
        nursery.cancel_scope.cancel()


async def test_one_send_larger_than_a_piece_of_encryption_arrives_whole(authority: Authority) -> None:
    data = bytes(range(256)) * (3 * secure.ENCRYPT_BYTES_MAX // 256)

    class Giver(Echo):
        def on_bytes(self, conn: Connection, data_in: bytes) -> None:
            conn.send_parts([data[:-1], data[-1:]])
            conn.close()

    reactor = Reactor()
    _, port = reactor.listen("127.0.0.1", 0, Giver(), ssl_context=authority.server())
    received = bytearray()
    async with trio.open_nursery() as nursery:
        await nursery.start(reactor.run)
        plain = await trio.open_tcp_stream("127.0.0.1", port)
        async with trio.SSLStream(plain, authority.client(), server_hostname="localhost") as stream:
            with trio.fail_after(WAIT_S):
                await stream.send_all(b"?")
                while more := await stream.receive_some():
                    received += more
        assert received == data
        nursery.cancel_scope.cancel()


async def test_a_certificate_is_demanded_when_clients_must_show_one(authority: Authority) -> None:
    reactor, service = Reactor(), Echo()
    _, port = reactor.listen("127.0.0.1", 0, service, ssl_context=authority.server(mutual=True))
    async with trio.open_nursery() as nursery:
        await nursery.start(reactor.run)
        plain = await trio.open_tcp_stream("127.0.0.1", port)
        stream = trio.SSLStream(plain, authority.client(), server_hostname="localhost")
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(WAIT_S):
            await stream.send_all(b"hello")
            await stream.receive_some()
        await trio.aclose_forcefully(stream)
        assert service.opened == []
        nursery.cancel_scope.cancel()


def test_bytes_that_are_no_handshake_cost_only_their_connection(
    reactor: Reactor, authority: Authority
) -> None:
    service = Echo()
    address = reactor.listen("127.0.0.1", 0, service, ssl_context=authority.server())
    with socket.create_connection(address) as client:
        client.settimeout(WAIT_S)
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        turn(reactor, lambda: reactor.statistics().accepted)
        client.shutdown(socket.SHUT_WR)
        turn(reactor, lambda: not reactor.statistics().connections)
    assert service.opened == []
    assert service.closed == []


def test_a_handshake_that_never_comes_ends_in_time(reactor: Reactor, authority: Authority) -> None:
    clock = reactor.clock
    assert isinstance(clock, SteppingClock)
    address = reactor.listen("127.0.0.1", 0, Echo(), ssl_context=authority.server())
    with socket.create_connection(address):
        turn(reactor, lambda: reactor.statistics().handshakes_waiting)
        clock.now_ms += handshakes.HANDSHAKE_MS_MAX - 1
        reactor.keep_house()
        assert reactor.statistics().connections == 1
        clock.now_ms += 1
        reactor.keep_house()
        assert reactor.statistics().connections == 0


def test_endless_handshake_bytes_are_cut_off(reactor: Reactor, authority: Authority) -> None:
    """A queued handshake is not worked off at once, so what its peer may pile up is bounded."""
    address = reactor.listen("127.0.0.1", 0, Echo(), ssl_context=authority.server())
    with socket.create_connection(address) as client:
        turn(reactor, lambda: reactor.statistics().connections)
        (conn,) = reactor._connections.values()
        assert isinstance(conn, secure.SecureConnection)
        conn._on_ciphertext(b"\x16" * secure.HANDSHAKE_BYTES_MAX)
        assert conn.is_open
        conn._on_ciphertext(b"\x16")
        assert not conn.is_open
        client.close()


def test_handshakes_take_a_bounded_part_of_a_tick(reactor: Reactor, authority: Authority) -> None:
    """DESIGN 3: 2 ms a tick; a thousand clients that reconnect must not hold up the others."""
    clock = reactor.clock
    assert isinstance(clock, SteppingClock)
    address = reactor.listen("127.0.0.1", 0, Echo(), ssl_context=authority.server())
    context = authority.client()
    clients = [MemoryClient(address, context) for _ in range(10)]
    turn(reactor, lambda: reactor.statistics().accepted == 10)
    for client in clients:
        client.shake_hands()
    for conn in reactor._connections.values():
        ready, _, _ = select.select([conn.fd], [], [], WAIT_S)
        assert ready, "nothing has arrived"
    clock.step_ms = 1  # each handshake step looks at the clock once
    reactor.tick()
    assert len(reactor.handshakes.due) == 10 - handshakes.HANDSHAKE_MS_PER_TICK
    end = time.monotonic() + WAIT_S
    while reactor.statistics().handshakes < 10:
        assert time.monotonic() < end
        for client in clients:
            client.shake_hands()
        reactor.tick()
    for client in clients:
        client.close()


def test_bytes_right_behind_the_handshake_are_delivered(reactor: Reactor, authority: Authority) -> None:
    service = Echo()
    address = reactor.listen("127.0.0.1", 0, service, ssl_context=authority.server())
    client = MemoryClient(address, authority.client())
    while not client.shake_hands():
        reactor.tick()
    client.tls.write(b"early")
    client.pump()
    turn(reactor, lambda: service.received)
    assert service.received == b"early"
    client.close()


def test_closing_says_goodbye_in_tls_before_the_end(reactor: Reactor, authority: Authority) -> None:
    service = Echo()
    address = reactor.listen("127.0.0.1", 0, service, ssl_context=authority.server())
    client = MemoryClient(address, authority.client())
    while not (client.shake_hands() and service.opened):
        reactor.tick()
        client.pump()
    service.opened[0].send(b"last")
    service.opened[0].close(reason="done")
    reactor.flush()
    while not client.ended:
        client.pump()
    assert client.tls.read(100) == b"last"
    assert client.tls.read(100) == b"", "TLS's own end; a bare FIN would raise SSLWantReadError"
    assert service.closed == ["done"]
    client.close()


def test_contexts_refuse_old_protocols_and_renegotiation(authority: Authority) -> None:
    for context in (authority.server(), authority.client()):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_RENEGOTIATION
    assert authority.client().verify_mode == ssl.CERT_REQUIRED
    assert authority.server(mutual=True).verify_mode == ssl.CERT_REQUIRED


def test_handshakes_beyond_the_limit_are_closed_and_counted(authority: Authority) -> None:
    with closing(Reactor(SteppingClock(), handshakes_max=2)) as reactor:
        service = Echo()
        tls_address = reactor.listen("127.0.0.1", 0, service, ssl_context=authority.server())
        address = reactor.listen("127.0.0.1", 0, service)
        silent = [socket.create_connection(tls_address) for _ in range(5)]
        turn(reactor, lambda: reactor.statistics().accepted == 5)
        assert reactor.statistics().handshakes_waiting == 2
        assert reactor.statistics().handshakes_exceeded == 3
        with socket.create_connection(address) as plain:
            plain.sendall(b"served")
            turn(reactor, lambda: service.received == b"served")
        for one in silent:
            one.close()
        turn(reactor, lambda: not reactor.statistics().handshakes_waiting)
        assert reactor.statistics().handshakes_failed == 2
        client = MemoryClient(tls_address, authority.client())
        while not client.shake_hands():
            reactor.tick()
        client.close()


def test_a_renewed_context_is_what_later_connections_see(authority: Authority, tmp_path: Path) -> None:
    renewed = Authority(tmp_path)
    current = [authority.server()]
    with closing(Reactor(SteppingClock())) as reactor:
        service = Echo()
        address = reactor.listen("127.0.0.1", 0, service, ssl_context=lambda: current[0])
        older = MemoryClient(address, authority.client())
        while not (older.shake_hands() and service.opened):
            reactor.tick()
        current[0] = renewed.server()
        newer = MemoryClient(address, renewed.client())
        while not newer.shake_hands():
            reactor.tick()
        older.tls.write(b"still here")
        older.pump()
        turn(reactor, lambda: service.received == b"still here")
        older.close()
        newer.close()


def test_one_port_serves_plain_and_tls_told_apart_by_the_first_byte(authority: Authority) -> None:
    """Specification 1.1, client.portUnification."""
    with closing(Reactor(SteppingClock())) as reactor:
        service = Echo()
        context = authority.server()
        address = reactor.listen("127.0.0.1", 0, service, ssl_context=context, allows_plain=True)
        with socket.create_connection(address) as plain:
            plain.settimeout(WAIT_S)
            plain.sendall(b"plain")
            turn(reactor, lambda: service.received == b"plain")
            assert not service.opened[0].is_secure
            reactor.tick()
            assert plain.recv(100) == b"plain"
        client = MemoryClient(address, authority.client())
        while not (client.shake_hands() and len(service.opened) == 2):
            reactor.tick()
        assert service.opened[1].is_secure
        client.tls.write(b" secret")
        client.pump()
        turn(reactor, lambda: service.received == b"plain secret")
        client.close()


def test_a_connection_that_does_not_say_what_it_is_ends_in_time(
    reactor: Reactor, authority: Authority
) -> None:
    clock = reactor.clock
    assert isinstance(clock, SteppingClock)
    service = Echo()
    address = reactor.listen("127.0.0.1", 0, service, ssl_context=authority.server(), allows_plain=True)
    with socket.create_connection(address) as silent, socket.create_connection(address) as gone:
        silent.settimeout(WAIT_S)
        turn(reactor, lambda: reactor.statistics().accepted == 2)
        gone.close()
        turn(reactor, lambda: len(reactor._peeking) == 1)
        clock.now_ms += handshakes.HANDSHAKE_MS_MAX
        reactor.keep_house()
        assert silent.recv(1) == b""
    assert service.opened == []
    ticks = reactor.statistics().ticks
    ready, _, _ = select.select([reactor], [], [], 0)
    assert not ready, f"something is left in the epoll after {ticks} ticks"


@pytest.mark.parametrize("allows_plain", [False, True])
def test_one_host_cannot_take_every_place_before_it_is_known(
    authority: Authority, allows_plain: bool
) -> None:
    with closing(Reactor(SteppingClock(), handshakes_per_host_max=2)) as reactor:
        service = Echo()
        address = reactor.listen(
            "127.0.0.1", 0, service, ssl_context=authority.server(), allows_plain=allows_plain
        )
        silent = [socket.create_connection(address) for _ in range(5)]
        other = socket.create_connection(address, source_address=("127.0.0.2", 0))
        turn(reactor, lambda: reactor.statistics().accepted == 6)
        assert reactor.statistics().handshakes_exceeded == 3
        reactor.tick()
        for one in (*silent, other):
            one.close()
        turn(reactor, lambda: not (reactor.statistics().connections or reactor._peeking))
        clients = [MemoryClient(address, authority.client()) for _ in range(2)]
        while not all([client.shake_hands() for client in clients]):
            reactor.tick()
        turn(reactor, lambda: len(service.opened) == 2)
        late = MemoryClient(address, authority.client())
        while not late.shake_hands():
            reactor.tick()
        for client in (*clients, late):
            client.close()


def test_the_limit_of_handshakes_holds_for_those_that_begin_late(authority: Authority) -> None:
    """On a port for both a connection may wait with its first byte until all places are taken."""
    with closing(Reactor(SteppingClock(), handshakes_max=1, handshakes_per_host_max=10)) as reactor:
        address = reactor.listen("127.0.0.1", 0, Echo(), ssl_context=authority.server(), allows_plain=True)
        clients = [socket.create_connection(address) for _ in range(3)]
        turn(reactor, lambda: len(reactor._peeking) == 3)
        for client in clients:
            client.sendall(b"\x16")
        turn(reactor, lambda: not reactor._peeking)
        assert reactor.statistics().handshakes_waiting == 1
        assert reactor.statistics().handshakes_exceeded == 2
        for client in clients:
            client.close()
        turn(reactor, lambda: not reactor.statistics().connections)
        assert reactor.handshakes._hosts == {}, "every place is given back"


def secured(
    reactor: Reactor, authority: Authority, service: Echo
) -> tuple[MemoryClient, secure.SecureConnection]:
    """A client with its connection, ready."""
    address = reactor.listen("127.0.0.1", 0, service, ssl_context=authority.server())
    client = MemoryClient(address, authority.client())
    while not (client.shake_hands() and service.opened):
        reactor.tick()
    conn = service.opened[-1]
    assert isinstance(conn, secure.SecureConnection)
    return client, conn


class Sink(Echo):
    """Takes and says nothing; pauses its connection after `pause_after` bytes."""

    pause_after = 1 << 30

    def on_bytes(self, conn: Connection, data: bytes) -> None:
        self.received += data
        if len(self.received) >= self.pause_after:
            conn.pause()


def tiny_records(client: MemoryClient, count: int) -> bytes:
    """So many records of one byte, and the bytes."""
    data = bytes(number % 251 for number in range(count))
    for byte in data:
        client.tls.write(bytes([byte]))
    return data


def test_costly_ciphertext_takes_a_bounded_part_of_a_tick(reactor: Reactor, authority: Authority) -> None:
    """Records may be tiny, or carry nothing but new keys: 256 KB of those took 280 ms at once."""
    clock, service = reactor.clock, Sink()
    assert isinstance(clock, SteppingClock)
    client, conn = secured(reactor, authority, service)
    data = tiny_records(client, 5000)
    ciphertext = client.outgoing.read()
    clock.step_ms = 1
    conn._on_ciphertext(ciphertext)
    first = len(service.received)
    assert 0 < first < len(data)
    assert not conn._events & select.EPOLLIN, "nothing is read while something waits"
    turns = 0
    while len(service.received) < len(data):
        reactor.tick()
        turns += 1
    assert service.received == data
    assert turns >= 4
    client.tls.write(b"behind it")
    client.pump()
    turn(reactor, lambda: service.received.endswith(b"behind it"))
    client.close()


def test_what_was_read_of_a_paused_connection_waits_until_it_is_resumed(
    reactor: Reactor, authority: Authority
) -> None:
    clock, service = reactor.clock, Sink()
    assert isinstance(clock, SteppingClock)
    client, conn = secured(reactor, authority, service)
    data = tiny_records(client, 3000)
    clock.step_ms = 1
    service.pause_after = 1
    conn._on_ciphertext(client.outgoing.read())
    taken = len(service.received)
    for _ in range(5):
        reactor.tick()
    assert len(service.received) == taken < len(data)
    service.pause_after = 1 << 30
    conn.resume()
    while len(service.received) < len(data):
        reactor.tick()
    assert service.received == data
    client.tls.write(b"behind it")
    client.pump()
    turn(reactor, lambda: service.received.endswith(b"behind it"))
    client.close()


def test_answers_of_tls_that_nobody_takes_are_bounded(reactor: Reactor, authority: Authority) -> None:
    """A peer that asks for new keys and never reads makes TLS write an answer to each."""
    service = Sink()
    client, conn = secured(reactor, authority, service)
    conn._outgoing.write(bytes(secure.ANSWERS_BYTES_MAX + 1))
    client.tls.write(b"x")
    client.pump()
    turn(reactor, lambda: service.closed)
    assert "TLS answers" in service.closed[0]
    client.close()
