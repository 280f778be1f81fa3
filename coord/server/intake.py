"""The writes a server has received in one tick, in columns: what becomes a block of the next batch."""

from coord.protocol.records import Identity


class Intake:
    """Columns that grow during a tick; `auth_table` holds each distinct set of identities once.

    `is_local`: the sessions are this server's own. `large_bytes`: those of large requests among `body_bytes`,
    where that is counted.
    """

    __slots__ = (
        "_auth_index",
        "auth",
        "auth_table",
        "bodies",
        "body_bytes",
        "is_local",
        "large_bytes",
        "ops",
        "sessions",
        "xids",
    )

    def __init__(self, *, is_local: bool = False) -> None:
        self.is_local = is_local
        self.sessions: list[int] = []
        self.xids: list[int] = []
        self.ops: list[int] = []
        self.auth: list[int] = []
        self.bodies: list[bytes] = []
        self.body_bytes = 0
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

    def part(self, start: int, end: int) -> "Intake":
        """The requests from `start` to before `end`, with the whole auth table."""
        part = Intake(is_local=self.is_local)
        part.sessions = self.sessions[start:end]
        part.xids = self.xids[start:end]
        part.ops = self.ops[start:end]
        part.auth = self.auth[start:end]
        part.bodies = self.bodies[start:end]
        part.auth_table = self.auth_table
        part.body_bytes = sum(map(len, part.bodies))
        return part
