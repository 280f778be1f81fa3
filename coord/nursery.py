"""A nursery for the inside of a library: its background tasks are not the caller's business.

A plain nursery wraps whatever its block raises in an exception group, and when the caller is cancelled it
cancels
the background tasks at once: a client that then wants to say goodbye (close a session, give up a candidature,
flush what was accepted) would find its own connection dead.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator

import trio


@contextlib.asynccontextmanager
async def open_private_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks live until the block has ended, also while a cancelled block cleans up.

    They are cancelled when the block is left. A task that fails cancels the block. A single failure is
    raised as itself, several at once stay a group.
    """
    with _unwrapped():
        async with trio.open_nursery() as outer:
            inner = await outer.start(_hold)
            try:
                yield inner
            finally:
                inner.cancel_scope.cancel()


async def _hold(task_status: trio.TaskStatus[trio.Nursery]) -> None:
    """Keeps the inner nursery open; the shield is what separates its tasks from the caller's cancellation."""
    with trio.CancelScope(shield=True), _unwrapped():
        async with trio.open_nursery() as nursery:
            task_status.started(nursery)
            await trio.sleep_forever()


@contextlib.contextmanager
def _unwrapped() -> Iterator[None]:
    """Takes the group off a single exception."""
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from group.exceptions[0].__cause__
        raise
