"""Late answers and slow disks are named in the log, seldom enough."""

import io
from collections.abc import Iterator

import pytest

from coord import eventlog
from coord.reactor import Connection
from coord.server.answers import Answers
from coord.server.authentication import Authentication
from coord.server.config.security import SecurityConfig
from coord.server.connection import ClientConnection
from coord.server.slowness import LINES_INTERVAL_MS, Seldom, SlowFsyncs, SlowRequests
from coord.server.state import State
from coord.server.statistics import ServerStatistics
from coord.tree import DataTree


class SetClock:
    def __init__(self) -> None:
        self.now_ms = 5000

    def monotonic_ms(self) -> int:
        return self.now_ms

    def wall_ms(self) -> int:
        return self.now_ms


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    eventlog.configure(stream=stream)
    yield stream
    eventlog.configure()


def test_one_line_a_second_says_how_many_were_left_out() -> None:
    clock = SetClock()
    seldom = Seldom(clock)
    assert [seldom.take() for _ in range(4)] == [0, None, None, None]
    clock.now_ms += LINES_INTERVAL_MS
    assert seldom.take() == 3


def test_a_slow_write_of_the_log_is_named_and_counted(lines: io.StringIO) -> None:
    slow = SlowFsyncs(1000, SetClock())
    for elapsed_ms in (999, 1000, 2500):
        slow.note(elapsed_ms, 3)
    assert slow.count == 2
    assert "elapsed_ms=1000" in lines.getvalue()
    assert "elapsed_ms=999" not in lines.getvalue()
    assert "elapsed_ms=2500" not in lines.getvalue(), "within a second of the line before"


class Sink(Connection):
    def __init__(self) -> None:
        self.peer_address = ("10.1.2.3", 4000)

    def send(self, data: object) -> None:
        pass


@pytest.mark.parametrize(("threshold_ms", "count"), [(50, 1), (51, 0), (0, 0)])
def test_a_request_answered_late_is_named_with_session_and_operation(
    lines: io.StringIO, threshold_ms: int, count: int
) -> None:
    clock = SetClock()
    slow = SlowRequests(threshold_ms, clock)
    statistics = ServerStatistics()
    authentication = Authentication(SecurityConfig(), statistics, x509=False, make_random=bytes)
    state = State(DataTree.fresh())
    answers = Answers(state, statistics, lambda done: None, clock, slow, authentication)
    client = ClientConnection(Sink(), (), 0)
    client.session_id, client.last_op, client.last_xid = 0x1234, 5, 7
    client.asked_ms, client.asked_sent = clock.now_ms, 1
    clock.now_ms += 50
    client.sent = 1
    client.out.append(b"answer")
    answers.owe(client)
    answers.send_owed()
    assert (client.latency_ms_last, client.asked_sent, slow.count) == (50, 0, count)
    text = "slow request op=SETD session=0x1234 client=10.1.2.3 xid=7 elapsed_ms=50 left_out=0"
    assert (text in lines.getvalue()) == bool(count)
