"""The writes a server has received in one tick, in columns: what becomes a block of the next batch."""

from typing import Final

from coord.protocol.records import Identity

SHARED_AUTH_BYTES_MAX: Final = 64 << 10
"""Sets of identities in all parts of an intake; more than these are dealt out."""


class Intake:
    """Columns that grow during a tick; `auth_table` holds each distinct set of identities once.

    `body_bytes` counts the bodies and the sets, all that makes a block large, `auth_bytes` the sets alone.
    `is_local`: the sessions are this server's own. `large_bytes`: those of large requests, where that is
    counted. `changes`: places of requests to change the ensemble, which are judged one by one.
    """

    __slots__ = (
        "_auth_index",
        "auth",
        "auth_bytes",
        "auth_table",
        "bodies",
        "body_bytes",
        "changes",
        "is_local",
        "large_bytes",
        "ops",
        "sessions",
        "xids",
    )

    def __init__(self, *, is_local: bool = False) -> None:
        self.is_local = is_local
        self.changes: list[int] = []
        self.sessions: list[int] = []
        self.xids: list[int] = []
        self.ops: list[int] = []
        self.auth: list[int] = []
        self.bodies: list[bytes] = []
        self.body_bytes = 0
        self.auth_bytes = 0
        self.large_bytes = 0
        self.auth_table: list[tuple[Identity, ...]] = []
        self._auth_index: dict[tuple[Identity, ...], int] = {}

    def __len__(self) -> int:
        return len(self.sessions)

    def extend(
        self,
        session_id: int,
        identities: tuple[Identity, ...],
        xids: list[int],
        ops: list[int],
        bodies: list[bytes],
    ) -> None:
        """Adds requests of one session, in their order."""
        index = self._auth_index.get(identities)
        if index is None:
            index = self._auth_index[identities] = len(self.auth_table)
            self.auth_table.append(identities)
            size = identity_bytes(identities)
            self.auth_bytes += size
            self.body_bytes += size
        count = len(xids)
        self.sessions += [session_id] * count
        self.auth += [index] * count
        self.xids += xids
        self.ops += ops
        self.bodies += bodies
        self.body_bytes += sum(map(len, bodies))

    def add(self, session_id: int, op: int, body: bytes) -> None:
        """Adds one request that no client is answered for (a session's begin, an expiry)."""
        self.extend(session_id, (), [0], [op], [body])

    def cut(self, bytes_max: int, requests_max: int) -> list["Intake"]:
        """Parts in its order, each within bounds; one request always fits."""
        # A few sets, as usual, are carried along whole; else each request is charged its own set.
        is_crowded = self.auth_bytes > SHARED_AUTH_BYTES_MAX
        charges = list(map(identity_bytes, self.auth_table)) if is_crowded else [0] * len(self.auth_table)
        parts: list[Intake] = []
        start = size = 0
        for position, (body, index) in enumerate(zip(self.bodies, self.auth, strict=True)):
            charge = len(body) + charges[index]
            if position > start and (size + charge > bytes_max or position - start >= requests_max):
                parts.append(self._part(start, position, is_crowded))
                start, size = position, 0
            size += charge
        parts.append(self._part(start, len(self), is_crowded))
        parts[-1].large_bytes = self.large_bytes  # it is the last to be executed
        return parts

    def apart(self) -> list["Intake"]:
        """Parts in its order, in which each change of the ensemble stands alone."""
        parts: list[Intake] = []
        start = 0
        for place in self.changes:
            if start < place:
                parts.append(self._part(start, place, True))
            alone = self._part(place, place + 1, True)
            alone.changes.append(0)
            parts.append(alone)
            start = place + 1
        if start < len(self):
            parts.append(self._part(start, len(self), True))
        parts[-1].large_bytes = self.large_bytes
        return parts

    def _part(self, start: int, end: int, is_crowded: bool) -> "Intake":
        """The requests from `start` to before `end`; in a crowd with the identities they need only."""
        part = Intake(is_local=self.is_local)
        part.sessions = self.sessions[start:end]
        part.xids = self.xids[start:end]
        part.ops = self.ops[start:end]
        part.auth = self.auth[start:end]
        part.bodies = self.bodies[start:end]
        part.auth_table = self.auth_table
        if is_crowded:
            numbers = {index: number for number, index in enumerate(dict.fromkeys(part.auth))}
            part.auth_table = [self.auth_table[index] for index in numbers]
            part.auth = [numbers[index] for index in part.auth]
        part.body_bytes = sum(map(len, part.bodies))
        return part


def identity_bytes(identities: tuple[Identity, ...]) -> int:
    """Bytes of a set in a block's auth table, at most."""
    return sum(len(scheme) + 4 * len(name) + 12 for scheme, name in identities)
