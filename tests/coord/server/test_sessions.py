"""Sessions across the servers of an ensemble: specification 4.3 to 4.6, 22.5, 22.10, 22.18, 22.19."""

import random
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from tests.coord.ensemble import Ensemble
from tests.coord.server.ensembles import all_serve, ensemble, followers
from tests.coord.server.operated import operated
from tests.coord.server.wire_client import (
    CLOSE,
    CREATE,
    EXISTS,
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

MULTI = 14


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Ensemble]:
    async with ensemble(tmp_path) as made:
        yield made


async def taken_up(servers: Ensemble, sid: int, old: Wire) -> Wire:
    """The session of `old` at another server."""
    return await Wire.session(
        servers.port(sid), timeout_ms=20_000, session_id=old.session_id, password=old.password
    )


def multi(path: bytes, data: bytes) -> bytes:
    header = struct.pack(">i?i", SET_DATA, False, -1)
    return header + set_data(path, data) + struct.pack(">i?i", -1, True, -1)


@pytest.mark.parametrize(
    "late",
    [
        [(SET_DATA, set_data(b"/e", b"late"))],
        [(MULTI, multi(b"/e", b"late"))],
        [(PING, b""), (SET_DATA, set_data(b"/e", b"late")), (PING, b"")],
        [(SET_DATA, set_data(b"/e", b"late"))] * 50,
    ],
)
@pytest.mark.parametrize("through", ["follower", "leader"])
async def test_22_5_a_write_through_the_old_connection_takes_no_effect_and_ends_it(
    servers: Ensemble, late: list[tuple[int, bytes]], through: str
) -> None:
    one, two = await followers(servers)
    old_sid = one if through == "follower" else await servers.leader()
    async with await Wire.session(servers.port(old_sid), timeout_ms=20_000) as old:
        assert (await old.call(1, CREATE, create(b"/e", b"before", flags=1)))[0] == 0
        async with await taken_up(servers, two, old) as new:
            await old.send(*[request(number, op, body) for number, (op, body) in enumerate(late)])
            answered = await old.rest()
            assert len(answered) <= 20
            assert answered[:8] in (b"", b"\0\0\0\x10\xff\xff\xff\xfe")  # at most the ping before the write
            assert (await new.call(1, SYNC, buffer(b"/")))[0] == 0
            error, data = await new.call(2, GET_DATA, watched(b"/e"))
            assert (error, data[:10]) == (0, buffer(b"before"))
            assert (await new.call(3, SET_DATA, set_data(b"/e", b"new")))[0] == 0


@pytest.mark.parametrize("seed", range(3))
async def test_22_5_no_write_of_an_older_connection_follows_those_of_a_newer_one(
    servers: Ensemble, seed: int
) -> None:
    """However its writes and the move overlap: what the newer connection has read stays until it writes."""
    dice = random.Random(seed)
    sids = sorted(servers.lines)
    wire = await Wire.session(servers.port(dice.choice(sids)), timeout_ms=20_000)
    assert (await wire.call(1, CREATE, create(b"/s", b"begin", flags=1)))[0] == 0
    for number in range(12):
        flood = [request(k, SET_DATA, set_data(b"/s", b"old %d %d" % (number, k))) for k in range(300)]
        sid = dice.choice(sids)
        async with trio.open_nursery() as nursery, wire:
            nursery.start_soon(_send_in_parts, wire, flood, dice.randrange(1, 60))
            for _ in range(dice.randrange(20)):
                await trio.lowlevel.checkpoint()
            newer = await taken_up(servers, sid, wire)
            seen = []
            for _ in range(4):
                assert (await newer.call(2, SYNC, buffer(b"/")))[0] == 0
                seen.append(await newer.call(3, GET_DATA, watched(b"/s")))
            assert len(set(seen)) == 1, (number, sid)
            assert (await newer.call(4, SET_DATA, set_data(b"/s", b"new")))[0] == 0
            for _ in range(4):
                assert (await newer.call(5, SYNC, buffer(b"/")))[0] == 0
                assert (await newer.call(6, GET_DATA, watched(b"/s")))[1].startswith(buffer(b"new"))
            nursery.cancel_scope.cancel()
        wire = newer
    await wire.stream.aclose()


async def _send_in_parts(wire: Wire, requests: list[bytes], count: int) -> None:
    try:
        for at in range(0, len(requests), count):
            await wire.send(*requests[at : at + count])
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # the server has ended it


async def test_4_4_reads_through_the_old_connection_are_still_answered(servers: Ensemble) -> None:
    one, two = await followers(servers)
    async with await Wire.session(servers.port(one), timeout_ms=20_000) as old:
        assert (await old.call(1, CREATE, create(b"/e", flags=1)))[0] == 0
        async with await taken_up(servers, two, old):
            assert (await old.call(2, EXISTS, watched(b"/e")))[0] == 0
            assert (await old.call(-2, PING))[0] == 0
            assert (await old.call(3, SYNC, buffer(b"/")))[0] == 0
            assert (await old.call(-8, 101, struct.pack(">qiii", 0, 0, 0, 0)))[0] == 0


async def test_4_4_closing_through_the_old_connection_ends_the_session_for_the_new_one(
    servers: Ensemble,
) -> None:
    one, two = await followers(servers)
    async with (
        await Wire.session(servers.port(one), timeout_ms=20_000) as old,
        await taken_up(servers, two, old) as new,
    ):
        assert (await new.call(1, CREATE, create(b"/e", flags=1)))[0] == 0
        assert (await old.call(7, CLOSE))[0] == 0
        assert await old.rest() == b""
        assert await new.rest() == b""


async def test_4_4_who_knows_the_id_only_cuts_nobodys_connection(servers: Ensemble) -> None:
    """The deviation of chapter 24: the password first; the answer has the bytes of 4.1."""
    leader = await servers.leader()
    one, two = await followers(servers)
    async with await Wire.session(servers.port(one), timeout_ms=20_000) as wire:
        for sid in (leader, one, two):
            for flag in (b"", b"\0", b"\1"):
                async with await Wire.open(servers.port(sid)) as thief:
                    await thief.send(connect_request(5000, wire.session_id, b"x" * 16, flag=flag))
                    body = bytes(16) + struct.pack(">i", 16) + bytes(16 + len(flag))
                    assert await thief.rest() == buffer(body)
        assert (await wire.call(1, CREATE, create(b"/mine")))[0] == 0


async def test_22_10_ending_one_session_leaves_anothers_ephemerals(servers: Ensemble) -> None:
    one, two = await followers(servers)
    async with (
        await Wire.session(servers.port(one)) as ends,
        await Wire.session(servers.port(two), timeout_ms=20_000) as stays,
    ):
        for number in range(10):
            assert (await ends.call(number, CREATE, create(b"/ends-%d" % number, flags=1)))[0] == 0
        assert (await stays.call(1, CREATE, create(b"/stays", flags=1)))[0] == 0
        assert (await ends.call(10, CLOSE))[0] == 0
        for sid in servers.lines:
            async with await Wire.session(servers.port(sid)) as wire:
                assert (await wire.call(1, SYNC, buffer(b"/")))[0] == 0
                for number in range(10):
                    assert (await wire.call(2, EXISTS, watched(b"/ends-%d" % number)))[0] == -101
                assert (await wire.call(3, EXISTS, watched(b"/stays")))[0] == 0


async def test_22_10_no_ephemeral_outlives_its_session_over_restart_and_change_of_leader(
    servers: Ensemble,
) -> None:
    one, two = await followers(servers)
    async with (
        await Wire.session(servers.port(one)) as ends,
        await Wire.session(servers.port(two), timeout_ms=20_000) as stays,
    ):
        assert (await ends.call(1, CREATE, create(b"/ends", flags=1)))[0] == 0
        assert (await stays.call(1, CREATE, create(b"/stays", flags=1)))[0] == 0
        assert (await ends.call(2, CLOSE))[0] == 0
    leader = await servers.leader()
    await servers.stop(leader)
    await all_serve(servers)
    await servers.start(leader)
    await all_serve(servers)
    for sid in servers.lines:
        async with await Wire.session(servers.port(sid)) as wire:
            assert (await wire.call(1, SYNC, buffer(b"/")))[0] == 0
            assert (await wire.call(2, EXISTS, watched(b"/ends")))[0] == -101
            assert (await wire.call(3, EXISTS, watched(b"/stays")))[0] == 0


async def test_4_3_a_change_of_leader_postpones_expiry(servers: Ensemble) -> None:
    """The new leader gives every session its full time."""
    one, _ = await followers(servers)
    async with await Wire.session(servers.port(one), timeout_ms=20_000) as wire:
        assert (await wire.call(1, CREATE, create(b"/e", flags=1)))[0] == 0
        leader = await servers.leader()
        await servers.stop(leader)
        assert await wire.rest() == b""  # 22.19: without a leader there is no service
    await all_serve(servers)
    sid = servers.running[-1]
    async with await taken_up(servers, sid, wire) as again:
        assert again.session_id == wire.session_id
        assert (await again.call(2, EXISTS, watched(b"/e")))[0] == 0


async def test_22_19_without_a_quorum_clients_are_closed_and_refused_until_there_is_one(
    servers: Ensemble,
) -> None:
    one, two = await followers(servers)
    leader = await servers.leader()
    async with await Wire.session(servers.port(one), timeout_ms=20_000) as wire:
        await servers.stop(two, leader)
        assert await wire.rest() == b""
    async with await Wire.open(servers.port(one)) as refused:
        await refused.send(connect_request())
        assert await refused.rest() == b""
    await servers.start(two)
    await all_serve(servers)
    async with await taken_up(servers, one, wire) as again:
        assert (await again.call(1, CREATE, create(b"/again")))[0] == 0


async def test_22_16_after_expiry_the_old_id_is_refused_and_a_new_one_given(tmp_path: Path) -> None:
    async with operated(tmp_path) as port:
        async with await Wire.session(port, timeout_ms=200) as silent:
            assert await silent.rest() == b""
        with trio.fail_after(60):
            while True:
                async with await Wire.open(port) as again:
                    await again.send(connect_request(200, silent.session_id, silent.password))
                    response = await again.frame()
                    if response[4:16] == bytes(12):
                        assert await again.rest() == b""
                        break
                    await trio.sleep(0.5)
        async with await Wire.session(port) as new:
            assert new.session_id not in (0, silent.session_id)
            assert len(new.password) == 16


async def test_22_18_xids_may_start_again(tmp_path: Path) -> None:
    xids = [2**31 - 3, 2**31 - 2, 2**31 - 1, 1, 2, 1]
    async with operated(tmp_path) as port, await Wire.session(port) as wire:
        await wire.send(*[request(xid, EXISTS, watched(b"/")) for xid in xids])
        assert [(await wire.reply())[0] for _ in xids] == xids
        await wire.send(*[request(xid, CREATE, create(b"/s-", flags=2)) for xid in xids])
        assert [(await wire.reply())[::2] for _ in xids] == [(xid, 0) for xid in xids]
