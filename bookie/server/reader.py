"""Reads that need the disk: one thread at a time loads for everybody who asked meanwhile.

The loop plans and verifies; the thread only calls `pread`. One thread, because the log's open files are its
own; many requests a turn, because a turn costs more than a read from the page cache.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from bookie.storage.local_ledger import Place
from bookie.storage.reading import Answer, Loaded, ReadPlan, assemble, load
from bookie.storage.store import Store

TURN_BYTES_MAX: Final = 32 << 20
"""Bytes loaded in one turn of the thread; more wait for the next."""

OnAnswer = Callable[[Answer], None]


class SegmentReader:
    """Loads what plans need and hands over answers; requests are bounded by what peers may have open."""

    def __init__(self, store: Store, flush: Callable[[], None]) -> None:
        self._store = store
        self._flush = flush
        self._jobs: deque[tuple[ReadPlan, OnAnswer]] = deque()
        self._work = trio.Event()
        self.turns = 0

    def submit(self, plan: ReadPlan, on_answer: OnAnswer) -> None:
        """Answer the plan later; its segments stay until then."""
        self._store.begin_read(plan.places)
        self._jobs.append((plan, on_answer))
        self._work.set()

    async def run(self) -> None:
        """Serve until cancelled; what is left then is not answered."""
        while True:
            await self._work.wait()
            jobs: list[tuple[ReadPlan, OnAnswer]] = []
            places: list[Place] = []
            size = 0
            while self._jobs and size < TURN_BYTES_MAX:
                plan, on_answer = self._jobs.popleft()
                jobs.append((plan, on_answer))
                places += plan.places
                size += sum(place.length for place in plan.places)
            if not self._jobs:
                self._work = trio.Event()
            if not jobs:
                continue
            self.turns += 1
            loaded: Loaded = await trio.to_thread.run_sync(load, self._store.log, places)
            for plan, on_answer in jobs:
                self._store.end_read(plan.places)
                on_answer(assemble(plan, loaded))
                await (
                    trio.lowlevel.checkpoint()
                )  # verifying a big answer takes its time: let the loop breathe
            self._flush()
