"""Sessions that live at this server alone (specification 4.7): pure, time is an argument.

They cost the ensemble no transaction: no other server knows them, they end with this server's process or
when their time is over, and this server is the one that judges it. Writes of theirs are executed because it
vouches for them (`coord.protocol.batch`). An ephemeral needs a session that all replicas know: the first one
makes the session global, where that is allowed.
"""

from collections.abc import Iterable
from hmac import compare_digest
from typing import Final, NamedTuple

from coord.server.tracker import SessionTracker

EXPIRED_MAX: Final = 2000
"""Sessions that end in one round."""


class LocalSession(NamedTuple):
    timeout_ms: int
    password: bytes


class LocalSessions:
    """The table of them, with their deadlines.

    Args:
        upgrades: whether a session's first ephemeral makes it global; without, it is refused.
    """

    def __init__(self, tick_ms: int, *, upgrades: bool) -> None:
        self.upgrades = upgrades
        self._sessions: dict[int, LocalSession] = {}
        self._tracker = SessionTracker(tick_ms)

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, session_id: int) -> bool:
        return session_id in self._sessions

    def add(self, session_id: int, timeout_ms: int, password: bytes, now_ms: int) -> None:
        """A new session, or another timeout for one that is taken up again."""
        self._sessions[session_id] = LocalSession(timeout_ms, password)
        self._tracker.add(session_id, timeout_ms, now_ms)

    def accepts(self, session_id: int, password: bytes) -> bool:
        session = self._sessions.get(session_id)
        return session is not None and compare_digest(session.password, password)

    def find(self, session_id: int) -> LocalSession:
        return self._sessions[session_id]

    def remove(self, session_id: int) -> None:
        if self._sessions.pop(session_id, None) is not None:
            self._tracker.remove(session_id)

    def take_touched(self, touched: set[int], now_ms: int) -> None:
        """Postpones the deadlines of those that are in `touched`, and takes them out of it."""
        mine = touched & self._sessions.keys()
        for session_id in mine:
            self._tracker.touch(session_id, now_ms)
        touched -= mine

    def stand_still(self, duration_ms: int) -> None:
        """As `SessionTracker.stand_still`."""
        self._tracker.stand_still(duration_ms)

    def restart(self, now_ms: int) -> None:
        """Every session gets its full timeout again: nobody could be heard for a while."""
        self._tracker.restart(self.timeouts(), now_ms)

    def timeouts(self) -> Iterable[tuple[int, int]]:
        return [(session_id, session.timeout_ms) for session_id, session in self._sessions.items()]

    def buckets(self) -> list[tuple[int, set[int]]]:
        """As `SessionTracker.buckets`."""
        return self._tracker.buckets()

    def take_expired(self, now_ms: int) -> list[int]:
        """Those whose time is over; they are gone."""
        expired = self._tracker.take_expired(now_ms, EXPIRED_MAX)
        for session_id in expired:
            self.remove(session_id)
        return expired
