"""Sending what was queued outside a tick of the reactor: once for all that one round of the loop produced."""

from collections.abc import Callable

import trio


class Flusher:
    """Confirmations of ledgers come from their links' tasks, many at a time; each may owe answers and
    deliveries.

    `soon` costs no system call and no task: it wakes the one that flushes, which runs after all that is
    runnable now.
    """

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self._parked = trio.lowlevel.ParkingLot()

    def soon(self) -> None:
        """Has everything that is owed sent in this round of the loop."""
        if self._parked:
            self._parked.unpark()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._parked.park()
            self._flush()
