"""What a simulated server stands on: its ticks, its clients' connections, its clock, its disk, its end."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

from coord.disk import FaultyDisk
from coord.log import failure

if TYPE_CHECKING:
    from tests.sim.servers.server import SimServer

WALL_BEGINS_MS = 1_700_000_000_000
CAPACITY_BYTES = 1 << 40


class ProcessEndedError(BaseException):
    """The server's process has ended itself."""


@contextmanager
def processes_that_end() -> Iterator[None]:
    """Within, a server that stops at once (`coord.log.fail_stop`) ends itself and not this process."""

    def leave(status: int) -> NoReturn:
        raise ProcessEndedError(f"status {status}")

    system = failure.os
    failure.os = SimpleNamespace(_exit=leave)  # type: ignore[assignment]
    try:
        yield
    finally:
        failure.os = system


class SimClock:
    """One machine's clocks; the monotonic one is `ahead_ms` of the world's."""

    def __init__(self, server: "SimServer") -> None:
        self._server = server

    def monotonic_ms(self) -> int:
        return self._server.now_ms

    def wall_ms(self) -> int:
        return WALL_BEGINS_MS + self._server.now_ms


class SimDisk(FaultyDisk):
    """Bytes in memory; each sync takes `fsync_us` or thereabouts of the writing thread's time."""

    def __init__(self) -> None:
        super().__init__(capacity_bytes=CAPACITY_BYTES)
        self.fsync_us = 800
        self.next_us = 0
        """How long the next group of the log takes."""
        self.spent_ns = 0

    def check(self, operation: str, path: str, *, changes: bool) -> int:
        if operation == "fdatasync":
            self.spent_ns += self.next_us * 1000
            self.next_us = 0
        return super().check(operation, path, changes=changes)

    def used_bytes(self) -> int:
        return self.capacity_bytes - self.free_bytes("/")


class Wakeup:
    """As the reactor's: a callback in one of the next ticks, once for any number of `set` calls before it."""

    def __init__(self, server: "SimServer", callback: Callable[[], None]) -> None:
        self._server = server
        self._callback = callback
        self._is_set = False

    def set(self) -> None:
        if not self._is_set:
            self._is_set = True
            self._server.input(self._run)

    def _run(self) -> None:
        self._is_set = False
        self._callback()


class SimReactor:
    """As much of `coord.reactor.Reactor` as a server uses that is never given a socket."""

    def __init__(self, server: "SimServer") -> None:
        self._server = server

    def wakeup(self, callback: Callable[[], None]) -> Wakeup:
        return Wakeup(self._server, callback)

    def flush(self) -> None:
        self._server.flush()

    def drain(self) -> None:
        """What has arrived while the process stood still is in this tick already."""

    def close(self) -> None:
        """There is nothing to close."""


class Link:
    """A client's connection: two directions, each in order, until it is cut.

    The server's end is what `coord.server.service` takes for a `coord.reactor.Connection`.
    """

    peer_certificate = None
    is_secure = False
    local_address = ("10.0.0.1", 2181)

    def __init__(self, server: "SimServer", client: Any, address: tuple[str, int], delay_us: int) -> None:
        self.server = server
        self.client = client
        self.life = server.life
        self.peer_address = address
        self.opened_ms = server.now_ms
        self.pending_output = self.bytes_in = self.bytes_out = 0
        self.data: Any = None
        self.close_reason = ""
        self.is_open = True
        self.is_paused = False
        self.is_cut = False
        self.is_dead = False
        """The server has forgotten it."""
        self._delay_us = delay_us
        self._held: list[bytes] = []  # arrived while reading is paused
        self._parts: list[bytes] = []
        self._arrives_us = [0, 0]
        self._to_client: deque[bytes | None] = deque()

    # The client's end.

    def say(self, data: bytes) -> None:
        if not self.is_cut:
            self._post(0, self._arrive, data)

    def hang_up(self) -> None:
        """The client closes it: what it has said before still arrives."""
        if not self.is_cut:
            self._post(0, self._end)
        self.client = None

    def cut(self, learn_us: int) -> None:
        """Whatever is under way is lost; each end learns of it in its own time."""
        if self.is_cut:
            return
        self.is_cut = True
        world = self.server.world
        world.later(world.random.randrange(learn_us) + 1, self._lost)
        world.later(world.random.randrange(learn_us) + 1, self._end)

    def _lost(self) -> None:
        if self.client is not None:
            self.client.on_lost(self)

    def _post(self, direction: int, action: Callable[..., None], *arguments: Any) -> None:
        world = self.server.world
        delay_us = int(self._delay_us * (0.3 + 3 * world.random.random() ** 3))
        due_us = max(self._arrives_us[direction] + 1, world.now_us + delay_us)
        self._arrives_us[direction] = due_us
        world.at(due_us, action, *arguments)

    # The server's end.

    def _arrive(self, data: bytes) -> None:
        if not self.is_cut and self.life == self.server.life:
            self.server.input(self._read, data)

    def _read(self, data: bytes) -> None:
        if not self.is_open:
            return
        if self.is_paused:
            self._held.append(data)
            return
        self.bytes_in += len(data)
        self.server.heard(self, data)
        self.server.service.on_bytes(self, data)

    def _end(self) -> None:
        if self.life == self.server.life:
            self.server.input(self._ended)

    def _ended(self) -> None:
        self.close(flush=False, reason="closed by peer")

    def send(self, data: bytes) -> None:
        if self.is_open:
            self._parts.append(bytes(data))
            self.bytes_out += len(data)

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
        if self._held:
            held, self._held = self._held, []
            self.server.input(self._read, b"".join(held))

    def close(self, *, flush: bool = True, reason: str = "") -> None:
        if not self.is_open:
            return
        if not flush:
            self._parts.clear()
        self.is_open, self.close_reason = False, reason
        self.server.closing.append(self)

    def flush(self) -> None:
        """The end of a tick: what is owed leaves, and the end behind it."""
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            if not self.is_cut:
                self._post(1, self._deliver, data)
        if not self.is_open and not self.is_dead:
            self.is_dead = True
            if not self.is_cut:
                self._post(1, self._lost)

    def _deliver(self, data: bytes) -> None:
        if self.client is not None and not self.is_cut:
            self.client.on_bytes(self, data)
