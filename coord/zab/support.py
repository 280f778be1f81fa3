"""How long a leader goes on: what its phase allows, and a quorum to count on, or the hope of one."""

from coord.zab.detection import NEVER


class Support:
    """The limits of one leadership in time."""

    def __init__(self, give_up_at_ms: int) -> None:
        self._give_up_at_ms = give_up_at_ms
        self._missing_until_ms = NEVER

    def allow_until(self, give_up_at_ms: int) -> None:
        """Another phase begins, with this limit; NEVER for none."""
        self._give_up_at_ms = give_up_at_ms

    def note(self, *, found: bool, now_ms: int, patience_ms: int) -> None:
        """Whether a quorum is there; one that goes is waited for so long."""
        if found:
            self._missing_until_ms = NEVER
        elif self._missing_until_ms == NEVER:
            self._missing_until_ms = now_ms + patience_ms

    def limit_ms(self, *, takes_its_time: bool) -> int:
        """When this leadership ends if nothing changes; `takes_its_time`: the limit of the phase is somebody
        else's to watch.
        """
        return min(NEVER if takes_its_time else self._give_up_at_ms, self._missing_until_ms)
