"""What a leader makes of the digests that it and its learners report: it tells them what a quorum has."""

from coord.zab.digests import Comparison
from coord.zab.follower import Follower, Progress
from coord.zab.followers import Followers
from coord.zab.messages import Sid, StateDigest, StateVerdict
from coord.zab.replica import Replica


class Verdicts:
    """The comparison of one leadership."""

    def __init__(self, replica: Replica, followers: Followers) -> None:
        self._replica = replica
        self._followers = followers
        self._comparison = Comparison()

    def on_state_digest(self, follower: Follower, message: StateDigest) -> None:
        if follower.progress is not Progress.SYNCED:
            self._replica.incident(f"StateDigest of server {follower.sid} in {follower.progress.name}")
            return
        first, follower.reports = not follower.reports, True
        self.compare(message.epoch, follower.sid, message.zxid, message.digest, asks=first)

    def compare(self, epoch: int, sid: Sid, zxid: int, digest: int, *, asks: bool = False) -> None:
        """Tells all when a quorum agrees, and whoever comes later with another digest, or `asks`."""
        replica, comparison = self._replica, self._comparison
        is_new = comparison.note(sid, zxid, digest, replica.quorum)
        agreed = comparison.agreed(zxid)
        if agreed is None:
            return
        verdict = StateVerdict(epoch, zxid, agreed, agreed=True)
        if is_new:
            replica.broadcast(self._followers.reporting, verdict)
            found = comparison.mismatches(zxid)
        else:
            found = [each for each in comparison.mismatches(zxid) if each.sid == sid]
            if (found or asks) and sid != replica.sid:
                replica.send(sid, verdict)
        replica.mismatches += [each for each in found if each.sid != replica.sid]
        mine = replica.digests.judge(zxid, agreed)
        if mine is not None and replica.diverged is None:
            replica.diverge(mine)

    def raise_disputes(self, epoch: int) -> None:
        """Once per round of heartbeats."""
        replica = self._replica
        for dispute in self._comparison.take_disputes(replica.quorum):
            replica.digests.dispute(dispute.zxid)
            replica.disputes.append(dispute)
            replica.broadcast(self._followers.reporting, StateVerdict(epoch, dispute.zxid, 0, agreed=False))

    def forget(self, sid: Sid) -> None:
        """This learner is gone, or comes anew."""
        self._comparison.forget(sid)
