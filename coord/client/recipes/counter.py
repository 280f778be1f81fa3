"""A shared counter: an integer in a node, changed by compare-and-set. The node's data is kazoo's."""

import random

import trio

from coord.client.client import Client
from coord.client.recipes.contention import ensure_path, retry
from coord.client.recipes.marks import Marked
from coord.client.transaction import SetData
from coord.errors import BadVersionError


class Counter:
    """An integer at `path`, 0 (or `default`) where nobody has counted yet. Each change counts once, also
    where its answer is lost.
    """

    def __init__(self, zk: Client, path: str, default: int = 0, *, rng: random.Random | None = None) -> None:
        self.path = path
        self._zk = zk
        self._default = default
        self._marked = Marked(zk, path, rng)
        self._turn = trio.Lock()
        self._is_there = False

    async def value(self) -> int:
        """What it stands at.

        Raises:
            ValueError: the node's data is no integer.
        """
        return (await self._read())[0]

    async def add(self, amount: int = 1) -> int:
        """Adds `amount`, which may be negative, and returns what the counter then stood at.

        Cancelled, or with a SessionExpiredError, it is not known whether the amount was added.

        Raises:
            ValueError: the node's data is no integer.
        """
        async with self._turn:
            while True:
                value, version = await self._read()
                try:
                    await self._marked.commit([SetData(self.path, b"%d" % (value + amount), version)])
                    return value + amount
                except BadVersionError:
                    continue

    async def _read(self) -> tuple[int, int]:
        if not self._is_there:
            await retry(ensure_path, self._zk, self.path)
            self._is_there = True
        data, stat = await retry(self._zk.get, self.path)
        try:
            return int(data) if data else self._default, stat.version
        except ValueError:
            raise ValueError(f"expected an integer at {self.path}, got {data!r}") from None
