"""The loop of a process whose work is nearly all in reactors: it waits for them itself, trio is its guest.

A task that waits for an epoll costs a turn of trio's scheduler for each wake-up, more than the wake-up itself
when little is ready. Here the process waits on one epoll of its own (the reactors' and one for trio's turns
stand in it), and trio runs as a guest (`trio.lowlevel.start_guest_run`): while none of its tasks has anything
to do, and none has in a server whose clients and peers are all in its reactor, it costs nothing. In return
each turn of trio's takes a hand-over to a thread that waits in its place, so a process that works in tasks
should use `trio.run`.

Ticks run between trio's turns, in the same thread: they may set events, cancel scopes and start tasks, as
synchronous code in a task may.
"""

import os
import select
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final, TypeVar

import trio

_Result = TypeVar("_Result")
_current: ContextVar["Host | None"] = ContextVar("coord.reactor.host", default=None)

EVENTS_MAX: Final = 16


def run_hosted(async_fn: Callable[..., Awaitable[_Result]], *args: object) -> _Result:
    """`trio.run(async_fn, *args, strict_exception_groups=True)`, for a process of reactors."""
    return Host().run(async_fn, *args)


def current_host() -> "Host | None":
    """The host of this trio run; None where trio runs by itself."""
    return _current.get()


class Host:
    """One epoll, for the reactors of a process and its trio run."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._soon: deque[Callable[[], object]] = deque()
        self._driven: dict[int, _Driven] = {}
        self._unfinished: list[_Driven] = []

    @trio.lowlevel.enable_ki_protection
    def run(self, async_fn: Callable[..., Awaitable[_Result]], *args: object) -> _Result:
        """As `run_hosted`; once."""
        done: list[Any] = []  # the outcome
        token = _current.set(self)
        try:
            trio.lowlevel.start_guest_run(
                async_fn,
                *args,
                run_sync_soon_threadsafe=self._run_soon_from_thread,
                run_sync_soon_not_threadsafe=self._soon.append,
                done_callback=done.append,
                strict_exception_groups=True,
            )
            while not done:
                self._turn()
        finally:
            _current.reset(token)
            self._epoll.close()
            os.close(self._wake_fd)
        result: _Result = done[0].unwrap()
        return result

    async def drive(self, fd: int, turn: Callable[[], bool]) -> None:
        """Calls `turn` whenever `fd` is readable, and again at once as long as it returns True; until
        cancelled, or until it raises: that is raised here.
        """
        driven = self._driven[fd] = _Driven(turn)
        self._epoll.register(fd, select.EPOLLIN)
        try:
            await driven.ended.wait()
        finally:
            del self._driven[fd]
            self._epoll.unregister(fd)
            driven.is_ended = True
        assert driven.error is not None
        raise driven.error

    def _run_soon_from_thread(self, callback: Callable[[], object]) -> None:
        self._soon.append(callback)
        os.eventfd_write(self._wake_fd, 1)

    def _turn(self) -> None:
        unfinished, self._unfinished = self._unfinished, []
        events = self._epoll.poll(0 if self._soon or unfinished else -1, EVENTS_MAX)
        for fd, _ in events:
            if fd == self._wake_fd:
                os.eventfd_read(fd)
            else:
                driven = self._driven.get(fd)
                if driven is not None and driven not in unfinished:
                    unfinished.append(driven)
        for driven in unfinished:
            if driven.take_turn():
                self._unfinished.append(driven)
        for _ in range(len(self._soon)):
            self._soon.popleft()()


class _Driven:
    """What one `drive` is about."""

    __slots__ = ("_turn", "ended", "error", "is_ended")

    def __init__(self, turn: Callable[[], bool]) -> None:
        self._turn = turn
        self.ended = trio.Event()
        self.error: BaseException | None = None
        self.is_ended = False  # it may stand in the host's list of the unfinished all the same

    def take_turn(self) -> bool:
        if self.is_ended or self.error is not None:
            return False
        try:
            return self._turn()
        except BaseException as error:  # it belongs to the task that drives
            self.error = error
            self.ended.set()
            return False
