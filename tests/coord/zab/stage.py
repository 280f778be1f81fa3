"""A peer under test among peers played by the test: it sees every message and reports every fsync itself."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from coord.zab import (
    Config,
    Epochs,
    Membership,
    Message,
    Peer,
    Proposal,
    Ready,
    Recovered,
    Role,
    Sid,
    Status,
    make_zxid,
)
from coord.zab.messages import (
    AckEpoch,
    AckNewLeader,
    Diff,
    FollowerInfo,
    LeaderInfo,
    NewLeader,
    Notification,
    UpToDate,
)

ME = Sid(2)


def batches(epoch: int, count: int, first: int = 1) -> tuple[Proposal, ...]:
    """One request per batch, zxids epoch:first and up."""
    return tuple(
        Proposal(make_zxid(epoch, number), make_zxid(epoch, number), b"%d:%d" % (epoch, number))
        for number in range(first, first + count)
    )


def recovered(
    accepted: int, current: int, log: Sequence[Proposal] = (), executed: int | None = None, after: int = 0
) -> Recovered:
    """`executed` is the number of batches executed at start-up; all by default."""
    count = len(log) if executed is None else executed
    zxid = log[count - 1].last_zxid if count else after
    return Recovered(accepted, current, zxid, after, tuple(log))


class Stage:
    """Server 2 of an ensemble, with the others played by the test.

    `sent` collects what it sends, `executed` what it hands out for execution. Disks answer by themselves
    unless `hold_log` or `hold_epochs` is set; then the test calls `flush_log` and `flush_epochs`.
    """

    def __init__(
        self,
        start: Recovered | None = None,
        size: int = 3,
        membership: Membership | None = None,
        **options: Any,
    ) -> None:
        self.config = Config(ME, membership or Membership.of(range(1, size + 1)), **options)
        self.now_ms = 0
        self.peer = Peer(self.config, start or Recovered(), 0)
        self.hold_log = False
        self.hold_epochs = False
        self.sent: list[tuple[tuple[Sid, ...], Message]] = []
        self.executed: list[Proposal] = []
        self.log: list[Proposal | int] = []
        self.epochs: list[Epochs] = []
        self.statuses: list[Status] = []
        self.readies: list[Ready] = []
        self._unlogged: list[Proposal | int] = []
        self._unpersisted: list[Epochs] = []
        self.carry_out()

    # Inputs.

    def hear(self, sender: int, *messages: Message) -> None:
        for message in messages:
            self.peer.receive(Sid(sender), message, self.now_ms)
            self.carry_out()

    def connect(self, *sids: int) -> None:
        for sid in sids:
            self.peer.peer_connected(Sid(sid), self.now_ms)
        self.carry_out()

    def disconnect(self, sid: int) -> None:
        self.peer.peer_disconnected(Sid(sid), self.now_ms)
        self.carry_out()

    def pass_time(self, milliseconds: int) -> None:
        """In steps of the peer's own deadlines."""
        end = self.now_ms + milliseconds
        while self.now_ms < end:
            self.now_ms = min(end, max(self.now_ms + 1, self.peer.next_deadline_ms()))
            self.peer.tick(self.now_ms)
            self.carry_out()

    def propose(self, count: int = 1, payload: bytes = b"x") -> int:
        first = self.peer.propose(payload, count)
        self.carry_out()
        return first

    # Outputs.

    def carry_out(self) -> None:
        had_news = self.peer.has_news
        ready = self.peer.take_ready()
        assert had_news or not is_owing(ready)
        assert not self.peer.has_news
        assert not is_owing(self.peer.take_ready())
        self.readies.append(ready)
        self.sent.extend(ready.messages)
        self.executed.extend(ready.committed)
        if ready.status is not None:
            self.statuses.append(ready.status)
        if ready.truncate_above is not None:
            self._unlogged.append(ready.truncate_above)
        self._unlogged.extend(ready.append)
        if ready.persist_epochs is not None:
            self._unpersisted.append(ready.persist_epochs)
        if self._unlogged and not self.hold_log:
            self.flush_log()
        if self._unpersisted and not self.hold_epochs:
            self.flush_epochs()

    def flush_log(self) -> None:
        done, self._unlogged = self._unlogged, []
        for operation in done:
            self.log.append(operation)
            if isinstance(operation, Proposal):
                self.peer.logged(operation.last_zxid)
            else:
                self.peer.truncated(operation)
        self.carry_out()

    def flush_epochs(self) -> None:
        done, self._unpersisted = self._unpersisted, []
        for epochs in done:
            self.epochs.append(epochs)
            self.peer.epochs_persisted(epochs.accepted, epochs.current, self.now_ms)
        self.carry_out()

    def take_sent(self, sid: int | None = None) -> list[Message]:
        """What was sent (to `sid`) since the last call, votes left out."""
        taken = [
            message
            for sids, message in self.sent
            if (sid is None or sid in sids) and not isinstance(message, Notification)
        ]
        self.sent = []
        return taken

    @property
    def role(self) -> Role:
        return self.peer.status.role

    @property
    def incidents(self) -> list[str]:
        return [text for ready in self.readies for text in ready.incidents]

    # Well-known situations.

    def vote(self, sender: int, leader: int, current_epoch: int, zxid: int, round: int = 1) -> None:
        """`sender`, as recent as the one it votes for, is LOOKING."""
        self.hear(sender, Notification(Role.LOOKING, round, leader, current_epoch, zxid, current_epoch, zxid))

    def elect(self, leader: int, *, current_epoch: int, zxid: int) -> None:
        """All are connected and agree on `leader`, who has the given standing."""
        others = sorted(self.config.membership.participants - {ME})
        self.connect(*others)
        for sid in others:
            self.vote(sid, leader, current_epoch, zxid)

    def follow(self, epoch: int, *, zxid: int = 0, current_epoch: int | None = None) -> None:
        """Follows server 3 and has acked its epoch; it waits to be synchronized."""
        self.elect(3, current_epoch=epoch - 1 if current_epoch is None else current_epoch, zxid=zxid)
        attempt = next(message for message in self.take_sent() if isinstance(message, FollowerInfo)).attempt
        self.hear(3, LeaderInfo(attempt, epoch))

    def serve_under(self, epoch: int, zxid: int) -> None:
        """`follow`, synchronized by an empty DIFF and up to date."""
        self.follow(epoch, zxid=zxid)
        self.hear(3, Diff(epoch), NewLeader(epoch, zxid), UpToDate(epoch, zxid))
        assert self.peer.status.serving

    def lead(self, *followers: int) -> int:
        """Elected by all, established with `followers`, whose history equals its own; returns the epoch."""
        standing = self.peer.current_epoch, self.peer.last_zxid
        self.elect(ME, current_epoch=standing[0], zxid=standing[1])
        for sid in followers:
            self.hear(sid, FollowerInfo(1, self.peer.current_epoch, *standing))
        epoch = self.peer.accepted_epoch
        for sid in followers:
            self.hear(sid, AckEpoch(epoch, *standing, True))
        for sid in followers:
            self.hear(sid, AckNewLeader(epoch))
        assert self.incidents == []
        assert self.peer.status.serving
        return epoch


def is_owing(ready: Ready) -> bool:
    """Whether there is anything to carry out."""
    told = {each.name: getattr(ready, each.name) for each in fields(Ready) if each.name != "committed_zxid"}
    return told.pop("truncate_above") is not None or any(told.values())
