"""The way of a request from the server that owns its client to the leader, and of the leader's answers back.

A relay is in one of three states, set by the member as Zab's status changes: out of service, following a
leader, or leading. Whatever a client asks for that this server cannot decide alone takes the same path in
one order: the FIFO of `coord.server.wire` to the leader, there (or at once, on the leader itself) the queue
of `coord.server.orders`. Writes leave as blocks, attachments one by one, syncs together once a round.

What is on its way when the state changes is forgotten: all clients are disconnected then, and their requests
are answered by nobody.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from coord.clock import Clock
from coord.message import MessageError
from coord.protocol.batch import Block, decode_block, encode_block
from coord.protocol.bodies import Bodies
from coord.protocol.jute import DecodeError
from coord.server.authority import Authority
from coord.server.changes import Changes
from coord.server.intake import Intake
from coord.server.orders import GATHER_BYTES_MAX, Broadcast, Orders, ProposedBatch
from coord.server.wire import (
    Attach,
    Attached,
    Forward,
    ForwardChange,
    SyncAsk,
    Synced,
    Touch,
    decode_session_ids,
    encode_session_ids,
)

BLOCKS_UNDER_WAY: Final = 2
"""Blocks of a follower that are not executed yet, beyond which its clients' writes gather."""
FORWARDED_BYTES_MAX: Final = 16 << 20
"""Bodies of this server's clients that wait to be executed; more, and writing clients are not read."""
BLOCK_BODY_BYTES_MAX: Final = 4 << 20
BLOCK_REQUESTS_MAX: Final = 8192
ServerMessage = Forward | Touch | Attach | Attached | SyncAsk | Synced | ForwardChange


class Relay:
    """Requests towards the leader, wherever that is.

    Args:
        send: (sid, message, body) over the peer link.
        when_executed: calls back once this server has executed a zxid; at once if it has.
        on_proposed: told of each batch proposed here, by its last zxid, and its size.
        changes: judges reconfigurations; None on a standalone server.
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
        changes: Changes | None = None,
    ) -> None:
        self._sid = sid
        self._clock = clock
        self._authority = authority
        self._send = send
        self._when_executed = when_executed
        self._leader: int | None = None
        self._epoch = 0
        self._leading = False
        self._in_flight: deque[tuple[int, int, int, int]] = deque()
        self._in_flight_bytes = 0
        self._number = 0
        self._attaching: dict[int, Callable[[bool], None]] = {}
        self._syncing: dict[int, list[Callable[[], None]]] = {}
        self._new_syncs: list[Callable[[], None]] = []
        self.orders = Orders(
            clock=clock,
            authority=authority,
            broadcast=broadcast,
            when_executed=when_executed,
            on_proposed=on_proposed,
            on_synced=self._on_synced,
            policy=policy,
            changes=changes,
        )

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

    @property
    def in_flight(self) -> tuple[int, int]:
        """Writes of this server's clients that are not executed yet, and the bytes of large ones among
        them.
        """
        in_flight = self._in_flight
        return sum(count for _, count, _, _ in in_flight), sum(large for _, _, _, large in in_flight)

    def lead(self, epoch: int, last_zxid: int) -> None:
        """This server leads `epoch` from now on; its history ends at `last_zxid`."""
        self.rest()
        self._leading, self._leader, self._epoch = True, self._sid, epoch
        self.orders.begin(last_zxid)

    def follow(self, leader: int, epoch: int) -> None:
        self.rest()
        self._leader, self._epoch = leader, epoch

    def rest(self) -> None:
        """Out of service: everything under way is forgotten."""
        self._leading, self._leader, self._epoch = False, None, 0
        self.orders.begin(0)
        for table in (self._in_flight, self._attaching, self._syncing, self._new_syncs):
            table.clear()
        self._in_flight_bytes = 0

    # -- for this server's clients ---------------------------------------------------------------------------

    def should_gather(self, intake_bytes: int) -> bool:
        """Whether the writes that have come in should wait for more.

        A block and a batch cost every server the same however many requests they have, so under load they
        should be few. Nothing is lost by waiting while enough batches, or blocks of this server, are under
        way: what waits leaves when one of them is done.
        """
        if intake_bytes >= GATHER_BYTES_MAX:
            return False
        return self.orders.is_busy if self._leading else len(self._in_flight) >= BLOCKS_UNDER_WAY

    def submit(self, intake: Intake) -> None:
        """The tick's writes of this server's clients, as blocks of bounded size."""
        if self._leader is None:
            return
        if not self.orders.judges_changes:
            intake.changes.clear()
        for part in intake.apart() if intake.changes else (intake,):
            self._submit_parts(part)

    def _submit_parts(self, intake: Intake) -> None:
        if intake.body_bytes <= BLOCK_BODY_BYTES_MAX and len(intake) <= BLOCK_REQUESTS_MAX:
            self._submit_block(intake)
        else:
            for part in intake.cut(BLOCK_BODY_BYTES_MAX, BLOCK_REQUESTS_MAX):
                self._submit_block(part)

    def attach(self, session_id: int, timeout_ms: int, password: bytes, done: Callable[[bool], None]) -> None:
        if self._leader is None:
            return
        if self._leading:
            self.orders.attach(
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

    def on_own_block_executed(self) -> tuple[int, int]:
        """A block of this server has been executed; they come in the order they were submitted.

        Returns:
            How many requests it had, and for how many milliseconds they were under way; zeros for one that
            was submitted in an earlier service.
        """
        if not self._in_flight:
            return 0, 0
        size, count, submitted_ms, _ = self._in_flight.popleft()
        self._in_flight_bytes -= size
        return count, self._clock.monotonic_ms() - submitted_ms

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
                case ForwardChange():
                    self._receive_forward(sid, bytes(body), is_change=True)
                case Touch():
                    self._authority.touch(decode_session_ids(body), self._clock.monotonic_ms())
                case Attach():
                    self._receive_attach(sid, message)
                case SyncAsk():
                    self.orders.sync(sid, message.number)
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

    def _receive_forward(self, sid: int, data: bytes, *, is_change: bool = False) -> None:
        try:
            block, end = decode_block(data)
        except DecodeError as error:
            raise MessageError(f"a forwarded block: {error}") from error
        if end != len(data) or block.owner != sid:
            raise MessageError(
                f"a forwarded block of server {block.owner} with {len(data) - end} bytes behind it"
            )
        if is_change and len(block.bodies) != 1:
            raise MessageError(f"a change among {len(block.bodies)} requests")
        self.orders.block(data, block, is_change=is_change)

    def _receive_attach(self, sid: int, message: Attach) -> None:
        def answer(ok: bool, zxid: int) -> None:
            self._send(sid, Attached(self._epoch, message.number, ok, zxid), b"")

        self.orders.attach(sid, message.session_id, message.timeout_ms, message.password, answer)

    def carry_on(self) -> None:
        """Hands over what has come in: call it after each round of inputs. On the leader, proposes."""
        if self._new_syncs and self._leader is not None:
            self._number += 1
            self._syncing[self._number], self._new_syncs = self._new_syncs, []
            if self._leading:
                self.orders.sync(self._sid, self._number)
            else:
                self._send(self._leader, SyncAsk(self._epoch, self._number), b"")
        if self._leading:
            self.orders.carry_out()

    def _on_synced(self, sid: int, number: int, zxid: int) -> None:
        if sid == self._sid:
            self._finish_syncs(number, zxid)
        else:
            self._send(sid, Synced(self._epoch, number, zxid), b"")

    def _submit_block(self, intake: Intake) -> None:
        data = encode_block(
            self._sid,
            intake.sessions,
            intake.xids,
            intake.ops,
            intake.auth,
            intake.auth_table,
            intake.bodies,
            is_local=intake.is_local,
        )
        now_ms = self._clock.monotonic_ms()
        self._in_flight.append((intake.body_bytes, len(intake), now_ms, intake.large_bytes))
        self._in_flight_bytes += intake.body_bytes
        if self._leading:
            table = intake.auth_table
            auth = [table[index] for index in intake.auth]
            lengths = list(map(len, intake.bodies))
            bodies = Bodies(data, len(data) - sum(lengths), lengths)
            block = Block(self._sid, intake.sessions, intake.xids, intake.ops, auth, bodies, intake.is_local)
            self.orders.block(data, block, is_change=bool(intake.changes))
        elif self._leader is not None:
            message = ForwardChange(self._epoch) if intake.changes else Forward(self._epoch)
            self._send(self._leader, message, data)

    def _finish_syncs(self, number: int, zxid: int) -> None:
        waiting = self._syncing.pop(number, None)
        if waiting:

            def finish() -> None:
                for done in waiting:
                    done()

            self._when_executed(zxid, finish)
