"""The following side of discovery, synchronization and broadcast.

What a learner does, in the only order that is safe (each arrow a durability it waits for):

    LeaderInfo(e)     accepted epoch e  --durable-->  AckEpoch
    Diff | Truncate | Snapshot, Propose...  history is cut and appended
    NewLeader         history  --durable-->  current epoch e  --durable-->  AckNewLeader
    Propose           append  --durable-->  Ack
    UpToDate, Commit  what is committed and durable here is executed

Setting the epoch before the history is durable, or acknowledging before either is, is how data was lost
in practice (ZOOKEEPER-3911, -4643, -4646, -4685, -4785): the learner would then count, in this epoch or
in the vote for the next, for writes it does not have. Batches of epoch e that arrive while the epoch file
is written are held until it is.
"""

from enum import IntEnum, auto

from coord.zab.detection import Detector, FixedTimeout
from coord.zab.digests import Dispute
from coord.zab.errors import FeatureLevelError
from coord.zab.messages import (
    Ack,
    AckEpoch,
    AckNewLeader,
    Commit,
    Diff,
    FollowerInfo,
    HandOver,
    Heartbeat,
    HeartbeatAck,
    LeaderInfo,
    Message,
    NewLeader,
    Notification,
    Propose,
    Role,
    Sid,
    Snapshot,
    SnapshotInstalled,
    StateDigest,
    StateVerdict,
    Truncate,
    UpToDate,
)
from coord.zab.replica import Replica


class Phase(IntEnum):
    """How far this learner has come with its leader."""

    ASKING = auto()
    """FollowerInfo is sent; nothing of the leader's counts but its LeaderInfo."""
    ACCEPTING = auto()
    """The accepted epoch is being persisted."""
    WAITING = auto()
    """AckEpoch is sent; Diff, Truncate or Snapshot comes next."""
    INSTALLING = auto()
    """The server receives a snapshot."""
    SYNCING = auto()
    """Batches of the leader's initial history arrive."""
    PERSISTING = auto()
    """NewLeader has come; the history, then the current epoch are being persisted."""
    SYNCED = auto()
    """AckNewLeader is sent; batches are logged and acknowledged."""
    UP_TO_DATE = auto()
    """The epoch is established; what is committed is executed."""


class Learner:
    """One attempt to follow one leader."""

    role = Role.FOLLOWING

    def __init__(self, replica: Replica, leader: Sid, attempt: int, round: int, now_ms: int) -> None:
        self._replica = replica
        self._history = replica.history
        self.leader = leader
        self._attempt = attempt
        self._round = round
        self.epoch = 0
        self._phase = Phase.ASKING
        self._counted = False
        self._compares = False
        self._new_leader_zxid = 0
        self._serve_from_zxid = 0
        self._held: list[Propose] = []  # bounded by what the leader may have outstanding
        self._detector: Detector = FixedTimeout(replica.config.silence_ms, now_ms)
        self._progress_ms = now_ms
        current_epoch, last_zxid = replica.standing
        self._observes = replica.observes
        replica.send(
            leader,
            FollowerInfo(
                attempt,
                replica.accepted_epoch,
                current_epoch,
                last_zxid,
                self._observes,
                replica.config.feature_level_max,
            ),
        )

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def serving(self) -> bool:
        """Established, and all that was committed when we joined has been handed out for execution, on a
        state that is not known to be wrong.
        """
        return (
            self._phase is Phase.UP_TO_DATE
            and self._history.delivered >= self._serve_from_zxid
            and self._replica.diverged is None
        )

    def suspicions(self, now_ms: int) -> dict[Sid, float]:
        return {self.leader: self._detector.level(now_ms)}

    def receive(self, sender: Sid, message: Message, now_ms: int) -> None:
        if sender != self.leader:
            return
        if isinstance(message, LeaderInfo):
            self._on_leader_info(message, now_ms)
            return
        if self._phase is Phase.ASKING or getattr(message, "epoch", -1) != self.epoch:
            return  # left on the link by an earlier conversation
        self._detector.heard(now_ms)
        if isinstance(message, Propose):
            self._progress_ms = now_ms
            self._on_propose(message)
        elif isinstance(message, Commit):
            self._commit(message.zxid)
        elif isinstance(message, Heartbeat):
            self._on_heartbeat(message)
        elif isinstance(message, (Diff, Truncate, Snapshot)):
            self._progress_ms = now_ms
            self._on_sync_begins(message)
        elif isinstance(message, NewLeader):
            self._on_new_leader(message)
        elif isinstance(message, UpToDate):
            self._on_up_to_date(message, now_ms)
        elif isinstance(message, HandOver):
            self._on_hand_over(message)
        elif isinstance(message, StateVerdict):
            self._on_verdict(message)
        else:
            self._replica.incident(f"server {sender} sent its learner a {type(message).__name__}")

    def on_notification(self, heard: Notification) -> None:
        """The leader's own word on what it is doing: anything but leading ends this attempt."""
        if heard.role == Role.LEADING:
            return
        gone = heard.role == Role.FOLLOWING or heard.round > self._round or heard.leader != self.leader
        if gone or self._phase > Phase.ASKING:
            self._replica.leave(f"server {self.leader} does not lead any more")

    # Discovery.

    def _on_leader_info(self, message: LeaderInfo, now_ms: int) -> None:
        replica = self._replica
        if message.attempt != self._attempt or self._phase is not Phase.ASKING:
            return
        if message.epoch < replica.accepted_epoch:
            replica.leave(f"epoch {message.epoch} of server {self.leader} is below {replica.accepted_epoch}")
            return
        known = replica.config.feature_level_max
        if message.feature_level > known:
            raise FeatureLevelError(
                f"the ensemble is at feature level {message.feature_level}, and this release knows up to "
                f"{known}: run the release of the other servers"
            )
        self.epoch = message.epoch
        self._observes = message.observes
        self._compares = message.compares
        self._detector.heard(now_ms)
        self._progress_ms = now_ms
        if message.epoch > replica.accepted_epoch:
            replica.accept_epoch(message.epoch, self.leader)
        self._counted = replica.has_voice and replica.promised_to == self.leader
        self._phase = Phase.ACCEPTING
        self._ack_epoch()

    def _ack_epoch(self) -> None:
        replica = self._replica
        if self._phase is Phase.ACCEPTING and replica.durable_accepted >= self.epoch:
            self._phase = Phase.WAITING
            current_epoch, last_zxid = replica.standing
            replica.send(
                self.leader,
                AckEpoch(self.epoch, current_epoch, last_zxid, self._counted, replica.wants_snapshot),
            )

    # Synchronization.

    def _on_sync_begins(self, message: Diff | Truncate | Snapshot) -> None:
        if self._phase is not Phase.WAITING:
            self._replica.incident(f"{type(message).__name__} in phase {self._phase.name}")
            self._replica.leave("synchronization out of order")
            return
        if isinstance(message, Snapshot):
            self._phase = Phase.INSTALLING
            self._replica.installing = True
            self._replica.install_snapshot_from = self.leader
            return
        self._phase = Phase.SYNCING
        if isinstance(message, Truncate):
            self._truncate(message.zxid)

    def _truncate(self, zxid: int) -> None:
        history = self._history
        if zxid >= history.committed and not history.has_boundary(zxid):
            # Cannot be between correct servers; the whole state heals it.
            self._replica.incident(f"told to truncate to {zxid:#x}, which this history does not have")
            self._replica.wants_snapshot = True
            self._replica.leave("histories do not meet")
            return
        history.truncate(zxid)

    def on_snapshot_installed(self, zxid: int, now_ms: int) -> None:
        if self._phase is Phase.INSTALLING:
            self._phase = Phase.WAITING
            self._progress_ms = now_ms
            self._replica.wants_snapshot = False
            self._replica.send(self.leader, SnapshotInstalled(self.epoch, zxid))

    def on_snapshot_progress(self, now_ms: int) -> None:
        self._progress_ms = now_ms

    def _on_propose(self, message: Propose) -> None:
        if self._phase is Phase.PERSISTING:
            self._held.append(message)
        elif self._phase >= Phase.SYNCING:
            self._append(message)
        else:
            self._replica.incident(f"Propose in phase {self._phase.name}")

    def _append(self, message: Propose) -> None:
        replica, batch = self._replica, message.proposal
        if replica.follows_last(message.previous_zxid, batch):
            self._history.append(batch)
        elif batch.last_zxid <= self._history.last_appended:
            # A repetition is harmless (chapter 21, lesson 2), if it is one.
            if batch.last_zxid >= self._history.floor and not self._history.has_boundary(batch.last_zxid):
                replica.incident(f"batch {batch.last_zxid:#x} is not in this history but below its end")
                replica.leave("the leader's history differs")
        else:
            last = self._history.last_appended
            replica.incident(
                f"batch {batch.first_zxid:#x} after {message.previous_zxid:#x} does not follow {last:#x}"
            )
            replica.leave("a batch is missing")
        if self._phase is Phase.UP_TO_DATE and replica.leaving is None:
            self._commit(message.committed_zxid)

    def _on_new_leader(self, message: NewLeader) -> None:
        if self._phase is not Phase.SYNCING or message.last_zxid > self._history.last_appended:
            self._replica.incident(
                f"NewLeader at {message.last_zxid:#x} in phase {self._phase.name}, "
                f"history at {self._history.last_appended:#x}"
            )
            self._replica.leave("synchronization out of order")
            return
        self._phase = Phase.PERSISTING
        self._new_leader_zxid = self._history.last_appended
        self._advance()

    def _advance(self) -> None:
        """History durable, then epoch durable, then acknowledge: each step when the one before was
        reported.
        """
        replica = self._replica
        if self._phase is not Phase.PERSISTING or not self._history.durable_through(self._new_leader_zxid):
            return
        replica.begin_epoch(self.epoch)
        if replica.durable_current < self.epoch:
            return
        self._phase = Phase.SYNCED
        replica.send(self.leader, AckNewLeader(self.epoch))
        if self._history.logged > 0:
            self._ack_logged()
        held, self._held = self._held, []
        for message in held:
            if replica.leaving is None:
                self._append(message)

    # Broadcast.

    def _on_up_to_date(self, message: UpToDate, now_ms: int) -> None:
        if self._phase is not Phase.SYNCED:
            self._replica.incident(f"UpToDate in phase {self._phase.name}")
            return
        self._phase = Phase.UP_TO_DATE
        self._detector = self._replica.config.detector(now_ms, observes=self._observes)
        self._serve_from_zxid = message.committed_zxid
        self._replica.service = message.service
        self._commit(message.committed_zxid)
        replica = self._replica
        if replica.diverged is not None:
            # Its log was needed to establish the epoch. Only now there is somebody to give it a state.
            replica.fetch_state(self.leader)
        elif replica.digests.latest is not None:
            self.on_digest(*replica.digests.latest)

    def _commit(self, zxid: int) -> None:
        history = self._history
        if zxid <= history.committed or self._phase is not Phase.UP_TO_DATE:
            return
        if zxid > history.last_appended or not history.has_boundary(zxid):
            self._replica.incident(f"commit of {zxid:#x}, history at {history.last_appended:#x}")
            self._replica.leave("a committed batch is missing")
            return
        before = history.membership
        history.commit(zxid)
        if history.membership is not before:
            self._check_role()

    def _check_role(self) -> None:
        """The other role gets batches at another moment: the learner comes anew."""
        sid, membership = self._replica.sid, self._history.membership
        if sid in (membership.participants if self._observes else membership.observers):
            self._replica.leave("its role in the ensemble has changed")

    def _on_hand_over(self, message: HandOver) -> None:
        """The leader has proposed nothing that we do not have: whoever it names leads without a vote."""
        self._replica.successor = Sid(message.successor)
        self._replica.renewing = message.successor == self.leader
        self._replica.leave(f"server {self.leader} hands over to server {message.successor}")

    def _on_heartbeat(self, message: Heartbeat) -> None:
        if self._phase > Phase.ACCEPTING:
            self._replica.send(self.leader, HeartbeatAck(self.epoch, message.serial, self._replica.disk_ms))
        self._commit(message.committed_zxid)

    # Comparison of states.

    def on_digest(self, zxid: int, digest: int) -> None:
        if self._compares and self._phase is Phase.UP_TO_DATE:
            self._replica.send(self.leader, StateDigest(self.epoch, zxid, digest))

    def _on_verdict(self, message: StateVerdict) -> None:
        digests = self._replica.digests
        if not message.agreed:
            digests.dispute(message.zxid)
            self._replica.disputes.append(Dispute(message.zxid))
            return
        mismatch = digests.judge(message.zxid, message.digest)
        if mismatch is not None:
            self._replica.diverge(mismatch, self.leader)

    # Durability and time.

    def on_logged(self) -> None:
        if self._phase >= Phase.SYNCED:
            self._ack_logged()
        else:
            self._advance()

    def _ack_logged(self) -> None:
        if not self._observes:
            self._replica.send(self.leader, Ack(self.epoch, self._history.logged))

    def on_truncated(self) -> None:
        self._advance()

    def on_epochs_persisted(self, now_ms: int) -> None:
        self._ack_epoch()
        self._advance()

    def on_disconnected(self, sid: Sid, now_ms: int) -> None:
        if sid == self.leader:
            self._replica.leave(f"link to leader {sid} lost")

    def tick(self, now_ms: int) -> None:
        if now_ms >= self.deadline_ms():
            silent = now_ms - self._detector.heard_ms
            self._replica.leave(f"leader {self.leader} silent for {silent} ms in phase {self._phase.name}")

    def deadline_ms(self) -> int:
        config = self._replica.config
        if self._phase is Phase.ASKING:
            # Well above the leader's own limit and an fsync: it tells us when it gives up; this is for
            # one that cannot.
            return self._detector.heard_ms + 2 * config.discovery_timeout_ms + config.tick_ms
        silence = self._detector.deadline_ms
        if self._phase is Phase.UP_TO_DATE:
            return silence
        return min(silence, self._progress_ms + config.init_ms)
