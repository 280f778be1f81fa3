"""What only the leader knows of sessions: which server each one is attached to, and whether it is alive.
Pure.

Both live in memory and begin anew with a leadership: nobody owns anything until clients have attached again
(all of them were disconnected with the change), and every session gets its full timeout again (specification
4.3, 4.4).
"""

from collections.abc import Callable, Container, Iterable, Sequence
from hmac import compare_digest
from typing import Final

from coord.protocol.batch import OP_REFUSED, Block
from coord.protocol.bodies import Bodies
from coord.protocol.jute import encode_int
from coord.protocol.opcodes import CLOSE_SESSION, CREATE_SESSION
from coord.server.tracker import SessionTracker

EXPIRED_WEIGHT_MAX: Final = 4000
"""Weight of the sessions whose close is proposed at once (the last of them may exceed it); the rest follow in
the next round of housekeeping. So 4000 bare sessions end in one batch, or 2000 ephemerals (DESIGN 3)."""
SESSION_WEIGHT: Final = 1
EPHEMERAL_WEIGHT: Final = 2
"""What the end of a session costs, and of each of its ephemerals on top: measured as 5 and 8 µs."""


class Authority:
    """The leader's session table.

    Args:
        find_password: a session's password in the executed state, None for an unknown session.
        count_ephemerals: of a session, in the executed state.
    """

    def __init__(
        self,
        tick_ms: int,
        find_password: Callable[[int], bytes | None],
        count_ephemerals: Callable[[int], int] = lambda session_id: 0,
    ) -> None:
        self._find_password = find_password
        self._count_ephemerals = count_ephemerals
        self._owners: dict[int, int] = {}
        self.tracker = SessionTracker(tick_ms)

    def begin(self, sessions: Iterable[tuple[int, int]], now_ms: int) -> None:
        """A leadership begins with these (session id, timeout)."""
        self._owners.clear()
        self.tracker.restart(sessions, now_ms)

    def attach(self, sid: int, session_id: int, timeout_ms: int, password: bytes, now_ms: int) -> bool:
        """Makes server `sid` the owner. Everything proposed so far must have been executed.

        False, and nothing changes, when the session does not exist or its password is another.
        """
        stored = self._find_password(session_id)
        if stored is None or not compare_digest(stored, password):
            return False
        self._owners[session_id] = sid
        if not self.tracker.retime(session_id, timeout_ms, now_ms):
            self.tracker.add(session_id, timeout_ms, now_ms)
        return True

    def on_created(self, session_id: int, timeout_ms: int, now_ms: int) -> None:
        self.tracker.add(session_id, timeout_ms, now_ms)

    def on_closed(self, session_id: int) -> None:
        self._owners.pop(session_id, None)
        self.tracker.remove(session_id)

    def touch(self, session_ids: Iterable[int], now_ms: int) -> None:
        for session_id in session_ids:
            self.tracker.touch(session_id, now_ms)

    def take_expired(self, now_ms: int) -> list[int]:
        return self.tracker.take_expired(now_ms, EXPIRED_WEIGHT_MAX, self._weigh)

    def _weigh(self, session_id: int) -> int:
        return SESSION_WEIGHT + EPHEMERAL_WEIGHT * self._count_ephemerals(session_id)

    def refused(self, sid: int, sessions: Sequence[int]) -> frozenset[int]:
        """Those of `sessions` that another server than `sid` owns."""
        owners = self._owners
        return frozenset(session for session in set(sessions) if owners.get(session, sid) != sid)


def refuse(block: Block, sessions: Container[int], error: int) -> Block:
    """The block with every request of these sessions refused with `error`, each in its place.

    What begins or ends a session passes: no owner guards a close, and it frees more than it takes.
    """
    ops, bodies = list(block.ops), list(block.bodies)
    body = encode_int(error)
    for index, session in enumerate(block.sessions):
        if session in sessions and ops[index] not in (CREATE_SESSION, CLOSE_SESSION):
            ops[index] = OP_REFUSED
            bodies[index] = body
    return block._replace(ops=ops, bodies=Bodies.of(bodies))
