"""Transactions that happen once: a mark in each tells, behind a lost connection, whether it did.

A compare-and-set, or the create of a numbered node, cannot simply be sent again when its answer is lost: it
may have happened. So each transaction also writes its number into an ephemeral node of its own, whose
name is a guid; what stands there afterwards is the number of the last one that happened.
"""

import contextlib
import random
from collections.abc import Sequence

from coord.client.client import Client
from coord.client.recipes.contention import ensure_path, make_guid, retry
from coord.client.transaction import Operation, SetData
from coord.errors import ConnectionLossError, NodeExistsError, NoNodeError, NotConnectedError

MARKS_SUFFIX = "-__marks__"


class Marked:
    """Sends transactions about `path`; not for several tasks at once.

    The marks stand beside the node: `PATH-__marks__/GUID`.
    """

    def __init__(self, zk: Client, path: str, rng: random.Random | None = None) -> None:
        self._zk = zk
        self._parent = path + MARKS_SUFFIX
        self._node = f"{self._parent}/{make_guid(rng)}"
        self._number = 0
        self._is_made = False

    async def commit(self, operations: Sequence[Operation]) -> None:
        """Carries the operations out, all of them once or none.

        Raises:
            CoordError: as for `Client.multi`; nothing was changed.
            SessionExpiredError: the session is over; whether they happened cannot be told.
        """
        if not self._is_made:
            await self._make()
        self._number += 1
        mark = SetData(self._node, b"%d" % self._number)
        while True:
            try:
                await self._zk.multi([*operations, mark])
                return
            except (ConnectionLossError, NotConnectedError):
                # The sync waits for what may still be on its way through another server.
                await retry(self._zk.sync, self._node)
                data, _ = await retry(self._zk.get, self._node)
                if data == mark.data:
                    return

    async def _make(self) -> None:
        while not self._is_made:
            try:
                with contextlib.suppress(NodeExistsError):  # it is ours: an earlier answer was lost
                    await retry(self._zk.create, self._node, b"0", ephemeral=True)
                self._is_made = True
            except NoNodeError:
                await retry(ensure_path, self._zk, self._parent)

    async def close(self) -> None:
        """Deletes the mark; it would go with the session."""
        if self._is_made:
            self._is_made = False
            with contextlib.suppress(NoNodeError):
                await retry(self._zk.delete, self._node)
