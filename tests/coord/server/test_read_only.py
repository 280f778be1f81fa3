"""A server without a quorum serves reads to those who ask for it: specification chapter 14, 22.90."""

import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coord.disk import RealDisk
from coord.protocol import opcodes
from coord.protocol.batch import FEATURE_LEVEL, Stamp, encode_batch, encode_block
from coord.server.answers import WRITE_OPS
from coord.server.config import parse_config
from coord.server.read_only import ReadOnlyMode
from coord.server.restrictions import NOT_READ_ONLY_OPS
from coord.server.tree_kind import TreeKind
from coord.storage import LmdbEnvironments, LogOptions, open_data_directory, open_state
from tests.coord.ensemble import Ensemble
from tests.coord.server.ensembles import ensemble, until, word
from tests.coord.server.wire_client import (
    CLOSE,
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

NOT_READ_ONLY = -119
GET_ACL, SET_ACL, GET_CHILDREN2, MULTI, CREATE2, MULTI_READ, AUTH, SET_WATCHES = (
    6,
    7,
    12,
    14,
    15,
    22,
    100,
    101,
)
EXPIRED = bytes.fromhex("00000025 00000000 00000000 0000000000000000 00000010") + bytes(16)
MULTI_END = struct.pack(">i?i", -1, True, -1)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for a leader in vain takes a tick, not two seconds."""
    monkeypatch.setattr("coord.server.read_only.LOOKING_MS_MIN", 0)


async def until_read_only(servers: Ensemble, sid: int) -> None:
    async def is_read_only() -> bool:
        return await word(servers.port(sid), b"isro") == b"ro"

    await until(is_read_only)


async def left_alone(servers: Ensemble) -> Wire:
    """Server 1 loses the others; returns a connection that ended with that, whose session all know."""
    async with await Wire.session(servers.port(1), timeout_ms=20_000) as wire:
        assert (await wire.call(1, CREATE, create(b"/e", b"ephemeral", flags=1)))[0] == 0
        assert (await wire.call(2, CREATE, create(b"/kept", b"value")))[0] == 0
        await servers.stop(2, 3)
        assert await wire.rest() == b""  # 22.19
    await until_read_only(servers, 1)
    return wire


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Ensemble]:
    settings = ("readonlymode__enabled", "localSessionsEnabled", "localSessionsUpgradingEnabled")
    async with ensemble(tmp_path, **dict.fromkeys(settings, "true")) as made:
        yield made


async def test_22_90_reads_are_answered_and_writes_refused(servers: Ensemble) -> None:
    """The table of 14.3."""
    await left_alone(servers)
    async with await Wire.session(servers.port(1), flag=b"\1") as wire:
        assert wire.session_id >> 56 == 1
        error, data = await wire.call(1, GET_DATA, watched(b"/kept", True))
        assert (error, data[:9]) == (0, buffer(b"value"))
        for op in (EXISTS, GET_CHILDREN, GET_CHILDREN2):
            assert (await wire.call(op, op, watched(b"/kept")))[0] == 0
        assert (await wire.call(2, GET_ACL, buffer(b"/kept")))[0] == 0
        reads = struct.pack(">i?i", GET_DATA, False, -1) + watched(b"/kept") + MULTI_END
        assert (await wire.call(3, MULTI_READ, reads))[0] == 0
        auth = struct.pack(">i", 0) + buffer(b"digest") + buffer(b"u:p")
        assert (await wire.call(-4, AUTH, auth))[0] == 0
        assert (await wire.call(-8, SET_WATCHES, struct.pack(">qiii", 1 << 40, 0, 0, 0)))[0] == 0
        assert (await wire.call(-2, PING))[0] == 0
        writes: list[tuple[int, bytes]] = [
            *[(op, create(b"/new", flags=flags)) for op in (CREATE, CREATE2) for flags in (0, 1)],
            (19, create(b"/new", flags=4)),
            (21, create(b"/new", flags=5) + bytes(8)),
            (DELETE, buffer(b"/kept") + struct.pack(">i", -1)),
            (20, buffer(b"/kept")),
            (SET_DATA, set_data(b"/kept", b"x")),
            (SET_ACL, b""),
            (16, b""),
            (SYNC, buffer(b"/")),
            (MULTI, MULTI_END),
        ]
        for number, (op, body) in enumerate(writes):
            assert (op, await wire.call(number, op, body)) == (op, (NOT_READ_ONLY, b""))
        await wire.send(request(9, 13, buffer(b"/kept") + bytes(4)))
        assert await wire.rest() == bytes.fromhex("00000010 00000009 ffffffffffffffff fffffffa")  # 14.5


async def test_22_90_the_handshake_says_so_and_refuses_who_did_not_ask(servers: Ensemble) -> None:
    """14.2, 4.1, 4.4."""
    known = await left_alone(servers)
    port = servers.port(1)
    for flag in (b"", b"\0"):
        async with await Wire.open(port) as wire:
            await wire.send(connect_request(flag=flag))
            assert await wire.rest() == b""
    async with await Wire.open(port) as wire:
        await wire.send(connect_request(last_zxid=1 << 50, flag=b"\1"))
        assert await wire.rest() == b""
    async with await Wire.open(port) as wire:
        await wire.send(connect_request(5000, known.session_id, known.password, flag=b"\1"))
        assert await wire.rest() == b""
    async with await Wire.open(port) as wire:
        await wire.send(connect_request(5000, 12345, known.password, flag=b"\1"))
        assert await wire.rest() == EXPIRED + b"\1"
    async with await Wire.open(port) as wire:
        await wire.send(connect_request(1, flag=b"\1"))
        response = await wire.frame()
        assert (len(response), response[36]) == (37, 1)
        assert struct.unpack_from(">i", response, 4)[0] == 200
        session_id, password = struct.unpack_from(">q", response, 8)[0], response[20:36]
        session = {"session_id": session_id, "password": password, "flag": b"\1"}
        async with await Wire.session(port, **session) as again:
            assert again.session_id == session_id
            assert await wire.rest() == b""
            assert (await again.call(7, CLOSE))[0] == 0
            assert await again.rest() == b""
    async with await Wire.open(port) as wire:
        await wire.send(connect_request(**session))
        assert await wire.rest() == EXPIRED + b"\1"


async def test_22_90_the_words_tell_the_mode(servers: Ensemble) -> None:
    """14.5, 16.5."""
    await left_alone(servers)
    for name in (b"srvr", b"stat"):
        lines = (await word(servers.port(1), name)).splitlines()
        assert lines[1] == b"READ-ONLY mode; serving only read-only clients"
        assert b"Mode: read-only" in lines
    assert b"zk_server_state\tread-only\n" in await word(servers.port(1), b"mntr")


async def test_22_90_when_the_quorum_is_back_all_connections_end_and_writes_work(servers: Ensemble) -> None:
    known = await left_alone(servers)
    async with await Wire.session(servers.port(1), flag=b"\1") as wire:
        assert (await wire.call(1, GET_DATA, watched(b"/e")))[0] == 0
        await servers.start(2)
        assert await wire.rest() == b""
    await servers.until(lambda: servers.modes[1] in ("leader", "follower"), "server 1 serves")
    session = {"session_id": known.session_id, "password": known.password, "flag": b"\1"}
    async with await Wire.session(servers.port(2), **session) as again:
        assert again.session_id == known.session_id
        assert (await again.call(1, SET_DATA, set_data(b"/e", b"again")))[0] == 0
    assert await word(servers.port(1), b"isro") == b"rw"


async def test_without_local_sessions_nobody_gets_a_session(tmp_path: Path) -> None:
    """The decision of 14.2: close."""
    async with ensemble(tmp_path, readonlymode__enabled="true") as servers:
        await servers.stop(2, 3)
        await until_read_only(servers, 1)
        async with await Wire.open(servers.port(1)) as wire:
            await wire.send(connect_request(flag=b"\1"))
            assert await wire.rest() == b""


async def test_without_the_setting_a_server_alone_serves_nobody(tmp_path: Path) -> None:
    """22.19."""
    async with ensemble(tmp_path, localSessionsEnabled="true") as servers:
        async with await Wire.session(servers.port(1)) as wire:
            await servers.stop(2, 3)
            assert await wire.rest() == b""

        async def rests() -> bool:
            return await word(servers.port(1), b"isro") == b"null"

        await until(rests)  # its connection went with the first of them; with the other it may have served on
        async with await Wire.open(servers.port(1)) as wire:
            await wire.send(connect_request(flag=b"\1"))
            assert await wire.rest() == b""


async def test_what_is_shown_was_committed(servers: Ensemble) -> None:
    """A write that is in the log alone may be taken back when there is a quorum again."""
    await left_alone(servers)
    await servers.stop(1)
    zxid = append_uncommitted(str(servers.directory / "1"), set_data(b"/kept", b"never agreed on"))
    await servers.start(1)
    await until_read_only(servers, 1)
    async with await Wire.session(servers.port(1), flag=b"\1") as wire:
        await wire.send(request(1, GET_DATA, watched(b"/kept")))
        _, shown_zxid, error, data = await wire.reply()
        assert (error, data[:9]) == (0, buffer(b"value"))
        assert shown_zxid < zxid


def append_uncommitted(path: str, body: bytes) -> int:
    """Puts a batch at the end of the log that nobody knows to be committed; returns its zxid."""
    directory = open_data_directory(RealDisk(), path, path)
    try:
        recovered = open_state(
            directory, LmdbEnvironments(), TreeKind(), LogOptions(lambda: None), standalone=False
        )
        log = recovered.log
        zxid = log.last_zxid + 1
        block = encode_block(1, [9], [1], [SET_DATA], [0], [()], [body], is_local=True)
        batch = encode_batch(Stamp(FEATURE_LEVEL, 1_700_000_000_000, zxid, 1), [block])
        log.append(zxid, zxid, [batch], recovered.executed_zxid, None)
        log.close()
    finally:
        directory.close()
    return zxid


def test_it_begins_after_two_seconds_in_vain_and_ends_with_a_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    """14.1: max(2 s, tickTime)."""
    monkeypatch.undo()
    for tick_ms, wait_ms in ((500, 2000), (3000, 3000)):
        mode = ReadOnlyMode(enabled=True, tick_ms=tick_ms, now_ms=0)
        assert not mode.begin_when_due(wait_ms - 1)
        assert mode.begin_when_due(wait_ms)
        assert not mode.begin_when_due(wait_ms)
        assert mode.on_leader()
        assert not mode.is_on
        assert not mode.begin_when_due(100_000)
        mode.on_looking(100_000)
        assert not mode.begin_when_due(100_000 + wait_ms - 1)
        assert mode.begin_when_due(100_000 + wait_ms)
    assert not ReadOnlyMode(enabled=False, tick_ms=500, now_ms=0).begin_when_due(1 << 40)


def test_all_writes_are_in_the_table_of_refusals() -> None:
    """14.3, but for the end of the session."""
    assert WRITE_OPS - {opcodes.CLOSE_SESSION} <= NOT_READ_ONLY_OPS


def test_clients_may_ask_whether_a_server_is_read_only_where_it_can_be() -> None:
    """16.2."""
    pairs = {"dataDir": "/d", "readonlymode.enabled": "true"}
    assert parse_config(pairs).words == {"srvr", "isro"}
    assert parse_config(pairs | {"4lw.commands.whitelist": "ruok"}).words == {"ruok", "isro"}
    assert "isro" not in parse_config({"dataDir": "/d"}).words
