"""Sessions of one server: specification 4.7 and 22.15, in whole ensembles."""

import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coord.server.config.sessions import SessionsConfig
from coord.server.local_sessions import LocalSessions
from tests.coord.ensemble import Ensemble
from tests.coord.server.ensembles import ensemble, figure, followers, until
from tests.coord.server.operated import ask, operated
from tests.coord.server.wire_client import (
    CLOSE,
    CREATE,
    EXISTS,
    GET_DATA,
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
EXPIRED = bytes.fromhex("00000025 00000000 00000000 0000000000000000 00000010") + bytes(17)


@pytest.fixture
async def plain(tmp_path: Path) -> AsyncIterator[Ensemble]:
    """Local sessions that stay local."""
    async with ensemble(tmp_path, localSessionsEnabled="true") as servers:
        yield servers


@pytest.fixture
async def upgrading(tmp_path: Path) -> AsyncIterator[Ensemble]:
    async with ensemble(
        tmp_path, localSessionsEnabled="true", localSessionsUpgradingEnabled="true"
    ) as servers:
        yield servers


def multi(*creates: bytes) -> bytes:
    parts = [struct.pack(">i?i", CREATE, False, -1) + body for body in creates]
    return b"".join(parts) + struct.pack(">i?i", -1, True, -1)


async def known_sessions(servers: Ensemble, sid: int) -> int:
    return await figure(servers, sid, "global_sessions")


async def test_22_15_a_local_session_is_no_session_of_the_ensemble(plain: Ensemble) -> None:
    for sid in plain.lines:
        async with await Wire.session(plain.port(sid)) as wire:
            assert wire.session_id >> 56 == sid
            assert (await wire.call(1, CREATE, create(b"/of-%d" % sid, b"x")))[0] == 0
            await wire.send(
                request(2, SET_DATA, set_data(b"/of-%d" % sid, b"yz")),
                request(3, GET_DATA, watched(b"/of-%d" % sid)),
            )
            assert (await wire.reply())[2] == 0
            assert (await wire.reply())[3].startswith(buffer(b"yz"))
    assert [await known_sessions(plain, sid) for sid in plain.lines] == [0, 0, 0]


async def test_22_15_without_upgrade_ephemerals_are_refused_on_every_server(plain: Ensemble) -> None:
    for sid in plain.lines:
        async with await Wire.session(plain.port(sid)) as wire:
            assert (await wire.call(1, CREATE, create(b"/e", flags=1)))[0] == -120
            error, results = await wire.call(2, MULTI, multi(create(b"/a"), create(b"/e", flags=3)))
            assert error == 0
            errors = [struct.unpack_from(">i", results, at + 9)[0] for at in (0, 13)]
            assert errors == [0, -120]
            assert (await wire.call(3, EXISTS, watched(b"/a")))[0] == -101


async def test_22_15_pipelined_ephemerals_make_the_session_global_exactly_once(upgrading: Ensemble) -> None:
    follower = (await followers(upgrading))[0]
    async with await Wire.session(upgrading.port(follower), timeout_ms=20_000) as wire:
        assert await known_sessions(upgrading, follower) == 0
        await wire.send(
            request(1, CREATE, create(b"/before")),
            *[request(2 + number, CREATE, create(b"/e-%d" % number, flags=1)) for number in range(20)],
            request(30, MULTI, multi(create(b"/e-20", flags=1))),
            request(31, GET_DATA, watched(b"/e-0")),
        )
        replies = [await wire.reply() for _ in range(23)]
        assert [error for _, _, error, _ in replies] == [0] * 23
        assert struct.unpack_from(">q", replies[-1][3], 4 + 44)[0] == wire.session_id
        zxids = [zxid for _, zxid, _, _ in replies[:22]]
        assert zxids[1:] == list(range(zxids[1], zxids[1] + 21))
        assert zxids[1] - zxids[0] == 2  # one transaction between them: the session's
    for sid in upgrading.lines:
        async with await Wire.session(upgrading.port(sid)) as other:
            await other.call(1, SYNC, buffer(b"/"))
            assert await known_sessions(upgrading, sid) == 1


async def test_22_15_an_upgraded_session_moves_to_another_server(upgrading: Ensemble) -> None:
    one, two = await followers(upgrading)
    async with await Wire.session(upgrading.port(one)) as old:
        assert (await old.call(1, CREATE, create(b"/e", flags=1)))[0] == 0
        session = {"session_id": old.session_id, "password": old.password}
        async with await Wire.session(upgrading.port(two), **session) as new:
            assert new.session_id == old.session_id
            assert (await new.call(1, SET_DATA, set_data(b"/e", b"moved")))[0] == 0
            await old.send(request(2, SET_DATA, set_data(b"/e", b"late")))
            assert await old.rest() == b""
            assert (await new.call(2, GET_DATA, watched(b"/e")))[1].startswith(buffer(b"moved"))


async def test_a_local_session_taken_up_elsewhere_is_expired(plain: Ensemble) -> None:
    one, two = await followers(plain)
    async with await Wire.session(plain.port(one)) as wire:
        async with await Wire.open(plain.port(two)) as other:
            await other.send(connect_request(5000, wire.session_id, wire.password))
            assert await other.rest() == EXPIRED
        assert (await wire.call(1, EXISTS, watched(b"/")))[0] == 0


async def test_taken_up_again_at_its_server_it_moves_with_all_it_has_written(plain: Ensemble) -> None:
    follower = (await followers(plain))[0]
    port = plain.port(follower)
    async with await Wire.session(port) as old:
        async with await Wire.open(port) as thief:
            await thief.send(connect_request(5000, old.session_id, b"x" * 16))
            assert await thief.rest() == EXPIRED
        await old.send(*[request(n, CREATE, create(b"/n-%d" % n)) for n in range(100)])
        assert (await old.reply())[2] == 0
        async with await Wire.session(port, session_id=old.session_id, password=old.password) as new:
            assert new.session_id == old.session_id
            await old.rest()
            first = [(await new.call(n, EXISTS, watched(b"/n-%d" % n)))[0] for n in range(100)]
            assert (await new.call(100, SYNC, buffer(b"/")))[0] == 0
            assert first == [(await new.call(n, EXISTS, watched(b"/n-%d" % n)))[0] for n in range(100)]


async def test_closing_it_is_answered_in_its_place_and_ends_it(plain: Ensemble) -> None:
    follower = (await followers(plain))[0]
    port = plain.port(follower)
    async with await Wire.session(port) as wire:
        await wire.send(
            request(1, CREATE, create(b"/kept")), request(2, CLOSE), request(3, CREATE, create(b"/never"))
        )
        assert (await wire.reply())[0::2] == (1, 0)
        assert (await wire.reply())[0::2] == (2, 0)
        assert await wire.rest() == b""
    async with await Wire.open(port) as again:
        await again.send(connect_request(5000, wire.session_id, wire.password))
        assert await again.rest() == EXPIRED
    async with await Wire.session(port) as other:
        assert (await other.call(1, EXISTS, watched(b"/kept")))[0] == 0
        assert (await other.call(2, EXISTS, watched(b"/never")))[0] == -101


async def test_its_server_ends_it_when_it_is_silent(plain: Ensemble) -> None:
    follower = (await followers(plain))[0]
    async with await Wire.session(plain.port(follower), timeout_ms=2000) as silent:
        assert await figure(plain, follower, "local_sessions") == 1
        assert await silent.rest() == b""

    async def is_over() -> bool:
        return await figure(plain, follower, "local_sessions") == 0

    await until(is_over)
    async with await Wire.open(plain.port(follower)) as again:
        await again.send(connect_request(300, silent.session_id, silent.password))
        assert await again.rest() == EXPIRED


async def test_it_outlives_a_change_of_leader_at_its_server(plain: Ensemble) -> None:
    follower = (await followers(plain))[0]
    async with await Wire.session(plain.port(follower), timeout_ms=20_000) as wire:
        assert (await wire.call(1, CREATE, create(b"/before")))[0] == 0
        await plain.stop(await plain.leader())
        assert await wire.rest() == b""
    await plain.until(lambda: plain.modes.get(follower) in ("leader", "follower"), "it serves again")
    session = {"session_id": wire.session_id, "password": wire.password}
    async with await Wire.session(plain.port(follower), **session) as again:
        assert again.session_id == wire.session_id
        assert (await again.call(1, SET_DATA, set_data(b"/before", b"after")))[0] == 0


async def test_22_15_on_a_standalone_server_the_setting_changes_nothing(tmp_path: Path) -> None:
    sessions = SessionsConfig(local_sessions=True)
    async with operated(tmp_path, sessions=sessions) as port, await Wire.session(port) as wire:
        assert (await wire.call(1, CREATE, create(b"/e", flags=1)))[0] == 0
        assert b"\nzk_global_sessions\t1\nzk_local_sessions\t0\n" in await ask(port, b"mntr")


def test_it_expires_between_its_timeout_and_a_tick_more() -> None:
    local = LocalSessions(100, upgrades=False)
    local.add(7, 1000, b"p" * 16, 0)
    touched = {7, 8}
    local.take_touched(touched, 500)
    assert touched == {8}
    assert local.take_expired(1499) == []
    assert local.take_expired(1600) == [7]
    assert 7 not in local
    assert not local.accepts(7, b"p" * 16)


def test_after_an_election_everyone_has_the_full_timeout_again() -> None:
    local = LocalSessions(100, upgrades=False)
    local.add(7, 1000, b"p" * 16, 0)
    local.restart(5000)
    assert local.take_expired(5900) == []
    assert local.take_expired(6100) == [7]


async def test_what_a_local_session_wrote_is_there_after_a_restart(plain: Ensemble) -> None:
    """Replay takes the owner's word as execution did; else the write would be gone, and replicas differ."""
    sid = (await followers(plain))[0]
    async with await Wire.session(plain.port(sid)) as wire:
        assert (await wire.call(1, CREATE, create(b"/kept", b"value")))[0] == 0
    await plain.stop(sid)
    await plain.start(sid)
    async with await Wire.session(plain.port(sid)) as wire:
        assert (await wire.call(1, EXISTS, watched(b"/kept")))[0] == 0
