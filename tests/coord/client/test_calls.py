"""Requests and replies of one connection, without the connection (spec 5.3: answered in order)."""

import itertools
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord.client.calls import REPLY_BYTES_MAX, Call, Event, Exchange, Reply
from coord.errors import ProtocolError
from coord.protocol import opcodes
from coord.protocol.opcodes import XID_EVENT, XID_PING


def reply(xid: int, zxid: int = 0, err: int = 0, body: bytes = b"") -> bytes:
    return struct.pack(">iiqi", 16 + len(body), xid, zxid, err) + body


def make_exchange(count: int) -> tuple[Exchange, list[Call]]:
    exchange = Exchange(0)
    calls = [Call(4, b"body", None) for _ in range(count)]
    for call in calls:
        exchange.encode(call)
    return exchange, calls


def test_requests_are_numbered_from_one() -> None:
    exchange = Exchange(0)
    assert exchange.encode(Call(4, b"ab", None)) == struct.pack(">iii", 10, 1, 4) + b"ab"
    assert exchange.encode(Call(5, b"", None)) == struct.pack(">iii", 8, 2, 5)


def test_a_ping_has_its_own_number_and_waits_for_nothing() -> None:
    exchange = Exchange(0)
    assert exchange.encode(Call(opcodes.PING, b"", None)) == struct.pack(">iii", 8, XID_PING, opcodes.PING)
    assert not exchange.in_flight
    assert list(exchange.receive(reply(XID_PING, 7))) == []
    assert exchange.last_zxid == 7


@given(
    bodies=st.lists(st.one_of(st.binary(max_size=40), st.none()), max_size=12),
    cuts=st.lists(st.integers(0, 700), max_size=12),
)
def test_replies_and_events_come_whole_and_in_order_wherever_the_stream_is_cut(
    bodies: list[bytes | None], cuts: list[int]
) -> None:
    """None stands for an event between two replies."""
    exchange, calls = make_exchange(sum(body is not None for body in bodies))
    stream, expected, xid = b"", [], 0
    for body in bodies:
        if body is None:
            stream += reply(XID_EVENT, -1, 0, b"event")
            expected.append(b"event")
        else:
            xid += 1
            stream += reply(xid, xid * 10, -101, body)
            expected.append(body)
    points = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    items: list[Reply | Event] = []
    for start, end in itertools.pairwise(points):
        items += exchange.receive(stream[start:end])
    assert [item.body for item in items] == expected
    replies = [item for item in items if isinstance(item, Reply)]
    assert [item.call for item in replies] == calls
    assert all(item.err == -101 for item in replies)
    assert not exchange.in_flight
    assert exchange.last_zxid == xid * 10


def test_a_reply_may_come_byte_by_byte() -> None:
    exchange, calls = make_exchange(1)
    data = reply(1, 5, 0, b"x" * 100)
    items = [item for at in range(len(data)) for item in exchange.receive(data[at : at + 1])]
    assert items == [Reply(calls[0], 0, b"x" * 100)]


def test_a_reply_out_of_order_is_refused() -> None:
    exchange, _ = make_exchange(2)
    with pytest.raises(ProtocolError, match="expected the reply to request 1, got one to 2"):
        list(exchange.receive(reply(2)))


def test_a_reply_to_nothing_is_refused() -> None:
    exchange, _ = make_exchange(0)
    with pytest.raises(ProtocolError, match="expected the reply to request none, got one to 1"):
        list(exchange.receive(reply(1)))


@pytest.mark.parametrize("length", [-1, 0, 15, REPLY_BYTES_MAX + 1])
def test_a_frame_that_can_be_no_reply_is_refused_by_its_length(length: int) -> None:
    exchange, _ = make_exchange(1)
    with pytest.raises(ProtocolError, match="expected a frame of 16 to"):
        list(exchange.receive(struct.pack(">i", length)))


@given(st.binary(max_size=200))
def test_any_bytes_are_items_or_a_protocol_error(data: bytes) -> None:
    exchange, _ = make_exchange(3)
    try:
        list(exchange.receive(data))
    except ProtocolError:
        pass


def test_numbers_start_again_after_the_largest() -> None:
    exchange = Exchange(0)
    exchange._next_xid = 0x7FFFFFFF
    exchange.encode(Call(4, b"", None))
    exchange.encode(Call(4, b"", None))
    assert [xid for xid, _ in exchange.in_flight] == [0x7FFFFFFF, 1]


def test_the_newest_state_seen_never_goes_back() -> None:
    exchange = Exchange(50)
    exchange.encode(Call(4, b"", None))
    list(exchange.receive(reply(1, 20)))
    assert exchange.last_zxid == 50


kinds = st.sampled_from(
    [opcodes.GET_DATA, opcodes.AUTH, opcodes.SET_WATCHES, opcodes.SET_WATCHES2, opcodes.PING]
)


@given(kinds=st.lists(kinds, max_size=20), chance=st.randoms(use_true_random=False))
def test_answers_with_xids_of_their_own_find_their_requests(kinds: list[int], chance: random.Random) -> None:
    """Spec 5.2, 5.3: answers to credentials may overtake others; the rest keeps its order."""
    exchange = Exchange(0)
    calls = [Call(op, b"", None) for op in kinds]
    frames = [exchange.encode(call) for call in calls]
    xids = [struct.unpack_from(">i", frame, 4)[0] for frame in frames]
    asked = [xid for call, xid in zip(calls, xids, strict=True) if call.op != opcodes.AUTH]
    credentials = [opcodes.XID_AUTH] * sum(call.op == opcodes.AUTH for call in calls)
    answered: list[Call] = []
    while asked or credentials:
        first = asked if asked and (not credentials or chance.random() < 0.5) else credentials
        answered += [item.call for item in exchange.receive(reply(first.pop(0))) if isinstance(item, Reply)]
    for special in (True, False):
        assert [call for call in answered if (call.op == opcodes.AUTH) is special] == [
            call for call in calls if (call.op == opcodes.AUTH) is special and call.op != opcodes.PING
        ]
    assert not exchange.in_flight


def test_a_sync_goes_right_before_the_read_that_it_guards() -> None:
    exchange = Exchange(0)
    call = Call(opcodes.GET_DATA, b"read", None, sync=b"path")
    assert exchange.encode(call) == (
        struct.pack(">iii", 12, 1, opcodes.SYNC)
        + b"path"
        + struct.pack(">iii", 12, 2, opcodes.GET_DATA)
        + b"read"
    )
    first, second = exchange.receive(reply(1) + reply(2))
    assert isinstance(first, Reply)
    assert first.call.guarded is call
    assert isinstance(second, Reply)
    assert second.call is call
