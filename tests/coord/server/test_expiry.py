"""When sessions end by themselves: specification 4.3, 22.11, 22.12, 22.17; DESIGN 3 (a tick's budget)."""

import socket
import struct
from pathlib import Path

import pytest
import trio

from coord.clock import SYSTEM_CLOCK
from coord.disk import RealDisk
from coord.protocol.batch import FEATURE_LEVEL, Stamp, decode_batch, encode_batch, encode_block
from coord.protocol.opcodes import CLOSE_SESSION, CREATE_SESSION
from coord.server import ServerConfig, serve
from coord.server.authority import EXPIRED_WEIGHT_MAX, Authority
from coord.server.config.limits import LimitsConfig
from coord.server.tracker import SessionTracker
from coord.server.tree_kind import TreeKind
from coord.storage import LmdbEnvironments, LogOptions, open_data_directory, open_state
from coord.tree.execute import encode_create_session
from tests.coord.server.ensembles import until, word
from tests.coord.server.operated import operated
from tests.coord.server.wire_client import (
    CREATE,
    EXISTS,
    GET_CHILDREN,
    PING,
    Wire,
    connect_request,
    create,
    request,
    watched,
)


class SteppedClock:
    """The machine's time, and what the test adds to it: for the server, the loop stood still that long."""

    def __init__(self) -> None:
        self.added_ms = 0

    def monotonic_ms(self) -> int:
        return SYSTEM_CLOCK.monotonic_ms() + self.added_ms

    def wall_ms(self) -> int:
        return SYSTEM_CLOCK.wall_ms() + self.added_ms


def test_thousands_of_bare_sessions_end_in_one_batch() -> None:
    authority = Authority(100, lambda session_id: None)
    authority.begin([(number, 1000) for number in range(5000)], 0)
    assert authority.take_expired(1100) == list(range(EXPIRED_WEIGHT_MAX))
    assert authority.take_expired(1100) == list(range(EXPIRED_WEIGHT_MAX, 5000))


def test_but_no_more_ephemerals_than_a_tick_bears() -> None:
    authority = Authority(100, lambda session_id: None, lambda session_id: 10)
    authority.begin([(number, 1000) for number in range(5000)], 0)
    while expired := authority.take_expired(1100):
        assert len(expired) * 10 <= 2000


@pytest.fixture
def let_expire(monkeypatch: pytest.MonkeyPatch) -> trio.Event:
    """No session's time is over before this is set."""
    may_expire = trio.Event()
    take_expired = Authority.take_expired

    def take(authority: Authority, now_ms: int) -> list[int]:
        return take_expired(authority, now_ms) if may_expire.is_set() else []

    monkeypatch.setattr(Authority, "take_expired", take)
    return may_expire


async def test_a_crowd_expires_within_few_batches_and_watchers_learn_of_each(
    tmp_path: Path, let_expire: trio.Event
) -> None:
    """22.12; as many sessions as that many connections would have made."""
    count = 3000
    await _run_once(tmp_path)
    _log_sessions(tmp_path, count)
    async with operated(tmp_path) as port, await Wire.session(port, timeout_ms=20_000) as wire:
        error, children = await wire.call(1, GET_CHILDREN, watched(b"/", True))
        assert error == 0
        assert struct.unpack_from(">i", children)[0] == count + 1
        assert (await wire.call(2, EXISTS, watched(b"/e2999", True)))[0] == 0
        let_expire.set()
        assert [(await wire.reply())[0] for _ in range(2)] == [-1, -1]
        async with await Wire.session(port, timeout_ms=20_000) as other:
            assert (await other.call(1, EXISTS, watched(b"/e2999")))[0] == -101
    closes = [ops.count(CLOSE_SESSION) for ops in _logged_operations(tmp_path)]
    assert sum(closes) >= count
    assert 1000 < max(closes) <= EXPIRED_WEIGHT_MAX // 3 + 1


async def _run_once(directory: Path) -> None:
    async with operated(directory):
        pass


def _log_sessions(directory: Path, count: int) -> None:
    """Puts sessions with an ephemeral each at the end of a stopped server's log."""
    data = open_data_directory(RealDisk(), str(directory), str(directory))
    try:
        log = open_state(data, LmdbEnvironments(), TreeKind(), LogOptions(lambda: None), standalone=True).log
        sessions = [(9 << 56) + number for number in range(count)]
        first = log.last_zxid + 1
        begin = encode_create_session(500, bytes(16))
        nodes = [create(b"/e%d" % number, flags=1) for number in range(count)]
        zeros = [0] * count
        blocks = [
            encode_block(1, sessions, zeros, [CREATE_SESSION] * count, zeros, [()], [begin] * count),
            encode_block(1, sessions, zeros, [CREATE] * count, zeros, [()], nodes),
        ]
        stamp = Stamp(FEATURE_LEVEL, 1_700_000_000_000, first, 2 * count)
        log.append(first, first + 2 * count - 1, [encode_batch(stamp, blocks)], first, None)
        log.close()
    finally:
        data.close()


def _logged_operations(directory: Path) -> list[list[int]]:
    """The operations of each batch in the log."""
    data = open_data_directory(RealDisk(), str(directory), str(directory))
    try:
        recovered = open_state(
            data, LmdbEnvironments(), TreeKind(), LogOptions(lambda: None), standalone=True
        )
        recovered.log.close()
        payloads = [batch.payload for batch in recovered.batches if batch.payload]
    finally:
        data.close()
    return [[op for block in decode_batch(payload)[1] for op in block.ops] for payload in payloads]


async def test_a_server_that_stood_still_hears_its_clients_before_it_calls_them_silent(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    clock = SteppedClock()
    config = ServerConfig(
        data_dir=str(tmp_path),
        data_log_dir=str(tmp_path),
        client_port=0,
        client_address="127.0.0.1",
        tick_ms=100,
        session_timeout_ms_max=20_000,
        words=frozenset({"isro", "mntr"}),
    )
    with trio.CancelScope() as scope:
        address = await nursery.start(lambda task_status: serve(config, clock=clock, task_status=task_status))
        port = int(address[1])

        async def is_serving() -> bool:
            return await word(port, b"isro") == b"rw"

        await until(is_serving)
        async with (
            await Wire.session(port, timeout_ms=20_000) as talking,
            await Wire.session(port, timeout_ms=20_000) as waiting,
        ):
            assert (await talking.call(1, CREATE, create(b"/e", flags=1)))[0] == 0
            await trio.sleep(0.3)  # a few rounds of housekeeping: who was heard of before is forgotten
            with socket.fromfd(talking.stream.socket.fileno(), socket.AF_INET, socket.SOCK_STREAM) as plain:
                plain.send(request(2, PING))  # without letting the server run
            clock.added_ms = 60_000
            assert (await talking.reply())[0] == -2
            await trio.sleep(0.3)  # several rounds of housekeeping: nobody's time is over
            assert (await waiting.call(1, EXISTS, watched(b"/e")))[0] == 0
            assert (await talking.call(3, EXISTS, watched(b"/e")))[0] == 0
        scope.cancel()
    nursery.cancel_scope.cancel()


def test_time_in_which_nobody_could_be_heard_is_nobodys_silence() -> None:
    tracker = SessionTracker(100)
    tracker.add(1, 1000, 0)
    tracker.stand_still(5000)
    assert tracker.take_expired(6000, 10) == []
    tracker.touch(1, 6000)
    tracker.add(2, 1000, 6000)
    assert tracker.next_deadline_ms() == 7100
    assert tracker.take_expired(7000, 10) == []
    assert tracker.take_expired(7100, 10) == [1, 2]


async def test_22_11_a_client_with_a_request_under_way_or_pings_only_lives(tmp_path: Path) -> None:
    async with operated(tmp_path) as port, await Wire.session(port, timeout_ms=2000) as wire:
        for _ in range(10):
            await trio.sleep(0.25)
            await wire.send(request(1, PING))
            assert (await wire.reply())[0] == -2


@pytest.mark.parametrize("first", [b"", connect_request()[:20], b"\0\0"])
async def test_22_17_a_connection_without_a_session_is_reaped(tmp_path: Path, first: bytes) -> None:
    limits = LimitsConfig(sessionless_ms_max=300)
    async with operated(tmp_path, limits=limits) as port, await Wire.open(port) as wire:
        await wire.send(first)
        with trio.fail_after(LimitsConfig().sessionless_ms_max / 1000 - 1):
            assert await wire.rest() == b""
