"""Virtual time: what happens when, in a run that one seed decides."""

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

Tracer = Callable[[int, str, int, Any], None]


class Schedule:
    """The queue of events of one run, its clock, and its only source of chance.

    Args:
        tracer: told of each event: microseconds, kind, server, details.
    """

    def __init__(self, seed: int, tracer: Tracer | None) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.now_us = 0
        self._tracer = tracer
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    @property
    def now_ms(self) -> int:
        return self.now_us // 1000

    def at(self, due_us: int, action: Callable[..., Any], *arguments: Any) -> None:
        self._count += 1
        heappush(self._queue, (due_us, self._count, action, arguments))

    def later(self, delay_us: int, action: Callable[..., Any], *arguments: Any) -> None:
        self.at(self.now_us + delay_us, action, *arguments)

    def trace(self, kind: str, sid: int, what: Any) -> None:
        if self._tracer is not None:
            self._tracer(self.now_us, kind, sid, what)

    def run_until(self, end_us: int, done: Callable[[], bool] | None = None) -> bool:
        """Runs events up to `end_us`, or until `done`, which is asked now and then."""
        queue = self._queue
        while queue and queue[0][0] <= end_us:
            due_us, count, action, arguments = heappop(queue)
            self.now_us = due_us
            action(*arguments)
            if done is not None and count % 8 == 0 and done():
                return True
        self.now_us = end_us
        return False
