"""Lines about the same thing again and again: a server with a wrong secret dials twice a second for ever."""

from typing import Final

from coord.clock import Clock
from coord.server.slowness import Seldom

INTERVAL_MS: Final = 60_000
"""Time between two lines of a kind."""
KINDS_MAX: Final = 64
"""Kinds that are told apart; whoever makes up more shares the lines of one."""


class Repetitions:
    """Lets one line of a kind through in `INTERVAL_MS`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kinds: dict[tuple[str, str], Seldom] = {}
        self._others = Seldom(clock, INTERVAL_MS)

    def take(self, who: str, what: str) -> int | None:
        """How many lines of this kind were left out before this one; None: leave out this one too."""
        seldom = self._kinds.get((who, what))
        if seldom is None:
            if len(self._kinds) >= KINDS_MAX:
                return self._others.take()
            seldom = self._kinds[who, what] = Seldom(self._clock, INTERVAL_MS)
        return seldom.take()
