"""Two-phase commit: sites vote, and all learn one decision.

    path              what the transaction is about; its children:
    path/votes/SITE   empty until the site has voted `commit` or `abort`
    path/decision     `commit` or `abort`, once

Votes and the decision are each written once, by compare-and-set or create, so a coordinator or site that was
interrupted may simply ask again, from another process too, and two coordinators agree. Between its vote and
the decision a site has to wait: that is what two phases cost. Only coordinators watch votes; sites watch the
decision.
"""

import contextlib
import enum
from collections.abc import Sequence

from coord.client.client import Client
from coord.client.recipes.contention import ensure_path, retry
from coord.client.transaction import Create
from coord.errors import BadVersionError, ConnectionLossError, NodeExistsError, NoNodeError, NotConnectedError

VOTES = "votes"
DECISION = "decision"


class Decision(enum.Enum):
    """What a site votes for, and what is decided for all."""

    COMMIT = b"commit"
    ABORT = b"abort"


async def coordinate(zk: Client, path: str, sites: Sequence[str], data: bytes = b"") -> Decision:
    """Puts a transaction to the vote of `sites`, waits for all of them, decides, and returns the decision.

    Cancelled, nothing is decided: call it again to go on, or `abort`.

    Raises:
        ValueError: no sites, or one twice.
        SessionExpiredError: the session is over; the transaction stands as it was.
    """
    if not sites or len(set(sites)) != len(sites):
        raise ValueError(f"expected different sites, got {list(sites)}")
    await _begin(zk, path, sites, data)
    for site in sites:
        if await _wait_vote(zk, path, site) is Decision.ABORT:
            return await _decide(zk, path, Decision.ABORT)
    return await _decide(zk, path, Decision.COMMIT)


async def vote(zk: Client, path: str, site: str, choice: Decision) -> Decision:
    """Votes for a site, and waits for the decision. A site that has voted before keeps to its first vote.

    Raises:
        NoNodeError: there is no such transaction, or the site has no vote in it.
        SessionExpiredError: the session is over; call it again with a new one.
    """
    node = f"{path}/{VOTES}/{site}"
    while True:
        try:
            await zk.set(node, choice.value, version=0)
            break
        except BadVersionError:
            break  # voted already; perhaps just now, and the answer was lost
        except (ConnectionLossError, NotConnectedError):
            continue
    return await wait_decision(zk, path)


async def wait_decision(zk: Client, path: str) -> Decision:
    """Waits until the transaction is decided.

    Raises:
        SessionExpiredError: the session is over.
    """
    async with zk.watch(f"{path}/{DECISION}") as events:
        async for event in events:
            if event.stat is not None:
                data, _ = await retry(zk.get, f"{path}/{DECISION}")
                return Decision(data)
    raise AssertionError("a watch ends only when it is removed")


async def abort(zk: Client, path: str) -> Decision:
    """Decides for abort unless it is decided already; returns what is decided.

    Raises:
        NoNodeError: there is no such transaction.
    """
    return await _decide(zk, path, Decision.ABORT)


async def _begin(zk: Client, path: str, sites: Sequence[str], data: bytes) -> None:
    """All nodes at once; they may be there from an earlier attempt."""
    parent = path.rpartition("/")[0] or "/"
    nodes = [Create(path, data), Create(f"{path}/{VOTES}")]
    nodes += [Create(f"{path}/{VOTES}/{site}") for site in sites]
    while True:
        try:
            await zk.multi(nodes)
            return
        except NodeExistsError:
            return
        except NoNodeError:
            await retry(ensure_path, zk, parent)
        except (ConnectionLossError, NotConnectedError):
            continue


async def _wait_vote(zk: Client, path: str, site: str) -> Decision:
    node = f"{path}/{VOTES}/{site}"
    async with zk.watch(node) as events:
        async for event in events:
            if event.stat is None:
                raise NoNodeError(path=node)
            data, _ = await retry(zk.get, node)
            if data:
                return Decision(data)
    raise AssertionError("a watch ends only when it is removed")


async def _decide(zk: Client, path: str, decision: Decision) -> Decision:
    node = f"{path}/{DECISION}"
    with contextlib.suppress(NodeExistsError):
        await retry(zk.create, node, decision.value)
    data, _ = await retry(zk.get, node)
    return Decision(data)
