"""The requests of a session between their callers and its connections.

They wait here for a connection, in the order in which they were made, and their callers for the answer: each
has a task that is rescheduled, so that a request costs one object and no channel.
"""

import contextlib
from collections import deque
from collections.abc import Callable

import outcome
import trio

from coord.client.calls import Call
from coord.errors import CoordError
from coord.protocol import opcodes

#: Requests handed in and not answered; the next caller waits.
OUTSTANDING_MAX = 10_000
#: Requests that belong to one connection, and are not taken along to the next.
_OF_CONNECTION = frozenset({opcodes.PING, opcodes.AUTH})


class Requests:
    """What is to be sent, and who waits.

    Args:
        over: why nothing can be sent any more; None while the session lives.

    Attributes:
        unsent: what waits for a connection.
        work: set when something was put into `unsent`.
    """

    def __init__(self, over: Callable[[], CoordError | None]) -> None:
        self.unsent: deque[Call] = deque()
        self.work = trio.Event()
        self._over = over
        self._outstanding = 0
        self._room = trio.lowlevel.ParkingLot()

    def put(self, call: Call) -> None:
        self.unsent.append(call)
        self.work.set()

    async def call(self, op: int, body: bytes, sync: bytes | None) -> tuple[int, bytes]:
        """Hands a request in and waits for (error code, reply body)."""
        while self._outstanding >= OUTSTANDING_MAX and self._over() is None:
            await self._room.park()
        error = self._over()
        if error is not None:
            raise error
        self._outstanding += 1
        try:
            call = Call(op, body, trio.lowlevel.current_task(), sync)
            self.put(call)

            def abandon(_: object) -> trio.lowlevel.Abort:
                call.waiter = None
                with contextlib.suppress(ValueError):
                    self.unsent.remove(call)
                return trio.lowlevel.Abort.SUCCEEDED

            answer: tuple[int, bytes] = await trio.lowlevel.wait_task_rescheduled(abandon)
            return answer
        finally:
            self._outstanding -= 1
            self._room.unpark()

    def on_break(self) -> None:
        """A connection was lost: what was for it alone goes."""
        self.unsent = deque(call for call in self.unsent if call.op not in _OF_CONNECTION)

    def fail_unsent(self, make_error: Callable[[], CoordError]) -> None:
        """Nothing of these was sent; everybody who waits is told, also those who wait for room."""
        while self.unsent:
            wake(self.unsent.popleft(), make_error())
        if self._over() is not None:
            self._room.unpark_all()


async def wait_answer(call: Call) -> None:
    """Waits for the answer to a request that others keep; cancelled, only the waiting ends."""

    def abandon(_: object) -> trio.lowlevel.Abort:
        call.waiter = None
        return trio.lowlevel.Abort.SUCCEEDED

    await trio.lowlevel.wait_task_rescheduled(abandon)


def answer(call: Call, err: int, body: bytes) -> None:
    """Gives an answer to whoever waits."""
    task = call.waiter
    if task is not None:
        call.waiter = None
        trio.lowlevel.reschedule(task, outcome.Value((err, body)))


def wake(call: Call, error: CoordError) -> None:
    """Fails a call; each waiter needs an exception of its own, as raising changes it."""
    task = call.waiter
    if task is not None:
        call.waiter = None
        trio.lowlevel.reschedule(task, outcome.Error(error))
