"""Requests of connections that may not do everything: those with a local session, and all of a server in
read-only mode (specification 4.7, chapter 14).

A connection's `write_ops` are the operations that simply go to the leader. Of a global session that is all of
`WRITE_OPS` but reconfigurations, which are marked for it; the client port's inner loop thus needs no test for
the others, whose requests come here.
"""

from collections.abc import Callable
from typing import Final

from coord.protocol import opcodes
from coord.server.answers import WRITE_OPS, Answers
from coord.server.connection import ClientConnection
from coord.server.local_sessions import LocalSessions
from coord.tree.ephemeral import makes_ephemeral

LOCAL_WRITE_OPS: Final = WRITE_OPS - {
    opcodes.CREATE,
    opcodes.CREATE2,
    opcodes.MULTI,
    opcodes.RECONFIG,
    opcodes.CLOSE_SESSION,
}
"""Of a local session: what neither makes an ephemeral nor ends the session."""
GLOBAL_WRITE_OPS: Final = WRITE_OPS - {opcodes.RECONFIG}
"""Of a global session: what the leader need not judge on its own."""
NOT_READ_ONLY_OPS: Final = frozenset(
    {
        opcodes.SYNC,
        opcodes.CREATE,
        opcodes.CREATE2,
        opcodes.CREATE_TTL,
        opcodes.CREATE_CONTAINER,
        opcodes.DELETE,
        opcodes.DELETE_CONTAINER,
        opcodes.SET_DATA,
        opcodes.RECONFIG,
        opcodes.SET_ACL,
        opcodes.MULTI,
    }
)
"""Refused in read-only mode (14.3)."""


class Restrictions:
    """Takes what the inner loop does not.

    Args:
        add_write: puts one request of a connection into the intake, and its mark into the queue.
        upgrade: has the session created on all replicas, ahead of every request that follows.
    """

    def __init__(
        self,
        answers: Answers,
        local: LocalSessions | None,
        add_write: Callable[[ClientConnection, int, int, bytes], None],
        upgrade: Callable[[ClientConnection], None],
    ) -> None:
        self._answers = answers
        self._local = local
        self._add_write = add_write
        self._upgrade = upgrade

    def impose(self, client: ClientConnection) -> None:
        """The connection's session is established, as a local or global one, by a server of that mode."""
        if client.is_read_only:
            client.write_ops = frozenset()
        else:
            client.write_ops = LOCAL_WRITE_OPS if client.is_local else GLOBAL_WRITE_OPS

    def take(self, client: ClientConnection, xid: int, op: int, body: bytes) -> bool:
        """False for a request that has nothing to do with the connection's restrictions."""
        if client.is_local and op == opcodes.CLOSE_SESSION:
            assert self._local is not None
            self._local.remove(client.session_id)
            self._answers.decide(client, xid, 0, "its session was closed by the client")
        elif client.is_read_only:
            if op not in NOT_READ_ONLY_OPS:
                return False
            self._answers.decide(client, xid, opcodes.NOT_READ_ONLY)
        elif op == opcodes.RECONFIG:
            self._add_write(client, xid, op, body)
        elif client.is_local and op in WRITE_OPS:
            assert self._local is not None
            if self._local.upgrades and makes_ephemeral(op, body):
                self._upgrade(client)
            self._add_write(client, xid, op, body)
        else:
            return False
        return True
