"""RPC from a link to a service and back, over real sockets."""

import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from coord import rpc, tls
from coord.message import Protocol, encode_message, message
from coord.reactor import Reactor
from coord.rpc import Peer, Reply, RpcService, wire
from tests.coord.waiting import WAIT_S, until


@message(1)
@dataclass(frozen=True, slots=True)
class Say:
    text: str


@message(2)
@dataclass(frozen=True, slots=True)
class Newer:
    number: int


PROTOCOL = Protocol("test", [Say])
NEWER_PROTOCOL = Protocol("test of tomorrow", [Say, Newer])


class Script:
    """A handler that notes its calls; `react` answers requests."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.requests: list[tuple[Peer, int, str, bytes]] = []
        self.one_ways: list[tuple[str, bytes]] = []
        self.gone: list[str] = []
        self.react: Callable[[Peer, int, Say, memoryview], None] = lambda peer, request_id, said, body: (
            peer.reply(request_id, said, body)
        )

    def on_connected(self, peer: Peer) -> None:
        self.peers.append(peer)

    def on_request(self, peer: Peer, request_id: int, message: Say, body: memoryview) -> None:
        self.requests.append((peer, request_id, message.text, bytes(body)))
        self.react(peer, request_id, message, body)

    def on_one_way(self, peer: Peer, message: Say, body: memoryview) -> None:
        self.one_ways.append((message.text, bytes(body)))

    def on_disconnected(self, peer: Peer, reason: str) -> None:
        self.gone.append(reason)

    def on_tick_end(self) -> None:
        pass


def keep_open(peer: Peer, request_id: int, said: Say, body: memoryview) -> None:
    pass


class Server:
    def __init__(self, handler: Script, **limits: int) -> None:
        self.handler = handler
        self.reactor = Reactor()
        self.service = RpcService(PROTOCOL, handler, **limits)
        self.host, self.port = self.reactor.listen("127.0.0.1", 0, self.service)

    def link(self, **options: Any) -> Any:
        return rpc.connect(self.host, self.port, PROTOCOL, **options)


@asynccontextmanager
async def serving(handler: Script | None = None, **limits: int) -> AsyncIterator[Server]:
    server = Server(handler or Script(), **limits)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.reactor.run)
        with trio.fail_after(WAIT_S):
            yield server
        nursery.cancel_scope.cancel()


async def test_a_call_brings_back_message_and_body() -> None:
    async with serving() as server, server.link() as link:
        reply = await link.call(Say("hello"), b"one ", memoryview(b"two"))
        assert (reply.message, bytes(reply.body)) == (Say("hello"), b"one two")
        assert link.inflight == 0


async def test_requests_are_pipelined_and_answered_in_any_order() -> None:
    handler = Script()
    handler.react = keep_open
    answers: list[tuple[str, bytes]] = []
    async with serving(handler) as server, server.link() as link:
        for number in range(10):
            link.request(
                Say(str(number)),
                on_reply=lambda reply: answers.append((reply.message.text, bytes(reply.body))),
            )
        await until(lambda: len(handler.requests) == 10)
        assert [text for _, _, text, _ in handler.requests] == [str(number) for number in range(10)]
        for peer, request_id, text, _ in reversed(handler.requests):
            peer.reply(request_id, Say(text), text.encode())
        server.reactor.flush()
        await until(lambda: len(answers) == 10)
    assert answers == [(str(number), str(number).encode()) for number in reversed(range(10))]


async def test_large_bodies_pass_both_ways() -> None:
    data = bytes(range(256)) * 16_384
    async with serving() as server, server.link() as link:
        reply = await link.call(Say("big"), data)
        assert bytes(reply.body) == data


async def test_a_burst_of_calls_leaves_in_two_sends() -> None:
    """The first finds the link idle and leaves at once; all others leave together."""
    stream, other = trio.testing.memory_stream_pair()
    sends = []
    original = stream.send_all

    async def send_all(data: bytes) -> None:
        sends.append(len(data))
        await original(data)

    stream.send_all = send_all  # type: ignore[method-assign]
    link = rpc.Link(stream, PROTOCOL)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.serve)
        for _ in range(100):
            link.request(Say("x"), on_reply=lambda reply: None)
        await trio.testing.wait_all_tasks_blocked()
        assert len(sends) <= 2
        link.close()
    await other.aclose()


async def test_a_refusal_raises_with_code_and_text() -> None:
    handler = Script()
    handler.react = lambda peer, request_id, said, body: peer.fail(request_id, -7, "not today")
    async with serving(handler) as server, server.link() as link:
        with pytest.raises(rpc.RemoteError, match="not today") as caught:
            await link.call(Say("please"))
    assert caught.value.code == -7
    assert caught.value.happened is False


async def test_a_request_the_server_does_not_know_is_refused_and_the_link_lives() -> None:
    async with serving() as server, rpc.connect(server.host, server.port, NEWER_PROTOCOL) as link:
        with pytest.raises(rpc.RemoteError, match="has no message 2"):
            await link.call(Newer(1))
        assert (await link.call(Say("still here"))).message == Say("still here")


async def test_one_way_messages_go_both_ways() -> None:
    handler = Script()
    pushed: list[tuple[str, bytes]] = []
    async with serving(handler) as server, server.link() as link:
        link.on_message = lambda message, body: pushed.append((message.text, bytes(body)))
        link.send(Say("up"), b"1")
        await until(lambda: handler.one_ways)
        handler.peers[0].send(Say("down"), b"2")
        server.reactor.flush()
        await until(lambda: pushed)
    assert handler.one_ways == [("up", b"1")]
    assert pushed == [("down", b"2")]


async def test_replies_may_request_again_from_within() -> None:
    texts: list[str] = []
    async with serving() as server, server.link() as link:
        done = trio.Event()

        def on_reply(reply: Reply | rpc.RpcError) -> None:
            assert isinstance(reply, Reply)
            texts.append(reply.message.text)
            if len(texts) == 3:
                done.set()
            else:
                link.request(Say(f"{len(texts)}"), on_reply=on_reply)

        link.request(Say("0"), on_reply=on_reply)
        await done.wait()
    assert texts == ["0", "1", "2"]


async def test_when_the_server_goes_open_requests_fail_as_unknown() -> None:
    handler = Script()
    handler.react = lambda peer, request_id, said, body: peer.close("enough")
    reasons: list[str] = []
    async with serving(handler) as server, server.link() as link:
        link.on_closed = reasons.append
        with pytest.raises(rpc.LinkClosedError) as caught:
            await link.call(Say("lost"))
        assert caught.value.happened is None
        await link.closed.wait()
        with pytest.raises(rpc.LinkClosedError) as refused:
            await link.call(Say("late"))
        assert refused.value.happened is False
        with pytest.raises(rpc.LinkClosedError):
            link.send(Say("late"))
    assert reasons == ["closed by the server"]


async def test_requests_that_never_left_are_known_not_to_have_happened() -> None:
    stream, _other = trio.testing.memory_stream_pair()
    link = rpc.Link(stream, PROTOCOL)
    failures: list[Reply | rpc.RpcError] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.serve)
        link.request(Say("sent"), on_reply=failures.append)
        await trio.testing.wait_all_tasks_blocked()
        link.request(Say("queued"), on_reply=failures.append)
        link.close()
    outcomes = [failure.happened for failure in failures if isinstance(failure, rpc.LinkClosedError)]
    assert outcomes == [None, False]


async def test_a_cancelled_call_leaves_the_link_in_order() -> None:
    handler = Script()
    handler.react = keep_open
    async with serving(handler) as server, server.link() as link:
        with trio.move_on_after(0.01):
            await link.call(Say("abandoned"))
        handler.react = lambda peer, request_id, said, body: [
            peer.reply(number, Say(text)) for peer, number, text, _ in handler.requests
        ]
        assert (await link.call(Say("second"))).message == Say("second")
        assert link.inflight == 0


async def test_limits_of_a_link_refuse_or_wait() -> None:
    handler = Script()
    handler.react = keep_open
    async with serving(handler) as server, server.link(inflight_max=2) as link:
        for _ in range(2):
            link.request(Say("x"), on_reply=lambda reply: None)
        assert not link.is_writable
        with pytest.raises(rpc.LinkFullError) as caught:
            link.request(Say("one too many"), on_reply=lambda reply: None)
        assert caught.value.happened is False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.wait_writable)
            await until(lambda: len(handler.requests) == 2)
            peer, request_id, _, _ = handler.requests[0]
            peer.reply(request_id, Say("room"))
            server.reactor.flush()
        assert link.is_writable


async def test_bytes_queued_on_a_link_are_bounded() -> None:
    stream, _other = trio.testing.memory_stream_pair()
    link = rpc.Link(stream, PROTOCOL, outgoing_bytes_max=1000)
    link.send(Say("x"), bytes(1000))
    assert link.outgoing_bytes > 1000
    with pytest.raises(rpc.LinkFullError):
        link.send(Say("x"))
    await stream.aclose()


async def test_a_peer_with_too_many_open_requests_is_not_read_until_half_are_answered() -> None:
    handler = Script()
    handler.react = keep_open
    async with serving(handler, inflight_max=4) as server, server.link() as link:
        for _ in range(4):
            link.request(Say("x"), on_reply=lambda reply: None)
        await until(lambda: len(handler.requests) == 4)
        for _ in range(4):
            link.request(Say("y"), on_reply=lambda reply: None)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(handler.requests) == 4
        for peer, request_id, _, _ in handler.requests[:2]:
            peer.reply(request_id, Say("done"))
        server.reactor.flush()
        await until(lambda: len(handler.requests) == 8)


async def test_a_peer_with_too_many_open_bytes_is_not_read() -> None:
    handler = Script()
    handler.react = keep_open
    async with serving(handler, inflight_bytes_max=1000) as server, server.link() as link:
        link.request(Say("x"), bytes(1000), on_reply=lambda reply: None)
        await until(lambda: handler.requests)
        link.request(Say("y"), on_reply=lambda reply: None)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(handler.requests) == 1
        assert handler.peers[0].inflight_bytes > 1000
        peer, request_id, _, _ = handler.requests[0]
        peer.fail(request_id, 1)
        server.reactor.flush()
        await until(lambda: len(handler.requests) == 2)
        assert (handler.peers[0].inflight, server.service.protocol_errors) == (1, 0)


async def test_a_peer_that_does_not_take_its_replies_is_not_read() -> None:
    """And it is read again once it took them."""
    handler = Script()
    size = 8 * 1024 * 1024
    handler.react = lambda peer, request_id, said, body: peer.reply(request_id, said, bytes(size))
    async with serving(handler, outgoing_bytes_max=1024) as server:
        stream = await trio.open_tcp_stream(server.host, server.port)
        await stream.send_all(request_bytes(1))
        await until(lambda: handler.requests)
        assert handler.peers[0].outgoing_bytes > 1024
        await stream.send_all(request_bytes(2))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(handler.requests) == 1
        taken = 0
        while taken < 2 * size:
            taken += len(await stream.receive_some(1 << 20))
        assert len(handler.requests) == 2
        await stream.aclose()


def request_bytes(request_id: int, header: bytes = encode_message(Say("x"))) -> bytes:
    return wire.encode_prefix(wire.REQUEST, 1, request_id, len(header), 0) + header


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("noise", b"GET / HTTP/1.1\r\n\r\n"),
        ("a frame over the limit", b"\x7f\xff\xff\xff"),
        ("a header that is no message", request_bytes(1, b"\x81\x01")),
        ("a request id that is open already", request_bytes(1) * 2),
        ("a reply nobody asked for", wire.encode_prefix(wire.REPLY, 1, 1, 1, 0) + b"\x80"),
    ],
)
async def test_hostile_bytes_cost_only_their_connection(what: str, data: bytes) -> None:
    handler = Script()
    handler.react = lambda peer, request_id, said, body: (
        peer.reply(request_id, said) if said.text == "good" else None
    )
    async with serving(handler) as server, server.link() as link:
        hostile = await trio.open_tcp_stream(server.host, server.port)
        await hostile.send_all(data)
        try:
            assert await hostile.receive_some() == b""
        except trio.BrokenResourceError:
            pass
        await hostile.aclose()
        assert (await link.call(Say("good"))).message == Say("good")
        assert len(handler.gone) == 1
        assert server.service.protocol_errors == 1


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("noise", b"HTTP/1.1 400 Bad Request"),
        ("a reply to no request", wire.encode_prefix(wire.REPLY, 1, 99, 1, 0) + b"\x80"),
        ("a request", request_bytes(1)),
        ("an error that is none", wire.encode_prefix(wire.ERROR, 0, 1, 1, 0) + b"\x80"),
        ("a message that is none", wire.encode_prefix(wire.REPLY, 1, 1, 1, 0) + b"\x80"),
    ],
)
async def test_a_hostile_server_costs_only_the_link(what: str, data: bytes) -> None:
    stream, server = trio.testing.memory_stream_pair()
    link = rpc.Link(stream, PROTOCOL)
    failures: list[Reply | rpc.RpcError] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.serve)
        link.request(Say("x"), on_reply=failures.append)
        await server.send_all(data)
        await link.closed.wait()
    assert link.close_reason.startswith("protocol error")
    assert [type(failure) for failure in failures] == [rpc.LinkClosedError]


async def test_answers_to_a_peer_that_left_are_ignored() -> None:
    handler = Script()
    handler.react = keep_open
    async with serving(handler) as server:
        async with server.link() as link:
            link.request(Say("x"), on_reply=lambda reply: None)
            await until(lambda: handler.requests)
        peer, request_id, _, _ = handler.requests[0]
        await until(lambda: not peer.is_connected)
        peer.reply(request_id, Say("too late"))
        peer.send(Say("too late"))


async def test_answering_twice_is_our_mistake() -> None:
    handler = Script()
    handler.react = keep_open
    async with serving(handler) as server, server.link() as link:
        link.request(Say("x"), on_reply=lambda reply: None)
        await until(lambda: handler.requests)
        peer, request_id, _, _ = handler.requests[0]
        peer.reply(request_id, Say("once"))
        with pytest.raises(AssertionError, match="answered twice"):
            peer.reply(request_id, Say("twice"))


async def test_no_server_is_a_connect_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(rpc.ConnectError, match=r"cannot connect to 127\.0\.0\.1") as caught:
            async with rpc.connect("127.0.0.1", port, PROTOCOL):
                pass
    assert caught.value.happened is False


async def test_an_error_in_the_block_of_a_link_comes_out_as_it_is() -> None:
    async with serving() as server:
        with pytest.raises(KeyError, match="ours"):
            async with server.link():
                raise KeyError("ours")


async def test_a_callback_that_raises_does_not_keep_others_from_being_told() -> None:
    stream, _other = trio.testing.memory_stream_pair()
    link = rpc.Link(stream, PROTOCOL)
    told: list[Reply | rpc.RpcError] = []

    def raise_error(reply: Reply | rpc.RpcError) -> None:
        raise ValueError("a mistake")

    link.request(Say("1"), on_reply=raise_error)
    link.request(Say("2"), on_reply=told.append)
    with pytest.raises(ExceptionGroup):
        link.close()
    assert len(told) == 1
    await stream.aclose()


async def test_the_end_of_a_link_is_no_error_in_its_nursery() -> None:
    handler = Script()
    async with serving(handler) as server, trio.open_nursery() as nursery:
        link = await rpc.open_link(nursery, server.host, server.port, PROTOCOL)
        await until(lambda: handler.peers)
        handler.peers[0].close()
        server.reactor.flush()
    assert link.is_closed


async def test_request_ids_wrap_past_those_still_open() -> None:
    handler = Script()
    handler.react = keep_open
    async with serving(handler) as server, server.link() as link:
        assert link.request(Say("old"), on_reply=lambda reply: None) == 1
        link._next_id = wire.REQUEST_ID_MAX
        assert link.request(Say("last"), on_reply=lambda reply: None) == wire.REQUEST_ID_MAX
        assert link.request(Say("wrapped"), on_reply=lambda reply: None) == 2


async def test_rpc_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    handler = Script()
    reactor = Reactor()
    context = tls.server_context(tmp_path / "server.pem", tmp_path / "server.pem")
    host, port = reactor.listen("127.0.0.1", 0, RpcService(PROTOCOL, handler), ssl_context=context)
    async with trio.open_nursery() as nursery:
        await nursery.start(reactor.run)
        with trio.fail_after(WAIT_S):
            client_context = tls.client_context(tmp_path / "ca.pem")
            async with rpc.connect(host, port, PROTOCOL, ssl_context=client_context) as link:
                reply = await link.call(Say("secret"), bytes(1_000_000))
                assert len(reply.body) == 1_000_000
            with pytest.raises(rpc.ConnectError):
                await rpc.open_link(nursery, host, port, PROTOCOL, ssl_context=ssl.create_default_context())
        nursery.cancel_scope.cancel()
