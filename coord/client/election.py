"""Leader election: of many candidates one leads, and the next takes over when it resigns or dies.

Each candidate owns an ephemeral sequential child `GUID__lock__NUMBER` of the election's node; the lowest
number leads, everybody else watches only the candidate before it, so a resignation wakes one. The guid
finds a child again whose create was answered by a lost connection. Names and order are kazoo's, so both
kinds of candidate may stand in one election.
"""

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import trio

from coord import eventlog
from coord.client.client import Client
from coord.errors import (
    ConnectionLossError,
    NodeExistsError,
    NoNodeError,
    NotConnectedError,
    SessionExpiredError,
)

MARK = "__lock__"
#: Withdrawing goes on for so many session timeouts; a server that is back by then has ended the session.
RESIGN_TIMEOUTS = 2

P = ParamSpec("P")
T = TypeVar("T")

log = eventlog.get("coord.client")


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
    work goes on without calls. Waiting goes on while no server can be reached. Cancelled at any time, the
    candidature is withdrawn before this returns, as far as servers can be reached within RESIGN_TIMEOUTS
    session timeouts; otherwise it goes with the session.

    Raises:
        SessionExpiredError: the session ended while waiting; the candidature ended with it.
        NoNodeError: somebody deleted the candidate's node while it waited.
    """
    guid = f"{(rng or random.SystemRandom()).getrandbits(128):032x}"
    leadership: Leadership | None = None
    try:
        leadership = await _stand(zk, path, data, guid)
        await _wait_first(zk, path, leadership.path)
        yield leadership
    finally:
        # Without the shield a cancelled leader would stay one, in name, as long as its session lives.
        deadline_s = RESIGN_TIMEOUTS * zk.session_timeout_ms / 1000
        with trio.CancelScope(shield=True), trio.move_on_after(deadline_s) as scope:
            await _withdraw(zk, path, guid, leadership)
        if scope.cancelled_caught:
            log.warning(
                "cannot withdraw from an election, no server answers",
                do="close the client: the candidature ends with its session",
                path=path,
            )


async def _stand(zk: Client, path: str, data: bytes, guid: str) -> Leadership:
    """Creates the candidate's node exactly once, whatever happens to the answer."""
    while True:
        try:
            node = await zk.create(f"{path}/{guid}{MARK}", data, ephemeral=True, sequential=True)
        except NoNodeError:
            await retry(ensure_path, zk, path)
            continue
        except (ConnectionLossError, NotConnectedError):
            found = await _find(zk, path, guid)
            if not found:
                continue
            node = f"{path}/{found[0]}"
        stat = await retry(zk.exists, node)
        if stat is not None:
            return Leadership(node, stat.czxid)


async def _wait_first(zk: Client, path: str, node: str) -> None:
    """Returns when no candidate with a lower number is left."""
    name = node.rpartition("/")[2]
    while True:
        order = sorted(await _candidates(zk, path), key=_number)
        if name not in order:
            raise NoNodeError(f"candidate {node} was deleted by somebody else")
        position = order.index(name)
        if position == 0:
            return
        with contextlib.suppress(NotConnectedError):
            async with zk.watch(f"{path}/{order[position - 1]}") as events:
                async for _ in events:
                    if events.stat is None:
                        break


async def _withdraw(zk: Client, path: str, guid: str, leadership: Leadership | None) -> None:
    """Deletes the candidate's node, also one whose creation was never answered; a session that is over has
    done it already."""
    with contextlib.suppress(SessionExpiredError):
        known = [leadership.path] if leadership is not None else []
        for node in known or [f"{path}/{name}" for name in await _find(zk, path, guid)]:
            with contextlib.suppress(NoNodeError):
                await retry(zk.delete, node)


async def _find(zk: Client, path: str, guid: str) -> list[str]:
    """The nodes of one candidate. The sync waits for a create that was sent through another server."""
    with contextlib.suppress(NoNodeError):
        await retry(zk.sync, path)
    return [name for name in await _candidates(zk, path) if name.startswith(guid)]


async def _candidates(zk: Client, path: str) -> list[str]:
    """The names of all candidates; none where the election's node is missing."""
    try:
        return await retry(zk.get_children, path)
    except NoNodeError:
        return []


def _number(name: str) -> tuple[int, str]:
    """Candidates in order of their sequence number; foreign nodes come last."""
    _, mark, digits = name.partition(MARK)
    return (int(digits), name) if mark and digits.lstrip("-").isdigit() else (1 << 62, name)


async def retry(request: Callable[P, Awaitable[T]], *args: P.args, **options: P.kwargs) -> T:
    """Repeats a request that does no harm twice, until it was answered or the session is over."""
    while True:
        try:
            return await request(*args, **options)
        except (ConnectionLossError, NotConnectedError):
            continue


async def ensure_path(zk: Client, path: str) -> None:
    """Creates `path` and every missing ancestor as plain nodes; what exists is left alone.

    Raises:
        CoordError: as for `create`, but not for lost connections: creating goes on with the next.
    """
    parts = path.strip("/").split("/")
    # "/" is the chroot, where there is one.
    paths = ["/" + "/".join(parts[:depth]) for depth in range(len(parts) + 1)]
    while True:
        try:
            if await zk.exists(path) is None:
                for ancestor in paths:
                    # Looking first: who may not create below "/" may still see that the node is there.
                    if await zk.exists(ancestor) is None:
                        with contextlib.suppress(NodeExistsError):
                            await zk.create(ancestor)
            return
        except ConnectionLossError:
            continue
