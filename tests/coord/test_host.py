"""A trio run as the guest of a loop that waits for reactors itself."""

import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable

import pytest
import trio

from coord.reactor import Connection, Reactor, run_hosted
from coord.reactor.host import current_host

WAIT_S = 60


class Echo:
    """Sends back what it gets; `before_end` is called at the end of each tick."""

    def __init__(self) -> None:
        self.before_end: Callable[[], None] = lambda: None

    def on_open(self, conn: Connection) -> None:
        pass

    def on_bytes(self, conn: Connection, data: bytes) -> None:
        conn.send(data)

    def on_close(self, conn: Connection, reason: str) -> None:
        pass

    def on_tick_end(self) -> None:
        self.before_end()


async def echo(address: tuple[str, int], data: bytes) -> bytes:
    with trio.fail_after(WAIT_S):
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(data)
            return bytes(await stream.receive_some(len(data)))


def run_with_reactor(use: Callable[[Reactor, Echo, tuple[str, int]], Awaitable[None]]) -> None:
    async def main() -> None:
        reactor, service = Reactor(), Echo()
        address = reactor.listen("127.0.0.1", 0, service)
        async with trio.open_nursery() as nursery:
            await nursery.start(reactor.run)
            await use(reactor, service, address)
            reactor.stop()

    run_hosted(main)


def test_the_outcome_is_that_of_the_run() -> None:
    async def add(one: int, two: int) -> int:
        await trio.lowlevel.checkpoint()
        assert current_host() is not None
        return one + two

    async def fail() -> None:
        raise ValueError("on purpose")

    assert run_hosted(add, 1, 2) == 3
    with pytest.raises(ValueError, match="on purpose"):
        run_hosted(fail)
    assert current_host() is None


def test_sockets_timers_and_threads_of_tasks_go_on_beside_a_reactor() -> None:
    async def use(reactor: Reactor, service: Echo, address: tuple[str, int]) -> None:
        assert await echo(address, b"one") == b"one"
        await trio.sleep(0.01)
        assert await trio.to_thread.run_sync(lambda: 7) == 7
        assert await echo(address, b"two") == b"two"

    run_with_reactor(use)


def test_a_tick_reaches_tasks() -> None:
    async def use(reactor: Reactor, service: Echo, address: tuple[str, int]) -> None:
        ended, started = trio.Event(), trio.Event()

        async def begin() -> None:
            started.set()

        async with trio.open_nursery() as nursery:

            def reach() -> None:
                if not ended.is_set():
                    ended.set()
                    nursery.start_soon(begin)

            service.before_end = reach
            client = socket.create_connection(address)
            with trio.fail_after(WAIT_S):
                await ended.wait()
                await started.wait()
            client.close()

    run_with_reactor(use)


def test_a_helper_thread_reaches_a_tick() -> None:
    async def use(reactor: Reactor, service: Echo, address: tuple[str, int]) -> None:
        called = trio.Event()
        wakeup = reactor.wakeup(called.set)
        thread = threading.Thread(target=wakeup.set)
        thread.start()
        with trio.fail_after(WAIT_S):
            await called.wait()
        thread.join()

    run_with_reactor(use)


def test_an_error_in_a_tick_is_raised_where_the_reactor_runs() -> None:
    async def use(reactor: Reactor, service: Echo, address: tuple[str, int]) -> None:
        def fail() -> None:
            raise ValueError("on purpose")

        service.before_end = fail
        with socket.create_connection(address):
            await trio.sleep(WAIT_S)

    with pytest.raises(ExceptionGroup) as caught:
        run_with_reactor(use)
    assert caught.group_contains(ValueError, match="on purpose")


def test_who_is_driven_no_more_has_no_turn_left() -> None:
    """A reactor whose TLS connections have work left when it ends is closed: a tick of it would fail."""
    turns = 0

    def turn() -> bool:
        nonlocal turns
        turns += 1
        had_turn.set()
        return True

    async def main() -> None:
        host = current_host()
        assert host is not None
        with trio.fail_after(WAIT_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(host.drive, readable, turn)
                await had_turn.wait()
                nursery.cancel_scope.cancel()
            until_now = turns
            for _ in range(10):
                await trio.lowlevel.checkpoint()
            assert turns == until_now

    had_turn = trio.Event()
    readable = os.eventfd(1)
    try:
        run_hosted(main)
    finally:
        os.close(readable)


def test_two_reactors_in_one_run() -> None:
    """Another server in the place of the first one, when a snapshot is restored."""

    async def main() -> None:
        for _ in range(2):
            first, second = Reactor(), Reactor()
            addresses = [reactor.listen("127.0.0.1", 0, Echo()) for reactor in (first, second)]
            async with trio.open_nursery() as nursery:
                await nursery.start(first.run)
                await nursery.start(second.run)
                for address in addresses:
                    assert await echo(address, b"hello") == b"hello"
                first.stop()
                nursery.cancel_scope.cancel()

    run_hosted(main)


def test_an_interrupt_ends_the_run() -> None:
    async def use(reactor: Reactor, service: Echo, address: tuple[str, int]) -> None:
        def interrupt() -> None:
            service.before_end = lambda: None
            signal.raise_signal(signal.SIGINT)

        service.before_end = interrupt
        with socket.create_connection(address):
            await trio.sleep(WAIT_S)

    with pytest.raises(BaseExceptionGroup) as caught:
        run_with_reactor(use)
    assert caught.group_contains(KeyboardInterrupt)
