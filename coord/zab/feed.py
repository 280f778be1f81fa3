"""What learners are sent of a leader's history: first what each lacks, then every batch, then its commit.

Who votes gets a batch when it is proposed, an observer when it is committed, in a Propose that commits it.
"""

from coord.zab import synchronization
from coord.zab.follower import Follower, Progress
from coord.zab.followers import Followers
from coord.zab.messages import Commit, Diff, Proposal, Propose, Snapshot, SnapshotInstalled
from coord.zab.ready import SnapshotOrder
from coord.zab.replica import Replica


class Feed:
    """That of one leadership.

    Attributes:
        epoch: of the leadership, once it is chosen.
    """

    def __init__(self, replica: Replica, followers: Followers) -> None:
        self._replica = replica
        self._history = replica.history
        self._followers = followers
        self._initial_last = replica.history.last_appended
        self._informed = 0
        """What all observers have been sent; kept up only while there are any."""
        self._announced_commit = 0
        self.epoch = 0

    # Synchronization.

    def begin(self, follower: Follower) -> None:
        """The learner is given what it lacks of this history, or the state."""
        established = self._followers.established
        if follower.observes and not established:
            return  # nothing is known committed yet
        if follower.wants_snapshot and established:
            # Not before: the snapshot must hold all that this server ever acknowledged, else a crash right
            # after its installation would take an acknowledgement back.
            self._send_snapshot(follower, self._history.committed)
            return
        history = self._history
        end_zxid = history.committed if follower.observes else history.last_appended
        begun = synchronization.begin(history, self.epoch, follower.standing.last_zxid, end_zxid)
        if begun is None:
            self._send_snapshot(follower, self._history.floor)
            return
        message, common = begun
        self._replica.diffs_sent += 1
        self._replica.send(follower.sid, message)
        self.join(follower, common)

    def _send_snapshot(self, follower: Follower, at_least_zxid: int) -> None:
        follower.progress = Progress.SNAPSHOT
        self._history.pin(follower.sid, at_least_zxid)
        self._replica.send(follower.sid, Snapshot(self.epoch))
        self._replica.send_snapshot.append(SnapshotOrder(follower.sid, at_least_zxid))

    def on_snapshot_installed(self, follower: Follower, message: SnapshotInstalled) -> bool:
        """False if what it has is none of ours: it cannot be synchronized."""
        self._history.unpin(follower.sid)
        if message.zxid < self._history.floor:
            self._send_snapshot(follower, self._history.floor)
            return True
        if not self._history.has_boundary(message.zxid):
            self._replica.incident(
                f"server {follower.sid} installed a snapshot at {message.zxid:#x}, not ours"
            )
            return False
        self._replica.send(follower.sid, Diff(self.epoch))
        self.join(follower, message.zxid)
        return True

    def join(self, follower: Follower, common: int) -> None:
        """In one step the learner is sent what is there, and made part of the broadcast: nothing falls
        between.
        """
        history = self._history
        end_zxid = history.last_appended
        if follower.observes:
            self.inform()
            self._informed = end_zxid = history.committed
        # Without history it may have lost what it acknowledged in this very epoch: that becomes its own again
        # once it has all of it, not with the initial history.
        initial = self._initial_last if follower.voice or follower.observes else end_zxid
        for message in synchronization.rest(history, self.epoch, initial, common, end_zxid):
            self._replica.send(follower.sid, message)
        follower.progress = Progress.JOINED
        self._followers.refresh()

    # Broadcast.

    def propose(self, previous_zxid: int, batch: Proposal) -> None:
        """Sends a batch that was appended after `previous_zxid`, and with it what is committed."""
        committed = self._announced_commit = self._history.committed
        joined = self._followers.joined
        if joined:
            message = Propose(self.epoch, previous_zxid, committed, batch)
            self._replica.messages.append((joined, message))

    def on_established(self) -> None:
        """UpToDate tells what is committed."""
        self._announced_commit = self._initial_last

    def announce_commit(self) -> None:
        """One Commit for all that happened since the last, none if a Propose has carried it."""
        self.inform()
        committed = self._history.committed
        if committed > self._announced_commit:
            self._announced_commit = committed
            self._replica.broadcast(self._followers.up_to_date, Commit(self.epoch, committed))

    def inform(self) -> None:
        """Sends observers what was committed since the last time; before every message that tells how far
        that is.
        """
        history, observers = self._history, self._followers.observers
        if not observers or history.committed == self._informed:
            return
        previous = self._informed
        for batch in history.batches_after(previous):
            if batch.last_zxid > history.committed:
                break
            self._replica.broadcast(observers, Propose(self.epoch, previous, batch.last_zxid, batch))
            previous = batch.last_zxid
        self._informed = previous
