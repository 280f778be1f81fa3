"""Leader election: of many candidates one leads, and the next takes over when it resigns or dies.

Each candidate owns an ephemeral sequential child `GUID__lock__NUMBER` of the election's node; the lowest
number leads, everybody else watches only the candidate before it, so a resignation wakes one. The guid
finds a child again whose create was answered by a lost connection. Names and order are kazoo's, so both
kinds of candidate may stand in one election.
"""

import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass

from coord.client.client import Client
from coord.errors import ConnectionLossError, NodeExistsError, NoNodeError

MARK = "__lock__"


@dataclass(frozen=True, slots=True)
class Leadership:
    """What the leader holds.

    Attributes:
        path: the candidate's node.
        token: its czxid, which grows from leader to leader: storage that remembers the highest token it has
            seen can refuse a leader that was deposed without noticing.
    """

    path: str
    token: int


@contextlib.asynccontextmanager
async def lead(
    zk: Client, path: str, data: bytes = b"", *, rng: random.Random | None = None
) -> AsyncIterator[Leadership]:
    """Stands for election at `path` and enters the block once elected; leaving it resigns.

    Inside the block the candidate leads as long as the client's session lives: watch `zk.expired` where
    work goes on without calls. Cancelled while waiting, the candidature is withdrawn.

    Raises:
        SessionExpiredError: the session ended while waiting; the candidature ended with it.
    """
    node, token = await _stand(zk, path, data, f"{(rng or random.SystemRandom()).getrandbits(128):032x}")
    try:
        await _wait_first(zk, path, node)
        yield Leadership(node, token)
    finally:
        with contextlib.suppress(NoNodeError):
            await _withdraw(zk, node)


async def _stand(zk: Client, path: str, data: bytes, guid: str) -> tuple[str, int]:
    """Creates the candidate's node exactly once, whatever happens to the answer."""
    while True:
        try:
            node = await zk.create(f"{path}/{guid}{MARK}", data, ephemeral=True, sequential=True)
        except NoNodeError:
            await ensure_path(zk, path)
            continue
        except ConnectionLossError:
            found = [name for name in await retry_children(zk, path) if name.startswith(guid)]
            if not found:
                continue
            node = f"{path}/{found[0]}"
        while True:
            try:
                stat = await zk.exists(node)
            except ConnectionLossError:
                continue
            if stat is None:
                break
            return node, stat.czxid


async def _wait_first(zk: Client, path: str, node: str) -> None:
    """Returns when no candidate with a lower number is left."""
    name = node.rpartition("/")[2]
    while True:
        order = sorted(await retry_children(zk, path), key=_number)
        if name not in order:
            raise NoNodeError(f"candidate {node} was deleted by somebody else")
        position = order.index(name)
        if position == 0:
            return
        async with zk.watch(f"{path}/{order[position - 1]}") as events:
            async for _ in events:
                if events.stat is None:
                    break


async def _withdraw(zk: Client, node: str) -> None:
    """Deletes the candidate's node; a session that has expired has done it already."""
    if zk.expired.is_set():
        return
    while True:
        try:
            await zk.delete(node)
            return
        except ConnectionLossError:
            continue


def _number(name: str) -> tuple[int, str]:
    """Candidates in order of their sequence number; foreign nodes come last."""
    _, mark, digits = name.partition(MARK)
    return (int(digits), name) if mark and digits.lstrip("-").isdigit() else (1 << 62, name)


async def retry_children(zk: Client, path: str) -> list[str]:
    """The children of `path`, asked again while the connection is being lost; empty where the node is
    missing."""
    while True:
        try:
            return await zk.get_children(path)
        except NoNodeError:
            return []
        except ConnectionLossError:
            continue


async def ensure_path(zk: Client, path: str) -> None:
    """Creates `path` and every missing ancestor as plain nodes; what exists is left alone."""
    parts = path.strip("/").split("/")
    for depth in range(1, len(parts) + 1):
        while True:
            try:
                await zk.create("/" + "/".join(parts[:depth]))
            except NodeExistsError:
                pass
            except ConnectionLossError:
                continue
            break
