"""Observers (19.6): they learn what was committed, and decide nothing."""

from coord.zab import Membership, Proposal, Role, make_zxid
from coord.zab.messages import (
    Ack,
    AckEpoch,
    AckNewLeader,
    Commit,
    Diff,
    FollowerInfo,
    Heartbeat,
    LeaderInfo,
    NewLeader,
    Notification,
    Propose,
    Truncate,
    UpToDate,
)
from tests.coord.zab.stage import ME, Stage, batches, recovered

OLD = batches(1, 3)
END = OLD[-1].last_zxid
AMONG = Membership.of([1, 2, 3], [4])
"""Server 4 observes."""
OBSERVING = Membership.of([1, 3, 4], [2])
"""The server under test observes."""


def observe(stage: Stage, epoch: int, sid: int = 4, zxid: int = END) -> None:
    """The observer `sid` comes to the leader under test, and is synchronized."""
    stage.hear(sid, FollowerInfo(1, epoch - 1, epoch - 1, zxid, True))
    stage.hear(sid, AckEpoch(epoch, epoch - 1, zxid, True), AckNewLeader(epoch))


def test_an_observer_gets_a_batch_when_it_is_committed() -> None:
    """19.6: receive INFORM only."""
    stage = Stage(recovered(1, 1, OLD), membership=AMONG)
    epoch = stage.lead(1)
    observe(stage, epoch)
    stage.take_sent()
    first = stage.propose(payload=b"a")
    second = stage.propose(payload=b"b")
    assert not [each for each in stage.take_sent(4) if isinstance(each, Propose)]
    stage.hear(1, Ack(epoch, second))
    assert stage.take_sent(4) == [
        Propose(epoch, END, first, Proposal(first, first, b"a")),
        Propose(epoch, first, second, Proposal(second, second, b"b")),
    ]


def test_an_observer_is_synchronized_with_what_is_committed_only() -> None:
    """19.6; what it has beyond (it voted once) is cut, what is outstanding it gets later."""
    stage = Stage(recovered(1, 1, OLD), membership=AMONG)
    epoch = stage.lead(1)
    stage.propose()
    stage.hear(4, FollowerInfo(1, 0, 0, 0, True))
    stage.take_sent()
    stage.hear(4, AckEpoch(epoch, epoch, make_zxid(epoch, 1), True))
    assert stage.take_sent(4) == [Truncate(epoch, END), NewLeader(epoch, END)]
    stage.hear(4, AckNewLeader(epoch))
    assert UpToDate(epoch, END, epoch) in stage.take_sent(4)


def test_an_observer_waits_until_the_epoch_is_established() -> None:
    """19.6: before that nothing is known committed."""
    stage = Stage(recovered(1, 1, OLD), membership=AMONG)
    stage.elect(ME, current_epoch=1, zxid=END)
    stage.hear(4, FollowerInfo(1, 1, 1, END, True))
    stage.hear(1, FollowerInfo(1, 1, 1, END))
    assert LeaderInfo(1, 2, True, compares=True) not in stage.take_sent(4), (
        "a quorum has not accepted the epoch"
    )
    stage.hear(1, AckEpoch(2, 1, END, True))
    assert LeaderInfo(1, 2, True, compares=True) in stage.take_sent(4)
    stage.hear(4, AckEpoch(2, 1, END, True))
    assert stage.take_sent(4) == []
    stage.hear(1, AckNewLeader(2))
    assert stage.take_sent(4)[:2] == [Diff(2), NewLeader(2, END)]


def test_observers_make_no_quorum() -> None:
    """19.6: never counted: neither for an epoch, nor for a commit, nor for staying leader."""
    stage = Stage(recovered(1, 1, OLD), membership=Membership.of([1, 2, 3], [4, 5, 6]))
    epoch = stage.lead(1)
    for sid in (4, 5, 6):
        observe(stage, epoch, sid)
    first = stage.propose()
    for sid in (4, 5, 6):
        stage.hear(sid, Ack(epoch, first))
    assert stage.peer.committed_zxid == END
    stage.disconnect(1)
    stage.pass_time(stage.config.tick_ms)
    assert stage.role is Role.LOOKING


def test_an_observer_moves_no_election() -> None:
    """19.6: never vote; 20.3: observers only listen."""
    stage = Stage(recovered(1, 1, OLD), membership=AMONG)
    stage.connect(1, 4)
    stage.vote(4, 4, 9, make_zxid(9, 9), round=77)
    stage.vote(1, ME, 1, END)
    stage.pass_time(stage.config.finalize_wait_ms)
    assert stage.role is Role.LEADING


def test_an_observer_follows_whom_most_follow() -> None:
    """20.3: it repeats votes, decides nothing, and waits for a leader; an old one may believe to be one."""
    stage = Stage(recovered(1, 1, OLD), membership=OBSERVING)
    stage.connect(1, 3, 4)
    stage.vote(3, 3, 1, END)
    stage.vote(1, 3, 1, END)
    assert stage.role is Role.LOOKING
    assert {each.leader for _, each in stage.sent if isinstance(each, Notification)} == {0, 3}
    stage.hear(3, Notification(Role.FOLLOWING, 1, 1, 0, 0, 1, END))
    assert stage.role is Role.LOOKING
    stage.hear(1, Notification(Role.LEADING, 1, 1, 0, 0, 1, END))
    assert (stage.role, stage.peer.status.leader) == (Role.FOLLOWING, 1)
    assert FollowerInfo(1, 1, 1, END, True) in stage.take_sent(1)


def test_an_observer_acknowledges_no_batch() -> None:
    """19.6: never ack; it serves what is committed and in its own log."""
    stage = Stage(recovered(1, 1, OLD), membership=OBSERVING)
    stage.connect(3)
    stage.hear(3, Notification(Role.LEADING, 1, 3, 0, 0, 2, END))
    attempt = next(each for each in stage.take_sent(3) if isinstance(each, FollowerInfo)).attempt
    stage.hear(3, LeaderInfo(attempt, 2, True), Diff(2), NewLeader(2, END), UpToDate(2, END))
    assert stage.peer.status.serving
    stage.take_sent()
    new = batches(2, 1)
    stage.hold_log = True
    stage.hear(3, Propose(2, END, new[0].last_zxid, new[0]), Commit(2, new[0].last_zxid))
    assert stage.executed == []
    stage.flush_log()
    assert stage.executed == list(new)
    assert stage.take_sent() == []


def test_heartbeats_tell_observers_nothing_ahead_of_the_batches() -> None:
    """A commit of what was not sent would be impossible between correct servers."""
    stage = Stage(recovered(1, 1, OLD), membership=AMONG)
    epoch = stage.lead(1)
    observe(stage, epoch)
    first = stage.propose()
    stage.take_sent()
    stage.peer.receive(1, Ack(epoch, first), stage.now_ms)  # type: ignore[arg-type]
    stage.peer.confirm_leadership()
    stage.carry_out()
    kinds = [type(each) for each in stage.take_sent(4)]
    assert kinds.index(Propose) < kinds.index(Heartbeat)
