"""Long answers in slices: made of pieces, at most a millisecond of them at a time, and sent in one piece.

An answer that is done within its first slice leaves in the tick that asked for it. What is longer goes on in
a task between the ticks, one answer after the other, so that a `dump` of a million sessions costs the clients
a third of the loop for a while and no pause (DESIGN 3).
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import trio

from coord.clock import Clock
from coord.reactor import Connection

SLICE_MS: Final = 1
SLICE_PAUSE_SECONDS: Final = 0.002
PIECES_PER_LOOK: Final = 16
"""Pieces between two looks at the clock."""
ANSWER_CHARACTERS_MAX: Final = 32 << 20
"""An answer is cut here; its last line says so."""
WAITING_MAX: Final = 16
"""Long answers under way; who asks for one more is told to come back."""
CUT: Final = f"\n(cut at {ANSWER_CHARACTERS_MAX} characters)\n"
BUSY: Final = b"Too many long answers are under way, ask again\n"


class Slicing:
    """One answer in the making; what a slice has made is joined at its end, as a million parts at once would
    take their time.
    """

    __slots__ = ("_chunks", "_pieces", "_size")

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self._chunks: list[bytes] = []
        self._size = 0

    def work(self, clock: Clock) -> bool:
        """Takes pieces for a slice's time; whether the answer is whole."""
        until_ms = clock.monotonic_ms() + SLICE_MS
        parts: list[str] = []
        is_whole = True
        for count, piece in enumerate(self._pieces, 1):
            parts.append(piece)
            self._size += len(piece)
            if self._size > ANSWER_CHARACTERS_MAX:
                parts.append(CUT)
                break
            if count % PIECES_PER_LOOK == 0 and clock.monotonic_ms() > until_ms:
                is_whole = False
                break
        self._chunks.append("".join(parts).encode("utf-8", "replace"))
        return is_whole

    def data(self) -> bytes:
        return b"".join(self._chunks)


class Pace:
    """For tasks that go through something long: a pause whenever a slice's time is over."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until_ms = clock.monotonic_ms() + SLICE_MS
        self._steps = 0

    async def step(self, count: int = 1) -> None:
        """`count` pieces were done; may pause."""
        self._steps += count
        if self._steps < PIECES_PER_LOOK:
            return
        self._steps = 0
        if self._clock.monotonic_ms() > self._until_ms:
            await trio.sleep(SLICE_PAUSE_SECONDS)
            self._until_ms = self._clock.monotonic_ms() + SLICE_MS


class SlicedAnswers:
    """Answers connections that are closed behind their answer.

    Args:
        flush: sends what was queued outside a tick.
    """

    def __init__(self, clock: Clock, flush: Callable[[], None]) -> None:
        self._clock = clock
        self._flush = flush
        self._waiting: deque[tuple[Connection, Slicing]] = deque()
        self._wanted = trio.Event()

    def answer(self, conn: Connection, pieces: Iterator[str]) -> None:
        """Answers now, or begins to."""
        slicing = Slicing(pieces)
        if slicing.work(self._clock):
            _finish(conn, slicing.data())
        elif len(self._waiting) >= WAITING_MAX:
            _finish(conn, BUSY)
        else:
            self._waiting.append((conn, slicing))
            self._wanted.set()

    async def run(self) -> None:
        """The task; a cancelled one leaves its askers to the reactor, which closes them."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            while self._waiting:
                await trio.sleep(SLICE_PAUSE_SECONDS)
                conn, slicing = self._waiting[0]
                if conn.is_open and not slicing.work(self._clock):
                    continue
                self._waiting.popleft()
                _finish(conn, slicing.data())
                self._flush()


def _finish(conn: Connection, answer: bytes) -> None:
    conn.send(answer)
    conn.close(reason="four-letter word")
