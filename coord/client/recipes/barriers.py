"""Barriers: one that stands until somebody removes it, and one that all pass together, in and out.

Nodes are kazoo's and those of ZooKeeper's recipes page.
"""

import contextlib
import random
from collections.abc import AsyncIterator

from coord.client.client import Client
from coord.client.recipes.contention import clean_up, ensure_path, make_guid, retry
from coord.client.watch import EventKind, Watch
from coord.errors import NodeExistsError, NoNodeError

READY = "ready"


class Barrier:
    """Holds up whoever waits, as long as its node exists."""

    def __init__(self, zk: Client, path: str) -> None:
        self.path = path
        self._zk = zk

    async def create(self) -> None:
        """Puts the barrier up; one that stands is left as it is."""
        await retry(ensure_path, self._zk, self.path)

    async def remove(self) -> bool:
        """Takes the barrier down; False where there was none."""
        try:
            await retry(self._zk.delete, self.path)
        except NoNodeError:
            return False
        return True

    async def wait(self) -> None:
        """Returns once there is no barrier.

        Raises:
            SessionExpiredError: the session ended while waiting.
        """
        async with self._zk.watch(self.path) as events:
            async for event in events:
                if event.stat is None:
                    return


@contextlib.asynccontextmanager
async def double_barrier(
    zk: Client, path: str, count: int, data: bytes = b"", *, rng: random.Random | None = None
) -> AsyncIterator[None]:
    """Enters the block once `count` parties have come to `path`, and returns once all of them have left it.

    A party that dies counts as gone. The next meeting at the same path may begin when all have left.

    Raises:
        SessionExpiredError: the session ended meanwhile.
    """
    node = f"{path}/{make_guid(rng)}"
    try:
        await retry(ensure_path, zk, path)
        await _take_away_left_mark(zk, path)
        # Watched before this party counts: from then on the mark may come, and with kazoo's parties go again.
        async with zk.watch(f"{path}/{READY}") as mark:
            with contextlib.suppress(NodeExistsError):  # it is ours: an earlier answer was lost
                await retry(zk.create, node, data, ephemeral=True)
            await _wait_all_here(zk, path, count, mark)
        yield
        await _leave(zk, path, node)
    finally:
        await clean_up(zk, path, lambda: retry(zk.delete, node))


async def _take_away_left_mark(zk: Client, path: str) -> None:
    """A meeting that ended with the death of the last to leave has left its mark behind."""
    if await retry(zk.get_children, path) == [READY]:
        with contextlib.suppress(NoNodeError):
            await retry(zk.delete, f"{path}/{READY}")


async def _wait_all_here(zk: Client, path: str, count: int, mark: Watch) -> None:
    """Everybody but the last to come watches one node, which the last creates."""
    if len(await _parties(zk, path)) >= count:
        with contextlib.suppress(NodeExistsError):
            await retry(zk.create, f"{path}/{READY}")
        return
    async for event in mark:
        if event.stat is not None or event.kind is EventKind.DELETED:
            return


async def _leave(zk: Client, path: str, node: str) -> None:
    """The first in order waits for the last, everybody else goes and waits for the first. The mark that all
    are here stays until then, for those who have not seen it yet.
    """
    name = node.rpartition("/")[2]
    while parties := await _parties(zk, path):
        if parties == [name]:
            with contextlib.suppress(NoNodeError):
                await retry(zk.delete, f"{path}/{READY}")
            return  # its own node goes at the end of the block
        first = parties[0]
        awaited = parties[-1] if first == name else first
        if first != name and name in parties:
            with contextlib.suppress(NoNodeError):
                await retry(zk.delete, node)
        async with zk.watch(f"{path}/{awaited}") as events:
            async for event in events:
                if event.stat is None:
                    break


async def _parties(zk: Client, path: str) -> list[str]:
    return [name for name in await retry(zk.get_children, path) if name != READY]
