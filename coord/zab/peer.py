"""Zab, one server's part: election, discovery, synchronization, broadcast (Junqueira, Reed, Serafini
2011; 20.3 - 20.6).

A peer is always LOOKING, FOLLOWING or LEADING:

                    decides on another                      decides on itself
      FOLLOWING  <----------------------   LOOKING   ---------------------->  LEADING
          |      ---------------------->   election  <----------------------     |
          |        leader lost, silent,                quorum lost, someone      |
          |        gave up                             ahead, zxids used up      |
      accept epoch, be synchronized,               propose epoch, synchronize,
      log, acknowledge, execute                    propose, commit, execute

Why it is safe, in five sentences. A server accepts an epoch for one leader only, durably before it says
so, so two quorums cannot accept the same epoch for two leaders. A leader starts only with the most recent
history, by (current epoch, last zxid), among a quorum that accepted its epoch, and so with every write
that any earlier leader can have committed or ever will. Before a learner makes the epoch its current one,
all of the leader's history is durable on it, and only after that it acknowledges; until then it has a
prefix of that history and its old current epoch, which loses to any server that finished. An epoch is
established by a quorum of such acknowledgements; nothing is proposed before. What is proposed then is
committed when a quorum has logged it, and executed when it is committed and logged here.

And it stays safe while the ensemble changes (chapter 19). A change of membership is a batch like any other;
from its place in a history on a quorum of the membership before it *and* one of its own must agree - on an
epoch, on what is logged, on who still leads - until it is committed, and then its own alone. So it is
committed only when a quorum of the old one has it: a leader without it, which asks a quorum of the old one,
meets a server that is ahead and gives up; a leader with it asks a quorum of the new one, without which
nothing behind it was ever committed. A leader proposes a change only when the one before is committed, so a
history that has two need not ask for the older any more. Elections, hand-overs and what servers tell each
other of memberships are hints whom to follow: a wrong one costs time only. Observers and servers that are no
members are in no quorum; what they promise, acknowledge or lose moves nothing.

When an epoch's zxids are used up its leader hands over to itself: it and its followers go through discovery
and synchronization again, for the next epoch, with empty DIFFs. Meanwhile the service is not said to end
(`Status.service`), for no longer than it may go on under a leader that is silent.

How a server drives a peer is told in `coord.zab.ready`.
"""

from collections.abc import Iterator

from coord.zab.detection import NEVER, AwakeClock
from coord.zab.election import Election
from coord.zab.errors import NotLeadingError
from coord.zab.leader import Leader
from coord.zab.learner import Learner
from coord.zab.membership import Membership
from coord.zab.messages import AckEpoch, FollowerInfo, Message, Notification, Proposal, Role, Sid
from coord.zab.ready import Config, Ready, Recovered, Status
from coord.zab.replica import Replica


class Peer:
    """One server of the ensemble. Not thread-safe; every call is short and synchronous.

    Times are milliseconds of one monotonic clock and never go back; time in which nobody called, although a
    `tick` was due, counts for nothing (`coord.zab.detection.AwakeClock`). Calls may add to the work owed; the
    shell takes it with `take_ready` before it waits again.
    """

    def __init__(self, config: Config, recovered: Recovered, now_ms: int) -> None:
        """Starts LOOKING; a sole participant leads at once.

        Raises:
            ValueError: `recovered` contradicts itself (epochs, gaps). The server must not start.
        """
        self._config = config
        self._replica = Replica(config, recovered)
        self._awake = AwakeClock(config.heartbeat_ms, now_ms)
        self._role: Leader | Learner | None = None
        self._attempts = 0
        self._waiting: dict[Sid, FollowerInfo] = {}  # of peers that decided for us before we did
        self._status = Status(Role.LOOKING, None, 0, False)
        self._renewing_until: int | None = None
        """Until when the service goes on without an established epoch, while its leader takes another."""
        self._last_reason = "started"
        self._has_news = True
        self._election = Election(self._replica)
        self._election.start(now_ms)
        self._decide()

    # What happened.

    def receive(self, sender: Sid, message: Message, now_ms: int) -> None:
        """A message from an authenticated peer; one that is no participant may learn. Messages of another
        epoch are ignored.

        Raises:
            HistoryConflictError: the leader's history lacks what this server knows as committed. Stop the
                server.
            FeatureLevelError: the ensemble is at a level that this release does not know. Stop the server.
        """
        now_ms = self._take_note(now_ms)
        if sender == self._config.sid:
            return
        if isinstance(message, Notification):
            self._on_notification(sender, message)
        else:
            if isinstance(message, (FollowerInfo, AckEpoch)):
                self._replica.note_standing(sender, message.current_epoch, message.last_zxid)
            if self._role is not None:
                self._role.receive(sender, message, now_ms)
            if isinstance(message, FollowerInfo):
                self._on_early_follower(sender, message)
        if self._replica.leaving is not None:
            self._look()

    def peer_connected(self, sid: Sid, now_ms: int) -> None:
        """The link to `sid` is up (again): it is told our vote or our leader."""
        now_ms = self._take_note(now_ms)
        if sid == self._replica.sid:
            return
        self._replica.connected.add(sid)
        if not self._replica.installing:
            self._replica.send(sid, self._notification())

    def peer_disconnected(self, sid: Sid, now_ms: int) -> None:
        """The link is gone with all that was on it. Losing the leader starts an election at once."""
        now_ms = self._take_note(now_ms)
        replica = self._replica
        replica.connected.discard(sid)
        replica.standings.pop(sid, None)
        self._waiting.pop(sid, None)
        self._drop_messages_to(sid)
        self._election.on_disconnected(sid, self._looking, now_ms)
        if self._role is not None:
            self._role.on_disconnected(sid, now_ms)
        self._settle()

    def tick(self, now_ms: int) -> None:
        """Time has passed; needed by `next_deadline_ms`, harmless earlier. Feed received messages first."""
        now_ms = self._take_note(now_ms)
        if self._role is not None:
            self._role.tick(now_ms)
        elif self._looking:
            self._election.tick(now_ms)
        self._settle()

    def logged(self, zxid: int) -> None:
        """The log holds everything handed out up to the batch `zxid`, durably."""
        self._has_news = True
        if self._replica.history.on_logged(zxid) and self._role is not None:
            self._role.on_logged()
            if self._replica.leaving is not None:
                self._look()

    def truncated(self, zxid: int) -> None:
        """The log is cut after `zxid`, durably."""
        self._has_news = True
        self._replica.history.on_truncated()
        if self._role is not None:
            self._role.on_truncated()
        self._settle()

    def epochs_persisted(self, accepted: int, current: int, now_ms: int) -> None:
        """The epoch file holds both, durably."""
        now_ms = self._take_note(now_ms)
        self._replica.on_epochs_persisted(accepted, current)
        if self._role is not None:
            self._role.on_epochs_persisted(now_ms)
        self._settle()

    def snapshot_installed(self, zxid: int, membership: Membership, now_ms: int) -> None:
        """State and log of this server are now the leader's snapshot at `zxid`, durably; `membership` is what
        it says of the ensemble.
        """
        now_ms = self._take_note(now_ms)
        self._replica.installing = False
        self._replica.diverged = None
        self._replica.digests.replaced()
        self._replica.history.reset(zxid, membership)
        if isinstance(self._role, Learner):
            self._role.on_snapshot_installed(zxid, now_ms)
        elif self._role is None:
            self._election.start(now_ms)
        self._settle()

    def snapshot_aborted(self, now_ms: int) -> None:
        """The installation was given up; state and log are what they were."""
        now_ms = self._take_note(now_ms)
        self._replica.installing = False
        if self._role is not None:
            self._replica.leave("snapshot not installed")
        else:
            self._election.start(now_ms)
        self._settle()

    def snapshot_progress(self, now_ms: int) -> None:
        """Part of a snapshot arrived; the time limit for synchronization starts anew."""
        now_ms = self._take_note(now_ms)
        if isinstance(self._role, Learner):
            self._role.on_snapshot_progress(now_ms)

    def note_digest(self, zxid: int, digest: int) -> None:
        """The executed state has this digest of 64 bits, as of `zxid`; it is compared with the others'. All
        servers should come to digests at the same zxids; each at most once, in order.
        """
        replica = self._replica
        if replica.diverged is not None:
            return
        self._has_news = True
        mismatch = replica.digests.note(zxid, digest)
        if self._role is not None:
            self._role.on_digest(zxid, digest)
        if mismatch is not None and replica.diverged is None:
            replica.diverge(mismatch, self._role.leader if isinstance(self._role, Learner) else None)
        if replica.leaving is not None:
            self._look()

    # What the server asks for.

    def propose(self, payload: bytes, count: int) -> int:
        """Broadcasts a batch of `count` requests with zxids from `next_zxid` on; returns the first.

        Raises:
            NotLeadingError: not `can_propose`, or the epoch's zxids are used up (the peer has then given up
                leadership).
        """
        role = self._role
        if not isinstance(role, Leader) or not self.can_propose:
            raise NotLeadingError("cannot propose now")
        if role.is_changing and self._config.membership_of(payload) is not None:
            raise NotLeadingError("the change of membership before is not committed yet")
        self._has_news = True
        try:
            return role.propose(payload, count)
        finally:
            self._settle()

    @property
    def is_changing(self) -> bool:
        """A change of membership is under way; no other can be proposed before it is committed (19.4)."""
        return isinstance(self._role, Leader) and self._role.is_changing

    def can_change_to(self, membership: Membership) -> bool:
        """Whether enough servers of `membership` are synchronized with this leader to decide (19.4)."""
        return isinstance(self._role, Leader) and self._role.can_change_to(membership)

    def knows_level(self, level: int) -> bool:
        """While leading: whether all members are synchronized, and each knows this feature level."""
        return isinstance(self._role, Leader) and self._role.knows_level(level)

    def note_level(self, level: int) -> None:
        """The feature level that this server has executed; as a leader it tells its learners."""
        self._replica.feature_level = level

    def hand_over(self, now_ms: int) -> bool:
        """Gives leadership to the most recent of the followers, as soon as all that was proposed is
        committed; then everybody follows it without a vote. Until then, or until a tick has passed in vain,
        nothing can be proposed. False if this server does not lead, or nobody could take over.
        """
        now_ms = self._take_note(now_ms)
        if not isinstance(self._role, Leader):
            return False
        return self._role.hand_over()

    def note_disk(self, latency_ms: int) -> None:
        """How long this server's log takes for a write at present; the leader hears of it."""
        self._replica.disk_ms = latency_ms

    @property
    def successors_disk_ms(self) -> list[int]:
        """While leading: the same of those that could take over."""
        return [each.disk_ms for each in self._role.successors] if isinstance(self._role, Leader) else []

    def confirm_leadership(self) -> int:
        """Asks a quorum whether this leader still leads.

        Answered by `Ready.confirmed_round` at or above the returned number; never if the leadership ends
        first (then fail what waits). Calls between two `take_ready` share a round.

        Raises:
            NotLeadingError: this server does not lead an established epoch.
        """
        if not isinstance(self._role, Leader):
            raise NotLeadingError("not leading")
        self._has_news = True
        return self._role.confirm()

    def resign(self, reason: str, now_ms: int) -> None:
        """Gives up leadership or leaves the leader, and votes anew. For operators and alarms."""
        now_ms = self._take_note(now_ms)
        if self._role is not None:
            self._replica.leave(reason)
            self._settle()

    def request_snapshot(self, now_ms: int) -> None:
        """This server's state is doubtful: leave the leader and take a snapshot from the next."""
        self._replica.wants_snapshot = True
        self.resign("state is doubtful", now_ms)

    # What is owed.

    @property
    def has_news(self) -> bool:
        """Whether anything has happened since the last `take_ready`; else it would find nothing owed."""
        return self._has_news

    def take_ready(self) -> Ready:
        """Everything owed since the last call."""
        self._has_news = False
        replica, history, role = self._replica, self._replica.history, self._role
        if isinstance(role, Leader):
            role.renew_when_due()
            if replica.leaving is not None:
                self._look()
                role = self._role
        if isinstance(role, Leader):
            role.announce_commit()
            role.name_successor()
            role.send_confirmation()
        ready = Ready(
            replica.take_epochs(),
            history.take_truncate(),
            history.take_append(),
            history.committed,
            replica.messages,
            history.take_committed(),
        )
        if ready.messages:
            replica.messages = []
        if replica.confirmed_round:
            ready.confirmed_round, replica.confirmed_round = replica.confirmed_round, 0
        if replica.incidents:
            ready.incidents, replica.incidents = replica.incidents, []
        if replica.mismatches:
            ready.mismatches, replica.mismatches = replica.mismatches, []
        if replica.disputes:
            ready.disputes, replica.disputes = replica.disputes, []
        self._take_snapshot_work(ready)
        self._take_status(ready)
        return ready

    def next_deadline_ms(self) -> int:
        """`tick` is needed at this time."""
        if self._role is not None:
            deadline = self._role.deadline_ms()
            if self._renewing_until is not None:
                deadline = min(deadline, self._renewing_until)
        else:
            deadline = self._election.deadline_ms() if self._looking else NEVER
        return self._awake.wake_at_ms(deadline)

    # What it knows.

    @property
    def status(self) -> Status:
        """As last handed out by `take_ready`."""
        return self._status

    @property
    def can_propose(self) -> bool:
        """This server leads, serves (as handed out), and less than `outstanding_bytes_max` awaits its
        commit.
        """
        role, status = self._role, self._status
        return (
            isinstance(role, Leader)
            and status.serving
            and status.role is Role.LEADING
            and status.epoch == role.epoch
            and not role.is_handing_over
            and not role.is_ending
            and self._replica.history.undelivered_bytes < self._config.outstanding_bytes_max
        )

    @property
    def next_zxid(self) -> int:
        """The first zxid of the next proposal; 0 unless this server leads."""
        return self._role.next_zxid if isinstance(self._role, Leader) else 0

    @property
    def last_zxid(self) -> int:
        """The last batch appended, durable or not, committed or not."""
        return self._replica.history.last_appended

    @property
    def logged_zxid(self) -> int:
        """The last batch durable here."""
        return self._replica.history.logged

    @property
    def committed_zxid(self) -> int:
        """The last batch known committed."""
        return self._replica.history.committed

    @property
    def accepted_epoch(self) -> int:
        return self._replica.accepted_epoch

    @property
    def current_epoch(self) -> int:
        return self._replica.current_epoch

    @property
    def agreed_zxid(self) -> int:
        """The last zxid as of which this server's state is known to be that of a quorum."""
        return self._replica.digests.agreed_zxid

    @property
    def is_disputed(self) -> bool:
        """No quorum has the same state, and nothing was agreed since."""
        return self._replica.digests.is_disputed

    @property
    def has_diverged(self) -> bool:
        """This server's state differs from that of a quorum, and a snapshot has not taken its place yet."""
        return self._replica.diverged is not None

    @property
    def followers(self) -> tuple[Sid, ...]:
        """While leading an established epoch: the learners that are synchronized and connected, without
        observers.
        """
        return self._role.synced if isinstance(self._role, Leader) else ()

    @property
    def observers(self) -> tuple[Sid, ...]:
        """While leading an established epoch: the observers that are synchronized and connected."""
        return self._role.observers if isinstance(self._role, Leader) else ()

    def batches_in_memory(self) -> Iterator[tuple[int, Proposal]]:
        """The end of the history, in order; before each batch the zxid that it follows."""
        history = self._replica.history
        previous = history.floor
        for batch in history.batches_after(previous):
            yield previous, batch
            previous = batch.last_zxid

    @property
    def diffs_sent(self) -> int:
        """How many learners this server, leading, has sent what they lacked, instead of a snapshot."""
        return self._replica.diffs_sent

    @property
    def observes(self) -> bool:
        """This server is an observer of the ensemble."""
        return self._replica.observes

    def suspicions(self, now_ms: int) -> dict[Sid, float]:
        """How far those whom this role watches are suspected to be gone: a leader's learners, or a learner's
        leader. From 1 on one is convicted.
        """
        now_ms = self._awake.advance(now_ms)
        return {} if self._role is None else self._role.suspicions(now_ms)

    @property
    def stood_still_ms(self) -> int:
        """Time in which this server was not awake, and that counts for nothing."""
        return self._awake.stood_still_ms

    @property
    def membership(self) -> Membership:
        """The last one known committed here."""
        return self._replica.history.membership

    @property
    def last_reason(self) -> str:
        """Why this peer last went LOOKING, for the event log."""
        return self._last_reason

    # Between the roles.

    @property
    def _now_ms(self) -> int:
        return self._awake.now_ms

    @property
    def _looking(self) -> bool:
        """LOOKING and free to vote: not while an abandoned snapshot may still replace our history."""
        return self._role is None and not self._replica.installing

    def _take_note(self, now_ms: int) -> int:
        """Before each input that has a time: returns that time, less what counts for nothing."""
        self._has_news = True
        return self._awake.advance(now_ms)

    def _settle(self) -> None:
        """After each input: leave a role that is over, decide an election that is decided."""
        if self._replica.leaving is not None:
            self._look()
        elif self._role is None:
            self._decide()

    def _look(self) -> None:
        """Back to LOOKING. The uncommitted tail stays in the log and counts for the vote; it was never
        executed.
        """
        replica = self._replica
        assert replica.leaving is not None
        self._last_reason, replica.leaving = replica.leaving, None
        successor, replica.successor = replica.successor, None
        renewing, replica.renewing = replica.renewing, False
        if renewing and self._status.serving:
            self._renewing_until = self._now_ms + self._config.silence_ms
        role, self._role = self._role, None
        if isinstance(role, Leader):
            role.close()
        elif isinstance(role, Learner):
            self._election.forget_leader(role.leader)
            if replica.installing:
                replica.cancel_install = True
        if not self._looking:
            return
        able = replica.quorum.electable if successor == replica.sid else replica.connected
        if successor == replica.sid and replica.diverged is not None:
            able = set()
        if successor is not None and successor in able:
            self._take_role(successor, set(), renews=self._renewing_until is not None)
        else:
            self._election.start(self._now_ms)
            self._decide()

    def _decide(self) -> None:
        if not self._looking:
            return
        leader = self._election.decide(self._now_ms)
        if leader is not None:
            self._take_role(leader, self._election.elsewhere())

    def _take_role(self, leader: Sid, elsewhere: set[Sid], *, renews: bool = False) -> None:
        """Follows `leader`, or leads if that is this server; `elsewhere` are known to follow another."""
        if leader == self._replica.sid:
            waiting, self._waiting = self._waiting, {}
            self._role = Leader(self._replica, elsewhere, self._now_ms, renews=renews)
            for sid, info in waiting.items():
                self._role.receive(sid, info, self._now_ms)
        else:
            self._waiting.clear()
            self._attempts += 1
            self._role = Learner(self._replica, leader, self._attempts, self._election.round, self._now_ms)
        self._replica.broadcast(tuple(sorted(self._replica.connected)), self._notification())
        if self._replica.leaving is not None:
            self._look()

    def _notification(self) -> Notification:
        """Our vote, or the leader we have."""
        if self._role is None:
            return self._election.notification()
        current_epoch, last_zxid = self._replica.standing
        return Notification(
            self._role.role,
            self._election.round,
            self._role.leader,
            0,
            0,
            current_epoch,
            last_zxid,
            self._replica.told_membership,
        )

    def _on_notification(self, sender: Sid, heard: Notification) -> None:
        replica, role = self._replica, self._role
        if heard.membership and self._looking and replica.hear_membership(heard.membership):
            self._election.start(self._now_ms)
        replica.note_standing(sender, heard.current_epoch, heard.last_zxid)
        if heard.role != Role.FOLLOWING or heard.leader != replica.sid:
            self._waiting.pop(sender, None)
        self._election.on_notification(sender, heard, self._looking, self._now_ms)
        if isinstance(role, Leader):
            role.on_notification(sender, heard)
        elif isinstance(role, Learner) and sender == role.leader:
            role.on_notification(heard)
        if role is None:
            self._decide()
        elif heard.role == Role.LOOKING and replica.leaving is None:
            replica.send(sender, self._notification())

    def _on_early_follower(self, sender: Sid, info: FollowerInfo) -> None:
        """It decided for us: before we did (keep it), or although we follow another (tell it)."""
        if self._role is None:
            self._waiting[sender] = info
            self._decide()
        elif isinstance(self._role, Learner):
            self._replica.send(sender, self._notification())

    # Parts of take_ready.

    def _take_snapshot_work(self, ready: Ready) -> None:
        replica = self._replica
        if replica.cancel_snapshots:
            ready.cancel_snapshots, replica.cancel_snapshots = replica.cancel_snapshots, []
        if replica.send_snapshot:
            executed = replica.history.delivered
            ready.send_snapshot = [each for each in replica.send_snapshot if each.at_least_zxid <= executed]
            replica.send_snapshot = [each for each in replica.send_snapshot if each.at_least_zxid > executed]
        if replica.install_snapshot_from is not None:
            ready.install_snapshot_from, replica.install_snapshot_from = replica.install_snapshot_from, None
        if replica.cancel_install:
            ready.cancel_install, replica.cancel_install = True, False

    def _take_status(self, ready: Ready) -> None:
        role, old = self._role, self._status
        if self._renewing_until is not None and self._goes_on(role):
            return
        if role is None:
            if old.role is not Role.LOOKING:
                self._status = ready.status = Status(Role.LOOKING, None, 0, False)
            return
        serving = role.serving
        service = self._replica.service if serving else 0
        if (
            old.serving != serving
            or old.role is not role.role
            or old.epoch != role.epoch
            or old.leader != role.leader
            or old.service != service
        ):
            self._status = ready.status = Status(role.role, role.leader, role.epoch, serving, service)

    def _goes_on(self, role: Leader | Learner | None) -> bool:
        """The leader is taking another epoch: until that serves, or has come to nothing, all is as it was."""
        assert self._renewing_until is not None
        waits = role is not None and not role.serving and role.leader == self._status.leader
        if waits and self._now_ms < self._renewing_until and self._replica.diverged is None:
            return True
        self._renewing_until = None
        if isinstance(role, Leader) and waits:
            role.renews = False  # what others still send for the old service finds nobody
        return False

    def _drop_messages_to(self, sid: Sid) -> None:
        """What was owed to a link that is gone must not go to the next one."""
        messages = self._replica.messages
        if not messages:
            return
        kept = []
        for recipients, message in messages:
            rest = tuple([other for other in recipients if other != sid])
            if rest:
                kept.append((rest, message))
        self._replica.messages = kept
