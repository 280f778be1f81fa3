"""What the core owes the world (`Ready`), and what it is told at birth (`Config`, `Recovered`).

How a shell drives a `coord.zab.Peer`:

    peer = Peer(config, recovered, now_ms)
    loop:
        feed it what happened, any number of calls:
            receive(sid, message, now_ms)        a message of an authenticated peer
            peer_connected / peer_disconnected   the link to a peer is up / gone
            logged(zxid) truncated(zxid) epochs_persisted(..) snapshot_installed(..)   a disk has done it
            propose(payload, count)              leader only
            note_digest(zxid, digest)            of the executed state, at the same zxids on every server
            tick(now_ms)                         not later than next_deadline_ms
        ready = peer.take_ready()                if it `has_news`, and carry all of it out

**Nothing in a `Ready` waits for anything else in it**, but for the log's own order: truncate before
append. Whatever must be durable before a message may leave was reported durable before the core hands out
that message. So the shell starts everything at once: log and epoch file in their threads, messages to the
sockets, committed batches to the tree.

**Durability comes back as an event.** Log operations (truncate_above, append, and the installation of a
snapshot) are reported in the order they were handed out, each after its fsync: `logged(zxid)` covers all
batches up to zxid, `truncated(zxid)` answers each truncate_above, `snapshot_installed(zxid)` or
`snapshot_aborted()` each install_snapshot_from. The epoch file is independent:
`epochs_persisted(accepted, current)` after each persist_epochs. A failure to persist has no report: stop
the process.

**Links.** One FIFO link per pair of servers carries the core's messages; they are dropped while there is
none. A link that lost a message must be closed, and its end reported with `peer_disconnected` before the
first message of the next; nothing queued for the old link goes to the next.

**SNAP.** Leader: `send_snapshot` names the learner and the oldest usable zxid. The shell streams the
executed state as of one zxid Z, at_least_zxid <= Z <= what it has executed, in messages of its own on the
same link, after the core's messages of this Ready, until done, or the sid is in `cancel_snapshots`, or
the link is gone. Learner: `install_snapshot_from` says that such a stream follows; the shell receives it
into a fresh generation, switches to it durably (log begins anew after Z), replaces its tree, and calls
`snapshot_installed(Z, its membership)`. The core then asks the leader for the batches after Z by itself. If
`cancel_install` is set first, the shell drops what it has and calls `snapshot_aborted()`; or, if the
switch is already under way, finishes it and calls `snapshot_installed(Z)`. Until one of the two calls the
core takes no part in elections. `snapshot_progress()` keeps a slow stream from timing out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from coord.zab.detection import FIXED, Detection, Detector, FixedTimeout, PhiAccrual
from coord.zab.digests import Dispute, Mismatch
from coord.zab.membership import Membership
from coord.zab.messages import Message, Proposal, Role, Sid


def no_membership(payload: bytes) -> Membership | None:
    """For ensembles whose membership never changes."""
    return None


@dataclass(frozen=True, slots=True)
class Config:
    """One server's view of the ensemble. Times are milliseconds, limits ticks, as in zoo.cfg."""

    sid: Sid
    membership: Membership
    """The ensemble as of `Recovered.executed_zxid`. A sole participant leads at once; a server that is no
    participant never leads.
    """
    tick_ms: int = 2000
    init_limit: int = 10
    """Ticks for connecting and synchronizing, counted anew with each sign of progress."""
    sync_limit: int = 5
    """Ticks of silence after which a learner leaves its leader and a leader drops a learner."""
    finalize_wait_ms: int = 200
    """How long a quorum of equal votes waits for a better one from peers that are connected but have not
    agreed.
    """
    discovery_timeout_ms: int = 1000
    """How long an elected leader waits for a quorum to come, and without one before its epoch is
    established.
    """
    window_bytes_max: int = 64 << 20
    """Payload bytes of committed batches kept for DIFF; learners further behind get a SNAP. Twice this
    while one runs.
    """
    outstanding_bytes_max: int = 64 << 20
    """Payload bytes proposed and not committed, at which `Peer.can_propose` turns False."""
    feature_level_max: int = 1
    """What this release knows."""
    membership_of: Callable[[bytes], Membership | None] = no_membership
    """The membership that a batch brings, told from its payload. Called once per batch: quick for all that
    bring none.
    """
    peers: Detection = FIXED
    """How participants watch each other."""
    observers: Detection = FIXED
    """How a leader watches its observers, and they it."""

    def detector(self, now_ms: int, *, observes: bool) -> Detector:
        """For a peer that is synchronized, and so says something with every heartbeat."""
        detection = self.observers if observes else self.peers
        if detection.kind == "fixed":
            return FixedTimeout(self.silence_ms, now_ms)
        return PhiAccrual(
            threshold=detection.threshold,
            heartbeat_ms=self.heartbeat_ms,
            minimum_ms=detection.minimum_ms or 2 * self.tick_ms,
            maximum_ms=self.silence_ms,
            now_ms=now_ms,
        )

    @property
    def heartbeat_ms(self) -> int:
        return max(1, self.tick_ms // 2)

    @property
    def silence_ms(self) -> int:
        return self.sync_limit * self.tick_ms

    @property
    def init_ms(self) -> int:
        return self.init_limit * self.tick_ms


@dataclass(frozen=True, slots=True)
class Recovered:
    """What start-up found on this server's disk; the default is an empty disk."""

    accepted_epoch: int = 0
    current_epoch: int = 0
    executed_zxid: int = 0
    """What the tree holds: never more than the highest zxid known committed (standalone: logged is
    committed).
    """
    after_zxid: int = 0
    """The batch just before `batches`; at most executed_zxid."""
    batches: Sequence[Proposal] = ()
    """The end of the log, in order and without gaps: at least everything above executed_zxid, and before
    it as much as window_bytes_max allows. What lies above executed_zxid counts for the vote and is handed
    out in `Ready.committed` when an epoch commits it.
    """
    history_lost: bool = False
    """There was a history and the disk has lost it: there are transactions somewhere, so nobody without any
    may decide (`coord.zab.quorum.countable`).
    """
    diverged: Mismatch | None = None
    """The state was found to differ from a quorum's, and no snapshot has replaced it."""


@dataclass(frozen=True, slots=True)
class Epochs:
    accepted: int
    current: int


@dataclass(frozen=True, slots=True)
class SnapshotOrder:
    sid: Sid
    at_least_zxid: int


@dataclass(frozen=True, slots=True)
class Status:
    """What a server shows to its clients and operators."""

    role: Role
    leader: Sid | None
    """Whom it leads or follows, None while LOOKING."""
    epoch: int
    """The leader's epoch once agreed, 0 before."""
    serving: bool
    """Clients may be served: the epoch is established and everything committed when this server joined
    has been handed out for execution (do so before the first client). On True -> False close all clients
    at once.
    """
    service: int = 0
    """The epoch in which this service began. A leader that runs out of zxids takes another epoch with the
    same followers; then `epoch` changes, and this, role and leader do not: whatever is under way between them
    goes on.
    """

    @property
    def is_led(self) -> bool:
        """It follows a leader, or is one, whose epoch is agreed: an election alone may come to nothing."""
        return self.role is not Role.LOOKING and self.epoch != 0


@dataclass(slots=True)
class Ready:
    """Work owed since the last `take_ready`, in the order of the fields where order matters."""

    persist_epochs: Epochs | None = None
    """Write both to the epoch file, atomically and fsynced; then `epochs_persisted`. Needs nothing before
    it: the history an epoch stands for was reported durable already.
    """
    truncate_above: int | None = None
    """Drop all log batches above this zxid, before `append`; fsync; then `truncated`. Never below what
    was committed.
    """
    append: Sequence[Proposal] = ()
    """Append to the log in this order, after everything handed out earlier and after `truncate_above`;
    then `logged`.
    """
    committed_zxid: int = 0
    """The highest zxid known committed: log it with the next batches (a mark; it may name a batch not
    logged here).
    """
    messages: Sequence[tuple[tuple[Sid, ...], Message]] = ()
    """Send each to its recipients, now and in this order; encode once for all recipients."""
    committed: Sequence[Proposal] = ()
    """Execute in this order. Committed by the ensemble and durable in this server's log; each is handed
    out once.
    """
    cancel_snapshots: Sequence[Sid] = ()
    """Stop streaming to these, before `send_snapshot`; one may not have begun, or be done."""
    send_snapshot: Sequence[SnapshotOrder] = ()
    """Begin to stream the state, after executing `committed`: it then covers the zxid asked for."""
    install_snapshot_from: Sid | None = None
    cancel_install: bool = False
    status: Status | None = None
    """Set when it differs from the last one handed out. If it ends serving or leadership, do that before
    executing `committed`; if it begins serving, do that after.
    """
    confirmed_round: int = 0
    """Leadership was confirmed by a quorum for all rounds of `Peer.confirm_leadership` up to this one, in
    this leadership.
    """
    incidents: Sequence[str] = field(default=())
    """Things that cannot happen between correct servers, for the event log. The core has already dealt
    with them.
    """
    mismatches: Sequence[Mismatch] = ()
    """States that differ from a quorum's: this server's, and while it leads those of others. The core has
    already dealt with it; keep the evidence.
    """
    disputes: Sequence[Dispute] = ()
    """No quorum has the same state: an alarm."""
