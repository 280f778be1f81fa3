"""One server as a member of its ensemble: carries out what Zab decides, and tells Zab what has happened.

`pump` is the heart, run after every round of inputs (a tick of the client port, a read of a peer link, a
report of the log, a timer): the relay hands over what its clients want, then everything the peer owes the
world is carried out, until nothing is owed. All of it happens in the loop's thread and without waiting;
durability comes back as an event (`on_log_report`), and so do the epoch file and an installed snapshot,
which are written by a helper thread.

A standalone server is an ensemble of one: it elects itself, and logged is committed.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol, cast

from coord import eventlog
from coord.clock import Clock
from coord.protocol.batch import CHANGE_MAGIC
from coord.server.authority import Authority
from coord.server.changes import Changes
from coord.server.link import Frame, encode_frame
from coord.server.meters import Meters
from coord.server.orders import ProposedBatch
from coord.server.relay import Relay, ServerMessage
from coord.server.replica import Replica
from coord.server.wire import PEER_PROTOCOL
from coord.zab import (
    Epochs,
    Message,
    Mismatch,
    Peer,
    Proposal,
    Ready,
    Role,
    Sid,
    SnapshotOrder,
    Status,
    WireMessage,
    from_wire,
    to_wire,
)

ZAB_CODE_MAX: Final = 31
"""Codes up to this are Zab's own messages; the server's follow."""

log = eventlog.get("coord.server")


class Disk(Protocol):
    """Makes durable what the member hands out, in order; nothing here waits, and it answers with events."""

    def append(self, proposal: Proposal, committed_zxid: int) -> None: ...

    def truncate_above(self, zxid: int) -> None: ...

    def persist_epochs(self, epochs: Epochs) -> None: ...

    def note_divergence(self, found: Mismatch) -> None:
        """This server's state is wrong, and shall not serve after a restart either."""


class Network(Protocol):
    """Reaches the other servers; nothing here waits."""

    def send(self, sid: int, frame: Frame) -> None:
        """Queues; `flush` sends."""

    def flush(self) -> None: ...

    def install_snapshot(self, sid: int) -> None:
        """Fetches a state from `sid`; the peer is told how that ends."""

    def cancel_install(self) -> None: ...

    def serve_snapshot(self, order: SnapshotOrder) -> None: ...

    def cancel_snapshot(self, sid: int) -> None: ...


class Standing(Protocol):
    """Told how this server stands in its ensemble."""

    def on_status(self, status: Status) -> None:
        """This server has found a leader, or lost it; serving follows, or has ended before."""

    def on_serving(self, status: Status) -> None:
        """Clients may be served from now on."""

    def on_resting(self) -> None:
        """Clients may no longer be served; nothing else is executed before this returns."""

    def on_members_changed(self) -> None:
        """The state holds other members of the ensemble than before."""


class Member:
    """Drives one `Peer`.

    Args:
        hand_in: gives the relay what has come in from clients, unless that should gather.
    """

    def __init__(
        self,
        *,
        sid: int,
        clock: Clock,
        peer: Peer,
        replica: Replica,
        authority: Authority,
        sessions: Callable[[], list[tuple[int, int]]],
        disk: Disk,
        network: Network,
        standing: Standing,
        hand_in: Callable[[], None],
        policy: int = 0,
        meters: Meters,
        changes: Changes | None = None,
    ) -> None:
        self.sid = sid
        self.peer = peer
        self.status = peer.status
        self._clock = clock
        self._replica = replica
        self._authority = authority
        self._sessions = sessions
        self._disk = disk
        self._network = network
        self._standing = standing
        self._hand_in = hand_in
        self._meters = meters
        self._resting_since_ms = clock.monotonic_ms()
        self.serving_since_ms = 0
        self._proposed: dict[int, ProposedBatch] = {}
        self._pumping = False
        self.relay = Relay(
            sid=sid,
            clock=clock,
            authority=authority,
            broadcast=peer,
            send=self.send,
            when_executed=replica.when_executed,
            on_proposed=self._on_proposed,
            policy=policy,
            changes=changes,
        )

    # -- inputs ----------------------------------------------------------------------------------------------

    def on_connected(self, sid: int) -> None:
        self.peer.peer_connected(Sid(sid), self._clock.monotonic_ms())

    def on_disconnected(self, sid: int) -> None:
        self.peer.peer_disconnected(Sid(sid), self._clock.monotonic_ms())

    def on_frame(self, sid: int, code: int, header: bytes, body: memoryview) -> None:
        message = PEER_PROTOCOL.decode(code, header)
        if code <= ZAB_CODE_MAX:
            received = from_wire(cast(WireMessage, message), bytes(body))
            self.peer.receive(Sid(sid), received, self._clock.monotonic_ms())
        else:
            self.relay.receive(sid, cast(ServerMessage, message), body)

    def send(self, sid: int, message: ServerMessage, body: bytes) -> None:
        code, header = PEER_PROTOCOL.encode(message)
        self._network.send(sid, encode_frame(code, header, body))

    def pump(self) -> None:
        """Hands over, then carries out, until nothing is owed."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while True:
                # Before anything is proposed: a batch that has just been executed makes room for one of all
                # servers' requests, and without its own a leader would serve its clients last.
                self._hand_in()
                self.relay.carry_on()
                goes_on = False
                while self.peer.has_news:
                    ready = self.peer.take_ready()
                    self._carry_out(ready)
                    if ready.committed or ready.status is not None or ready.confirmed_round:
                        goes_on = True
                if not goes_on:
                    break  # nothing of what was done lets anything be handed in or proposed
        finally:
            self._pumping = False

    # -- what the peer owes the world ------------------------------------------------------------------------

    def _carry_out(self, ready: Ready) -> None:
        for incident in ready.incidents:
            log.error(
                "impossible between correct servers", do="report this with all servers' logs", what=incident
            )
        if ready.mismatches or ready.disputes:
            self._note_differences(ready)
        if ready.persist_epochs is not None:
            self._disk.persist_epochs(ready.persist_epochs)
        if ready.cancel_install:
            self._network.cancel_install()
        if ready.truncate_above is not None:
            self._disk.truncate_above(ready.truncate_above)
        for proposal in ready.append:
            self._disk.append(proposal, ready.committed_zxid)
        for recipients, message in ready.messages:
            self._send_zab(recipients, message)
        if ready.messages and ready.committed:
            self._network.flush()  # execution takes its time; let the others begin theirs
        for sid in ready.cancel_snapshots:
            self._network.cancel_snapshot(sid)
        for order in ready.send_snapshot:
            self._network.serve_snapshot(order)
        if ready.install_snapshot_from is not None:
            self._network.install_snapshot(ready.install_snapshot_from)
        status = ready.status
        if status is not None and self.status.serving and not self._goes_on(status):
            self._rest()
        if ready.committed:
            self._execute(ready.committed)
        if status is not None:
            self._change(status)
        if ready.confirmed_round:
            self.relay.orders.on_confirmed(ready.confirmed_round)

    def _note_differences(self, ready: Ready) -> None:
        """The evidence, where states differ; Zab has done what is to be done."""
        self._replica.statistics.digest_mismatches += len(ready.mismatches) + len(ready.disputes)
        for found in ready.mismatches:
            if found.sid == self.sid:
                self._disk.note_divergence(found)
                event = "this server's state differs from a majority's: out of service until it has another"
            else:
                event = "a server's state differs from a majority's: it is given another"
            log.error(
                event,
                do="report this with all servers' logs; test that server's memory",
                sid=found.sid,
                zxid=hex(found.zxid),
                digest=f"{found.digest:016x}",
                majority=f"{found.agreed:016x}",
            )
        for dispute in ready.disputes:
            log.error(
                "no majority of servers has the same state: no checkpoints from now on",
                do="docs/damage.md, States that differ",
                zxid=hex(dispute.zxid),
                digests=" ".join(f"{sid}:{digest:016x}" for sid, digest in dispute.digests),
            )

    def _send_zab(self, recipients: tuple[Sid, ...], message: Message) -> None:
        record, body = to_wire(message)
        code, header = PEER_PROTOCOL.encode(record)
        frame = encode_frame(code, header, body)
        for sid in recipients:
            self._network.send(sid, frame)

    def _execute(self, proposals: Sequence[Proposal]) -> None:
        wall_ms = self._clock.wall_ms()
        for proposal in proposals:
            batch = self._proposed.pop(proposal.last_zxid, None)
            if batch is not None:
                stamp = batch.stamp
                self._replica.execute(stamp, batch.blocks)
            else:
                stamp = self._replica.execute_payload(proposal.payload)
            self._meters.note_executed(stamp.count, wall_ms - stamp.wall_ms, proposed_here=batch is not None)
            if proposal.payload.startswith(CHANGE_MAGIC):
                self._standing.on_members_changed()
        self._tell_digests()
        self.relay.orders.on_executed(proposals[-1].last_zxid)
        self.peer.note_level(self._replica.feature_level)

    @property
    def digests(self) -> Iterable[tuple[int, int]]:
        """(zxid, digest) of the latest states that were digested."""
        return self._replica.digests.kept

    def compare_when_idle(self) -> None:
        """Call it now and then: what stays as it is is compared too."""
        self._replica.digests.on_idle()
        self._tell_digests()

    def _tell_digests(self) -> None:
        for zxid, digest in self._replica.digests.take_untold():
            self.peer.note_digest(zxid, digest)

    def _on_proposed(self, last_zxid: int, batch: ProposedBatch, size: int) -> None:
        self._proposed[last_zxid] = batch
        self._replica.statistics.note_proposal(size, batch.stamp.count)

    def _rest(self) -> None:
        log.info("out of service", role=self.status.role.name.lower(), epoch=self.status.epoch)
        self._resting_since_ms = self._clock.monotonic_ms()
        self.relay.rest()
        self._proposed.clear()
        self._replica.clear_barriers()
        self._standing.on_resting()

    def _goes_on(self, status: Status) -> bool:
        """The same leader, in another epoch: clients stay, and so does what is under way."""
        before = self.status
        return (
            status.serving
            and status.role is before.role
            and status.leader == before.leader
            and status.service == before.service
        )

    def _change(self, status: Status) -> None:
        if status.role == Role.LOOKING != self.status.role:
            self._replica.statistics.looked += 1
        goes_on = self.status.serving and self._goes_on(status)
        self.status = status
        self._standing.on_status(status)
        if goes_on:
            log.info("a new epoch", epoch=status.epoch, leader=status.leader)
            return
        if not status.serving:
            return
        self.serving_since_ms = self._clock.monotonic_ms()
        for name in ("election_time", "leader_unavailable_time", "unavailable_time"):
            self._meters.note(name, self.serving_since_ms - self._resting_since_ms)
        if status.role == Role.LEADING:
            self._authority.begin(self._sessions(), self._clock.monotonic_ms())
            self.relay.lead(status.service, self.peer.last_zxid)
        else:
            assert status.leader is not None
            self.relay.follow(status.leader, status.service)
        log.info("in service", role=status.role.name.lower(), epoch=status.epoch, leader=status.leader)
        self._standing.on_serving(status)
