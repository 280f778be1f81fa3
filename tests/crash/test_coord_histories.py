"""Histories of concurrent clients of real ensembles whose servers are killed, stopped and restarted: they are
linearizable, plain reads keep ZooKeeper's promise, and no session is lost that should live.

One round of disturbances each; `ZOOLOG_HISTORY_ROUNDS=20 make soak` runs longer.
"""

import contextlib
import os
import random
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.coord_raw import buffer, insist
from tests.coord_servers import CoordServer, CoordServers, wait_for
from tests.histories.checker import Operation, Read
from tests.histories.recording import GET_DATA, SET_DATA, STAT, SYNC, History, LiveSession, read_node
from tests.histories.running import (
    PATIENCE_SECONDS_MAX,
    check,
    clients,
    idle_clients,
    wait_progress,
)
from tests.histories.workers import EPHEMERAL, REGISTERS
from tests.namespaces import IsolatedServers, network
from tests.shifted_clocks import ShiftedServers

pytestmark = [pytest.mark.crash, pytest.mark.slow]

SETTINGS = "maxSessionTimeout=15000"
ROUNDS = int(os.environ.get("ZOOLOG_HISTORY_ROUNDS", "1"))
TICK_MS = 200
SESSION_TIMEOUT_MS = 15_000
STOPPED_TIMEOUT_MS = 1500
"""Of sessions while a server is stopped: for longer than this."""


def leader_and_follower(servers: CoordServers) -> Iterator[CoordServer]:
    yield servers.leader()
    yield servers.followers()[0]


def test_a_history_over_kills_of_leaders_and_followers_is_linearizable(tmp_path: Path) -> None:
    history = History()
    with CoordServers(tmp_path, 3, tick_ms=TICK_MS, extra=SETTINGS) as servers:
        with clients(servers, history, SESSION_TIMEOUT_MS):
            for _ in range(ROUNDS):
                for victim in leader_and_follower(servers):
                    wait_progress(history)
                    victim.kill()
                    wait_progress(history)
                    victim.start()
                    servers.wait_serving()
        check(history)


def test_a_history_over_servers_stopped_for_longer_than_sessions_live_is_linearizable(tmp_path: Path) -> None:
    """A deposed leader wakes up with requests under way (specification 20.7)."""
    history = History()
    with CoordServers(tmp_path, 3, tick_ms=TICK_MS, extra=SETTINGS) as servers:
        with clients(servers, history, STOPPED_TIMEOUT_MS):
            for _ in range(ROUNDS):
                for victim in leader_and_follower(servers):
                    wait_progress(history)
                    stop_past_expiry(servers, victim, history)
                    wait_progress(history)
                    servers.wait_serving()
        check(history)


def stop_past_expiry(servers: CoordServers, victim: CoordServer, history: History) -> None:
    """SIGSTOP until a session of the victim's is over for the others, and they have gone on; then SIGCONT.
    What the victim finds when it wakes up is a sync and reads that were sent after all that.
    """
    assert victim.process is not None
    others = [server.port for server in servers.servers if server is not victim]
    outside = History()
    kept = LiveSession("kept", [victim.port], outside, STOPPED_TIMEOUT_MS, random.Random(0))
    insist(lambda: kept.create("/h/kept", b"", EPHEMERAL))
    watcher = LiveSession("watcher", others, outside, SESSION_TIMEOUT_MS, random.Random(0))
    late = LiveSession(
        "late", [victim.port], outside, SESSION_TIMEOUT_MS, random.Random(0), PATIENCE_SECONDS_MAX
    )
    insist(late.ping)
    connection = late.attach()
    victim.process.send_signal(signal.SIGSTOP)
    try:

        def is_gone() -> bool:
            try:
                watcher.sync()
                return "kept" not in watcher.children("/h")
            except OSError:
                return False

        wait_for(is_gone, "the session of the stopped server is over")
        wait_progress(history)
        invoked = time.monotonic_ns()
        connection.send(1, SYNC, buffer(b"/"))
        for path in REGISTERS:
            connection.send(2, GET_DATA, buffer(path.encode()) + b"\0")
    finally:
        victim.process.send_signal(signal.SIGCONT)
    with contextlib.suppress(OSError):
        assert connection.receive_reply().error == 0
        for path in REGISTERS:
            node, _ = read_node(connection.receive_reply().body, 0)
            answer = node.data, node.version
            history.operations[path].append(Operation("late", Read(), invoked, time.monotonic_ns(), answer))
    for session in (watcher, kept, late):
        session.close()


def test_a_rolling_restart_costs_no_session_and_no_write(tmp_path: Path) -> None:
    history = History()
    with CoordServers(tmp_path, 3, tick_ms=TICK_MS, extra=SETTINGS) as servers:
        with (
            clients(servers, history, SESSION_TIMEOUT_MS),
            idle_clients(servers, history, SESSION_TIMEOUT_MS),
        ):
            for _ in range(ROUNDS):
                for server in servers.servers:
                    wait_progress(history)
                    server.stop()
                    wait_progress(history)
                    server.start()
                    servers.wait_serving()
        check(history)
        assert history.lost_sessions == []


def test_a_history_over_partitions_is_linearizable(tmp_path: Path) -> None:
    """Servers that are cut off from the others, each with clients that reach it still: what they answer while
    they do not know yet is in the history.
    """
    history = History()
    with network(3) as net, IsolatedServers(tmp_path, net, tick_ms=TICK_MS, extra=SETTINGS) as servers:
        sids = {server.port: server.sid for server in servers.servers}
        with clients(servers, history, SESSION_TIMEOUT_MS, lambda port: net.inside(sids[port])):
            for _ in range(ROUNDS):
                for victim in leader_and_follower(servers):
                    others = [server for server in servers.servers if server is not victim]
                    wait_progress(history)
                    net.cut(victim.sid)
                    wait_for(lambda: not victim.mode(), "who is alone serves nobody")  # noqa: B023
                    wait_for(lambda: all(one.mode() for one in others), "the others serve")  # noqa: B023
                    wait_progress(history)
                    net.mend(victim.sid)
                    servers.wait_serving()
        check(history)


def test_wall_clocks_that_jump_cost_no_session_and_no_write(tmp_path: Path) -> None:
    """An hour forth and two back, on the leader, then on a follower."""
    history = History()
    servers = ShiftedServers(tmp_path, tick_ms=TICK_MS, extra=SETTINGS)
    hours = dict.fromkeys((1, 2, 3), 0)
    with servers:
        ports = [server.port for server in servers.servers]
        observer = LiveSession("observer", ports, History(), SESSION_TIMEOUT_MS, random.Random(0))
        began = 0.0

        def is_shifted() -> bool:
            try:
                jumped = leaders_clock(observer) - began
            except OSError:
                return False
            return round(jumped / 3600) == hours[servers.leader().sid]

        with clients(servers, history, SESSION_TIMEOUT_MS):
            began = insist(lambda: leaders_clock(observer))
            for _ in range(ROUNDS):
                for victim in leader_and_follower(servers):
                    for hours[victim.sid] in (1, -1, 0):
                        servers.by_port[victim.port].shift(3600 * hours[victim.sid])
                        wait_for(is_shifted, "writes bear the leader's time")
                        wait_progress(history)
        observer.close()
        check(history)
        assert history.lost_sessions == []


def leaders_clock(session: LiveSession) -> float:
    """Seconds since 1970, as the leader has them: a write bears the time of its stamp."""
    reply = session.ask(SET_DATA, buffer(b"/h") + buffer(b"") + struct.pack(">i", -1))
    assert reply.error == 0
    mtime_ms: int = STAT.unpack(reply.body)[3]
    return mtime_ms / 1000
