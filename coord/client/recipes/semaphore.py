"""A semaphore: at most so many hold it at a time.

Leases are ephemeral children of the semaphore's node, which says how many there may be. Who wants one takes
turns at a lock beside it, so that only the first in line watches the leases, and one that is given back wakes
one. Nodes and order are kazoo's.
"""

import contextlib
import random
from collections.abc import AsyncIterator

from coord.client.client import Client
from coord.client.recipes.contention import (
    Held,
    clean_up,
    ensure_path,
    make_guid,
    retry,
    take_turn,
)
from coord.errors import (
    ConnectionLossError,
    NodeExistsError,
    NoNodeError,
    NotConnectedError,
)

LINE_SUFFIX = "-__lock__"


@contextlib.asynccontextmanager
async def semaphore(
    zk: Client, path: str, leases: int, data: bytes = b"", *, rng: random.Random | None = None
) -> AsyncIterator[Held]:
    """Holds one of `leases` leases of the semaphore at `path` within the block, first come first served.

    Raises:
        ValueError: the semaphore has another number of leases.
        SessionExpiredError: the session ended while waiting.
    """
    if leases < 1:
        raise ValueError(f"expected at least one lease, got {leases}")
    node = f"{path}/{make_guid(rng)}"
    await _agree(zk, path, leases)
    try:
        async with take_turn(zk, path + LINE_SUFFIX, rng=rng):
            held = await _take_lease(zk, path, node, leases, data)
        yield held
    finally:
        await clean_up(zk, path, lambda: retry(zk.delete, node))


async def _agree(zk: Client, path: str, leases: int) -> None:
    """The number of leases is what the first said."""
    await retry(ensure_path, zk, path)
    while True:
        data, _ = await retry(zk.get, path)
        if data:
            if data.isdigit() and int(data) != leases:
                raise ValueError(f"the semaphore {path} has {int(data)} leases, not {leases}")
            return
        with contextlib.suppress(ConnectionLossError, NotConnectedError):
            # Two who come first at once write the same, or the later one reads what the earlier wrote.
            await zk.set(path, b"%d" % leases)


async def _take_lease(zk: Client, path: str, node: str, leases: int, data: bytes) -> Held:
    async with zk.watch(path, children=True) as events:
        async for event in events:
            if event.stat is None:
                raise NoNodeError(path=path)
            if len(events.children) >= leases:
                continue
            with contextlib.suppress(NodeExistsError):  # it is ours: an earlier answer was lost
                await retry(zk.create, node, data, ephemeral=True)
            stat = await retry(zk.exists, node)
            if stat is not None:
                return Held(node, stat.czxid)
    raise AssertionError("a watch ends only when it is removed")
