"""Taking turns at a node: the core of elections, locks and semaphores.

Each contender owns an ephemeral sequential child `GUID MARK NUMBER` of the node; whose turn it is follows
from the numbers. Everybody else watches one contender before it, so that who leaves wakes one. The guid finds
a child again whose create was answered by a lost connection. Names and order are kazoo's, so both kinds of
contenders may meet at one node.
"""

import contextlib
import random
import re
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

EXCLUSIVE = "__lock__"
SHARED = "__rlock__"
#: Withdrawing goes on for so many session timeouts; a server that is back by then has ended the session.
WITHDRAW_TIMEOUTS = 2

P = ParamSpec("P")
T = TypeVar("T")

_NAME = re.compile(r"(__[a-z]+__)(-?\d{10})$")

log = eventlog.get("coord.client")


@dataclass(frozen=True, slots=True)
class Held:
    """What somebody holds whose turn it is.

    Attributes:
        path: the contender's node.
        token: its czxid, which grows from holder to holder: storage that remembers the highest token it has
            seen can refuse a holder that was deposed without noticing.
    """

    path: str
    token: int


@contextlib.asynccontextmanager
async def take_turn(
    zk: Client,
    path: str,
    data: bytes = b"",
    *,
    mark: str = EXCLUSIVE,
    behind: frozenset[str] = frozenset({EXCLUSIVE}),
    rng: random.Random | None = None,
) -> AsyncIterator[Held]:
    """Queues up at `path` and enters the block when it is this contender's turn; leaving it makes way.

    Waiting goes on while no server can be reached. Cancelled at any time, the contender is withdrawn before
    this returns, as far as servers can be reached within WITHDRAW_TIMEOUTS session timeouts; otherwise it
    goes with the session.

    Args:
        mark: the kind of contender.
        behind: kinds that have to be gone first, where they came earlier.

    Raises:
        SessionExpiredError: the session ended while waiting, and the contender with it.
        NoNodeError: somebody deleted the contender's node while it waited.
    """
    guid = make_guid(rng)
    held: Held | None = None
    try:
        held = await _queue_up(zk, path, data, guid + mark)
        await _wait_turn(zk, path, held.path, behind)
        yield held
    finally:
        await clean_up(zk, path, lambda: _withdraw(zk, path, guid, held))


async def clean_up(zk: Client, path: str, remove: Callable[[], Awaitable[None]]) -> None:
    """Removes what this client has at `path`, for the end of a block: also when that is cancelled, for
    otherwise it would stay, in name, as long as the session lives. With a session that is over all is gone.
    """
    deadline_s = WITHDRAW_TIMEOUTS * zk.session_timeout_ms / 1000
    with (
        trio.CancelScope(shield=True),
        trio.move_on_after(deadline_s) as scope,
        contextlib.suppress(NoNodeError, SessionExpiredError),
    ):
        await remove()
    if scope.cancelled_caught:
        log.warning(
            "cannot make way for others, no server answers",
            do="close the client: what it holds ends with its session",
            path=path,
        )


def make_guid(rng: random.Random | None = None) -> str:
    """A name that nobody else has."""
    return f"{(rng or random.SystemRandom()).getrandbits(128):032x}"


async def contenders(zk: Client, path: str) -> list[str]:
    """The names of all contenders in the order of their numbers; none where the node is missing."""
    try:
        names = await retry(zk.get_children, path)
    except NoNodeError:
        return []
    return sorted((name for name in names if _NAME.search(name)), key=_number)


async def _queue_up(zk: Client, path: str, data: bytes, name: str) -> Held:
    """Creates the contender's node exactly once, whatever happens to the answer."""
    while True:
        try:
            node = await zk.create(f"{path}/{name}", data, ephemeral=True, sequential=True)
        except NoNodeError:
            await retry(ensure_path, zk, path)
            continue
        except (ConnectionLossError, NotConnectedError):
            found = await _find(zk, path, name)
            if not found:
                continue
            node = f"{path}/{found[0]}"
        stat = await retry(zk.exists, node)
        if stat is not None:
            return Held(node, stat.czxid)


async def _wait_turn(zk: Client, path: str, node: str, behind: frozenset[str]) -> None:
    """Returns when nobody who has to be gone first is left."""
    name = node.rpartition("/")[2]
    while True:
        order = await contenders(zk, path)
        if name not in order:
            raise NoNodeError(f"contender {node} was deleted by somebody else")
        before = [other for other in order[: order.index(name)] if _mark(other) in behind]
        if not before:
            return
        with contextlib.suppress(NotConnectedError):
            async with zk.watch(f"{path}/{before[-1]}") as events:
                async for _ in events:
                    if events.stat is None:
                        break


async def _withdraw(zk: Client, path: str, guid: str, held: Held | None) -> None:
    """Deletes the contender's node, also one whose creation was never answered."""
    known = [held.path] if held is not None else []
    for node in known or [f"{path}/{name}" for name in await _find(zk, path, guid)]:
        with contextlib.suppress(NoNodeError):
            await retry(zk.delete, node)


async def _find(zk: Client, path: str, prefix: str) -> list[str]:
    """The nodes of one contender. The sync waits for a create that was sent through another server."""
    with contextlib.suppress(NoNodeError):
        await retry(zk.sync, path)
    return [name for name in await contenders(zk, path) if name.startswith(prefix)]


def _mark(name: str) -> str:
    found = _NAME.search(name)
    return found[1] if found else ""


def _number(name: str) -> int:
    found = _NAME.search(name)
    assert found is not None
    return int(found[2])


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
