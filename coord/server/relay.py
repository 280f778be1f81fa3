"""The way of a request from the server that owns its client to the leader's proposal, and of the leader's
answers back.

A relay is in one of three states, set by the member as Zab's status changes: out of service, following a
leader, or leading. Whatever a client asks for that this server cannot decide alone takes the same path, in
one order (the FIFO of `coord.server.wire`; on the leader itself `_orders`):

    writes           a block of the tick's writes; proposed as part of a batch
    attachments      answered after everything ordered before has been proposed *and* executed at the leader
    syncs            answered once a quorum has confirmed the leadership after the sync arrived

An order that cannot be carried out yet (too much is outstanding) holds back those behind it. What is on its
way when the state changes is forgotten: all clients are disconnected then, and their requests are answered
by nobody.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from coord.clock import Clock
from coord.message import MessageError
from coord.protocol.batch import (
    BATCH_BYTES_MAX,
    BATCH_REQUESTS_MAX,
    FEATURE_LEVEL,
    Block,
    Stamp,
    decode_block,
    encode_batch,
    encode_block,
)
from coord.protocol.jute import DecodeError
from coord.protocol.opcodes import CLOSE_SESSION, SESSION_MOVED
from coord.server.authority import Authority, refuse
from coord.server.intake import Intake
from coord.server.wire import (
    Attach,
    Attached,
    Forward,
    SyncAsk,
    Synced,
    Touch,
    decode_session_ids,
    encode_session_ids,
)

GATHER_BYTES_MAX: Final = 1 << 20
"""Blocks that wait for the log's next group; with more they are proposed at once."""
BLOCKS_UNDER_WAY: Final = 2
"""Blocks of a follower that are not executed yet, beyond which its clients' writes gather."""
FORWARDED_BYTES_MAX: Final = 16 << 20
"""Bodies of this server's clients that wait to be executed; more, and writing clients are not read."""
BLOCK_BODY_BYTES_MAX: Final = 4 << 20
BLOCK_REQUESTS_MAX: Final = 8192
SYSTEM_ERROR: Final = -1
"""What a client is told whose write is refused for want of disk space: the protocol has no better word."""
LEADER_BLOCKS: Final = 0
"""The owner of blocks the leader makes itself (expiry): no server."""

ServerMessage = Forward | Touch | Attach | Attached | SyncAsk | Synced


@dataclass(frozen=True, slots=True)
class ProposedBatch:
    """What the leader keeps of a batch it proposed, so as not to decode it again when it is committed."""

    stamp: Stamp
    blocks: tuple[Block, ...]


class Broadcast(Protocol):
    """What the relay needs of the Zab peer when it leads."""

    @property
    def can_propose(self) -> bool: ...

    @property
    def next_zxid(self) -> int: ...

    def propose(self, payload: bytes, count: int) -> int: ...

    def confirm_leadership(self) -> int: ...


class Relay:
    """Requests towards the leader, wherever that is.

    Args:
        send: (sid, message, body) over the peer link.
        when_executed: calls back once this server has executed a zxid; at once if it has.
        on_proposed: told of each batch proposed here, by its last zxid, and its size.
    """

    def __init__(
        self,
        *,
        sid: int,
        clock: Clock,
        authority: Authority,
        broadcast: Broadcast,
        send: Callable[[int, ServerMessage, bytes], None],
        when_executed: Callable[[int, Callable[[], None]], None],
        on_proposed: Callable[[int, ProposedBatch, int], None],
        policy: int = 0,
    ) -> None:
        self._sid = sid
        self._clock = clock
        self._authority = authority
        self._broadcast = broadcast
        self._send = send
        self._when_executed = when_executed
        self._on_proposed = on_proposed
        self._policy = policy
        self._leader: int | None = None
        self._epoch = 0
        self._leading = False
        self._last_proposed = 0
        self._orders: deque[tuple[bytes, Block] | Callable[[], None]] = deque()
        self._ordered_bytes = 0
        self._unlogged: deque[int] = deque()
        self._in_flight: deque[int] = deque()
        self._in_flight_bytes = 0
        self._number = 0
        self._attaching: dict[int, Callable[[bool], None]] = {}
        self._syncing: dict[int, list[Callable[[], None]]] = {}
        self._new_syncs: list[Callable[[], None]] = []
        self._confirming: deque[tuple[int, int, int, int]] = deque()
        self._generation = 0
        self.refuses_writes = False
        """Set while the leader's disk is nearly full: writes are answered with an error, reads go on."""

    # -- the state -------------------------------------------------------------------------------------------

    @property
    def is_leading(self) -> bool:
        return self._leading

    @property
    def is_busy(self) -> bool:
        """Whether clients that write should wait."""
        return self._in_flight_bytes > FORWARDED_BYTES_MAX

    @property
    def in_flight_blocks(self) -> int:
        return len(self._in_flight)

    def lead(self, epoch: int, last_zxid: int) -> None:
        """This server leads `epoch` from now on; its history ends at `last_zxid`."""
        self.rest()
        self._leading, self._leader, self._epoch = True, self._sid, epoch
        self._last_proposed = last_zxid

    def follow(self, leader: int, epoch: int) -> None:
        self.rest()
        self._leader, self._epoch = leader, epoch

    def rest(self) -> None:
        """Out of service: everything under way is forgotten."""
        self._leading, self._leader, self._epoch = False, None, 0
        self._generation += 1
        for table in (
            self._orders,
            self._unlogged,
            self._in_flight,
            self._attaching,
            self._syncing,
            self._new_syncs,
            self._confirming,
        ):
            table.clear()
        self._in_flight_bytes = self._ordered_bytes = 0

    # -- for this server's clients ---------------------------------------------------------------------------

    def should_gather(self, intake_bytes: int) -> bool:
        """Whether the writes that have come in should wait for more.

        A block and a batch cost every server the same however many requests they have, so under load they
        should be few. Nothing is lost by waiting while the leader's log is busy, or while enough blocks of
        this server are under way: what waits leaves when the log or one of them is done.
        """
        if intake_bytes >= GATHER_BYTES_MAX:
            return False
        return bool(self._unlogged) if self._leading else len(self._in_flight) >= BLOCKS_UNDER_WAY

    def submit(self, intake: Intake) -> None:
        """The tick's writes of this server's clients, as blocks of bounded size."""
        if self._leader is None:
            return
        if intake.body_bytes <= BLOCK_BODY_BYTES_MAX and len(intake) <= BLOCK_REQUESTS_MAX:
            self._submit_block(intake)
        else:
            for part in _cut(intake):
                self._submit_block(part)

    def attach(self, session_id: int, timeout_ms: int, password: bytes, done: Callable[[bool], None]) -> None:
        if self._leader is None:
            return
        if self._leading:
            self._order_attach(
                self._sid,
                session_id,
                timeout_ms,
                password,
                lambda ok, zxid: self._when_executed(zxid, lambda: done(ok)),
            )
            return
        self._number += 1
        self._attaching[self._number] = done
        message = Attach(self._epoch, self._number, session_id, timeout_ms, password)
        self._send(self._leader, message, b"")

    def sync(self, done: Callable[[], None]) -> None:
        """`done` once all that the leader, still leading, had proposed by now is executed here."""
        self._new_syncs.append(done)

    def touch(self, session_ids: set[int]) -> None:
        """Sessions heard of; the set is the caller's again afterwards."""
        if self._leading:
            self._authority.touch(session_ids, self._clock.monotonic_ms())
        elif self._leader is not None and session_ids:
            self._send(self._leader, Touch(self._epoch), encode_session_ids(list(session_ids)))

    def on_own_block_executed(self) -> None:
        """A block of this server has been executed; they come in the order they were submitted."""
        if self._in_flight:
            self._in_flight_bytes -= self._in_flight.popleft()

    # -- for peers -------------------------------------------------------------------------------------------

    def receive(self, sid: int, message: ServerMessage, body: memoryview) -> None:
        """A message of another server; one of another epoch is of a conversation that is over.

        Raises:
            MessageError: the body is not what it should be.
        """
        if message.epoch != self._epoch:
            return
        if self._leading:
            match message:
                case Forward():
                    self._receive_forward(sid, bytes(body))
                case Touch():
                    self._authority.touch(decode_session_ids(body), self._clock.monotonic_ms())
                case Attach():
                    self._receive_attach(sid, message)
                case SyncAsk():
                    self._order_sync(sid, message.number)
                case _:
                    raise MessageError(f"{type(message).__name__} is no message for a leader")
        elif sid == self._leader:
            match message:
                case Attached():
                    done = self._attaching.pop(message.number, None)
                    if done is not None:
                        ok = message.ok
                        self._when_executed(message.zxid, lambda: done(ok))
                case Synced():
                    self._finish_syncs(message.number, message.zxid)
                case _:
                    raise MessageError(f"{type(message).__name__} is no message for a follower")

    def _receive_forward(self, sid: int, data: bytes) -> None:
        try:
            block, end = decode_block(data)
        except DecodeError as error:
            raise MessageError(f"a forwarded block: {error}") from error
        if end != len(data) or block.owner != sid:
            raise MessageError(
                f"a forwarded block of server {block.owner} with {len(data) - end} bytes behind it"
            )
        self._order_block(data, block)

    def _receive_attach(self, sid: int, message: Attach) -> None:
        def answer(ok: bool, zxid: int) -> None:
            self._send(sid, Attached(self._epoch, message.number, ok, zxid), b"")

        self._order_attach(sid, message.session_id, message.timeout_ms, message.password, answer)

    # -- orders, on the leader -------------------------------------------------------------------------------

    def carry_on(self) -> None:
        """Hands over what has come in: call it after each round of inputs. On the leader, proposes."""
        if self._new_syncs and self._leader is not None:
            self._number += 1
            self._syncing[self._number], self._new_syncs = self._new_syncs, []
            if self._leading:
                self._order_sync(self._sid, self._number)
            else:
                self._send(self._leader, SyncAsk(self._epoch, self._number), b"")
        if self._leading and self._orders:
            self._carry_out()

    def close_sessions(self, session_ids: list[int]) -> None:
        """The leader ends sessions whose time is over."""
        count = len(session_ids)
        block = Block(
            LEADER_BLOCKS, session_ids, [0] * count, [CLOSE_SESSION] * count, [()] * count, [b""] * count
        )
        encoded = encode_block(
            LEADER_BLOCKS, session_ids, [0] * count, block.ops, [0] * count, [()], [b""] * count
        )
        self._order_block(encoded, block)

    def on_confirmed(self, confirmed_round: int) -> None:
        """A quorum has confirmed the leadership for all rounds up to this one."""
        while self._confirming and self._confirming[0][0] <= confirmed_round:
            _, sid, number, zxid = self._confirming.popleft()
            if sid == self._sid:
                self._finish_syncs(number, zxid)
            else:
                self._send(sid, Synced(self._epoch, number, zxid), b"")

    def on_logged(self, zxid: int) -> None:
        """This server's log holds everything up to `zxid`."""
        unlogged = self._unlogged
        while unlogged and unlogged[0] <= zxid:
            unlogged.popleft()

    def _order_block(self, data: bytes, block: Block) -> None:
        self._orders.append((data, block))
        self._ordered_bytes += len(data)

    def _carry_out(self) -> None:
        """Proposes the blocks that wait, as few batches as the bounds allow, and acts on what stands between
        them.
        """
        orders = self._orders
        while orders:
            order = orders[0]
            if callable(order):
                orders.popleft()
                order()
                continue
            if not self._broadcast.can_propose or (self._unlogged and self._ordered_bytes < GATHER_BYTES_MAX):
                return
            encoded: list[bytes] = []
            blocks: list[Block] = []
            count = size = 0
            while orders:
                order = orders[0]
                if callable(order):
                    break
                data, block = order
                if encoded and (
                    count + len(block.bodies) > BATCH_REQUESTS_MAX or size + len(data) > BATCH_BYTES_MAX
                ):
                    break
                orders.popleft()
                self._ordered_bytes -= len(data)
                data, block = self._admit(data, block)
                encoded.append(data)
                blocks.append(block)
                count += len(block.bodies)
                size += len(data)
            self._propose(encoded, blocks, count)

    def _admit(self, data: bytes, block: Block) -> tuple[bytes, Block]:
        """Refuses what comes through a server that no longer owns the session, and all when the disk is
        full.
        """
        refused = self._authority.refused(block.owner, block.sessions) if block.owner else frozenset()
        if refused:
            block = refuse(block, refused, SESSION_MOVED)
        elif self.refuses_writes:
            block = refuse(block, frozenset(block.sessions), SYSTEM_ERROR)
        else:
            return data, block
        table = list(dict.fromkeys(block.auth))
        indices = [table.index(auth) for auth in block.auth]
        data = encode_block(block.owner, block.sessions, block.xids, block.ops, indices, table, block.bodies)
        return data, block

    def _propose(self, encoded: list[bytes], blocks: list[Block], count: int) -> None:
        first = self._broadcast.next_zxid
        stamp = Stamp(FEATURE_LEVEL, self._clock.wall_ms(), first, count, self._policy)
        payload = encode_batch(stamp, encoded)
        self._broadcast.propose(payload, count)
        self._last_proposed = first + count - 1
        self._unlogged.append(self._last_proposed)
        self._on_proposed(self._last_proposed, ProposedBatch(stamp, tuple(blocks)), len(payload))

    def _order_attach(
        self, sid: int, session_id: int, timeout_ms: int, password: bytes, answer: Callable[[bool, int], None]
    ) -> None:
        generation = self._generation

        def decide() -> None:
            if generation == self._generation:
                now_ms = self._clock.monotonic_ms()
                ok = self._authority.attach(sid, session_id, timeout_ms, password, now_ms)
                answer(ok, self._last_proposed)

        # First everything that came before is proposed, then it is executed, then the session is looked at.
        self._orders.append(lambda: self._when_executed(self._last_proposed, decide))

    def _order_sync(self, sid: int, number: int) -> None:
        def confirm() -> None:
            round_number = self._broadcast.confirm_leadership()
            self._confirming.append((round_number, sid, number, self._last_proposed))

        self._orders.append(confirm)

    def _submit_block(self, intake: Intake) -> None:
        data = encode_block(
            self._sid, intake.sessions, intake.xids, intake.ops, intake.auth, intake.auth_table, intake.bodies
        )
        self._in_flight.append(intake.body_bytes)
        self._in_flight_bytes += intake.body_bytes
        if self._leading:
            table = intake.auth_table
            auth = [table[index] for index in intake.auth]
            block = Block(self._sid, intake.sessions, intake.xids, intake.ops, auth, intake.bodies)
            self._order_block(data, block)
        elif self._leader is not None:
            self._send(self._leader, Forward(self._epoch), data)

    def _finish_syncs(self, number: int, zxid: int) -> None:
        waiting = self._syncing.pop(number, None)
        if waiting:

            def finish() -> None:
                for done in waiting:
                    done()

            self._when_executed(zxid, finish)


def _cut(intake: Intake) -> list[Intake]:
    """Parts of an intake in its order, each within the bounds of a block (one request always fits)."""
    parts: list[Intake] = []
    start = size = 0
    for index, body in enumerate(intake.bodies):
        if index > start and (size + len(body) > BLOCK_BODY_BYTES_MAX or index - start >= BLOCK_REQUESTS_MAX):
            parts.append(intake.part(start, index))
            start, size = index, 0
        size += len(body)
    parts.append(intake.part(start, len(intake)))
    return parts
