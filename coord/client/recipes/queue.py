"""A queue of items, by priority and then in the order of coming. Nodes and order are kazoo's `Queue`.

Items are children `entry-PRIORITY-NUMBER` of the queue's node; who deletes one has it. Consumers that find
nothing stand in line at a lock beside the node, so that an item wakes one of them.
"""

import random
from collections import deque

import trio

from coord.client.client import Client
from coord.client.recipes.contention import ensure_path, retry, take_turn
from coord.client.recipes.marks import Marked
from coord.client.transaction import Create, Delete
from coord.errors import NoNodeError

PRIORITY_MAX = 999
PRIORITY_DEFAULT = 100
LINE_SUFFIX = "-__lock__"
#: No list of children is of this version: the list has to be read.
UNKNOWN = -(1 << 40)


class Queue:
    """The queue at `path`; each item is put once and taken once, also where an answer is lost.

    An item is gone from the queue when `get` returns it: a consumer that dies then takes it along.
    """

    def __init__(self, zk: Client, path: str, *, rng: random.Random | None = None) -> None:
        self.path = path
        self._zk = zk
        self._rng = rng
        self._marked = Marked(zk, path, rng)
        self._turn = trio.Lock()
        self._names: deque[str] = deque()
        self._cversion = UNKNOWN

    async def put(self, data: bytes, priority: int = PRIORITY_DEFAULT) -> None:
        """Puts an item; those with a lower `priority` (0 to 999) are taken first.

        Cancelled, or with a SessionExpiredError, it is not known whether the item was put.
        """
        if not 0 <= priority <= PRIORITY_MAX:
            raise ValueError(f"expected a priority from 0 to {PRIORITY_MAX}, got {priority}")
        entry = Create(f"{self.path}/entry-{priority:03d}-", data, sequential=True)
        async with self._turn:
            while True:
                try:
                    await self._marked.commit([entry])
                    return
                except NoNodeError:
                    await retry(ensure_path, self._zk, self.path)

    async def size(self) -> int:
        """How many items wait."""
        stat = await retry(self._zk.exists, self.path)
        return 0 if stat is None else stat.num_children

    async def get(self) -> bytes:
        """Takes the next item; waits for one where there is none.

        Cancelled while it waits it takes none; while it is taking one it first finishes that, and returns it.

        Raises:
            SessionExpiredError: the session is over; whether an item was taken is not known.
        """
        async with self._turn:
            item = await self._take_next()
        if item is not None:
            return item
        # What the first in line has seen it takes before it makes way: the next would see it too.
        async with take_turn(self._zk, self.path + LINE_SUFFIX, rng=self._rng):
            while True:
                await self._wait_item()
                async with self._turn:
                    item = await self._take_next()
                if item is not None:
                    return item

    async def _take_next(self) -> bytes | None:
        """The first item; None when there is none."""
        while True:
            stat = await retry(self._zk.exists, self.path)
            if stat is None:
                await retry(ensure_path, self._zk, self.path)
                return None
            if stat.cversion != self._cversion:
                names, listed = await retry(self._zk.get_children_and_stat, self.path)
                self._names, self._cversion = deque(names), listed.cversion
            if not self._names:
                return None
            node = f"{self.path}/{self._names[0]}"
            try:
                data, _ = await retry(self._zk.get, node)
                with trio.CancelScope(shield=True):
                    await self._marked.commit([Delete(node)])
            except NoNodeError:
                self._cversion = UNKNOWN  # somebody else was faster
                continue
            self._names.popleft()
            self._cversion += 1
            return data or b""

    async def _wait_item(self) -> None:
        """Returns when there may be an item."""
        async with self._zk.watch(self.path, children=True) as events:
            async for _ in events:
                if events.children:
                    return
