"""Group membership: who is there, as ephemeral nodes. Nodes are those of kazoo's `Party`."""

import contextlib
import random
from collections.abc import AsyncIterator
from typing import Self

from coord.client.client import Client
from coord.client.recipes.contention import Held, clean_up, ensure_path, make_guid, retry
from coord.client.watch import Watch
from coord.errors import NodeExistsError, NoNodeError

MARK = "__party__"


@contextlib.asynccontextmanager
async def join_group(
    zk: Client, path: str, data: bytes = b"", *, rng: random.Random | None = None
) -> AsyncIterator[Held]:
    """Is a member of the group at `path` within the block, known by `data`.

    A member whose session expires is one no longer, whether or not it has noticed.

    Raises:
        SessionExpiredError: the session is over.
    """
    node = f"{path}/{make_guid(rng)}{MARK}"
    try:
        yield await _join(zk, path, node, data)
    finally:
        await clean_up(zk, path, lambda: retry(zk.delete, node))


async def _join(zk: Client, path: str, node: str, data: bytes) -> Held:
    while True:
        try:
            with contextlib.suppress(NodeExistsError):  # it is ours: an earlier answer was lost
                await retry(zk.create, node, data, ephemeral=True)
        except NoNodeError:
            await retry(ensure_path, zk, path)
            continue
        stat = await retry(zk.exists, node)
        if stat is not None:
            return Held(node, stat.czxid)


async def get_members(zk: Client, path: str) -> list[bytes]:
    """What the members of the group are known by, sorted."""
    try:
        names = await retry(zk.get_children, path)
    except NoNodeError:
        return []
    return await _read_members(zk, path, names)


class Members:
    """Iterates over what the members are known by, sorted: those of now first, then anew whenever somebody
    comes or goes. Several changes may come as one.
    """

    def __init__(self, zk: Client, path: str, events: Watch) -> None:
        self._zk = zk
        self._path = path
        self._events = events

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[bytes]:
        event = await self._events.__anext__()
        return [] if event.stat is None else await _read_members(self._zk, self._path, self._events.children)


@contextlib.asynccontextmanager
async def watch_members(zk: Client, path: str) -> AsyncIterator[Members]:
    """Follows a group: `async with coord.watch_members(zk, path) as changes: async for members in changes`.

    Raises:
        SessionExpiredError: the session is over.
    """
    async with zk.watch(path, children=True) as events:
        yield Members(zk, path, events)


async def _read_members(zk: Client, path: str, names: list[str]) -> list[bytes]:
    members = []
    for name in names:
        if MARK in name:
            with contextlib.suppress(NoNodeError):
                data, _ = await retry(zk.get, f"{path}/{name}")
                members.append(data or b"")
    return sorted(members)
