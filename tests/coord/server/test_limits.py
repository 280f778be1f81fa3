"""What bounds a server's work for its clients: specification 15, 1.4, 22.14, 22.91."""

import shutil
import struct
from pathlib import Path

import pytest

from coord.protocol.opcodes import THROTTLED_OP
from coord.server.config import ConfigError, parse_config
from coord.server.config.limits import LimitsConfig
from coord.server.connection_throttle import ConnectionThrottle
from coord.server.large_requests import LargeRequests
from tests.coord.server.ensembles import ensemble, followers
from tests.coord.server.operated import ask, operated
from tests.coord.server.stage import Client, Stage
from tests.coord.server.wire_client import (
    CLOSE,
    CREATE,
    EXISTS,
    GET_DATA,
    PING,
    SET_DATA,
    Wire,
    connect_request,
    create,
    request,
    set_data,
    watched,
)


def creates(first: int, count: int, data: bytes = b"") -> bytes:
    return b"".join(
        request(number, CREATE, create(b"/n%d" % number, data)) for number in range(first, first + count)
    )


# Connections


def test_22_14_one_connection_too_many_of_a_host_is_closed_and_the_others_go_on() -> None:
    stage = Stage(per_host=2)
    mine = [stage.connect(), stage.connect()]
    stage.connect().hang_up()
    third = stage.connect()
    assert not third.conn.is_open
    other = stage.connect("10.0.0.2")
    assert other.conn.is_open
    assert stage.statistics.connections_refused == 2
    stage.end_tick()
    mine[0].hang_up()
    assert stage.connect().conn.is_open


def test_22_14_max_cnxns_counts_all_hosts(capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage(LimitsConfig(connections_max=2))
    first, _ = stage.connect("10.0.0.1"), stage.connect("10.0.0.2")
    assert not stage.connect("10.0.0.3").conn.is_open
    stage.end_tick()
    assert "too many connections at once" in capsys.readouterr().err
    first.hang_up()
    assert stage.connect("10.0.0.3").conn.is_open


def test_22_14_zero_is_unlimited() -> None:
    stage = Stage(per_host=0)
    assert all([stage.connect().conn.is_open for _ in range(500)])


async def test_22_14_four_letter_words_count_as_well(tmp_path: Path) -> None:
    async with operated(tmp_path, max_client_connections=1) as port:
        assert await ask(port, b"ruok") == b"imok"
        async with await Wire.session(port) as wire:
            assert await ask(port, b"ruok") == b""
            assert (await wire.call(1, EXISTS, watched(b"/")))[0] == 0


def test_a_client_that_goes_without_a_word_is_counted() -> None:
    stage = Stage()
    stage.session().hang_up()
    closing = stage.session()
    closing.say(request(1, CLOSE))
    stage.execute()
    assert stage.statistics.limits.connection_drop_count == 1


# Rate of handshakes


def throttle(**settings: object) -> ConnectionThrottle:
    limits = LimitsConfig(**settings)  # type: ignore[arg-type]
    return ConnectionThrottle(limits, local_sessions=False, now_ms=0, chance=lambda: 0.5)


def test_handshakes_take_tokens_that_come_back_with_time() -> None:
    bucket = throttle(connection_tokens=3, connection_fill_ms=100, connection_fill_count=2)
    assert [bucket.admits(renews=False, now_ms=0) for _ in range(4)] == [True, True, True, False]
    assert bucket.deficit == 3
    assert not bucket.admits(renews=False, now_ms=100)
    assert [bucket.admits(renews=False, now_ms=101) for _ in range(3)] == [True, True, False]
    assert [bucket.admits(renews=False, now_ms=10_000) for _ in range(4)] == [True, True, True, False]


def test_with_weights_each_kind_of_session_has_its_price() -> None:
    settings = {"connection_tokens": 2, "connection_weights": True, "connection_fill_ms": 1 << 40}
    globals_ = throttle(**settings)
    assert [globals_.admits(renews=False, now_ms=0) for _ in range(3)] == [True, True, False]
    renewed = throttle(**settings)
    assert [renewed.admits(renews=True, now_ms=0) for _ in range(4)] == [True, True, True, False]
    limits = LimitsConfig(**settings)  # type: ignore[arg-type]
    local = ConnectionThrottle(limits, local_sessions=True, now_ms=0, chance=lambda: 0.5)
    assert [local.admits(renews=False, now_ms=0) for _ in range(7)] == [True] * 6 + [False]


def test_the_chance_of_a_refusal_grows_in_a_crowd_and_shrinks_after_it() -> None:
    limits = LimitsConfig(
        connection_tokens=2,
        connection_fill_ms=1000,
        connection_fill_count=2,
        connection_freeze_ms=50,
        connection_drop_increase=0.2,
        connection_drop_decrease=0.1,
        connection_decrease_ratio=0.5,
    )
    bucket = ConnectionThrottle(limits, local_sessions=False, now_ms=0, chance=lambda: 0.15)
    seen = []
    for now_ms in (0, 0, 51, 60, 102, 1001, 1052, 1103):
        admitted = bucket.admits(renews=False, now_ms=now_ms)
        seen.append((now_ms, admitted, round(bucket.drop_probability, 3)))
    assert seen == [
        (0, True, 0.0),
        (0, True, 0.0),
        (51, False, 0.2),  # the bucket is empty
        (60, False, 0.2),  # nothing changes within the freeze time
        (102, False, 0.4),
        (1001, False, 0.3),  # the bucket is full again
        (1052, False, 0.2),
        (1103, True, 0.1),
    ]


async def test_a_handshake_without_a_token_is_refused_without_a_byte(tmp_path: Path) -> None:
    limits = LimitsConfig(connection_tokens=2, connection_fill_ms=1 << 40)
    async with (
        operated(tmp_path, limits=limits) as port,
        await Wire.session(port) as one,
        await Wire.session(port),
        await Wire.open(port) as third,
    ):
        await third.send(connect_request())
        assert await third.rest() == b""
        assert (await one.call(1, EXISTS, watched(b"/")))[0] == 0
        lines = (await ask(port, b"mntr")).decode().splitlines()
        assert "zk_connection_throttled\t1" in lines
        assert "zk_max_connection_token_deficit\t2" in lines
        assert "zk_connection_request_count\t2" in lines


# Size of requests


def test_a_request_over_jute_maxbuffer_ends_its_connection_and_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage = Stage(frame_bytes=1000)
    witness, client = stage.session(), stage.session()
    session = hex(client.state.session_id)
    client.say(struct.pack(">iii", 1000, 1, SET_DATA) + bytes(992))
    assert client.conn.is_open  # exactly as large as it may be (1.4)
    client.say(struct.pack(">iii", 1001, 2, CREATE))
    assert not client.conn.is_open
    line = capsys.readouterr().err
    assert f"a request is too large session={session} op=1 request_bytes=1001 most=1000" in line
    assert stage.statistics.limits.oversized_requests_rejected == 1
    witness.say(request(1, PING))
    assert witness.replies() == [(-2, 0)]


def test_the_limit_is_for_admission_only() -> None:
    """An answer may be larger than any request."""
    stage = Stage(frame_bytes=1000)
    client = stage.session()
    client.say(creates(1, 60))
    stage.execute()
    client.take()
    client.say(request(99, 8, watched(b"/")))
    assert len(client.take()) > 300
    client.say(request(100, CREATE, create(b"/d", bytes(900))))
    stage.execute()
    client.take()
    client.say(request(101, GET_DATA, watched(b"/d")))
    assert len(client.take()) > 900


async def test_a_request_larger_than_a_batch_reaches_every_server(tmp_path: Path) -> None:
    """`jute.maxbuffer` is the one bound: over links, in the log and in a snapshot there is no other."""
    size = 12_000_000
    async with ensemble(tmp_path, jute__maxbuffer=20_000_000) as servers:
        one, two = await followers(servers)
        async with await Wire.session(servers.port(one), timeout_ms=20_000) as wire:
            assert (await wire.call(1, CREATE, create(b"/big", bytes(size))))[0] == 0
        await servers.stop(two)
        for path in (servers.directory / str(two)).iterdir():  # it comes back without its state
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in ("myid", "ensemble.secret"):
                path.unlink()
        await servers.start(two)
        async with await Wire.session(servers.port(two), timeout_ms=20_000) as wire:
            error, stat = await wire.call(1, EXISTS, watched(b"/big"))
            assert (error, struct.unpack_from(">i", stat, 52)[0]) == (0, size)


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "somebody speaks HTTP"),
        (b"PRI * HTTP/2.0\r\n\r\n", "somebody speaks HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "somebody speaks TLS"),
    ],
)
def test_who_speaks_something_else_is_named_in_words(
    first: bytes, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage()
    for _ in range(100):
        stage.connect().say(first)
    written = capsys.readouterr().err
    assert words in written
    assert "peer=10.0.0.1:40000" in written
    assert len(written.splitlines()) == 10  # of a hundred within ten seconds
    assert stage.statistics.limits.unknown_protocol_connections == 100
    stage.clock.now_ms += 10_000
    stage.connect().say(first)
    assert "left_out=90" in capsys.readouterr().err


def test_unfinished_requests_of_all_connections_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coord.server.service.HELD_BYTES_MAX", 10_000)
    stage = Stage()
    clients = [stage.session() for _ in range(10)]
    for client in clients[:9]:
        client.say(struct.pack(">iii", 3000, 1, CREATE) + bytes(1000))
    clients[9].say(struct.pack(">iii", 3000, 1, CREATE) + bytes(2000))
    assert [client.conn.is_open for client in clients] == [True] * 9 + [False]
    assert stage.statistics.limits.unfinished_requests_rejected == 1
    clients[0].say(bytes(3000 - 8 - 1000))
    assert stage.execute() == 1
    stage.session().say(struct.pack(">iii", 3000, 1, CREATE) + bytes(900))
    assert stage.statistics.limits.unfinished_requests_rejected == 1


def test_large_requests_at_once_are_bounded_and_the_rest_goes_on() -> None:
    limits = LimitsConfig(large_request_bytes_min=1000, large_requests_bytes_max=5000)
    stage = Stage(limits)
    one, two, three = stage.session(), stage.session(), stage.session()
    two_large = creates(1, 2, bytes(2000))
    one.say(two_large)
    two.say(creates(10, 5, bytes(500)))  # none of them is large
    three.say(creates(20, 1, bytes(2000)))
    assert [client.conn.is_open for client in (one, two, three)] == [True, True, False]
    assert stage.statistics.limits.large_requests_rejected == 1
    assert stage.execute() == 7
    two.take()
    two.say(creates(30, 2, bytes(2000)))
    assert two.conn.is_open


def test_a_large_request_counts_from_its_first_bytes_on() -> None:
    large = LargeRequests(1000, 5000, lambda: 0)
    one, two = Stage().session().state, Stage().session().state
    head = struct.pack(">iii", 3000, 1, CREATE)
    assert large.admit(one, head) == 0
    assert large.admit(two, head) == 3000
    large.forget(one)
    assert large.admit(two, head) == 0


# Requests under way


def test_reads_that_wait_count_among_the_requests_under_way() -> None:
    stage = Stage(LimitsConfig(outstanding_max=4))
    one, two = stage.session(), stage.session()
    one.say(creates(1, 1), *[request(xid, EXISTS, watched(b"/")) for xid in (2, 3, 4)])
    two.say(creates(10, 2))
    assert stage.answers.parked_count == 3
    assert two.conn.is_paused, "the one request that is always taken"
    assert stage.execute() == 2
    assert stage.answers.parked_count == stage.answers.parked_bytes == 0
    assert len(one.replies()) == 4
    assert not two.conn.is_paused
    assert stage.execute() == 1


def test_reads_that_wait_of_all_connections_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coord.server.backpressure.PARKED_COST_MAX", 2000)
    stage = Stage()
    one, two = stage.session(), stage.session()
    reads = [request(xid, EXISTS, watched(b"/")) for xid in range(100, 120)]
    one.say(creates(1, 1), *reads)
    assert stage.answers.parked_count == 20
    two.say(creates(10, 1), *reads)
    assert two.conn.is_paused
    assert stage.answers.parked_count == 20
    one.hang_up()
    assert stage.answers.parked_cost <= 20 * 250, "what the other had sent, and was kept, waits now"
    while stage.execute():
        pass
    assert len(two.replies()) == 21
    assert stage.answers.parked_count == stage.answers.parked_bytes == 0


@pytest.mark.parametrize("limits", [LimitsConfig(outstanding_max=3), LimitsConfig(throttled_requests_max=3)])
def test_with_too_many_writes_under_way_clients_are_not_read_and_lose_nothing(limits: LimitsConfig) -> None:
    stage = Stage(limits)
    one, two, reader = stage.session(), stage.session(), stage.session()
    one.say(creates(1, 10))
    assert one.conn.is_paused
    assert len(stage.handed_over[0]) == 3
    two.say(creates(20, 5))  # one request of each connection is always taken
    assert two.conn.is_paused
    reader.say(request(1, EXISTS, watched(b"/")))
    assert reader.replies() == [(1, 0)]
    rounds = 0
    while one.conn.is_paused or two.conn.is_paused or stage.handed_over:
        assert sum(map(len, stage.handed_over)) <= 4
        stage.execute()
        rounds += 1
        assert rounds < 20
    assert one.replies() == [(number, 0) for number in range(1, 11)]
    assert two.replies() == [(number, 0) for number in range(20, 25)]
    assert stage.statistics.limits.request_throttle_wait_count > 0


def test_without_the_setting_the_number_of_writes_under_way_is_not_limited() -> None:
    stage = Stage()
    client = stage.session()
    client.say(creates(1, 2000))
    assert not client.conn.is_paused
    assert stage.execute() == 2000
    assert stage.statistics.limits.request_throttle_wait_count == 0


def test_while_the_log_is_behind_writing_clients_are_not_read() -> None:
    stage = Stage()
    writer, reader = stage.session(), stage.session()
    stage.is_busy = True
    writer.say(creates(1, 3))
    reader.say(request(1, EXISTS, watched(b"/")))
    assert (writer.conn.is_paused, reader.conn.is_paused) == (True, False)
    stage.execute()
    assert writer.conn.is_paused
    stage.is_busy = False
    stage.end_tick()
    assert not writer.conn.is_paused


def throttled(**settings: object) -> tuple[Stage, Client]:
    """A client one of whose requests is under way, the others wait."""
    stage = Stage(LimitsConfig(throttled_requests_max=1, **settings))  # type: ignore[arg-type]
    client = stage.session(timeout_ms=5000)
    client.say(
        creates(1, 3),
        request(4, EXISTS, watched(b"/n2")),
        request(5, PING),
        request(6, SET_DATA, set_data(b"/n1", b"x")),
    )
    assert client.conn.is_paused
    return stage, client


def test_22_91_what_has_waited_too_long_is_refused_and_not_executed() -> None:
    stage, client = throttled(throttled_op_wait_ms=1000)
    stage.clock.now_ms += 1001
    while client.conn.is_paused or stage.handed_over:
        stage.execute()
    assert client.replies() == [
        (1, 0),
        (2, THROTTLED_OP),
        (3, THROTTLED_OP),
        (4, THROTTLED_OP),
        (-2, 0),
        (6, THROTTLED_OP),
    ]
    assert THROTTLED_OP == -127
    assert stage.statistics.limits.throttled_ops == 4
    assert b"/n2" not in stage.state.tree.nodes
    assert stage.state.tree.nodes[b"/n1"].data == struct.pack(">i", 0)
    client.say(request(7, CREATE, create(b"/n2")))
    stage.execute()
    assert client.replies() == [(7, 0)]


def test_22_91_a_session_can_be_closed_however_long_that_has_waited() -> None:
    stage = Stage(LimitsConfig(throttled_requests_max=1, throttled_op_wait_ms=1000))
    client = stage.session()
    client.say(creates(1, 2), request(3, CLOSE))
    stage.clock.now_ms += 1001
    stage.execute()
    stage.execute()
    assert client.replies() == [(1, 0), (2, THROTTLED_OP), (3, 0)]


def test_what_has_not_waited_long_is_executed() -> None:
    stage, client = throttled(throttled_op_wait_ms=1000)
    stage.clock.now_ms += 1000
    while client.conn.is_paused or stage.handed_over:
        stage.execute()
    assert [error for _, error in client.replies()] == [0] * 6
    assert stage.statistics.limits.throttled_ops == 0


def test_what_waits_for_a_slow_client_waits_for_as_long_as_it_takes() -> None:
    stage = Stage(LimitsConfig(throttled_op_wait_ms=1000), frame_bytes=1 << 20)
    client = stage.session()
    client.say(request(1, CREATE, create(b"/big", bytes(1_000_000))))
    stage.execute()
    client.take()
    client.say(*[request(number, GET_DATA, watched(b"/big")) for number in range(20)])
    assert client.conn.is_paused
    answered = len(client.replies())
    stage.clock.now_ms += 60_000
    while client.conn.is_paused:
        stage.end_tick()
    assert answered + len(client.replies()) == 20
    assert stage.statistics.limits.throttled_ops == 0


def test_requests_older_than_their_sessions_timeout_are_dropped_with_their_connection() -> None:
    stage, client = throttled(stale_by_latency=True)
    stage.clock.now_ms += 5001
    stage.execute()
    assert not client.conn.is_open
    assert stage.statistics.limits.stale_requests == 5
    assert stage.statistics.limits.stale_requests_dropped == 5
    assert b"/n2" not in stage.state.tree.nodes


def test_or_only_counted_where_that_is_wished() -> None:
    stage, client = throttled(stale_by_latency=True, drops_stale=False)
    stage.clock.now_ms += 5001
    while client.conn.is_paused or stage.handed_over:
        stage.execute()
    assert [error for _, error in client.replies()] == [0] * 6
    assert stage.statistics.limits.stale_requests == 5
    assert stage.statistics.limits.stale_requests_dropped == 0


def test_what_waits_goes_with_its_connection() -> None:
    stage, client = throttled()
    client.hang_up()
    assert stage.execute() == 1
    assert stage.execute() == 0
    assert stage.statistics.limits.stale_requests_dropped == 5


def test_a_connection_with_requests_under_way_counts_as_alive() -> None:
    stage, client = throttled()
    stage.service.touched.clear()
    stage.clock.now_ms += 60_000
    stage.service.keep_house(stage.clock.now_ms)
    assert client.conn.is_open
    assert client.state.session_id in stage.service.touched


def test_a_client_that_takes_its_answers_slowly_lives_and_one_that_is_gone_does_not() -> None:
    stage = Stage(frame_bytes=1 << 20)
    client = stage.session(timeout_ms=5000)
    client.say(request(1, CREATE, create(b"/big", bytes(1_000_000))))
    stage.execute()
    client.take()
    client.say(*[request(number, GET_DATA, watched(b"/big")) for number in range(10)])
    assert client.conn.is_paused
    client.conn.pending_output = len(client.take())
    stage.service.touched.clear()
    for _ in range(5):
        stage.clock.now_ms += 4000
        client.conn.bytes_out += 1000
        stage.service.keep_house(stage.clock.now_ms)
        stage.service.touched.clear()
    assert client.conn.is_open
    for _ in range(2):
        stage.clock.now_ms += 4000
        stage.service.keep_house(stage.clock.now_ms)
    assert not client.conn.is_open


def test_every_limit_can_be_set_by_zookeepers_names() -> None:
    pairs = {
        "dataDir": "/d",
        "maxCnxns": "1000",
        "zookeeper.globalOutstandingLimit": "500",
        "zookeeper.request_throttle_max_requests": "600",
        "zookeeper.throttled_op_wait_time": "2000",
        "largeRequestThreshold": "100000",
        "largeRequestMaxBytes": "200000",
        "connectionMaxTokens": "7",
        "zookeeper.connection_throttle_fill_time": "2",
        "connectionDropIncrease": "0.05",
        "zookeeper.nio.sessionlessCnxnTimeout": "500",
    }
    limits = parse_config(pairs).limits
    assert (limits.connections_max, limits.outstanding_max, limits.throttled_requests_max) == (1000, 500, 600)
    assert (limits.throttled_op_wait_ms, limits.sessionless_ms_max) == (2000, 500)
    assert (limits.large_request_bytes_min, limits.large_requests_bytes_max) == (100_000, 200_000)
    assert (limits.connection_tokens, limits.connection_fill_ms) == (7, 2)
    assert limits.connection_drop_increase == 0.05
    assert parse_config({"dataDir": "/d"}).limits == LimitsConfig()


def test_a_jute_maxbuffer_that_nothing_could_carry_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"jute\.maxbuffer must be from 1 to 50331648"):
        parse_config({"dataDir": "/d", "jute.maxbuffer": "100000000"})
