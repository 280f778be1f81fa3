"""Requests that wait for a ledger's LAC to rise: bounded in number, each with a deadline (5.7, R-R2)."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count


@dataclass(slots=True, eq=False)
class Waiter:
    """One parked request; `answer` is called once, unless it is dropped."""

    ledger_id: int
    previous_lac: int
    owner: object
    answer: Callable[[], None]
    done: bool = False


class WaitingRoom:
    """Parked requests by ledger and by deadline.

    Args:
        watched: the ids that somebody waits for; the store looks here before it reports a LAC.
        waiters_max: above it nobody is let in.
    """

    def __init__(self, watched: set[int], waiters_max: int) -> None:
        self._watched = watched
        self._waiters_max = waiters_max
        self._by_ledger: dict[int, list[Waiter]] = {}
        self._by_owner: dict[object, set[Waiter]] = {}
        self._deadlines: list[tuple[int, int, Waiter]] = []
        self._order = count()
        self._risen: list[Waiter] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def park(self, waiter: Waiter, deadline_ms: int) -> bool:
        """Let a request wait; False when the room is full."""
        if self._count >= self._waiters_max:
            return False
        self._count += 1
        self._watched.add(waiter.ledger_id)
        self._by_ledger.setdefault(waiter.ledger_id, []).append(waiter)
        self._by_owner.setdefault(waiter.owner, set()).add(waiter)
        heapq.heappush(self._deadlines, (deadline_ms, next(self._order), waiter))
        return True

    def on_lac(self, ledger_id: int, lac: int) -> None:
        """A LAC rose; who waited for it is answered by `answer_risen`."""
        waiting = self._by_ledger.get(ledger_id)
        if waiting:
            risen = [waiter for waiter in waiting if waiter.previous_lac < lac]
            for waiter in risen:
                self._remove(waiter)
            self._risen += risen

    def wake(self, ledger_id: int) -> None:
        """Answer everybody who waits for this ledger: it is gone."""
        for waiter in list(self._by_ledger.get(ledger_id, ())):
            self._remove(waiter)
            self._risen.append(waiter)

    def answer_risen(self) -> None:
        """Answer those whose news has come; called at the end of a tick, when all of it is there."""
        risen, self._risen = self._risen, []
        for waiter in risen:
            waiter.answer()

    def expire(self, now_ms: int) -> None:
        """Answer those whose time is over."""
        deadlines = self._deadlines
        while deadlines and (deadlines[0][2].done or deadlines[0][0] <= now_ms):
            waiter = heapq.heappop(deadlines)[2]
            if not waiter.done:
                self._remove(waiter)
                waiter.answer()

    def drop(self, owner: object) -> None:
        """The owner is gone: nobody is left to answer."""
        for waiter in list(self._by_owner.get(owner, ())):
            self._remove(waiter)

    def empty(self) -> None:
        """Answer everybody: the server stops."""
        for waiting in list(self._by_ledger.values()):
            for waiter in list(waiting):
                self._remove(waiter)
                waiter.answer()
        self.answer_risen()

    def _remove(self, waiter: Waiter) -> None:
        waiter.done = True
        self._count -= 1
        waiting = self._by_ledger[waiter.ledger_id]
        waiting.remove(waiter)
        if not waiting:
            del self._by_ledger[waiter.ledger_id]
            self._watched.discard(waiter.ledger_id)
        owned = self._by_owner[waiter.owner]
        owned.discard(waiter)
        if not owned:
            del self._by_owner[waiter.owner]
        # What is done stays in the heap until its time; it must not hold the request for so long.
        if self._count * 2 + 64 < len(self._deadlines):
            self._deadlines = [entry for entry in self._deadlines if not entry[2].done]
            heapq.heapify(self._deadlines)
