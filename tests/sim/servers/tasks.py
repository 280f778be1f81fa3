"""Production coroutines in virtual time: a server's tasks, and streams between two servers.

`coord.server.repairing` and `coord.server.giving` wait in trio, in few ways. Within `tasks_that_wait` those
ways are the simulation's: a task goes on in a tick of its server, and ends with its process.
"""

import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import trio

from coord.server import giving, repairing

if TYPE_CHECKING:
    from tests.sim.servers.server import SimServer

Wake = Callable[[], None]
Begin = Callable[[Wake], None]
"""Begins to wait: has the task woken when there is what it waits for."""


class Task:
    """One coroutine of a server's process."""

    current: ClassVar["Task | None"] = None

    def __init__(self, server: "SimServer", coroutine: Coroutine[Begin, None, None]) -> None:
        self.server = server
        self._life = server.life
        self._coroutine = coroutine
        self._waits = 0
        server.tasks.append(self)
        self._go_on(0)

    def close(self) -> None:
        """Its process is over."""
        self._coroutine.close()

    def throw_later(self, seconds: float, error: "_ExpiredError") -> None:
        self.server.world.later(int(seconds * 1_000_000), self._expire, error)

    def _expire(self, error: "_ExpiredError") -> None:
        if not error.scope.is_over:
            self._wake(self._waits, error)

    def _wake(self, waits: int, error: BaseException | None = None) -> None:
        self.server.input_of(self._life, self._go_on, waits, error)

    def _go_on(self, waits: int, error: BaseException | None = None) -> None:
        """Up to the next wait, unless another wake was quicker."""
        if waits != self._waits:
            return
        self._waits += 1
        before, Task.current = Task.current, self
        try:
            begin = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
        except StopIteration:
            self._waits = -1
            return
        finally:
            Task.current = before
        waits = self._waits
        begin(lambda: self._wake(waits))


def _this() -> Task:
    assert Task.current is not None
    return Task.current


@types.coroutine
def _wait(begin: Begin) -> Generator[Begin, None, None]:
    yield begin


async def _sleep(seconds: float) -> None:
    task = _this()
    await _wait(lambda wake: task.server.world.later(int(seconds * 1_000_000), wake))


class _ExpiredError(Exception):
    def __init__(self, scope: "_Within") -> None:
        super().__init__()
        self.scope = scope


class _Within:
    """`trio.fail_after` and `trio.move_on_after`."""

    def __init__(self, seconds: float, *, fails: bool) -> None:
        self._seconds = seconds
        self._fails = fails
        self.is_over = False

    def __enter__(self) -> "_Within":
        _this().throw_later(self._seconds, _ExpiredError(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.is_over = True
        if not isinstance(error, _ExpiredError) or error.scope is not self:
            return False
        if self._fails:
            raise trio.TooSlowError from error
        return True


async def _checkpoint() -> None:
    """Whoever else wants to run may do so."""
    await _wait(lambda wake: wake())


_TRIO = SimpleNamespace(
    lowlevel=SimpleNamespace(checkpoint=_checkpoint),
    sleep=_sleep,
    fail_after=lambda seconds: _Within(seconds, fails=True),
    move_on_after=lambda seconds: _Within(seconds, fails=False),
    BrokenResourceError=trio.BrokenResourceError,
    TooSlowError=trio.TooSlowError,
)


@contextmanager
def tasks_that_wait() -> Iterator[None]:
    """Within, what production tasks wait for comes in virtual time."""
    modules: tuple[Any, ...] = (giving, repairing)
    for module in modules:
        module.trio = _TRIO
    try:
        yield
    finally:
        for module in modules:
            module.trio = trio


class StreamPart(NamedTuple):
    """What one end of a stream sends to the other; no data is its end."""

    number: int
    data: bytes
    opens: bool = False


class SimStream:
    """One end of a connection of its own between two servers, on the link of their messages: it breaks with
    that.
    """

    def __init__(self, owner: "SimServer", sid: int, number: int) -> None:
        self._owner = owner
        self.sid = sid
        self.number = number
        self._received: list[bytes] = []
        self._is_ended = False
        self._is_broken = False
        self._wake: Wake | None = None

    async def __aenter__(self) -> "SimStream":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        if not self._is_broken:
            self._owner.world.network.send(self._owner.sid, self.sid, StreamPart(self.number, b""))
        self.break_off()

    async def send_all(self, data: bytes) -> None:
        if self._is_broken:
            raise trio.BrokenResourceError("the link is lost")
        self._owner.world.network.send(self._owner.sid, self.sid, StreamPart(self.number, data))

    async def receive_some(self, max_bytes: int) -> bytes:
        if not self._received and not self._is_ended and not self._is_broken:
            await _wait(self._begin)
        if self._received:
            return self._received.pop(0)
        if self._is_broken:
            raise trio.BrokenResourceError("the link is lost")
        return b""

    def _begin(self, wake: Wake) -> None:
        self._wake = wake

    def feed(self, data: bytes) -> None:
        if data:
            self._received.append(data)
        else:
            self._is_ended = True
        self._rouse()

    def break_off(self) -> None:
        self._is_broken = True
        self._rouse()

    def _rouse(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()
