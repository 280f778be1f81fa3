"""What the clients of a history do: each worker is a thread with a session that uses one kind of object,
until the history is stopped. Reads that are to be linearizable are preceded by a sync; plain ones are
recorded for the law of sessions alone.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Hashable, Mapping

import trio

import coord
from coord.errors import BadVersionError, CoordError
from tests.histories.checker import Model, Operation, Read
from tests.histories.models import (
    BAD_VERSION,
    DONE,
    REFUSED,
    Acquire,
    Add,
    Counter,
    FencedRegister,
    FencedWrite,
    Pair,
    Register,
    Tokens,
    Write,
)
from tests.histories.recording import EndedError, History, LiveSession

REGISTERS = ("/h/r0", "/h/r1")
COUNTER, FENCED, LOCK = "/h/counter", "/h/fenced", "/h/lock"
PAIR = ("/h/pair-a", "/h/pair-b")
EPHEMERAL, SEQUENTIAL_EPHEMERAL = 1, 3
MODELS: Mapping[str, Model] = {
    REGISTERS[0]: Register(b"0"),
    REGISTERS[1]: Register(b"0"),
    COUNTER: Counter(),
    FENCED: FencedRegister(),
    LOCK: Tokens(),
    PAIR[0]: Pair(b"0"),
}


def make_objects(session: LiveSession) -> None:
    """Creates the nodes, in their first states."""
    nodes = {"/h": b"", LOCK: b"", FENCED: b"-1:"} | dict.fromkeys((*REGISTERS, COUNTER, *PAIR), b"0")
    for path, data in nodes.items():
        while True:
            try:
                session.create(path, data)
                break
            except OSError:
                continue


class Worker(threading.Thread):
    """Does one `step` after the other, with a pause between; a step that loses its connection is over."""

    def __init__(
        self, session: LiveSession, step: Callable[[LiveSession], None], pause_seconds: float = 0.0
    ) -> None:
        super().__init__(daemon=True, name=session.name)
        self.session = session
        self.step = step
        self.pause_seconds = pause_seconds

    def run(self) -> None:
        history = self.session.history
        try:
            while not history.stopping.wait(self.pause_seconds):
                try:
                    self.step(self.session)
                except OSError:
                    continue
        except EndedError:
            pass
        except Exception as error:
            history.errors.append(f"{self.name}: {error!r}")
        finally:
            self.session.close()


def written(
    session: LiveSession, key: str, call: Hashable, invoked: int, change: Callable[[], Hashable]
) -> None:
    """Records a change with its answer, or as unanswered."""
    try:
        answer = change()
    except OSError:
        session.unanswered.append((key, call, invoked))
        raise
    session.record(key, call, invoked, answer)


def use_register(session: LiveSession) -> None:
    """Reads of both kinds; writes with the version that was read, and now and then without."""
    chance = session.chance
    path = chance.choice(REGISTERS)
    invoked = time.monotonic_ns()
    is_plain = chance.random() < 0.3
    if not is_plain:
        session.sync()
    node = session.get(path)
    if not is_plain:
        session.record(path, Read(), invoked, (node.data, node.version))
    if chance.random() < 0.5:
        return
    value = b"%s-%d" % (session.name.encode(), session.xid)
    call = Write(value, -1 if chance.random() < 0.2 else node.version)

    def change() -> Hashable:
        after = session.set(path, value, call.version)
        return BAD_VERSION if after is None else after.version

    written(session, path, call, time.monotonic_ns(), change)


def use_pair(session: LiveSession) -> None:
    invoked = time.monotonic_ns()
    session.sync()
    nodes = session.get_both(PAIR)
    session.record(PAIR[0], Read(), invoked, tuple((node.data, node.version) for node in nodes))
    value = b"%s-%d" % (session.name.encode(), session.xid)
    call = Write(value, nodes[0].version)

    def change() -> Hashable:
        after = session.set_both(PAIR, value, call.version)
        return BAD_VERSION if after is None else tuple(node.version for node in after)

    written(session, PAIR[0], call, time.monotonic_ns(), change)


def use_counter(session: LiveSession) -> None:
    """Adds by compare-and-set from a plain read, which may be old: the version tells."""
    invoked = time.monotonic_ns()
    while True:
        node = session.get(COUNTER)
        total = int(node.data) + 1

        def change() -> Hashable:
            return session.set(COUNTER, b"%d" % total, node.version) and total  # noqa: B023

        try:
            answer = change()
        except OSError:
            session.unanswered.append((COUNTER, Add(), invoked))
            raise
        if answer is not None:
            session.record(COUNTER, Add(), invoked, answer)
            return


def use_lock(session: LiveSession) -> None:
    """Tries the lock; with it writes to what it protects, and once more after it was given back."""
    prefix = f"{session.name}-"
    invoked = time.monotonic_ns()
    mine = session.create(f"{LOCK}/{prefix}", b"", SEQUENTIAL_EPHEMERAL).rpartition("/")[2]
    session.sync()
    names = session.children(LOCK)
    token = int(mine[-10:])
    if min(int(name[-10:]) for name in names) == token:
        session.record(LOCK, Acquire(token), invoked, DONE)
        for number in range(3):
            write_fenced(session, token, b"%s-%d" % (mine.encode(), number))
    for name in names:
        # Those of attempts before whose answer was lost would stand in everybody's way as long as we live.
        if name.startswith(prefix):
            session.delete(f"{LOCK}/{name}")
    write_fenced(session, token, b"%s-late" % mine.encode())


def write_fenced(session: LiveSession, token: int, value: bytes) -> None:
    """The resource's part, by compare-and-set: what is older than the token there is refused."""
    call, invoked = FencedWrite(token, value), time.monotonic_ns()
    while True:
        session.sync()
        node = session.get(FENCED)
        highest, _, _ = node.data.partition(b":")
        if token < int(highest):
            session.record(FENCED, call, invoked, REFUSED)
            return
        try:
            after = session.set(FENCED, b"%d:%s" % (token, value), node.version)
        except OSError:
            session.unanswered.append((FENCED, call, invoked))
            raise
        if after is not None:
            session.record(FENCED, call, invoked, DONE)
            return


def read_everything(session: LiveSession) -> None:
    """The last word: every object as of a sync."""
    for path in (*REGISTERS, COUNTER, FENCED):
        invoked = time.monotonic_ns()
        session.sync()
        node = session.get(path)
        answer: Hashable = (node.data, node.version)
        if path == COUNTER:
            answer = int(node.data)
        elif path == FENCED:
            token, _, value = node.data.partition(b":")
            answer = (int(token), value)
        session.record(path, Read(), invoked, answer)
    invoked = time.monotonic_ns()
    session.sync()
    nodes = session.get_both(PAIR)
    session.record(PAIR[0], Read(), invoked, tuple((node.data, node.version) for node in nodes))


class OwnClient(threading.Thread):
    """Our own client with linearizable reads, on the registers.

    Args:
        inside: entered for the thread, where the servers' network is not ours.
    """

    def __init__(
        self,
        name: str,
        hosts: str,
        history: History,
        inside: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        super().__init__(daemon=True, name=name)
        self.hosts = hosts
        self.history = history
        self.inside = inside
        self.reads = 0

    def run(self) -> None:
        with self.inside():
            trio.run(self.work)

    async def work(self) -> None:
        history = self.history
        try:
            while not history.stopping.is_set():
                try:
                    async with coord.connect(self.hosts, session_timeout_ms=4000) as zk:
                        while not history.stopping.is_set():
                            await self.step(zk)
                except CoordError:
                    continue
        except Exception as error:
            history.errors.append(f"{self.name}: {error!r}")

    async def step(self, zk: coord.Client) -> None:
        path = REGISTERS[self.reads % len(REGISTERS)]
        invoked = time.monotonic_ns()
        data, stat = await zk.get(path, linearizable=True)
        assert data is not None
        self.record(path, Read(), invoked, (data, stat.version))
        self.reads += 1
        call, invoked = Write(b"%s-%d" % (self.name.encode(), self.reads), stat.version), time.monotonic_ns()
        try:
            after = await zk.set(path, call.value, version=call.version)
        except BadVersionError:
            self.record(path, call, invoked, BAD_VERSION)
        except CoordError as error:
            if error.happened is None:
                self.record(path, call, invoked, None)
            raise
        else:
            self.record(path, call, invoked, after.version)

    def record(self, path: str, call: Hashable, invoked: int, answer: Hashable | None) -> None:
        returned = None if answer is None else time.monotonic_ns()
        self.history.operations[path].append(Operation(self.name, call, invoked, returned, answer))
        self.history.answered += 1
