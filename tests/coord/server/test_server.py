"""A standalone server over real sockets and files, asked byte by byte (specification 4, 5, 22.1, 25)."""

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from coord.listening import ListenError
from coord.server import ServerConfig, serve
from coord.server.config import WORDS_ALL
from coord.server.config.admin import AdminConfig
from coord.server.config.tls import TlsConfig
from coord.storage import ForeignDataError
from tests.coord.certificates import Authority
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

Start = Callable[..., Awaitable[int]]

ADD_WATCH = 106
ADDRESS_OF_NOBODY = "192.0.2.1"
"""Of a network for documentation (RFC 5737)."""


@pytest.fixture
async def start(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Start]:
    """Starts a server on the test's directory; a second call stops the first and starts again."""
    scopes: list[trio.CancelScope] = []
    stopped: list[trio.Event] = []

    async def run(config: ServerConfig, task_status: trio.TaskStatus[tuple[str, int] | None]) -> None:
        with trio.CancelScope() as scope:
            scopes.append(scope)
            await serve(config, task_status=task_status)
        stopped[-1].set()

    async def again(**changes: object) -> int:
        if scopes:
            scopes[-1].cancel()
            await stopped[-1].wait()
        stopped.append(trio.Event())
        config = ServerConfig(
            data_dir=str(tmp_path),
            data_log_dir=str(tmp_path),
            client_port=0,
            client_address="127.0.0.1",
            tick_ms=100,
            session_timeout_ms_min=200,
            session_timeout_ms_max=20_000,
            words=WORDS_ALL,
        )
        address = await nursery.start(run, replace(config, **changes))  # type: ignore[arg-type]
        await wait_serving(address[1])
        return int(address[1])

    yield again
    if scopes:
        scopes[-1].cancel()
        await stopped[-1].wait()


async def wait_serving(port: int) -> None:
    """The port listens before the server has made itself a leader."""
    with trio.fail_after(60):
        while await word(port, b"isro") != b"rw":  # noqa: ASYNC110 (it is asked over the wire)
            await trio.sleep(0.01)


async def word(port: int, name: bytes) -> bytes:
    async with await Wire.open(port) as wire:
        await wire.send(name)
        return await wire.rest()


@pytest.fixture
async def port(start: Start) -> int:
    return await start()


# Handshake (4.1)


async def test_the_response_to_a_new_session_has_the_golden_bytes(port: int) -> None:
    async with await Wire.open(port) as wire:
        await wire.send(connect_request(10_000))
        response = await wire.frame()
    assert len(response) == 37
    version, timeout_ms, session_id, length = struct.unpack_from(">iiqi", response)
    assert (version, timeout_ms, length, response[36]) == (0, 10_000, 16, 0)
    assert session_id >> 56 == 1
    assert response[20:36] != bytes(16)


async def test_an_old_client_without_the_flag_gets_an_answer_without_it(port: int) -> None:
    """22.8."""
    async with await Wire.open(port) as wire:
        await wire.send(connect_request(flag=b""))
        assert len(await wire.frame()) == 36


@pytest.mark.parametrize(("asked", "granted"), [(1, 200), (-5, 200), (1234, 1234), (99_000, 20_000)])
async def test_the_timeout_is_clamped(port: int, asked: int, granted: int) -> None:
    """22.1."""
    async with await Wire.session(port, timeout_ms=asked) as wire:
        assert wire.timeout_ms == granted


@pytest.mark.parametrize("password", [b"", b"x" * 16, b"y" * 40])
async def test_a_new_session_accepts_any_password_field(port: int, password: bytes) -> None:
    async with await Wire.session(port, password=password) as wire:
        assert wire.session_id


async def test_a_client_that_has_seen_more_is_sent_away_without_a_byte(port: int) -> None:
    """22.6."""
    async with await Wire.open(port) as wire:
        await wire.send(connect_request(last_zxid=1 << 50))
        assert await wire.rest() == b""


@pytest.mark.parametrize(
    "garbage",
    [
        struct.pack(">i", -1),
        struct.pack(">i", 0),
        struct.pack(">i", 1 << 30),
        buffer(b"short"),
        buffer(struct.pack(">iqiqi", 0, 0, 5000, 0, 16) + b"cut"),
    ],
)
async def test_a_malformed_first_frame_costs_only_its_connection(port: int, garbage: bytes) -> None:
    """22.7."""
    async with await Wire.open(port) as wire:
        await wire.send(garbage)
        assert await wire.rest() == b""
    async with await Wire.session(port) as wire:
        assert (await wire.call(1, EXISTS, watched(b"/")))[0] == 0


async def test_what_is_pipelined_behind_the_connect_request_is_answered_after_it(port: int) -> None:
    async with await Wire.open(port) as wire:
        await wire.send(
            connect_request(), request(1, CREATE, create(b"/p")), request(2, GET_DATA, watched(b"/p"))
        )
        assert len(await wire.frame()) == 37
        assert (await wire.reply())[0::2] == (1, 0)
        assert (await wire.reply())[0::2] == (2, 0)


async def test_a_connect_request_may_arrive_byte_by_byte(port: int) -> None:
    async with await Wire.open(port) as wire:
        for byte in connect_request() + request(1, PING):
            await wire.send(bytes([byte]))
        assert len(await wire.frame()) == 37
        assert (await wire.reply())[0] == -2


# Requests (5)


async def test_a_ping_is_answered_with_its_own_xid(port: int) -> None:
    async with await Wire.session(port) as wire:
        await wire.send(request(77, PING, b"ignored"))
        data = await wire.frame()
        assert data[:4] == b"\xff\xff\xff\xfe"
        assert data[12:] == bytes(4)


async def test_an_unknown_operation_is_refused_and_ends_the_connection(port: int) -> None:
    for op in (0, 10, 13, -10, 999):
        async with await Wire.session(port) as wire:
            await wire.send(request(1, op), request(2, PING))
            assert await wire.rest() == bytes.fromhex("00000010 00000001 ffffffffffffffff fffffffa")


async def test_a_body_that_cannot_be_decoded_is_answered_and_the_connection_goes_on(port: int) -> None:
    async with await Wire.session(port) as wire:
        for op in (CREATE, DELETE, EXISTS, GET_DATA, SET_DATA, GET_CHILDREN, 14, 15):
            assert (await wire.call(op, op, b"\0\0"))[0] == -5
        assert (await wire.call(1, CREATE, create(b"/after")))[0] == 0


async def test_a_frame_over_the_limit_ends_the_connection(start: Start) -> None:
    port = await start(frame_bytes_max=2000)
    async with await Wire.session(port) as wire:
        assert (await wire.call(1, CREATE, create(b"/fits", b"x" * 1900)))[0] == 0
        await wire.send(struct.pack(">iii", 2001, 2, CREATE))
        assert await wire.rest() == b""


async def test_a_request_in_many_pieces_is_one_request(port: int) -> None:
    async with await Wire.session(port) as wire:
        data = request(1, CREATE, create(b"/pieces", bytes(range(256)) * 400))
        for start_at in range(0, len(data), 30_000):
            await wire.send(data[start_at : start_at + 30_000])
            await trio.lowlevel.checkpoint()
        assert (await wire.reply())[0::2] == (1, 0)
        assert (await wire.call(2, GET_DATA, watched(b"/pieces")))[1][4:-68] == bytes(range(256)) * 400


async def test_answers_come_in_the_order_of_requests_and_reads_see_the_writes_before_them(port: int) -> None:
    async with await Wire.session(port) as wire:
        await wire.call(1, CREATE, create(b"/o", b"0"))
        parts = []
        for number in range(1, 300):
            parts.append(request(4 * number, SET_DATA, set_data(b"/o", b"%d" % number)))
            parts.append(request(4 * number + 1, GET_DATA, watched(b"/o")))
            parts.append(request(4 * number + 2, PING))
            parts.append(request(4 * number + 3, SYNC, buffer(b"/o")))
        await wire.send(*parts)
        last_zxid = 0
        for number in range(1, 300):
            replies = [await wire.reply() for _ in range(4)]
            assert [xid for xid, _, _, _ in replies] == [4 * number, 4 * number + 1, -2, 4 * number + 3]
            assert replies[1][3][4:-68] == b"%d" % number
            assert replies[3][3] == buffer(b"/o")
            for _, zxid, error, _ in replies:
                assert error == 0
                assert zxid >= last_zxid
                last_zxid = zxid


async def test_ones_own_event_arrives_before_the_reply(port: int) -> None:
    async with await Wire.session(port) as wire:
        await wire.call(1, CREATE, create(b"/w"))
        await wire.call(2, GET_DATA, watched(b"/w", True))
        await wire.send(request(3, SET_DATA, set_data(b"/w", b"x")))
        xid, event_zxid, error, body = await wire.reply()
        assert (xid, error) == (-1, 0)
        assert body == struct.pack(">ii", 3, 3) + buffer(b"/w")
        assert (await wire.reply())[:3] == (3, event_zxid, 0)


async def test_auth_counts_at_once_and_keeps_its_place(port: int) -> None:
    async with await Wire.session(port) as wire:
        auth = struct.pack(">i", 0) + buffer(b"digest") + buffer(b"u:p")
        await wire.send(
            request(1, CREATE, create(b"/a")), request(-4, 100, auth), request(2, GET_DATA, watched(b"/a"))
        )
        assert [(await wire.reply())[0] for _ in range(3)] == [1, -4, 2]


async def test_a_credential_counts_only_for_what_follows_it(port: int) -> None:
    """Specification 5.3: a write sent before the auth packet is judged without it."""
    acl = struct.pack(">ii", 1, 31) + buffer(b"auth") + buffer(b"")
    node = buffer(b"/auth") + buffer(b"") + acl + struct.pack(">i", 0)
    auth = struct.pack(">i", 0) + buffer(b"digest") + buffer(b"u:p")
    async with await Wire.session(port) as wire:
        await wire.send(request(1, CREATE, node), request(-4, 100, auth), request(2, CREATE, node))
        assert [(await wire.reply())[2] for _ in range(3)] == [-114, 0, 0]
    async with await Wire.session(port) as other:
        assert (await other.call(1, GET_DATA, watched(b"/auth")))[0] == -102
        await other.send(
            request(2, CREATE, create(b"/x")),
            request(3, GET_DATA, watched(b"/auth")),
            request(-4, 100, auth),
            request(4, GET_DATA, watched(b"/auth")),
        )
        assert [(await other.reply())[2] for _ in range(4)] == [0, -102, 0, 0]


async def test_many_large_reads_behind_one_write_are_answered_within_the_bound(port: int) -> None:
    async with await Wire.session(port) as wire:
        await wire.call(1, CREATE, create(b"/big", bytes(900_000)))
        reads = [request(n, GET_DATA, watched(b"/big")) for n in range(3, 60)]
        await wire.send(request(2, CREATE, create(b"/w")), *reads)
        for number in range(2, 60):
            assert (await wire.reply())[0::2] == (number, 0)


async def test_a_refused_credential_is_answered_and_ends_the_connection(port: int) -> None:
    async with await Wire.session(port) as wire:
        await wire.send(request(-4, 100, struct.pack(">i", 0) + buffer(b"nonsense") + buffer(b"")))
        assert await wire.rest() == bytes.fromhex("00000010 fffffffc 0000000000000000 ffffff8d")


# Sessions (4.3, 4.4, 4.5, 22.1)


async def test_closing_answers_then_ends_the_connection_and_what_follows_is_not_done(port: int) -> None:
    """22.9."""
    async with await Wire.session(port) as wire, await Wire.session(port) as other:
        await wire.send(
            request(1, CREATE, create(b"/gone", flags=1)),
            request(7, CLOSE),
            request(8, CREATE, create(b"/never", flags=1)),
        )
        assert (await wire.reply())[0::2] == (1, 0)
        assert (await wire.reply())[0::2] == (7, 0)
        assert await wire.rest() == b""
        assert (await other.call(1, EXISTS, watched(b"/gone")))[0] == -101
        assert (await other.call(2, EXISTS, watched(b"/never")))[0] == -101


async def test_a_closed_session_is_expired(port: int) -> None:
    """22.4, with the bytes of 4.1."""
    async with await Wire.session(port) as wire:
        await wire.call(1, CLOSE)
    async with await Wire.open(port) as again:
        await again.send(connect_request(5000, wire.session_id, wire.password))
        assert await again.rest() == bytes.fromhex(
            "00000025 00000000 00000000 0000000000000000 00000010"
        ) + bytes(17)


async def test_a_wrong_password_is_expired_and_the_session_lives_on(port: int) -> None:
    """22.3."""
    async with await Wire.session(port) as wire:
        async with await Wire.open(port) as thief:
            await thief.send(connect_request(5000, wire.session_id, b"x" * 16))
            assert len(await thief.rest()) == 41
        assert (await wire.call(1, EXISTS, watched(b"/")))[0] == 0


async def test_the_newer_connection_takes_the_session_and_the_older_one_ends(port: int) -> None:
    """22.2."""
    async with await Wire.session(port) as old:
        await old.call(1, CREATE, create(b"/mine", flags=1))
        async with await Wire.session(port, session_id=old.session_id, password=old.password) as new:
            assert new.session_id == old.session_id
            assert await old.rest() == b""
            error, stat = await new.call(2, EXISTS, watched(b"/mine"))
            assert (error, struct.unpack_from(">q", stat, 44)[0]) == (0, new.session_id)


async def test_a_write_of_the_older_connection_is_executed_before_the_newer_one_is_served(port: int) -> None:
    async with await Wire.session(port) as old:
        writes = [request(n, CREATE, create(b"/old-%d" % n)) for n in range(50)]
        async with await Wire.open(port) as new:
            await old.send(*writes)
            await old.reply()
            await new.send(connect_request(5000, old.session_id, old.password))
            await new.frame()
            first = [(await new.call(n, EXISTS, watched(b"/old-%d" % n)))[0] for n in range(50)]
            assert (await new.call(50, SYNC, buffer(b"/")))[0] == 0  # behind all that is under way
            second = [(await new.call(n, EXISTS, watched(b"/old-%d" % n)))[0] for n in range(50)]
            assert first == second


async def test_a_silent_session_expires_and_its_ephemerals_go(port: int) -> None:
    """22.11, 22.12."""
    async with await Wire.session(port) as other, await Wire.open(port) as silent:
        assert (await other.call(1, ADD_WATCH, buffer(b"/e") + struct.pack(">i", 0)))[0] == 0
        # In one piece: behind the answer to the first the session's time would run already.
        await silent.send(connect_request(200), request(1, CREATE, create(b"/e", flags=1)))
        for kind in (1, 2):
            xid, _, _, body = await other.reply()
            assert (xid, body) == (-1, struct.pack(">ii", kind, 3) + buffer(b"/e"))
        assert len(await silent.frame()) == 37
        assert (await silent.reply())[0::2] == (1, 0)
        assert await silent.rest() == b""


async def test_a_session_that_sends_anything_lives(port: int) -> None:
    """22.11. It outlives two silent ones of the same timeout."""
    async with await Wire.session(port, timeout_ms=600) as wire, trio.open_nursery() as nursery:

        async def talk() -> None:
            number = 0
            while True:
                number += 1
                assert (await wire.call(number, EXISTS, watched(b"/")))[0] == 0

        nursery.start_soon(talk)
        for _ in range(2):
            async with await Wire.session(port, timeout_ms=600) as silent:
                assert await silent.rest() == b""
        nursery.cancel_scope.cancel()


async def test_everything_is_there_after_a_restart_and_sessions_can_be_reopened(start: Start) -> None:
    """22.13."""
    port = await start()
    async with await Wire.session(port) as wire:
        await wire.call(1, CREATE, create(b"/kept", b"value"))
        await wire.call(2, CREATE, create(b"/ephemeral", flags=1))
        before = await wire.call(3, GET_DATA, watched(b"/kept"))
    port = await start()
    async with await Wire.session(port, session_id=wire.session_id, password=wire.password) as again:
        assert again.session_id == wire.session_id
        assert await again.call(1, GET_DATA, watched(b"/kept")) == before
        assert (await again.call(2, EXISTS, watched(b"/ephemeral")))[0] == 0


# Limits (15)


async def test_connections_over_the_limit_of_one_host_are_closed(start: Start) -> None:
    port = await start(max_client_connections=2)
    async with await Wire.session(port) as one, await Wire.session(port) as two:
        async with await Wire.open(port) as third:
            assert await third.rest() == b""
        assert (await one.call(1, EXISTS, watched(b"/")))[0] == 0
        assert (await two.call(1, EXISTS, watched(b"/")))[0] == 0


async def test_a_client_that_does_not_read_is_not_read_either_and_loses_nothing(port: int) -> None:
    async with await Wire.session(port) as wire:
        await wire.call(1, CREATE, create(b"/big", bytes(500_000)))
        count = 60
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.send, *[request(n, GET_DATA, watched(b"/big")) for n in range(count)])
            for _ in range(20):
                assert await word(port, b"isro") == b"rw"  # a turn of the server's loop for each
            for number in range(count):
                xid, _, error, body = await wire.reply()
                assert (xid, error, len(body)) == (number, 0, 500_072)


async def test_a_sync_that_cannot_be_read_does_not_answer_with_an_older_zxid(port: int) -> None:
    """Specification 5.4: zxids are monotonic along the connection, of refusals behind a write, too."""
    async with await Wire.session(port) as wire:
        await wire.send(request(1, CREATE, create(b"/n")), request(2, SYNC, b"\0\0"))
        xid, written_zxid, error, _ = await wire.reply()
        assert (xid, error) == (1, 0)
        xid, zxid, error, body = await wire.reply()
        assert (xid, error, body) == (2, -5, b"")
        assert zxid >= written_zxid


# Four-letter words (16)


async def test_four_letter_words_answer_in_one_piece_and_close(port: int) -> None:
    assert await word(port, b"ruok") == b"imok"
    assert await word(port, b"isro\n") == b"rw"
    assert b"\nMode: standalone\nNode count: 5\n" in await word(port, b"srvr")
    assert b"\nClients:\n /127.0.0.1:" in await word(port, b"stat")
    keys = [line.split(b"\t")[0] for line in (await word(port, b"mntr")).splitlines()]
    assert keys[:2] == [b"zk_version", b"zk_server_state"]
    assert b"zk_znode_count" in keys
    assert await word(port, b"quux") == b""


# Start-up


@pytest.mark.parametrize("where", ["data", "log"])
async def test_apaches_data_is_not_ignored(tmp_path: Path, where: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "log").mkdir()
    (tmp_path / where / "version-2").mkdir()
    config = ServerConfig(str(tmp_path / "data"), str(tmp_path / "log"), 0)
    with pytest.raises(ForeignDataError, match="version-2"):
        await serve(config)


async def test_a_port_that_is_taken_is_called_by_its_key(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = await refusal(ServerConfig(str(tmp_path), str(tmp_path), port, client_address="127.0.0.1"))
    assert str(error).startswith(
        f"clientPort: cannot listen at 127.0.0.1:{port}: Address already in use: stop"
    )


async def test_the_tls_port_and_that_of_the_metrics_are_called_by_theirs(tmp_path: Path) -> None:
    key_store = str(Authority(tmp_path).issue("localhost"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        tls = TlsConfig(secure_port=port, secure_address="127.0.0.1", key_store=key_store, client_auth="none")
        error = await refusal(ServerConfig(str(tmp_path), str(tmp_path), None, tls=tls))
        assert str(error).startswith(f"secureClientPort: cannot listen at 127.0.0.1:{port}: Address already")
        admin = AdminConfig(serves_prometheus=True, metrics_port=port)
        error = await refusal(ServerConfig(str(tmp_path), str(tmp_path), None, admin=admin))
        assert str(error).startswith(f"metricsProvider.httpPort: cannot listen at 127.0.0.1:{port}: Address")


async def test_an_address_of_another_machine_is_called_by_the_key_that_gives_it(tmp_path: Path) -> None:
    error = await refusal(ServerConfig(str(tmp_path), str(tmp_path), 2181, client_address=ADDRESS_OF_NOBODY))
    assert str(error).startswith(
        f"clientPortAddress: cannot listen at {ADDRESS_OF_NOBODY}:2181: Cannot assign requested address: give"
    )


async def refusal(config: ServerConfig) -> ListenError:
    """Why a server does not start."""
    with trio.fail_after(60), pytest.raises(BaseExceptionGroup) as caught:
        await serve(config)
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, ListenError)
    return error
