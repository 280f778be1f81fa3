"""The leader's queue: what servers ask of it, in the order it came, turned into batches.

    blocks           proposed, as many together as wait, when the log is ready for more
    attachments      decided once all that was ordered before has been proposed *and* executed here
    syncs            answered once a quorum has confirmed this leadership after they came
    changes          of the ensemble: judged and proposed alone, once all ordered before is executed here

An order that cannot be carried out yet holds back those behind it.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from coord import eventlog
from coord.clock import Clock
from coord.protocol.batch import (
    BATCH_BYTES_MAX,
    BATCH_REQUESTS_MAX,
    OP_REFUSED,
    Block,
    Stamp,
    encode_batch,
    encode_block,
)
from coord.protocol.bodies import Bodies
from coord.protocol.jute import encode_int
from coord.protocol.opcodes import CHANGE_MEMBERSHIP, CLOSE_SESSION, DELETE_CONTAINER, SESSION_MOVED
from coord.server.authority import Authority, refuse
from coord.server.changes import Changes
from coord.server.reconfiguration import ReconfigurationError
from coord.tree.reaping import encode_delete_container
from coord.zab import NotLeadingError

log = eventlog.get("coord.server")

BATCHES_UNDER_WAY: Final = 2
"""Batches proposed and not yet executed here: one that a quorum logs, and one on its way behind it. With so
many, what comes in gathers for the batch after: every batch costs every server the same, however large."""
SECOND_BYTES_MIN: Final = 128 << 10
"""The one behind is proposed only when it is so large: small ones would be many, and wait for each other."""
FIRST_LEVEL: Final = 1
GATHER_BYTES_MAX: Final = 1 << 20
"""What has gathered is proposed all the same when it is more."""
SYSTEM_ERROR: Final = -1
"""What a client is told whose write is refused for want of disk space: the protocol has no better word."""
LEADER_BLOCKS: Final = 0
"""The owner of blocks the leader makes itself (expiry of sessions, containers and TTL nodes): no server."""


@dataclass(frozen=True, slots=True)
class ProposedBatch:
    """What the leader keeps of a batch it proposed, so as not to decode it again when it is committed."""

    stamp: Stamp
    blocks: tuple[Block, ...]


class Broadcast(Protocol):
    """What a leader needs of its Zab peer."""

    @property
    def can_propose(self) -> bool: ...

    @property
    def next_zxid(self) -> int: ...

    def propose(self, payload: bytes, count: int) -> int: ...

    def confirm_leadership(self) -> int: ...


class Orders:
    """The orders of one leadership; a new one begins with `begin`.

    Args:
        when_executed: calls back once this server has executed a zxid; at once if it has.
        on_proposed: told of each batch by its last zxid, and of its size.
        on_synced: (sid, number, zxid): the sync of that server is confirmed as of `zxid`.
        changes: judges changes of the ensemble; None on a standalone server.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        authority: Authority,
        broadcast: Broadcast,
        when_executed: Callable[[int, Callable[[], None]], None],
        on_proposed: Callable[[int, ProposedBatch, int], None],
        on_synced: Callable[[int, int, int], None],
        policy: int = 0,
        changes: Changes | None = None,
    ) -> None:
        self._clock = clock
        self._authority = authority
        self._broadcast = broadcast
        self._when_executed = when_executed
        self._on_proposed = on_proposed
        self._on_synced = on_synced
        self._policy = policy
        self._changes = changes
        self._queue: deque[tuple[bytes, Block] | _Change | Callable[[], None]] = deque()
        self._queued_bytes = 0
        self._under_way: deque[int] = deque()
        self._confirming: deque[tuple[int, int, int, int]] = deque()
        self._last_proposed = 0
        self._leadership = 0
        self.refuses_writes = False
        """Set while this server's disk is nearly full: writes are answered with an error, reads go on."""
        self.is_halted = False
        """Set while it is so full that even the refusals, which are logged as well, have to wait."""

    def begin(self, last_zxid: int) -> None:
        """A leadership begins, or has ended: nothing of the one before is carried out any more."""
        self._queue.clear()
        self._queued_bytes = 0
        self._under_way.clear()
        self._confirming.clear()
        self._last_proposed = last_zxid
        self._leadership += 1

    @property
    def is_busy(self) -> bool:
        """What is proposed now would only wait; it may as well gather."""
        under_way = len(self._under_way)
        return under_way >= BATCHES_UNDER_WAY or (under_way > 0 and self._queued_bytes < SECOND_BYTES_MIN)

    @property
    def pending_syncs(self) -> int:
        """Syncs that wait for the leadership to be confirmed."""
        return len(self._confirming)

    # -- what is ordered
    # ---------------------------------------------------------------------------------------

    def block(self, data: bytes, block: Block, *, is_change: bool = False) -> None:
        """A block in its encoded and decoded forms; `is_change`: its only request is about the ensemble."""
        self._queue.append(_Change(data, block) if is_change else (data, block))
        self._queued_bytes += len(data)

    @property
    def judges_changes(self) -> bool:
        return self._changes is not None

    def propose_members_of_file(self) -> None:
        """If the ensemble is to have the members of zoo.cfg and has others."""
        if self._changes is None or not self._changes.is_wanted:
            return
        if any(type(order) is _Change for order in self._queue):
            return
        block = Block(LEADER_BLOCKS, [0], [0], [CHANGE_MEMBERSHIP], [()], Bodies.of([b""]))
        self.block(_encode(block), block, is_change=True)

    def close_sessions(self, session_ids: list[int]) -> None:
        """The time of these sessions is over."""
        self._block_of_mine(CLOSE_SESSION, session_ids, [b""] * len(session_ids))

    def delete_containers(self, paths: list[bytes], never_used_ms: int) -> None:
        """These containers and TTL nodes may have had their time."""
        bodies = [encode_delete_container(path, never_used_ms) for path in paths]
        self._block_of_mine(DELETE_CONTAINER, [0] * len(paths), bodies)

    def _block_of_mine(self, op: int, session_ids: list[int], bodies: list[bytes]) -> None:
        """Requests that no client has sent."""
        count = len(bodies)
        zeros, ops = [0] * count, [op] * count
        block = Block(LEADER_BLOCKS, session_ids, zeros, ops, [()] * count, Bodies.of(bodies))
        self.block(encode_block(LEADER_BLOCKS, session_ids, zeros, ops, zeros, [()], bodies), block)

    def attach(
        self, sid: int, session_id: int, timeout_ms: int, password: bytes, answer: Callable[[bool, int], None]
    ) -> None:
        """A client takes a session up again at server `sid`; `answer` gets the verdict and the last zxid
        proposed by then.
        """
        leadership = self._leadership

        def decide() -> None:
            if leadership == self._leadership:
                now_ms = self._clock.monotonic_ms()
                ok = self._authority.attach(sid, session_id, timeout_ms, password, now_ms)
                answer(ok, self._last_proposed)

        # First everything that came before is proposed, then it is executed, then the session is looked at.
        self._queue.append(lambda: self._when_executed(self._last_proposed, decide))

    def sync(self, sid: int, number: int) -> None:
        def confirm() -> None:
            round_number = self._broadcast.confirm_leadership()
            self._confirming.append((round_number, sid, number, self._last_proposed))

        self._queue.append(confirm)

    # -- what becomes of it
    # ------------------------------------------------------------------------------------

    def on_executed(self, zxid: int) -> None:
        """This server has executed everything up to `zxid`."""
        under_way = self._under_way
        while under_way and under_way[0] <= zxid:
            under_way.popleft()

    def on_confirmed(self, confirmed_round: int) -> None:
        """A quorum has confirmed the leadership for all rounds up to this one."""
        while self._confirming and self._confirming[0][0] <= confirmed_round:
            _, sid, number, zxid = self._confirming.popleft()
            self._on_synced(sid, number, zxid)

    def carry_out(self) -> None:
        """Does what can be done now; call it after each round of inputs."""
        queue = self._queue
        try:
            while queue:
                order = queue[0]
                if callable(order):
                    queue.popleft()
                    order()
                elif type(order) is _Change:
                    if not self._carry_out_change(order):
                        return
                elif (
                    self.is_halted
                    or not self._broadcast.can_propose
                    or (self.is_busy and self._queued_bytes < GATHER_BYTES_MAX)
                ):
                    return
                else:
                    self._propose(*self._take_blocks())
        except NotLeadingError:
            # The leadership has ended a moment ago; the change of state that follows disconnects all clients.
            queue.clear()

    def _take_blocks(self) -> tuple[list[bytes], list[Block], int]:
        """The blocks at the head of the queue, as many as one batch may hold, and their requests' number."""
        queue = self._queue
        encoded: list[bytes] = []
        blocks: list[Block] = []
        count = size = 0
        while queue:
            order = queue[0]
            if type(order) is not tuple:
                break
            data, block = order
            if encoded and (
                count + len(block.bodies) > BATCH_REQUESTS_MAX or size + len(data) > BATCH_BYTES_MAX
            ):
                break
            queue.popleft()
            self._queued_bytes -= len(data)
            data, block = self._admit(data, block)
            encoded.append(data)
            blocks.append(block)
            count += len(block.bodies)
            size += len(data)
        return encoded, blocks, count

    def _admit(self, data: bytes, block: Block) -> tuple[bytes, Block]:
        """Refuses what comes through a server that no longer owns the session, and all on a full disk."""
        refused = self._authority.refused(block.owner, block.sessions) if block.owner else frozenset()
        if not refused and not self.refuses_writes:
            return data, block
        if refused:
            block = refuse(block, refused, SESSION_MOVED)
        if self.refuses_writes:
            block = refuse(block, frozenset(block.sessions) - refused, SYSTEM_ERROR)
        return _encode(block), block

    def _carry_out_change(self, order: "_Change") -> bool:
        """Judged on the state that it will change: all that was proposed before must have been executed.
        False while it has to wait.
        """
        changes, block = self._changes, order.block
        if (
            changes is None
            or self.is_halted
            or not self._broadcast.can_propose
            or changes.executed_zxid < self._last_proposed
        ):
            return False
        self._queue.popleft()
        self._queued_bytes -= len(order.data)
        _, block = self._admit(order.data, block)
        is_change = block.ops[0] != OP_REFUSED
        if is_change:
            try:
                op, body = changes.decide(block, self._broadcast.next_zxid)
                block = block._replace(ops=[op], bodies=Bodies.of([body]))
                is_change = op == CHANGE_MEMBERSHIP
            except ReconfigurationError as error:
                if block.owner == LEADER_BLOCKS:
                    return True  # this server has asked by itself, and nobody waits
                log.info("a change of the ensemble is refused", reason=error)
                block = block._replace(ops=[OP_REFUSED], bodies=Bodies.of([encode_int(error.code)]))
                is_change = False
        self._propose([_encode(block)], [block], 1, is_change=is_change)
        return True

    def _propose(
        self, encoded: list[bytes], blocks: list[Block], count: int, *, is_change: bool = False
    ) -> None:
        first = self._broadcast.next_zxid
        level = FIRST_LEVEL if self._changes is None else self._changes.feature_level
        stamp = Stamp(level, self._clock.wall_ms(), first, count, self._policy)
        payload = encode_batch(stamp, encoded, is_change=is_change)
        self._broadcast.propose(payload, count)
        self._last_proposed = first + count - 1
        self._under_way.append(self._last_proposed)
        self._on_proposed(self._last_proposed, ProposedBatch(stamp, tuple(blocks)), len(payload))


@dataclass(frozen=True, slots=True)
class _Change:
    """A block whose only request changes the ensemble; it holds back what stands behind it."""

    data: bytes
    block: Block


def _encode(block: Block) -> bytes:
    numbers = {auth: number for number, auth in enumerate(dict.fromkeys(block.auth))}
    table, indices = list(numbers), [numbers[auth] for auth in block.auth]
    return encode_block(
        block.owner,
        block.sessions,
        block.xids,
        block.ops,
        indices,
        table,
        block.bodies,
        is_local=block.is_local,
    )
