"""A nursery for the inside of a library: its background tasks are not the caller's business.

A plain nursery wraps whatever its block raises in an exception group. In a client's context manager that
would turn the caller's own exception into a group because of tasks the caller does not know of.
"""

import contextlib
from collections.abc import AsyncIterator

import trio


@contextlib.asynccontextmanager
async def open_private_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery that raises a single failure as itself; several at once stay a group.

    Background tasks are cancelled when the block is left.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from group.exceptions[0].__cause__
        raise
