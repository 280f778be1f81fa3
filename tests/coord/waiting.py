"""Waiting for what comes through the kernel: it delivers in its own time, also on the loopback."""

from collections.abc import Callable

import trio

WAIT_S = 60


async def until(condition: Callable[[], object]) -> None:
    """Looks again and again; the test fails when it does not come true."""
    with trio.fail_after(WAIT_S):
        while not condition():  # noqa: ASYNC110 (nobody would set an event)
            await trio.sleep(0.001)
