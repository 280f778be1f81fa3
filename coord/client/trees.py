"""Whole subtrees: walked and deleted, however large, in bounded memory.

The children of many nodes are read in one request, and many nodes are deleted in one transaction.
"""

import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Sequence

from coord.client.client import Client
from coord.client.transaction import Delete, GetChildren
from coord.errors import ConnectionLossError, CoordError, NoNodeError, NotEmptyError

#: Nodes whose children are read in one request.
READ_TOGETHER = 100
#: Nodes deleted in one transaction, and the bytes of their paths: a server takes frames of 1 MiB.
DELETE_TOGETHER = 1000
DELETE_BYTES_MAX = 512 * 1024
#: How often deleting begins anew because somebody makes new nodes below.
DELETE_ROUNDS_MAX = 20


async def walk(zk: Client, path: str, *, bottom_up: bool = False) -> AsyncGenerator[str, None]:
    """The paths of a node and of everything below it, children in order; with `bottom_up` a node comes behind
    its children. What is deleted meanwhile is left out.

    Where it is left early close it (`contextlib.aclosing`).

    Raises:
        NoNodeError: there is no such node at the start.
        NoAuthError: a node may not be read.
    """
    if await zk.exists(path) is None:
        raise NoNodeError(path=path)
    levels = [_Level(None, [path])]
    while levels:
        level = levels[-1]
        found = await level.next(zk)
        if found is None:
            levels.pop()
            if bottom_up and level.path is not None:
                yield level.path
            continue
        node, names = found
        if not (bottom_up and names):
            yield node
        if names:
            levels.append(_Level(node, names))


class _Level:
    """The children of one node, each with the names of its own children, read some ahead."""

    def __init__(self, path: str | None, names: list[str]) -> None:
        self.path = path
        self._paths = names if path is None else [f"{path.rstrip('/')}/{name}" for name in names]
        self._at = 0
        self._ahead: deque[tuple[str, list[str]]] = deque()

    async def next(self, zk: Client) -> tuple[str, list[str]] | None:
        """The next child that is still there, and its children; None behind the last."""
        while not self._ahead:
            paths = self._paths[self._at : self._at + READ_TOGETHER]
            if not paths:
                return None
            self._at += len(paths)
            results = await zk.multi_read([GetChildren(path) for path in paths])
            for path, result in zip(paths, results, strict=True):
                if isinstance(result, list):
                    self._ahead.append((path, result))
                elif isinstance(result, CoordError) and not isinstance(result, NoNodeError):
                    raise result
        return self._ahead.popleft()


async def delete_tree(zk: Client, path: str, *, together: int = DELETE_TOGETHER) -> int:
    """Deletes a node and everything below it, `together` nodes in a transaction; not all at once, so that
    others see it shrink.

    Nodes made below meanwhile are deleted too. Lost connections are no failure: deleting goes on.

    Returns:
        How many nodes it has deleted.

    Raises:
        NoNodeError: there is no such node.
        NotEmptyError: somebody makes nodes below faster than they are deleted.
        NoAuthError, BadArgumentsError: a node may not be deleted; others have been.
    """
    deleted = 0
    for _ in range(DELETE_ROUNDS_MAX):
        batch: list[str] = []
        size = 0
        try:
            async with contextlib.aclosing(walk(zk, path, bottom_up=True)) as nodes:
                async for node in nodes:
                    batch.append(node)
                    size += len(node)
                    if len(batch) >= together or size >= DELETE_BYTES_MAX:
                        deleted += await _delete_batch(zk, batch)
                        batch, size = [], 0
            deleted += await _delete_batch(zk, batch)
        except NoNodeError:
            if not deleted:
                raise
            return deleted
        except ConnectionLossError:
            continue
        if await zk.exists(path) is None:
            return deleted
    raise NotEmptyError(path=path)


async def _delete_batch(zk: Client, batch: Sequence[str]) -> int:
    """Deletes nodes together, or where that is refused one by one; what has gone or has children is left."""
    try:
        await zk.multi([Delete(path) for path in batch])
        return len(batch)
    except (NoNodeError, NotEmptyError):
        pass
    deleted = 0
    for path in batch:
        with contextlib.suppress(NoNodeError, NotEmptyError):
            await zk.delete(path)
            deleted += 1
    return deleted
