"""Hostile bytes on the client port: they cost their own connection, the server serves on within its memory.

The frames are made by a seeded generator: whole garbage, garbage in valid frames, and valid requests with
flipped bytes, cut anywhere, behind a write or not.
"""

import random
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from coord.reactor import Connection
from coord.server.connection import ClientConnection
from coord.server.service import FLOOD_READ_BYTES, READ_REQUESTS_MAX
from tests.coord.server.ensembles import ensemble, followers
from tests.coord.server.test_server import Start, port, start
from tests.coord.server.wire_client import (
    CREATE,
    DELETE,
    EXISTS,
    GET_CHILDREN,
    GET_DATA,
    PING,
    SET_DATA,
    SYNC,
    Wire,
    buffer,
    connect_request,
    create,
    request,
    set_data,
    watched,
)

__all__ = ["port", "start"]

SESSIONS_PER_SEED = 25
MULTI, SET_WATCHES, AUTH, MULTI_READ = 14, 101, 100, 22
OPS = (
    *(0, CREATE, DELETE, EXISTS, GET_DATA, SET_DATA, 6, 7, GET_CHILDREN, SYNC, PING, 12, 13, MULTI, 15, 16),
    *(17, 18, 19, 20, 21, MULTI_READ, AUTH, SET_WATCHES, 102, 103, 104, 105, 106, 107, -10, -11, 32767, -1),
)


def _well_formed(dice: random.Random) -> bytes:
    """A request as a client would send it."""
    path = dice.choice([b"/", b"/a", b"/a/b", b"", b"a", b"/\0", b"/a/../b", b"/zookeeper/config"])
    multi = (
        struct.pack(">i?i", SET_DATA, False, -1) + set_data(path, b"m") + struct.pack(">i?i", -1, True, -1)
    )
    bodies: list[tuple[int, bytes]] = [
        (CREATE, create(path, b"data", dice.randrange(-1, 9))),
        (DELETE, buffer(path) + struct.pack(">i", -1)),
        (SET_DATA, set_data(path, b"x" * dice.randrange(100), dice.choice([-1, 0, 5]))),
        (dice.choice([EXISTS, GET_DATA, GET_CHILDREN, 12]), watched(path, True)),
        (SYNC, buffer(path)),
        (PING, b""),
        (MULTI, multi),
        (SET_WATCHES, struct.pack(">qi", 0, 1) + buffer(path) + struct.pack(">ii", -1, 0)),
        (AUTH, struct.pack(">i", 0) + buffer(b"digest") + buffer(b"u:p")),
        (dice.choice([6, 103, 104]), buffer(path)),
    ]
    op, body = dice.choice(bodies)
    return request(dice.randrange(1, 1 << 31), op, body)


def _hostile(dice: random.Random) -> bytes:
    """Some bytes behind a connect request."""
    kind = dice.randrange(6)
    if kind == 0:
        return dice.randbytes(dice.randrange(1, 200))
    if kind == 1:
        return buffer(dice.randbytes(dice.randrange(0, 60)))
    if kind == 2:
        return request(dice.randrange(1 << 31), dice.choice(OPS), dice.randbytes(dice.randrange(0, 80)))
    data = bytearray(_well_formed(dice))
    if kind == 3:
        for _ in range(dice.randrange(1, 4)):
            data[dice.randrange(4, len(data))] = dice.randrange(256)
    elif kind == 4:
        body = bytes(data[4 : dice.randrange(12, len(data) + 1)])
        return buffer(body)
    return bytes(data)


def _conversation(dice: random.Random) -> Iterator[bytes]:
    for _ in range(dice.randrange(1, 30)):
        yield _well_formed(dice) if dice.random() < 0.5 else _hostile(dice)


async def _attack(port: int, dice: random.Random) -> None:
    """One connection; whether the server ends it is its business."""
    async with await Wire.open(port) as wire:
        try:
            if dice.random() < 0.1:
                await wire.send(_hostile(dice))
            await wire.send(connect_request(2000))
            for part in _conversation(dice):
                await wire.send(part)
                if dice.random() < 0.1:
                    await trio.lowlevel.checkpoint()
            with trio.move_on_after(0.02):
                while await wire.stream.receive_some():
                    pass
        except trio.BrokenResourceError:
            pass


@pytest.mark.parametrize("seed", range(6))
async def test_hostile_requests_cost_only_their_connection(port: int, seed: int) -> None:
    dice = random.Random(seed)
    async with await Wire.session(port) as witness:
        assert (await witness.call(1, CREATE, create(b"/witness", b"1")))[0] == 0
        for number in range(SESSIONS_PER_SEED):
            await _attack(port, dice)
            assert (await witness.call(2 + number, SET_DATA, set_data(b"/witness", b"%d" % number)))[0] == 0
        error, body = await witness.call(100, GET_DATA, watched(b"/witness"))
        assert (error, body[4:6]) == (0, b"%d" % (SESSIONS_PER_SEED - 1))


async def test_hostile_requests_of_local_sessions_cost_only_their_connection(tmp_path: Path) -> None:
    settings = ("localSessionsEnabled", "localSessionsUpgradingEnabled")
    dice = random.Random(7)
    async with ensemble(tmp_path, **dict.fromkeys(settings, "true")) as servers:
        port = servers.port((await followers(servers))[0])
        async with await Wire.session(port, timeout_ms=20_000) as witness:
            for number in range(2 * SESSIONS_PER_SEED):
                await _attack(port, dice)
                error, _ = await witness.call(number, CREATE, create(b"/witness-", flags=3 if number else 2))
                assert error == 0
        for sid in servers.running:
            async with await Wire.session(servers.port(sid)) as wire:
                assert (await wire.call(1, SYNC, buffer(b"/")))[0] == 0
                assert (await wire.call(2, SET_DATA, set_data(b"/", b"served")))[0] == 0


async def test_what_hostile_requests_left_behind_can_be_started_from(start: Start) -> None:
    """Whatever got into the log is replayed to the same end."""
    dice = random.Random(99)
    port = await start()
    for _ in range(SESSIONS_PER_SEED):
        await _attack(port, dice)
    async with await Wire.session(port) as wire:
        await wire.send(request(1, SYNC, buffer(b"/")))
        _, before, _, _ = await wire.reply()
    port = await start()
    async with await Wire.session(port, last_zxid=before) as wire:
        assert (await wire.call(1, CREATE, create(b"/after")))[0] == 0


@pytest.mark.parametrize(
    "first", [struct.pack(">i", 1_000_000), connect_request() + struct.pack(">i", 1_000_000)]
)
async def test_a_frame_that_never_ends_costs_no_more_than_its_length(port: int, first: bytes) -> None:
    """Sent in small pieces, which cost more than their bytes."""
    async with await Wire.open(port) as wire, await Wire.session(port) as witness:
        await wire.send(first)
        for _ in range(300):
            await wire.send(b"x" * 100)
        assert (await witness.call(1, EXISTS, watched(b"/")))[0] == 0


def test_a_frame_that_comes_byte_by_byte_is_kept_in_few_pieces() -> None:
    client = ClientConnection(None, (), 0)  # type: ignore[arg-type]
    tracemalloc.start()
    try:
        for number in range(100_000):
            client.hold(bytes((number & 0xFF, 1)), 1 << 20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
    assert len(client.take_held()) == 200_000


async def test_reads_behind_a_write_that_nobody_takes_end_their_connection_only(port: int) -> None:
    """Their answers are due at once when the write is executed: 300 of a megabyte each."""
    async with await Wire.session(port) as witness, await Wire.session(port) as wire:
        large = bytes(1_000_000)
        assert (await witness.call(1, CREATE, create(b"/large", large)))[0] == 0
        await wire.send(
            request(1, SET_DATA, set_data(b"/large", large)),
            *[request(2 + number, GET_DATA, watched(b"/large")) for number in range(300)],
        )
        ended = await wire.rest()
        assert len(ended) < 300_000_000
        assert (await witness.call(2, EXISTS, watched(b"/large")))[0] == 0


@pytest.mark.parametrize("limit", [100, 100_000])
async def test_1_4_a_frame_over_the_limit_is_refused_though_it_came_in_one_piece(
    start: Start, limit: int
) -> None:
    port = await start(frame_bytes_max=limit)
    largest = set_data(b"/", bytes(limit - 8 - 13))
    async with await Wire.session(port) as wire, await Wire.session(port) as witness:
        assert (await wire.call(1, SET_DATA, largest))[0] == 0
        await wire.send(request(2, SET_DATA, largest + b"x"))
        assert await wire.rest() == b""
        assert (await witness.call(1, EXISTS, watched(b"/")))[0] == 0


async def test_a_flood_of_tiny_requests_is_read_in_small_pieces(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One read of 256 KB holds 21 000 pings; thirty such connections made everybody wait for a second."""
    limits: list[int] = []
    read_at_most = Connection.read_at_most

    def note(conn: Connection, count: int) -> None:
        limits.append(count)
        read_at_most(conn, count)

    monkeypatch.setattr(Connection, "read_at_most", note)
    pings = 10 * READ_REQUESTS_MAX
    async with await Wire.session(port) as wire, await Wire.session(port) as other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.send, request(-2, PING) * pings)
            assert len(await wire.exactly(20 * pings)) == 20 * pings
        assert set(limits) == {FLOOD_READ_BYTES}
        limits.clear()
        await other.send(request(-2, PING) * 1000)
        await other.exactly(20 * 1000)
        assert limits == []
