"""The leading side of discovery, synchronization and broadcast.

    DISCOVERING   waits for FollowerInfo of a quorum, then takes an epoch above all it heard of
    ACCEPTING     the epoch is durable here, then LeaderInfo goes out; waits for a quorum of AckEpoch
    SYNCING       brings everybody who acked the epoch to its own history; waits for a quorum of AckNewLeader,
                  its own (history durable, current epoch durable) included
    ESTABLISHED   the history is committed; proposes, commits what a quorum has logged

A learner joins the broadcast in the same step in which its synchronization is computed, so whoever acked
the epoch gets every batch, in order, once: from the window or from the broadcast (chapter 21, lesson 1).

Nobody counts but by `countable`. A learner that had no history when it came counts from a later moment
only: it has acknowledged NewLeader, *and* a quorum without it has confirmed this leadership since. For
with its disk it lost its promises, and might have promised a later epoch to another leader before.
"""

from enum import IntEnum, auto

from coord.zab.confirmation import Confirmation
from coord.zab.detection import NEVER, FixedTimeout
from coord.zab.errors import NotLeadingError
from coord.zab.feed import Feed
from coord.zab.follower import Follower, Progress
from coord.zab.followers import Followers
from coord.zab.handing_over import HandingOver, best_successor
from coord.zab.membership import Membership
from coord.zab.messages import (
    COUNTER_MAX,
    EPOCH_MAX,
    Ack,
    AckEpoch,
    AckNewLeader,
    FollowerInfo,
    HandOver,
    Heartbeat,
    HeartbeatAck,
    LeaderInfo,
    Message,
    Notification,
    Proposal,
    Role,
    Sid,
    SnapshotInstalled,
    StateDigest,
    UpToDate,
    counter_of,
    epoch_of,
    make_zxid,
)
from coord.zab.quorum import Standing
from coord.zab.replica import Replica
from coord.zab.support import Support
from coord.zab.verdicts import Verdicts

RESERVE_MIN = 8
RESERVE_SHIFT = 12
"""This part of an epoch's zxids is kept back: more than any batch needs."""


class Phase(IntEnum):
    DISCOVERING = auto()
    ACCEPTING = auto()
    SYNCING = auto()
    ESTABLISHED = auto()


class Leader:
    """One leadership, from being elected to giving up."""

    role = Role.LEADING

    def __init__(self, replica: Replica, elsewhere: set[Sid], now_ms: int, *, renews: bool = False) -> None:
        """`elsewhere`: servers known to have another leader. `renews`: it goes on with the service of its
        epoch before.
        """
        self.renews = renews
        self._replica = replica
        self._history = replica.history
        self.leader = replica.sid
        self.epoch = 0
        self._phase = Phase.DISCOVERING
        self._followers = Followers()
        self._feed = Feed(replica, self._followers)
        self._elsewhere = elsewhere
        self._initial_standing = replica.standing
        self._initial_last = replica.history.last_appended
        self._epoch_announced = False
        self._self_acked = False
        self._confirmation = Confirmation(replica)
        self._verdicts = Verdicts(replica, self._followers)
        self._handing_over = HandingOver(replica)
        self._heartbeat_at = now_ms + replica.config.heartbeat_ms
        self._support = Support(now_ms + replica.config.discovery_timeout_ms)
        self._now_ms = now_ms
        self._comfortable_max = COUNTER_MAX - max(RESERVE_MIN, COUNTER_MAX >> RESERVE_SHIFT)
        self._choose_epoch()

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def serving(self) -> bool:
        return self._phase is Phase.ESTABLISHED and self._history.delivered >= self._initial_last

    @property
    def synced(self) -> tuple[Sid, ...]:
        return self._followers.up_to_date

    @property
    def observers(self) -> tuple[Sid, ...]:
        return self._followers.synced_observers

    def suspicions(self, now_ms: int) -> dict[Sid, float]:
        return {each.sid: each.detector.level(now_ms) for each in self._followers}

    def receive(self, sender: Sid, message: Message, now_ms: int) -> None:
        self._now_ms = now_ms
        if isinstance(message, FollowerInfo):
            self._on_follower_info(sender, message)
            return
        follower = self._followers.get(sender)
        if follower is None or getattr(message, "epoch", -1) != self.epoch:
            return  # of an earlier conversation
        follower.detector.heard(now_ms)
        if isinstance(message, Ack):
            self._on_ack(follower, message)
        elif isinstance(message, HeartbeatAck):
            self._on_heartbeat_ack(follower, message)
        elif isinstance(message, AckEpoch):
            self._on_ack_epoch(follower, message)
        elif isinstance(message, AckNewLeader):
            self._on_ack_new_leader(follower)
        elif isinstance(message, SnapshotInstalled):
            self._on_snapshot_installed(follower, message)
        elif isinstance(message, StateDigest):
            self._verdicts.on_state_digest(follower, message)
        else:
            self._replica.incident(f"server {sender} sent its leader a {type(message).__name__}")

    def on_notification(self, sender: Sid, heard: Notification) -> None:
        """A learner that votes, or follows another, has left us. When too few are left, giving up at once
        beats waiting for them.
        """
        if heard.role == Role.LEADING and sender == self._handing_over.successor:
            self._leave_to(sender)
            return
        self._elsewhere.discard(sender)
        if heard.role == Role.FOLLOWING and heard.leader == self.leader:
            return
        self._drop(sender)
        if heard.role == Role.LOOKING:
            return
        self._elsewhere.add(sender)
        within_reach = self._replica.quorum.participants - self._elsewhere
        if not self._replica.quorum.contains(within_reach):
            self._replica.leave("a quorum has other leaders")

    # Discovery.

    def _on_follower_info(self, sender: Sid, info: FollowerInfo) -> None:
        self._drop(sender)
        detector = FixedTimeout(self._replica.config.silence_ms, self._now_ms)
        follower = Follower(sender, info, detector)
        self._followers.add(follower)
        # While its vote is taken away it still has it: the old quorum is needed too.
        follower.observes = sender not in self._replica.quorum.participants and (
            info.observes or sender in self._history.newest_membership.observers
        )
        if self._phase is Phase.DISCOVERING:
            self._choose_epoch()
        elif sender not in self._replica.quorum.participants:
            if self._phase >= Phase.SYNCING:
                self._replica.send(sender, self._info_for(follower))
        elif info.accepted_epoch > self.epoch:
            # It can never follow us. A quorum was asked for that epoch, so this is no lone server's noise.
            self._replica.leave(
                f"server {sender} has accepted epoch {info.accepted_epoch}, above {self.epoch}"
            )
        elif self._epoch_announced:
            self._replica.send(sender, self._info_for(follower))

    def _info_for(self, follower: Follower) -> LeaderInfo:
        level = self._replica.feature_level
        return LeaderInfo(follower.attempt, self.epoch, follower.observes, level, compares=True)

    def knows_level(self, level: int) -> bool:
        """Are all members here, and does each know this feature level?"""
        known = {self._replica.sid} if level <= self._replica.config.feature_level_max else set()
        known |= {
            each.sid
            for each in self._followers
            if each.progress is Progress.SYNCED and each.feature_level >= level
        }
        return self._history.membership.members <= known

    def _choose_epoch(self) -> None:
        replica = self._replica
        answered = {replica.sid, *self._followers.sids}
        if not replica.quorum.contains(answered & replica.countable()):
            return
        accepted = [replica.accepted_epoch, *[each.accepted_epoch for each in self._followers]]
        self.epoch = max(accepted) + 1
        self._feed.epoch = self.epoch
        if self.epoch > EPOCH_MAX:
            replica.incident(f"epoch {self.epoch} is more than zxids can hold")
            replica.leave("epochs used up")
            return
        self._phase = Phase.ACCEPTING
        self._support.allow_until(self._now_ms + replica.config.init_ms)  # disks take part from here on
        replica.accept_epoch(self.epoch, replica.sid)

    def _announce_epoch(self) -> None:
        """The leader's own promise is durable; it may ask others for theirs."""
        if self._phase is not Phase.ACCEPTING or self._epoch_announced:
            return
        if self._replica.durable_accepted < self.epoch:
            return
        self._epoch_announced = True
        self._tell_epoch(voters=True)
        self._check_accepted()

    def _tell_epoch(self, *, voters: bool) -> None:
        """First to voters; to the others when a quorum has accepted the epoch. Else they might promise one
        that comes to nothing, and could follow nobody until the ensemble's next.
        """
        for follower in self._followers:
            if (follower.sid in self._replica.quorum.participants) == voters:
                self._replica.send(follower.sid, self._info_for(follower))

    def _on_ack_epoch(self, follower: Follower, ack: AckEpoch) -> None:
        if follower.progress is not Progress.INFORMED:
            self._replica.incident(f"AckEpoch of server {follower.sid} in {follower.progress.name}")
            return
        follower.standing = Standing(ack.current_epoch, ack.last_zxid)
        # Of one that may not lead nothing was ever counted: what it has in excess is cut.
        electable = follower.sid in self._replica.quorum.electable
        ahead = electable and follower.standing > self._initial_standing
        # Nor may one lead whose state is in doubt: the others have to agree on the epoch without it, and
        # then what it has in excess was not committed.
        spoils = ahead and not ack.wants_snapshot
        if self._phase is not Phase.ESTABLISHED and spoils:
            self._replica.leave(f"server {follower.sid} has a more recent history")
            return
        follower.progress = Progress.ACCEPTED
        follower.promised = ack.counted and not ahead
        follower.wants_snapshot = ack.wants_snapshot
        follower.voice = follower.sid in self._replica.countable()
        if self._phase >= Phase.SYNCING:
            self._feed.begin(follower)
            self._check_support()
        else:
            self._check_accepted()
            self._check_support()

    def _check_accepted(self) -> None:
        replica = self._replica
        accepted = {each.sid for each in self._followers if each.promised}
        if not replica.quorum.contains((accepted | {replica.sid}) & replica.countable()):
            return
        self._phase = Phase.SYNCING
        self._support.allow_until(self._now_ms + replica.config.init_ms)
        self._tell_epoch(voters=False)
        self._synchronize_accepted()
        self._persist_epoch()

    # Synchronization.

    def _synchronize_accepted(self) -> None:
        for follower in self._followers:
            if follower.progress is Progress.ACCEPTED:
                self._feed.begin(follower)

    def _on_snapshot_installed(self, follower: Follower, message: SnapshotInstalled) -> None:
        if follower.progress is not Progress.SNAPSHOT:
            self._replica.incident(f"SnapshotInstalled of server {follower.sid} in {follower.progress.name}")
        elif not self._feed.on_snapshot_installed(follower, message):
            self._drop(follower.sid)

    def _persist_epoch(self) -> None:
        """The leader's own acknowledgement of NewLeader: history durable, then epoch durable."""
        if self._phase is not Phase.SYNCING or self._self_acked:
            return
        if not self._history.durable_through(self._initial_last):
            return
        self._replica.begin_epoch(self.epoch)
        if self._replica.durable_current >= self.epoch:
            self._self_acked = True
            self._check_established()

    def _on_ack_new_leader(self, follower: Follower) -> None:
        if follower.progress is not Progress.JOINED:
            self._replica.incident(f"AckNewLeader of server {follower.sid} in {follower.progress.name}")
            return
        follower.progress = Progress.SYNCED
        follower.detector = self._replica.config.detector(self._now_ms, observes=follower.observes)
        follower.logged = self._initial_last
        if follower.voice:
            follower.counts = True
        else:
            follower.counts_from_serial = self._confirmation.ask()
        self._followers.refresh()
        if self._phase is Phase.ESTABLISHED:
            self._feed.inform()
            self._replica.send(
                follower.sid, UpToDate(self.epoch, self._history.committed, self._replica.service)
            )
            self._check_support()
        else:
            self._check_established()

    def _check_established(self) -> None:
        if self._phase is not Phase.SYNCING or not self._self_acked or not self._has_support():
            return
        self._phase = Phase.ESTABLISHED
        if not self.renews:
            self._replica.service = self.epoch
        self._support.allow_until(NEVER)
        self._check_support()
        before = self._history.membership
        self._history.commit(self._initial_last)
        self._feed.on_established()
        self._followers.established = True
        self._followers.refresh()
        self._replica.broadcast(
            self._followers.up_to_date, UpToDate(self.epoch, self._initial_last, self._replica.service)
        )
        self._synchronize_accepted()
        if self._history.membership is not before:
            self._on_membership_changed()
        for zxid, digest in tuple(self._replica.digests):
            self.on_digest(zxid, digest)

    # Broadcast.

    @property
    def next_zxid(self) -> int:
        last = self._history.last_appended
        return last + 1 if epoch_of(last) == self.epoch else make_zxid(self.epoch, 1)

    def propose(self, payload: bytes, count: int) -> int:
        if self._phase is not Phase.ESTABLISHED:
            raise NotLeadingError("the epoch is not established")
        history = self._history
        previous = history.last_appended
        first = previous + 1 if previous >> 32 == self.epoch else make_zxid(self.epoch, 1)
        if counter_of(first) + count - 1 > COUNTER_MAX or counter_of(first) == 0:
            self._replica.leave(f"epoch {self.epoch} has used up its zxids")
            raise NotLeadingError("the epoch has used up its zxids")
        batch = Proposal(first, first + count - 1, payload)
        history.append(batch)
        self._feed.propose(previous, batch)
        return first

    def _on_ack(self, follower: Follower, ack: Ack) -> None:
        if ack.zxid <= follower.logged:
            return
        if follower.progress is not Progress.SYNCED or ack.zxid > self._history.last_appended:
            self._replica.incident(
                f"server {follower.sid} in {follower.progress.name} acked {ack.zxid:#x}, "
                f"history at {self._history.last_appended:#x}"
            )
            return
        follower.logged = ack.zxid
        self._advance_commit()

    def _advance_commit(self) -> None:
        """Commits what a quorum has logged, this server counted like the others: only once it is durable."""
        if self._phase is not Phase.ESTABLISHED:
            return
        history = self._history
        logged = {each.sid: each.logged for each in self._followers if each.counts}
        logged[self._replica.sid] = history.logged
        zxid = history.quorum.logged_by_quorum(logged)
        if history.pending:
            zxid = max(zxid, self._logged_before_change(logged))
        if zxid <= history.committed:
            return
        before = history.membership
        history.commit(zxid)
        if history.membership is not before:
            self._on_membership_changed()
            self._advance_commit()  # what follows needs the new quorum only

    def _logged_before_change(self, logged: dict[Sid, int]) -> int:
        """What stands before a change of membership needs the old quorum only."""
        history = self._history
        change_zxid = history.pending[0][0]
        old = history.membership.quorum.logged_by_quorum(logged)
        return history.boundary_at_or_below(min(old, change_zxid - 1))

    # Changes of membership.

    @property
    def is_changing(self) -> bool:
        """A change is proposed and not committed; until then no other may be (19.4)."""
        return bool(self._history.pending)

    def can_change_to(self, membership: Membership) -> bool:
        """Is a quorum of it synchronized with this leader (19.4)? Else its commit might never come."""
        return membership.quorum.contains(self._followers.counting | {self._replica.sid})

    def _on_membership_changed(self) -> None:
        """The new membership alone decides from here on."""
        self._followers.refresh()
        self._check_support()
        if self._replica.sid not in self._replica.quorum.electable and not self.hand_over():
            self._replica.leave("it is no participant any more, and nobody can take over at once")

    # A new epoch for the same service.

    @property
    def is_ending(self) -> bool:
        """Its epoch has hardly any zxids left: nothing more is proposed in it."""
        return self._history.last_appended > (self.epoch << 32) + self._comfortable_max

    def renew_when_due(self) -> None:
        """Called once per `take_ready`: when all is committed, this leader and whoever follows it begin anew
        with each other, as after an election; nobody votes, and nothing that waits is forgotten.
        """
        history = self._history
        if self._phase is not Phase.ESTABLISHED or not self.is_ending:
            return
        if history.committed < history.last_appended:
            return
        self.announce_commit()
        replica = self._replica
        followers = self._followers
        replica.broadcast((*followers.joined, *followers.observers), HandOver(self.epoch, replica.sid))
        replica.successor = replica.sid
        replica.renewing = True
        replica.leave(f"epoch {self.epoch} has used up its zxids")

    # Handing over.

    @property
    def is_handing_over(self) -> bool:
        return self._handing_over.is_under_way

    def hand_over(self) -> bool:
        """Proposes nothing more, and gives leadership to a follower as soon as that one has everything. False
        if there is none that could lead.
        """
        if self._phase is not Phase.ESTABLISHED or best_successor(self.successors) is None:
            return False
        self._handing_over.begin(self._now_ms)
        return True

    @property
    def successors(self) -> list[Follower]:
        """Who could take over."""
        return self._followers.successors(self._replica.quorum.electable)

    def name_successor(self) -> None:
        """Called once per `take_ready`: the successor is named when it is time."""
        best = best_successor(self.successors) if self._handing_over.is_under_way else None
        if best is not None and self._handing_over.is_complete(best):
            self._handing_over.successor = best.sid
            self.announce_commit()
            self._replica.send(best.sid, HandOver(self.epoch, best.sid))

    def _leave_to(self, successor: Sid) -> None:
        """It leads: whoever followed us follows it."""
        others = tuple(
            sid for sid in (*self._followers.joined, *self._followers.observers) if sid != successor
        )
        self._replica.broadcast(others, HandOver(self.epoch, successor))
        self._replica.successor = successor
        self._replica.leave(f"hands over to server {successor}")

    def announce_commit(self) -> None:
        """Called once per `take_ready`."""
        self._feed.announce_commit()

    # Confirmation of leadership.

    def confirm(self) -> int:
        """A round that has not begun yet; see `Peer.confirm_leadership`."""
        if self._phase is not Phase.ESTABLISHED and not self.renews:
            raise NotLeadingError("the epoch is not established")
        return self._confirmation.ask()

    def send_confirmation(self) -> None:
        """Called once per `take_ready`: begins the round asked for."""
        if self._confirmation.begin():
            self._send_heartbeat()
            self._check_confirmed()

    def _send_heartbeat(self) -> None:
        self._feed.inform()
        replica = self._replica
        recipients = self._followers.sids if self._epoch_announced else ()
        replica.broadcast(recipients, Heartbeat(self.epoch, replica.confirm_serial, self._history.committed))
        self._heartbeat_at = self._now_ms + replica.config.heartbeat_ms

    def _on_heartbeat_ack(self, follower: Follower, ack: HeartbeatAck) -> None:
        follower.disk_ms = ack.disk_ms
        if ack.serial > follower.echoed_serial:
            follower.echoed_serial = min(ack.serial, self._confirmation.begun_serial)
            self._check_confirmed()

    def _check_confirmed(self) -> None:
        """By servers with a voice: one that lost its disk cannot say that it promised nobody else."""
        if not self._confirmation.check(
            {each.sid: each.echoed_serial for each in self._followers if each.voice}
        ):
            return
        serial = self._confirmation.confirmed_serial
        if self._phase is Phase.ESTABLISHED:
            self._replica.confirmed_round = serial
        for follower in self._followers:
            if follower.progress is Progress.SYNCED and not follower.counts:
                self._admit(follower, serial)

    def _admit(self, follower: Follower, serial: int) -> None:
        """A server that came without history is synchronized and the leadership was confirmed without it."""
        if 0 < follower.counts_from_serial <= serial:
            follower.counts = True
            follower.voice = True
            self._check_established()
            self._check_support()
            self._advance_commit()

    # Comparison of states.

    def on_digest(self, zxid: int, digest: int) -> None:
        if self._phase is Phase.ESTABLISHED:
            self._verdicts.compare(self.epoch, self._replica.sid, zxid, digest)

    # Followers come and go.

    def on_disconnected(self, sid: Sid, now_ms: int) -> None:
        self._now_ms = now_ms
        self._drop(sid)

    def _drop(self, sid: Sid) -> None:
        follower = self._followers.pop(sid)
        if follower is None:
            return
        self._history.unpin(sid)
        self._verdicts.forget(sid)
        if follower.progress is Progress.SNAPSHOT:
            replica = self._replica
            replica.send_snapshot = [order for order in replica.send_snapshot if order.sid != sid]
            replica.cancel_snapshots.append(sid)
        self._followers.refresh()
        self._check_support()

    def _has_support(self) -> bool:
        mine = {self._replica.sid} & self._replica.countable()
        return self._replica.quorum.contains(self._followers.counting | mine)

    def _is_followed(self) -> bool:
        """Established: is a quorum here that counts, or is about to, with a snapshot perhaps? That may take
        its time; without those that count nothing is committed meanwhile.
        """
        mine = {self._replica.sid} & self._replica.countable()
        return self._replica.quorum.contains(self._followers.staying | mine)

    def _check_support(self) -> None:
        """Is there still a quorum to count on? Established, it has one tick to come back; before, no
        longer than discovery takes, and nobody is waited for who acked the epoch without a vote for it.
        """
        replica = self._replica
        if self._phase is Phase.ESTABLISHED:
            found, patience_ms = self._is_followed(), replica.config.tick_ms
        elif self._phase is Phase.DISCOVERING:
            return
        else:
            in_vain = {
                each.sid
                for each in self._followers
                if each.progress > Progress.INFORMED and not each.promised
            }
            hopeful = set(self._followers.sids) - in_vain | {replica.sid}
            found, patience_ms = replica.quorum.contains(hopeful), replica.config.discovery_timeout_ms
        self._support.note(found=found, now_ms=self._now_ms, patience_ms=patience_ms)

    def close(self) -> None:
        """The leadership is over."""
        for sid in self._followers.sids:
            self._drop(sid)

    # Durability and time.

    def on_logged(self) -> None:
        self._persist_epoch()
        self._advance_commit()

    def on_truncated(self) -> None:
        self._persist_epoch()

    def on_epochs_persisted(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self._announce_epoch()
        self._persist_epoch()

    def tick(self, now_ms: int) -> None:
        self._now_ms = now_ms
        silent = [each for each in self._followers if now_ms >= each.detector.deadline_ms]
        for each in silent:
            self._drop(each.sid)
        if silent and self._phase is Phase.ESTABLISHED and not self._is_followed():
            silence_ms = min(now_ms - each.detector.heard_ms for each in silent)
            self._replica.leave(f"no quorum heard for {silence_ms} ms")
        elif now_ms >= self._limit_ms():
            self._replica.leave(f"no quorum of followers in {self._phase.name}")
        elif now_ms >= self._hand_over_deadline_ms():
            self._handing_over.give_up()
        elif now_ms >= self._heartbeat_at:
            self._send_heartbeat()
            self._verdicts.raise_disputes(self.epoch)

    def _limit_ms(self) -> int:
        """When this leadership ends if nothing changes."""
        # A learner watches the progress of its snapshot itself.
        sends = self._phase is Phase.SYNCING and any(
            each.progress is Progress.SNAPSHOT for each in self._followers
        )
        return self._support.limit_ms(takes_its_time=sends)

    def _hand_over_deadline_ms(self) -> int:
        until_ms = self._handing_over.until_ms
        return NEVER if until_ms is None else until_ms

    def deadline_ms(self) -> int:
        deadline = min(self._heartbeat_at, self._limit_ms(), self._hand_over_deadline_ms())
        for follower in self._followers:
            deadline = min(deadline, follower.detector.deadline_ms)
        return deadline
