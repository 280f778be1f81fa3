"""One simulated server: a disk, and while it runs a real `coord.zab.Peer` with the shortest shell that obeys
`coord.zab.ready`.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from coord.zab import (
    Config,
    Epochs,
    HistoryConflictError,
    Membership,
    NotLeadingError,
    Peer,
    Proposal,
    Ready,
    Role,
    Sid,
    Status,
)
from tests.sim.disk import CHANGE, Append, Cut, Disk, Install, Mark, Operation, State

if TYPE_CHECKING:
    from tests.sim.world import World

SNAPSHOT_CHUNKS = 4
DIGEST_EVERY = 8
"""States are compared at batches whose last zxid is a multiple of it."""
CHECKPOINT_EVERY = 40
"""Executed batches between two checkpoints."""


class Chunk(NamedTuple):
    """A message of the shell's own: part of a snapshot."""

    number: int
    state: State


class Node:
    """A server through all its lives."""

    def __init__(self, world: "World", config: Config) -> None:
        self.world = world
        self.config = config
        self.sid = config.sid
        self.disk = Disk(world, world.random)
        self.running = False
        self.paused = False
        self.life = 0
        self.peer: Peer | None = None
        self.state = State()
        self.status = Status(Role.LOOKING, None, 0, False)
        self.wiped = False
        """Its disk was lost, or its history damaged, and it has not been synchronized since."""
        self.clock_ms = 0
        """How far this server's monotonic clock is ahead of the world's."""
        self.disk.on_failure = self.crash
        self._reset()

    def _reset(self) -> None:
        self._backlog: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._ready_due = False
        self._timer_us = -1
        self._streams: set[int] = set()
        self._installing: str = ""
        self._syncs: list[tuple[int, int, int]] = []
        self._checkpointed = self.disk.checkpoint.count

    @property
    def now_ms(self) -> int:
        return self.world.now_ms + self.clock_ms

    @property
    def membership(self) -> Membership:
        """As of what it has executed."""
        text = self.state.membership
        return Membership.decode(text) if text else self.config.membership

    @property
    def changes_under_way(self) -> list[Membership]:
        """What its core has appended and does not know committed, durable or not."""
        if self.peer is None:
            return []
        return [membership for _, membership in self.peer._replica.history.pending]

    # Life and death.

    def start(self) -> None:
        if self.running:
            return
        self.life += 1
        self.running = True
        self._reset()
        recovered, replayed = self.disk.recover()
        self.world.laws.on_start(self, replayed)
        try:
            config = replace(self.config, membership=self.membership)
            self.peer = Peer(config, recovered, self.now_ms)
        except ValueError as error:
            self.world.laws.violated("CheckDuringAction", self, str(error))
            return
        self.status = self.peer.status
        self.world.trace("start", self.sid, self.state)
        self._input(self.peer.tick, self.now_ms)
        for other in self.world.nodes:
            if other != self.sid:
                self.world.later(
                    self.world.random.randrange(500, 30_000), self.world.network.connect, self.sid, other
                )

    def crash(self, wipe: bool = False) -> None:
        if not self.running:
            return
        self.world.trace("wipe" if wipe else "crash", self.sid, None)
        self.running = self.paused = False
        self.peer = None
        self.status = Status(Role.LOOKING, None, 0, False)
        self.disk.crash()
        if wipe:
            if self.life % 2:
                self.disk.wipe()
            else:
                self.disk.give_up_history()
            self.wiped = True
            # Whoever replaces the disk gives it the configuration of today.
            self.config = replace(self.config, membership=replace(self.world.laws.membership, version=0))
        self.world.network.node_died(self.sid)
        self.world.laws.on_durable_change(self)

    def damage_log(self) -> None:
        """Dies, and parts of its log are bad at the next start; not before it has something to lose."""
        if self.running and (self.disk.epochs.current > 0 or self.disk.can_repair):
            self.crash()
            self.world.trace("damage", self.sid, None)
            self.disk.damage_log()
            self.world.laws.on_durable_change(self)

    def repair_log(self) -> bool:
        """Begins again with a log that is whole; False if a leader was quicker, or may be."""
        if not self.disk.can_repair or self.status.role is not Role.LOOKING:
            return False
        self.crash()
        if not self.disk.can_repair:
            return False
        self.world.trace("repair", self.sid, None)
        self.disk.repair_log()
        self.world.laws.on_durable_change(self)
        self.start()
        return True

    def pause(self) -> None:
        self.paused = True
        self.world.trace("pause", self.sid, None)

    def resume(self) -> None:
        if not self.paused:
            return
        self.paused = False
        self.world.trace("resume", self.sid, None)
        backlog, self._backlog = self._backlog, deque()
        for action, arguments in backlog:
            if self.running:
                self._input(action, *arguments)

    # Input.

    def _input(self, action: Callable[..., None], *arguments: Any) -> None:
        """Feeds the core now, or after a pause; what it then owes is carried out a little later."""
        if not self.running:
            return
        if self.paused:
            self._backlog.append((action, arguments))
            return
        try:
            action(*arguments)
        except HistoryConflictError as error:
            self.world.laws.violated("CheckDuringAction", self, str(error))
        if not self._ready_due:
            self._ready_due = True
            self.world.later(self.world.random.randrange(60), self._carry_out, self.life)

    def _guarded(self, action: Callable[..., None]) -> Callable[..., None]:
        """`action` as input of this life only."""
        life = self.life

        def call(*arguments: Any) -> None:
            if self.life == life:
                self._input(action, *arguments)

        return call

    def on_connected(self, other: int) -> None:
        self._input(self._connected, other)

    def on_disconnected(self, other: int) -> None:
        self._input(self._disconnected, other)

    def on_message(self, sender: int, message: Any) -> None:
        self._input(self._received, sender, message)

    def _connected(self, other: int) -> None:
        assert self.peer is not None
        self.world.trace("up", self.sid, other)
        self.peer.peer_connected(Sid(other), self.now_ms)

    def _disconnected(self, other: int) -> None:
        assert self.peer is not None
        self.world.trace("down", self.sid, other)
        self._streams.discard(other)
        self.peer.peer_disconnected(Sid(other), self.now_ms)

    def _received(self, sender: int, message: Any) -> None:
        assert self.peer is not None
        self.world.trace("receive", self.sid, (sender, message))
        self.world.laws.on_received(self, sender, message)
        if isinstance(message, Chunk):
            self._on_chunk(message)
        else:
            self.peer.receive(Sid(sender), message, self.now_ms)

    def tick(self) -> None:
        self._input(self._tick)

    def _tick(self) -> None:
        assert self.peer is not None
        self.peer.tick(self.now_ms)

    def _timer(self, life: int, due_us: int) -> None:
        if life == self.life and due_us == self._timer_us:
            self._timer_us = -1
            self._input(self._tick)

    # Work.

    def _carry_out(self, life: int) -> None:
        if life != self.life or not self.running:
            return
        if self.paused:
            self._backlog.append((self._nothing, ()))
            self._ready_due = False
            return
        self._ready_due = False
        assert self.peer is not None
        ready = self.peer.take_ready()
        crash_after = self.world.crash_point(self)
        for number, step in enumerate((self._store, self._send, self._execute, self._report)):
            if crash_after == number:
                self.crash()
                return
            step(ready)
        self.world.laws.on_step(self)
        self._set_timer()

    def _nothing(self) -> None:
        """Input that is none: makes the work owed be carried out after a pause."""

    def _set_timer(self) -> None:
        assert self.peer is not None
        due_us = max(self.world.now_us + 1, (self.peer.next_deadline_ms() - self.clock_ms) * 1000)
        if self._timer_us < 0 or due_us < self._timer_us or self._timer_us <= self.world.now_us:
            self._timer_us = due_us
            self.world.at(due_us, self._timer, self.life, due_us)

    def _store(self, ready: Ready) -> None:
        if ready.persist_epochs is not None:
            self.world.trace("epochs", self.sid, ready.persist_epochs)
            self.disk.write_epochs(ready.persist_epochs, self._guarded(self._epochs_done))
        if ready.truncate_above is not None:
            self.world.trace("cut", self.sid, ready.truncate_above)
            self.world.laws.on_cut(self, ready.truncate_above)
            self._log(Cut(ready.truncate_above))
        for batch in ready.append:
            self.world.trace("append", self.sid, batch)
            self.world.laws.on_append(self, batch)
            self._log(Append(batch, ready.committed_zxid))

    def _send(self, ready: Ready) -> None:
        for sids, message in ready.messages:
            self.world.laws.on_sent(self, sids, message)
            for sid in sids:
                self.world.network.send(self.sid, sid, message)

    def _execute(self, ready: Ready) -> None:
        if ready.status is not None and not ready.status.serving:
            self._take_status(ready.status)
        for batch in ready.committed:
            self._execute_batch(batch)
            self.world.trace("execute", self.sid, batch)
            self.world.laws.on_executed(self, batch)
            if batch.last_zxid % DIGEST_EVERY == 0 and self.peer is not None:
                self.peer.note_digest(self.state.zxid, self.state.digest)
                self._input(self._nothing)
        if ready.status is not None and ready.status.serving:
            self._take_status(ready.status)
        self._stream_snapshots(ready)
        if self.state.count - self._checkpointed >= CHECKPOINT_EVERY:
            self._checkpointed = self.state.count
            self._log(Mark(self.state.zxid))
            if self.disk.last_zxid() >= self.state.zxid:
                self.disk.write_checkpoint(self.state, self.world.random.randrange(20))

    def _execute_batch(self, batch: Proposal) -> None:
        self.state = self.state.execute(batch)

    def _report(self, ready: Ready) -> None:
        for found in (*ready.mismatches, *ready.disputes):
            self.world.trace("differs", self.sid, found)
            self.world.laws.on_difference(self, found)
        for text in ready.incidents:
            self.world.laws.on_incident(self, text)
        if ready.install_snapshot_from is not None:
            self._installing = "receiving"
        if ready.cancel_install and self._installing == "receiving":
            assert self.peer is not None
            self._installing = ""
            self._input(self.peer.snapshot_aborted, self.now_ms)
        if ready.confirmed_round:
            self._confirmed(ready.confirmed_round)

    def _take_status(self, status: Status) -> None:
        self.world.trace("status", self.sid, status)
        self.status = status
        if not status.serving or status.role is not Role.LEADING:
            self._syncs.clear()
        if status.serving and self.wiped:
            self.wiped = False

    # Durability.

    def _log(self, operation: Operation) -> None:
        self.disk.submit(operation, self._log_done_later())

    def _log_done_later(self) -> Callable[[list[Operation]], None]:
        report = self._guarded(self._log_reports)

        def done(operations: list[Operation]) -> None:
            self.world.laws.on_durable_change(self)
            report(operations)

        return done

    def _log_reports(self, operations: list[Operation]) -> None:
        assert self.peer is not None
        last = 0
        for operation in operations:
            if isinstance(operation, Append):
                last = operation.batch.last_zxid
                continue
            if last:
                self.peer.logged(last)
                last = 0
            if isinstance(operation, Cut):
                self.peer.truncated(operation.zxid)
            elif isinstance(operation, Install):
                self._installing = ""
                # What was lost is not to be had back from here any more, until a leader has made it good.
                self.wiped = self.wiped or (self.disk.history_lost and self.disk.epochs.current == 0)
                self.state = operation.state
                self._checkpointed = self.state.count
                self.world.trace("installed", self.sid, operation.state)
                self.world.laws.on_installed(self)
                self.peer.snapshot_installed(operation.state.zxid, self.membership, self.now_ms)
        if last:
            self.peer.logged(last)

    def _epochs_done(self, epochs: Epochs) -> None:
        assert self.peer is not None
        self.peer.epochs_persisted(epochs.accepted, epochs.current, self.now_ms)

    # Snapshots.

    def _stream_snapshots(self, ready: Ready) -> None:
        for sid in ready.cancel_snapshots:
            self._streams.discard(sid)
        for order in ready.send_snapshot:
            assert self.state.zxid >= order.at_least_zxid, "the window begins before what is executed"
            self._streams.add(order.sid)
            self.world.later(
                self.world.random.randrange(5_000), self._stream, self.life, order.sid, self.state, 0
            )

    def _stream(self, life: int, receiver: int, state: State, number: int) -> None:
        if life != self.life or receiver not in self._streams:
            return
        self.world.network.send(self.sid, receiver, Chunk(number, state))
        if number + 1 < SNAPSHOT_CHUNKS:
            delay = self.world.random.randrange(20_000)
            self.world.later(delay, self._stream, life, receiver, state, number + 1)
        else:
            self._streams.discard(receiver)

    def _on_chunk(self, chunk: Chunk) -> None:
        if self._ready_due and not self.paused:
            self._carry_out(self.life)  # the order to install may have come with this chunk
        if self._installing != "receiving" or self.peer is None:
            return
        self.peer.snapshot_progress(self.now_ms)
        if chunk.number + 1 == SNAPSHOT_CHUNKS:
            self._installing = "switching"
            self._log(Install(chunk.state))

    # Clients.

    def propose(self, payload: bytes, count: int) -> bool:
        """One batch from clients; its requests are acknowledged when the batch is executed here."""
        if not self.running or self.paused or self.peer is None or not self.peer.can_propose:
            return False
        promised = self.peer.next_zxid
        try:
            first = self.peer.propose(payload, count)
        except NotLeadingError:
            return False
        assert first == promised
        self.world.laws.on_proposed(self, first, first + count - 1, payload)
        self.world.trace("propose", self.sid, (first, count))
        self._input(self._nothing)
        return True

    def change_membership(self, membership: Membership) -> bool:
        """A client's reconfiguration at the leader, refused as 19.4 says."""
        peer = self.peer
        if not self.running or self.paused or peer is None or not peer.can_propose:
            return False
        if peer.is_changing or not peer.can_change_to(membership):
            return False
        changed = replace(membership, version=peer.next_zxid)
        return self.propose(CHANGE + changed.encode().encode(), 1)

    def hand_over(self) -> None:
        if self.running and self.peer is not None:
            self._input(self._hand_over)

    def _hand_over(self) -> None:
        assert self.peer is not None
        self.peer.hand_over(self.now_ms)

    def sync(self) -> None:
        """A client's sync at the leader: answered once the leadership is confirmed."""
        if not self.running or self.paused or self.peer is None or not self.status.serving:
            return
        if self.status.role is Role.LEADING and isinstance(self.peer, Peer):
            try:
                number = self.peer.confirm_leadership()
            except NotLeadingError:
                return
            self._syncs.append((number, self.peer.last_zxid, self.world.laws.acknowledged_zxid))
            self._input(self._nothing)

    def resign(self) -> None:
        if self.running and self.peer is not None:
            self._input(self._resign)

    def _resign(self) -> None:
        assert self.peer is not None
        self.peer.resign("asked to", self.now_ms)

    def request_snapshot(self) -> None:
        if self.running and self.peer is not None and self.status.role is Role.FOLLOWING:
            self._input(self._request_snapshot)

    def _request_snapshot(self) -> None:
        assert self.peer is not None
        self.peer.request_snapshot(self.now_ms)

    def _confirmed(self, number: int) -> None:
        self.world.trace("confirmed", self.sid, number)
        for asked, last_zxid, acknowledged in self._syncs:
            if asked <= number:
                self.world.laws.on_confirmed(self, last_zxid, acknowledged)
        self._syncs = [sync for sync in self._syncs if sync[0] > number]
