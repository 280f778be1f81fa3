"""The clients of a history at work on an ensemble, and what must hold of it at the end.

history = History()
with CoordServers(directory, 3) as servers:
    with clients(servers, history, timeout_ms):
        wait_progress(history); servers.leader().kill(); ...
    check(history)
"""

import contextlib
import random
from collections.abc import Iterator, Sequence

from tests.coord_raw import insist
from tests.coord_servers import CoordServers, wait_for
from tests.histories.checker import violations
from tests.histories.recording import PATIENCE_SECONDS, History, LiveSession, Via
from tests.histories.sessions import inconsistencies
from tests.histories.workers import (
    EPHEMERAL,
    MODELS,
    OwnClient,
    Worker,
    make_objects,
    read_everything,
    use_counter,
    use_lock,
    use_pair,
    use_register,
)

PATIENCE_SECONDS_MAX = 20.0
"""Longer than any server is stopped."""
PROGRESS, PROGRESS_EACH = 100, 2
"""Answers, and operations of each object, between two disturbances."""
IDLE_CLIENTS = 6
JOIN_SECONDS_MAX = 60.0
"""More than the patience of any client: what one asks as it is told to stop may take that long."""
WORK = {
    "r1": use_register,
    "r2": use_register,
    "r3": use_register,
    "p1": use_pair,
    "p2": use_pair,
    "c1": use_counter,
    "c2": use_counter,
    "l1": use_lock,
    "l2": use_lock,
}


def wait_progress(history: History) -> None:
    target = history.answered + PROGRESS
    targets = {key: len(history.operations[key]) + PROGRESS_EACH for key in MODELS}

    def is_enough() -> bool:
        each = all(len(history.operations[key]) >= count for key, count in targets.items())
        return bool(history.errors) or (each and history.answered >= target)

    wait_for(is_enough, "all clients go on")


@contextlib.contextmanager
def clients(
    servers: CoordServers,
    history: History,
    timeout_ms: int,
    via: Via | None = None,
    *,
    root: str = "",
    pause_seconds: float = 0.0,
) -> Iterator[None]:
    """All workers, until the end of the block; then the history gets its last reads, by every server.

    Args:
        via: to connect by, if the servers are in networks of their own; our own client knows only one then.
        root: a node that is there, under which they work.
        pause_seconds: between a worker's steps.
    """
    ports = [server.port for server in servers.servers]

    def session(
        name: str, to: Sequence[int], into: History = history, patience: float = PATIENCE_SECONDS
    ) -> LiveSession:
        return LiveSession(name, to, into, timeout_ms, random.Random(root + name), patience, via, root)

    first = session("first", ports)
    make_objects(first)
    first.close()
    threads: list[Worker | OwnClient] = [
        Worker(session(name, ports), step, pause_seconds) for name, step in WORK.items()
    ]
    for number, port in enumerate(ports):
        # These stay with their server until it ends the connection, and so ask it first when it wakes up.
        faithful = session(f"f{number}", [port], patience=PATIENCE_SECONDS_MAX)
        threads.append(Worker(faithful, use_register, pause_seconds))
    if via is None:
        threads.append(OwnClient("own", servers.hosts + root, history))
    else:
        one = random.Random(root).choice(ports)
        threads.append(OwnClient("own", f"127.0.0.1:{one}{root}", history, lambda: via(one)))
    for thread in threads:
        thread.start()
    try:
        yield
        wait_progress(history)
    finally:
        history.stopping.set()
        for thread in threads:
            thread.join(JOIN_SECONDS_MAX)
    assert not [thread.name for thread in threads if thread.is_alive()]
    servers.wait_serving()
    last = History(history.operations, history.seen, errors=history.errors)
    for port in ports:
        reader = session(f"last-{port}", [port], last)
        insist(lambda: read_everything(reader))  # noqa: B023
        reader.close()


@contextlib.contextmanager
def idle_clients(servers: CoordServers, history: History, timeout_ms: int) -> Iterator[None]:
    """Clients that only keep their sessions alive, each with an ephemeral node; none may be missing at the
    end.

    To be entered within `clients`: it ends when the history is stopped.
    """
    ports = [server.port for server in servers.servers]
    threads = []
    for number in range(IDLE_CLIENTS):
        session = LiveSession(f"i{number}", ports, history, timeout_ms, random.Random(number))
        insist(lambda: session.create(f"/h/{session.name}", b"", EPHEMERAL))  # noqa: B023
        threads.append(Worker(session, beat))
        threads[-1].start()
    yield
    reader = LiveSession("idle", ports, History(), timeout_ms, random.Random(0))
    insist(reader.sync)
    there = insist(lambda: reader.children("/h"))
    reader.close()
    lost = [thread.name for thread in threads if thread.name not in there]
    assert not lost, f"lost their nodes: {lost}; lost sessions: {history.lost_sessions}"


def beat(session: LiveSession) -> None:
    """A client that only keeps its session alive."""
    session.ping()
    session.history.stopping.wait(session.granted_ms / 10_000)


def check(history: History) -> None:
    assert history.errors == []
    assert violations(MODELS, history.operations) == []
    assert inconsistencies(history.seen) == []
