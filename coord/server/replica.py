"""Execution on this server: committed batches, in order, and what its own clients are owed for each request.

For request k of a batch (DESIGN 4, session order): execute it; queue the events it causes to whoever watches
here; if its client is connected here, queue the reply and then the reads that stood between k and that
session's next write; only then comes k + 1. Thus an event precedes every answer that shows its change, and a
read never sees less than its own session's writes before it, nor more than was committed.

The answers find their client by session: a session that is attached here was attached after everything that
was proposed under its earlier connections had been executed here (`coord.server.handshake`), so the writes
of it that are executed now are exactly those in its connection's queue.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from struct import Struct
from typing import Final, Protocol

from coord import eventlog
from coord.protocol import opcodes
from coord.protocol.batch import OP_REFUSED, Block, Stamp, decode_batch
from coord.server.answers import Answers
from coord.server.audit import Audit
from coord.server.connection import CLOSED, ClientConnection
from coord.server.meters import Meters
from coord.server.state import State
from coord.server.state_digests import StateDigests
from coord.server.statistics import ServerStatistics
from coord.tree import Context, execute
from coord.tree.acl import is_allowed
from coord.tree.plain_writes import plain_writes

EVENT_KIND_AT: Final = 23
"""Where an event's frame has its type, a number below 256 (specification 3)."""
_pack_header = Struct(">iiqi").pack
_unpack_int = Struct(">i").unpack_from
_CREATE_SESSION: Final = opcodes.CREATE_SESSION
_CLOSE_SESSION: Final = opcodes.CLOSE_SESSION

log = eventlog.get("coord.server")


def _no_answer() -> bytes | int:
    """In place of `plain_writes`, where an audit must see each request."""
    return 0


class Audience(Protocol):
    """Who is told that sessions begin and end, and that a block of this server's has been executed, and how
    many reads behind its writes were answered with it.
    """

    def on_session_created(self, session_id: int, timeout_ms: int, *, own: bool) -> None: ...

    def on_session_closed(self, session_id: int) -> None: ...

    def on_own_block_executed(self, reads: int) -> None: ...


class Replica:
    """Executes batches on the server's state.

    Args:
        attached: the connection of each session that has one here.
        skip_acl: whether everybody may know of everything.
        audit: who notes what is done, where it is wanted.
    """

    def __init__(
        self,
        *,
        sid: int,
        state: State,
        answers: Answers,
        attached: dict[int, ClientConnection],
        statistics: ServerStatistics,
        meters: Meters,
        audience: Audience,
        skip_acl: bool = False,
        audit: Audit | None = None,
    ) -> None:
        self._audit = audit
        self._execute_of_mine = execute if audit is None else audit.execute_own
        self._execute_of_others = execute if audit is None else audit.execute_foreign
        self._sid = sid
        self._skip_acl = skip_acl
        self._state = state
        self._answers = answers
        self._attached = attached
        self._audience = audience
        self._context = Context()
        self._barriers: deque[tuple[int, Callable[[], None]]] = deque()
        self.digests = StateDigests(state)
        self.statistics = statistics
        self._meters = meters

    @property
    def zxid(self) -> int:
        """The last executed request."""
        return self._state.tree.last_zxid

    @property
    def feature_level(self) -> int:
        return self._state.tree.feature_level

    def when_executed(self, zxid: int, callback: Callable[[], None]) -> None:
        """Calls back once `zxid` has been executed here, at once if it has."""
        if zxid <= self._state.tree.last_zxid and not self._barriers:
            callback()
            return
        barriers = self._barriers
        position = len(barriers)
        while position and barriers[position - 1][0] > zxid:
            position -= 1
        barriers.insert(position, (zxid, callback))
        self._pass_barriers()

    def clear_barriers(self) -> None:
        """Nobody waits any longer (all clients are disconnected)."""
        self._barriers.clear()

    def execute_payload(self, payload: bytes) -> Stamp:
        """A committed batch in its encoded form; returns its stamp.

        Raises:
            DecodeError: it is none. Its proposer checked it, so this is damage, and the server must stop.
        """
        stamp, blocks = decode_batch(payload)
        self.execute(stamp, blocks)
        return stamp

    def execute(self, stamp: Stamp, blocks: Sequence[Block]) -> None:
        """A committed batch, durable in this server's log."""
        context = self._context
        context.enter_batch(stamp)
        zxid = stamp.first_zxid
        for block in blocks:
            context.enter_block(block)
            if block.owner == self._sid:
                waiting = self._answers.parked_count
                self._execute_own(block, zxid)
                self._audience.on_own_block_executed(waiting - self._answers.parked_count)
            else:
                self._execute_foreign(block, zxid)
            zxid += len(block.bodies)
        self.statistics.writes_executed += stamp.count
        if context.excesses:
            self.statistics.quotas.note(context.excesses, stamp.wall_ms)
        self.digests.on_executed(stamp)
        if self._audit is not None:
            self._audit.flush()
        if self._barriers:
            self._pass_barriers()

    def _execute_own(self, block: Block, zxid: int) -> None:
        """The hot loop of writes: execute, events, reply, the reads behind it."""
        tree = self._state.tree
        context, events = self._context, self._context.events
        attached, answers = self._attached, self._answers
        execute = self._execute_of_mine
        plain = self._plain_writes(block, zxid, answers=True)
        write_if_plain = plain.__next__ if self._audit is None else _no_answer
        data, edges = block.bodies.data, block.bodies.edges
        for session_id, xid, op, identities, start, end in zip(
            block.sessions, block.xids, block.ops, block.auth, edges, islice(edges, 1, None), strict=False
        ):
            client = attached.get(session_id)
            if client is not None and client.queue and type(client.queue[0]) is not int:
                answers.finish_syncs(client)
            done = write_if_plain()
            if type(done) is bytes:
                err, answer = 0, done
            elif op == OP_REFUSED:
                tree.last_zxid = zxid
                err, answer = _unpack_int(data, start)[0], b""
            else:
                context.zxid, context.session_id, context.identities = zxid, session_id, identities
                err, answer = execute(tree, context, op, data[start:end])
                if events:
                    self._tell(zxid)
            if op == _CREATE_SESSION:
                timeout_ms = _unpack_int(data, start)[0]
                self._audience.on_session_created(session_id, timeout_ms, own=True)
                zxid += 1
                continue
            if client is not None:
                queue = client.queue
                if queue and queue[0] == xid:
                    queue.popleft()
                    out = client.out
                    out.append(_pack_header(16 + len(answer), xid, zxid, err))
                    if answer:
                        out.append(answer)
                    client.sent += 1
                    if not client.is_owed:
                        answers.owe(client)
                    if op == _CLOSE_SESSION:
                        answers.close(client, "its session was closed by the client")
                    elif err == opcodes.SESSION_MOVED or err == opcodes.SESSION_EXPIRED:
                        self._end_session_of(client, err)
                    elif queue and type(queue[0]) is not int:
                        answers.drain(client)
                elif op == _CLOSE_SESSION:
                    # It was sent through an older connection, which is gone; it ends the session all the
                    # same.
                    answers.close(client, "its session has ended")
                elif client.state != CLOSED:
                    log.error(
                        "an answer without its question", do="report this", session=hex(session_id), xid=xid
                    )
                    client.conn.close(flush=False, reason="the order of its answers is lost")
            if op == _CLOSE_SESSION:
                self._audience.on_session_closed(session_id)
            zxid += 1

    def _execute_foreign(self, block: Block, zxid: int) -> None:
        """Requests of other servers' clients: nobody here is answered, but watchers here are told."""
        tree = self._state.tree
        context, events = self._context, self._context.events
        execute = self._execute_of_others
        data, edges = block.bodies.data, block.bodies.edges
        for number in self._plain_writes(block, zxid, answers=False):
            assert type(number) is int
            op, session_id = block.ops[number], block.sessions[number]
            if op == OP_REFUSED:
                tree.last_zxid = zxid + number
            else:
                context.zxid, context.session_id = zxid + number, session_id
                context.identities = block.auth[number]
                execute(tree, context, op, data[edges[number] : edges[number + 1]])
                if events:
                    self._tell(zxid + number)
            if op == _CREATE_SESSION:
                timeout_ms = _unpack_int(data, edges[number])[0]
                self._audience.on_session_created(session_id, timeout_ms, own=False)
            elif op == _CLOSE_SESSION:
                client = self._attached.get(session_id)
                if client is not None:
                    self._answers.close(client, "its session has ended")
                self._audience.on_session_closed(session_id)

    def _plain_writes(self, block: Block, zxid: int, *, answers: bool) -> Iterator[bytes | int]:
        return plain_writes(
            self._state.tree,
            self._state.watches,
            block.sessions,
            block.ops,
            block.bodies,
            zxid,
            self._context.wall_ms,
            answers=answers,
        )

    def _tell(self, zxid: int) -> None:
        """Sends the events of one request to this server's watchers, ahead of its reply."""
        events = self._context.events
        if not self._state.watches.connection_count:
            events.clear()
            return
        told = self._state.watches.fire(events, zxid, self._may_know)
        for watcher, frame in told:
            assert isinstance(watcher, ClientConnection)
            watcher.out.append(frame)
            if not watcher.is_owed:
                self._answers.owe(watcher)
        if told:
            self.statistics.watch_bytes += sum([len(frame) for _, frame in told])
            for kind, count in Counter([frame[EVENT_KIND_AT] for _, frame in told]).items():
                self._meters.note_told(kind, count)
        events.clear()

    def _may_know(self, watcher: object, acl: int) -> bool:
        assert isinstance(watcher, ClientConnection)
        return self._skip_acl or is_allowed(
            self._state.tree.acl_of(acl), opcodes.PERM_READ, watcher.identities
        )

    def _end_session_of(self, client: ClientConnection, err: int) -> None:
        """A write came too late: its session lives elsewhere now (no reply, specification 4.4), or has
        ended.
        """
        if err == opcodes.SESSION_MOVED:
            client.out.pop()
            self._answers.close(client, "its session has moved to another server")
        else:
            self._answers.close(client, "its session has expired")

    def _pass_barriers(self) -> None:
        barriers = self._barriers
        while barriers and barriers[0][0] <= self._state.tree.last_zxid:
            barriers.popleft()[1]()
