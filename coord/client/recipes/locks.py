"""Locks: exclusive, shared for reading, and such as their holder can be asked to give up."""

import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass

import trio

from coord.client.client import Client
from coord.client.recipes.contention import EXCLUSIVE, SHARED, Held, contenders, retry, take_turn
from coord.errors import NoNodeError
from coord.nursery import open_private_nursery

#: What a holder's node is made to say by who wants the lock back.
UNLOCK = b"unlock"


@contextlib.asynccontextmanager
async def lock(
    zk: Client, path: str, data: bytes = b"", *, rng: random.Random | None = None
) -> AsyncIterator[Held]:
    """Holds the lock at `path` within the block, alone, in the order of coming.

    Give up waiting with trio's timeouts: `with trio.move_on_after(5): async with coord.lock(...)`. The lock
    is lost when the session expires, whether or not its holder has noticed: where that could do harm send
    `Held.token` along and refuse lower ones.

    Raises:
        SessionExpiredError: the session ended while waiting.
        NoNodeError: somebody deleted the waiting node.
    """
    async with take_turn(zk, path, data, rng=rng) as held:
        yield held


@contextlib.asynccontextmanager
async def read_lock(
    zk: Client, path: str, data: bytes = b"", *, rng: random.Random | None = None
) -> AsyncIterator[Held]:
    """Holds the lock at `path` together with other readers; waits for writers that came earlier.

    Raises:
        SessionExpiredError, NoNodeError: as for `lock`.
    """
    async with take_turn(zk, path, data, mark=SHARED, rng=rng) as held:
        yield held


@contextlib.asynccontextmanager
async def write_lock(
    zk: Client, path: str, data: bytes = b"", *, rng: random.Random | None = None
) -> AsyncIterator[Held]:
    """Holds the lock at `path` alone; waits for readers and writers that came earlier.

    Raises:
        SessionExpiredError, NoNodeError: as for `lock`.
    """
    behind = frozenset({EXCLUSIVE, SHARED})
    async with take_turn(zk, path, data, behind=behind, rng=rng) as held:
        yield held


@dataclass(frozen=True, slots=True)
class RevocableHeld(Held):
    """A lock whose holder may be asked to give it up.

    Attributes:
        revoked: set once somebody has asked; leaving the block is up to the holder.
    """

    revoked: trio.Event


@contextlib.asynccontextmanager
async def revocable_lock(
    zk: Client, path: str, data: bytes = b"", *, rng: random.Random | None = None
) -> AsyncIterator[RevocableHeld]:
    """As `lock`; `revoked` tells the holder that somebody has called `revoke`.

    Raises:
        SessionExpiredError, NoNodeError: as for `lock`.
    """
    async with take_turn(zk, path, data, rng=rng) as held, open_private_nursery() as nursery:
        revoked = trio.Event()
        nursery.start_soon(_follow, zk, held.path, revoked)
        try:
            yield RevocableHeld(held.path, held.token, revoked)
        finally:
            nursery.cancel_scope.cancel()


async def revoke(zk: Client, path: str) -> bool:
    """Asks whoever holds the lock at `path` to give it up.

    Returns:
        Whether there was a holder to ask. It may be a `lock`, whose holder does not listen.
    """
    while order := await contenders(zk, path):
        with contextlib.suppress(NoNodeError):
            await retry(zk.set, f"{path}/{order[0]}", UNLOCK)
            return True
    return False


async def _follow(zk: Client, node: str, revoked: trio.Event) -> None:
    async with zk.watch(node) as events:
        async for event in events:
            if event.stat is None:
                return
            with contextlib.suppress(NoNodeError):
                data, _ = await retry(zk.get, node)
                if data == UNLOCK:
                    revoked.set()
                    return
