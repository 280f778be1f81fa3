"""What the roles of one peer share: its history, its epochs, what it has heard of the others, and the
work owed.

Roles change these and add to the work; they never look at each other. A role that is over says so by `leave`,
and the peer acts on it after the input at hand.
"""

from coord.zab.digests import Dispute, Mismatch, OwnDigests
from coord.zab.history import History
from coord.zab.membership import Membership
from coord.zab.messages import Message, Proposal, Sid, epoch_of
from coord.zab.quorum import Quorum, Standing, countable
from coord.zab.ready import Config, Epochs, Recovered, SnapshotOrder

INCIDENTS_MAX = 100
"""Incidents kept between two `take_ready`; further ones are dropped."""


class Replica:
    """State and outgoing work of one peer, without behaviour of its own in any role."""

    def __init__(self, config: Config, recovered: Recovered) -> None:
        """Raises ValueError if the recovered state contradicts itself."""
        if recovered.current_epoch > recovered.accepted_epoch:
            raise ValueError(
                f"current epoch {recovered.current_epoch} is above accepted epoch {recovered.accepted_epoch}"
            )
        self.config = config
        self.sid = config.sid
        self.heard: Membership | None = None
        """A membership newer than any in our history, of which somebody has told us. It says whom to follow
        and whether to vote, which is a hint; who leads goes by the history.
        """
        self.history = History(
            recovered.after_zxid,
            recovered.batches,
            recovered.executed_zxid,
            config.window_bytes_max,
            config.membership,
            config.membership_of,
        )
        if epoch_of(self.history.last_appended) > recovered.accepted_epoch:
            raise ValueError(
                f"the log ends at {self.history.last_appended:#x}, beyond accepted epoch "
                f"{recovered.accepted_epoch}"
            )
        self.accepted_epoch = self.durable_accepted = recovered.accepted_epoch
        self.current_epoch = self.durable_current = recovered.current_epoch
        self.promised_to: Sid | None = None
        """To whom the accepted epoch was promised in this life of the process; unknown after a restart."""
        self.connected: set[Sid] = set()
        self.standings: dict[Sid, Standing] = {}
        """Of connected peers, as they last said. Bounded by the participants."""
        self.history_seen = recovered.history_lost
        """Somebody has had transactions; never unlearned."""
        self.wants_snapshot = recovered.diverged is not None
        self.installing = False
        """The shell owes `snapshot_installed` or `snapshot_aborted`."""
        self.digests = OwnDigests(config.sid)
        self.diverged = recovered.diverged
        """Our state differs from that of a quorum; nobody is served or led with it, and a snapshot will take
        its place.
        """
        self.feature_level = 1
        """Of the ensemble, as far as this server has executed."""
        self.disk_ms = 0
        """How long our log takes for a write, as the server says."""
        self.confirm_serial = 0
        """The latest heartbeat serial; rounds of `confirm_leadership` are such serials. Never reused in
        one life.
        """

        self.leaving: str | None = None
        self.successor: Sid | None = None
        """Whom to follow after `leaving` without a vote; perhaps ourselves, who then lead."""
        self.renewing = False
        """The successor is the same leader, in a new epoch."""
        self.service = 0
        """The epoch in which the service of today began."""
        self.messages: list[tuple[tuple[Sid, ...], Message]] = []
        self.epochs_changed = False
        self.send_snapshot: list[SnapshotOrder] = []
        self.cancel_snapshots: list[Sid] = []
        self.install_snapshot_from: Sid | None = None
        self.cancel_install = False
        self.confirmed_round = 0
        self.diffs_sent = 0
        """How many learners were synchronized without a snapshot."""
        self.incidents: list[str] = []
        self.mismatches: list[Mismatch] = []
        self.disputes: list[Dispute] = []

    @property
    def quorum(self) -> Quorum:
        """By what our history says; two at once while the membership changes."""
        return self.history.quorum

    @property
    def newest_membership(self) -> Membership:
        """The latest that we know of."""
        newest = self.history.newest_membership
        return newest if self.heard is None or self.heard.version <= newest.version else self.heard

    @property
    def electorate(self) -> Quorum:
        """By which an election is decided."""
        newest = self.newest_membership
        return newest.quorum if newest is self.heard else self.quorum

    @property
    def votes(self) -> bool:
        """Is this server a participant, as far as it knows?"""
        return self.sid in self.electorate.participants

    @property
    def stands(self) -> bool:
        """May this server be elected?"""
        return self.diverged is None and self.sid in self.electorate.electable

    @property
    def observes(self) -> bool:
        return self.sid in self.newest_membership.observers

    @property
    def told_membership(self) -> str:
        """What notifications say; empty for the one that all have started with."""
        membership = self.history.membership
        return membership.encode() if membership.version else ""

    def hear_membership(self, text: str) -> bool:
        """Somebody's latest committed membership, as `Membership.encode` wrote it, told to a LOOKING server.
        Is it news?

        If it is in our history and we did not know it committed, now we do: a zxid names one batch. Without
        that we might wait for a quorum of the membership before, which may be gone by right.
        """
        try:
            heard = Membership.decode(text)
        except ValueError as error:
            self.incident(f"a membership that is none: {error}")
            return False
        if any(zxid == heard.version for zxid, _ in self.history.pending):
            self.history.commit(heard.version)
            return True
        if heard.version <= self.newest_membership.version:
            return False
        self.heard = heard
        return True

    @property
    def standing(self) -> Standing:
        return Standing(self.current_epoch, self.history.last_appended)

    def note_standing(self, sid: Sid, current_epoch: int, last_zxid: int) -> None:
        if sid in self.quorum.participants or sid in self.electorate.participants:
            self.standings[sid] = Standing(current_epoch, last_zxid)
            if last_zxid > 0:
                self.history_seen = True

    @property
    def has_voice(self) -> bool:
        """Not who knows of transactions and has no history: a leader that has none either takes the ensemble
        for a new one, and must not found it anew with this server's vote.
        """
        return self.current_epoch > 0 or not self.history_seen

    def countable(self) -> set[Sid]:
        """Who counts, by what the connected peers have said."""
        return self._countable(self.quorum)

    def countable_voters(self) -> set[Sid]:
        """As `countable`, for an election."""
        return self._countable(self.electorate)

    def _countable(self, quorum: Quorum) -> set[Sid]:
        standings = self.standings | {self.sid: self.standing}  # strangers are left out there
        return countable(standings, quorum.participants, self.history_seen)

    def send(self, sid: Sid, message: Message) -> None:
        self.messages.append(((sid,), message))

    def broadcast(self, sids: tuple[Sid, ...], message: Message) -> None:
        if sids:
            self.messages.append((sids, message))

    def leave(self, reason: str) -> None:
        """The role is over: the peer returns to LOOKING after this input."""
        if self.leaving is None:
            self.leaving = reason

    def diverge(self, mismatch: Mismatch, leader: Sid | None = None) -> None:
        """Our state is not that of a quorum. A learner comes back to its `leader` at once, for a snapshot."""
        self.diverged = mismatch
        self.mismatches.append(mismatch)
        self.fetch_state(leader)

    def fetch_state(self, leader: Sid | None) -> None:
        """Ends the role, to take a snapshot from `leader` or from the next one."""
        self.wants_snapshot = True
        self.successor = leader
        self.leave("its state differs from that of a majority")

    def incident(self, text: str) -> None:
        if len(self.incidents) < INCIDENTS_MAX:
            self.incidents.append(text)

    def accept_epoch(self, epoch: int, leader: Sid) -> None:
        """Promises `leader` to follow nobody of a lower epoch; holds once `durable_accepted` has come up."""
        self.accepted_epoch = epoch
        self.promised_to = leader
        self.epochs_changed = True

    def begin_epoch(self, epoch: int) -> None:
        """Sets the current epoch; the caller has seen the leader's whole history durable."""
        if self.current_epoch != epoch:
            self.current_epoch = epoch
            self.epochs_changed = True

    def on_epochs_persisted(self, accepted: int, current: int) -> None:
        self.durable_accepted = max(self.durable_accepted, accepted)
        self.durable_current = max(self.durable_current, current)

    def follows_last(self, previous_zxid: int, batch: Proposal) -> bool:
        """Is `batch`, which its sender has after `previous_zxid`, the next of this history?"""
        last = self.history.last_appended
        return (
            previous_zxid == last
            and batch.first_zxid > last
            and (epoch_of(batch.first_zxid) != epoch_of(last) or batch.first_zxid == last + 1)
        )

    def take_epochs(self) -> Epochs | None:
        if not self.epochs_changed:
            return None
        self.epochs_changed = False
        return Epochs(self.accepted_epoch, self.current_epoch)
