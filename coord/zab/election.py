"""Fast leader election (20.3): a hint whom to follow, quick when everybody is well. Safety is not decided
here.

Every LOOKING peer votes, first for itself, and tells all. It changes to any better vote it hears of and
tells all again; votes are ordered by (current epoch, last zxid, sid), so all end at the same one. Rounds
tell old votes from new: a vote of a later round restarts the counting.

When votes of a quorum agree, the peer decides at once if every connected participant agrees, else after
`finalize_wait_ms` without a better vote. So a fail-over among live peers costs one exchange of messages,
and a connected but silent server costs the wait.

Two departures from ZooKeeper. A vote is changed only to a server this one is connected to, for it could
not be followed. And a LOOKING peer joins an existing leader when that leader says it leads and it makes a
quorum *with this peer*, so that a leader whose first follower blinked finds it again.

A server that is no participant repeats the votes it hears, and decides nothing: it waits for a leader to say
that it leads. Who is one goes by the latest membership that each knows committed, and by an uncommitted one
in its own history beside the one before: then both must agree.
"""

from collections import Counter
from typing import NamedTuple

from coord.zab.messages import Notification, Role, Sid
from coord.zab.replica import Replica

RESEND_MS_MIN = 200
RESEND_MS_MAX = 3200
"""Back-off of unanswered votes. Links do not lose messages, so this is only a second net."""


class Vote(NamedTuple):
    """Whom a server wants, with that one's standing; the greater vote wins."""

    current_epoch: int
    last_zxid: int
    leader: Sid


NOBODY = Vote(0, 0, Sid(0))
"""The vote of a server that may not lead, until it hears of one that may."""


class Election:
    """The votes of one peer's current round, and what it heard of leaders that exist."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._votes: dict[Sid, Vote] = {}
        self._reports: dict[Sid, Notification] = {}  # of peers that are not LOOKING; kept in all roles
        self._finalize_at: int | None = None
        self._resend_wait = RESEND_MS_MIN
        self._resend_at = 0
        self.round = 0
        self.proposal = self._own_vote()

    def start(self, now_ms: int) -> None:
        """A new round with a vote for ourselves."""
        self.round = self.round + 1 if self._replica.votes else 0
        self._restart(self._own_vote(), now_ms)

    def forget_leader(self, sid: Sid) -> None:
        """We left `sid`: its word that it leads must come anew."""
        self._reports.pop(sid, None)

    def elsewhere(self) -> set[Sid]:
        """Peers that last said they have another leader than this one."""
        return {sid for sid, report in self._reports.items() if report.leader != self._replica.sid}

    def on_notification(self, sender: Sid, heard: Notification, looking: bool, now_ms: int) -> None:
        """Takes note of it; a LOOKING peer also counts it, and answers one that is behind."""
        if heard.role != Role.LOOKING:
            self._reports[sender] = heard
            self._votes.pop(sender, None)
            return
        self._reports.pop(sender, None)
        if not looking:
            return
        vote = Vote(heard.leader_current_epoch, heard.leader_zxid, Sid(heard.leader))
        if not self._replica.votes:
            self._repeat(vote, heard.round, now_ms)
            return
        if sender not in self._replica.electorate.participants:
            return
        if heard.round < self.round:
            self._replica.send(sender, self.notification())
            return
        if heard.round > self.round:
            self.round = heard.round
            own = self._own_vote()
            self._restart(max(own, vote) if self._reachable(vote) else own, now_ms)
        elif vote > self.proposal and self._reachable(vote):
            self._propose(vote, now_ms)
        elif vote < self.proposal:
            # It may have been following when we told everybody, and have forgotten our vote since.
            self._replica.send(sender, self.notification())
        self._votes[sender] = vote

    def _repeat(self, vote: Vote, round: int, now_ms: int) -> None:
        """Who has no vote as far as it knows says what the others say. They may know better: a change that
        gives it one can be in their histories and not in its own.
        """
        if self._reachable(vote) and (round, vote) > (self.round, self.proposal):
            self.round = round
            self._restart(vote, now_ms)

    def on_disconnected(self, sid: Sid, looking: bool, now_ms: int) -> None:
        self._votes.pop(sid, None)
        self._reports.pop(sid, None)
        if looking and self.proposal.leader == sid:
            self.start(now_ms)

    def decide(self, now_ms: int) -> Sid | None:
        """The leader, if there is a decision; ourselves included."""
        existing = self._existing_leader()
        if existing is not None:
            return existing
        replica = self._replica
        if self.proposal == NOBODY or not replica.votes:
            return None
        counted = replica.countable_voters()
        agreeing = {sid for sid, vote in self._votes.items() if vote == self.proposal}
        # Who decided before us, in this round and as we would, agrees.
        agreeing |= {
            sid
            for sid, report in self._reports.items()
            if report.leader == self.proposal.leader and report.round == self.round
        }
        if not replica.electorate.contains(agreeing & counted):
            self._finalize_at = None
            return None
        if not (replica.connected & replica.electorate.participants) <= agreeing:
            if self._finalize_at is None:
                self._finalize_at = now_ms + replica.config.finalize_wait_ms
            if now_ms < self._finalize_at:
                return None
        return self.proposal.leader

    def tick(self, now_ms: int) -> None:
        if now_ms >= self._resend_at:
            self._resend_wait = min(2 * self._resend_wait, RESEND_MS_MAX)
            self._resend_at = now_ms + self._resend_wait
            self._announce()

    def deadline_ms(self) -> int:
        return self._resend_at if self._finalize_at is None else min(self._resend_at, self._finalize_at)

    def notification(self) -> Notification:
        """Our vote, as a LOOKING peer."""
        current_epoch, last_zxid = self._replica.standing
        vote = self.proposal
        return Notification(
            Role.LOOKING,
            self.round,
            vote.leader,
            vote.current_epoch,
            vote.last_zxid,
            current_epoch,
            last_zxid,
            self._replica.told_membership,
        )

    def _own_vote(self) -> Vote:
        replica = self._replica
        if not replica.stands:
            return NOBODY
        return Vote(*replica.standing, replica.sid)

    def _reachable(self, vote: Vote) -> bool:
        """Could we follow it? Whether it may lead it knows best, for a change that we have missed can say so:
        nobody who may not votes for itself.
        """
        replica = self._replica
        if vote.leader == replica.sid:
            return replica.stands
        return vote.leader in replica.connected

    def _restart(self, vote: Vote, now_ms: int) -> None:
        self._votes.clear()
        self._resend_wait = RESEND_MS_MIN
        self._propose(vote, now_ms)

    def _propose(self, vote: Vote, now_ms: int) -> None:
        self.proposal = vote
        self._votes[self._replica.sid] = vote
        self._finalize_at = None
        self._resend_at = now_ms + self._resend_wait
        self._announce()

    def _announce(self) -> None:
        self._replica.broadcast(tuple(sorted(self._replica.connected)), self.notification())

    def _existing_leader(self) -> Sid | None:
        """A server that says it leads, and that this peer completes or finds a quorum for.

        Who has no vote needs no quorum: it follows the one of whom most say that it leads.
        """
        if not self._replica.votes:
            return self._most_followed()
        for leader, report in self._reports.items():
            if report.role == Role.LEADING and report.leader == leader:
                supporters = {sid for sid, other in self._reports.items() if other.leader == leader}
                if self._replica.electorate.contains(supporters | {self._replica.sid}):
                    self.round = report.round
                    return leader
        return None

    def _most_followed(self) -> Sid | None:
        followed = Counter(Sid(report.leader) for report in self._reports.values())
        leading = [
            (followed[leader], leader, report.round)
            for leader, report in self._reports.items()
            if report.role == Role.LEADING and report.leader == leader
        ]
        if not leading:
            return None
        _, leader, self.round = max(leading)
        return leader
