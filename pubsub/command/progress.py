"""Progress of long work on standard error, when it is a terminal."""

import sys
from types import TracebackType
from typing import Self

from coord.clock import SYSTEM_CLOCK

SHOW_EVERY_MS = 200


class Progress:
    """A counter line `12 345 entries written, 6 789/s`; silent where standard error is no terminal."""

    def __init__(self, unit: str) -> None:
        self.count = 0
        self._unit = unit
        self._shown = sys.stderr.isatty()
        self._start_ms = SYSTEM_CLOCK.monotonic_ms()
        self._last_ms = self._start_ms

    def __enter__(self) -> Self:
        return self

    def add(self, count: int) -> None:
        self.count += count
        if self._shown and SYSTEM_CLOCK.monotonic_ms() - self._last_ms >= SHOW_EVERY_MS:
            self._show("\r")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._show("\r")
            sys.stderr.write("\n")

    def _show(self, start: str) -> None:
        self._last_ms = SYSTEM_CLOCK.monotonic_ms()
        rate = self.count * 1000 // max(1, self._last_ms - self._start_ms)
        sys.stderr.write(f"{start}{self.count:,} {self._unit}, {rate:,}/s ".replace(",", " "))
        sys.stderr.flush()
