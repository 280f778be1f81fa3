"""Changes of membership (chapter 19): both decide together, from the commit on the new one alone."""

from dataclasses import replace

import pytest

from coord.zab import Membership, NotLeadingError, Proposal, Role, Sid, make_zxid
from coord.zab.messages import (
    Ack,
    AckEpoch,
    AckNewLeader,
    Commit,
    FollowerInfo,
    HandOver,
    HeartbeatAck,
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


def membership_of(payload: bytes) -> Membership | None:
    return Membership.decode(payload[2:].decode()) if payload.startswith(b"M:") else None


def stage_of(*participants: int, observers: tuple[int, ...] = (), log: tuple[Proposal, ...] = OLD) -> Stage:
    """Server 2; all of the log but changes is executed."""
    executed = next((place for place, each in enumerate(log) if membership_of(each.payload)), len(log))
    return Stage(
        recovered(1, 1, log, executed=executed),
        membership=Membership.of(participants, observers),
        membership_of=membership_of,
    )


def change(zxid: int, participants: tuple[int, ...], observers: tuple[int, ...] = ()) -> Proposal:
    made = replace(Membership.of(participants, observers), version=zxid)
    return Proposal(zxid, zxid, b"M:" + made.encode().encode())


def propose_change(stage: Stage, *participants: int, observers: tuple[int, ...] = ()) -> int:
    zxid = stage.peer.next_zxid
    return stage.propose(payload=change(zxid, participants, observers).payload)


def join(stage: Stage, sid: int, epoch: int, zxid: int = END) -> None:
    """A server comes and is synchronized; it had history, so it counts where it may."""
    stage.hear(sid, FollowerInfo(1, 1, 1, zxid), AckEpoch(epoch, 1, zxid, True), AckNewLeader(epoch))
    stage.peer.confirm_leadership()
    stage.carry_out()


def test_a_change_is_committed_by_quorums_of_both() -> None:
    """19.5: commit needs a quorum of the old and of the new configuration."""
    stage = stage_of(1, 2, 3)
    epoch = stage.lead(1, 3)
    zxid = propose_change(stage, 2, 4, 5)
    stage.hear(1, Ack(epoch, zxid))
    stage.hear(3, Ack(epoch, zxid))
    assert stage.peer.committed_zxid == END, "of 2, 4 and 5 only 2 has it"
    assert stage.peer.membership == Membership.of([1, 2, 3])


def test_what_stands_before_a_change_needs_the_old_quorum_only() -> None:
    """19.5: the new one decides from the change on."""
    stage = stage_of(1, 2, 3)
    epoch = stage.lead(1, 3)
    before = stage.propose()
    propose_change(stage, 2, 4, 5)
    stage.hear(1, Ack(epoch, before))
    assert stage.peer.committed_zxid == before


def test_what_stands_behind_a_change_waits_for_it() -> None:
    """19.5: every later transaction is queued behind it until it is committed."""
    stage = stage_of(1, 2, 3)
    epoch = stage.lead(1, 3)
    for sid in (1, 3):
        join(stage, sid, epoch)
    zxid = propose_change(stage, 1, 2)
    later = stage.propose()
    stage.hear(3, Ack(epoch, later))
    assert stage.peer.committed_zxid == END, "the new one is 1 and 2, and 1 has nothing"
    stage.hear(1, Ack(epoch, zxid))
    assert stage.peer.committed_zxid == zxid
    assert stage.peer.membership.participants == {1, 2}
    stage.disconnect(3)
    stage.hear(1, Ack(epoch, later))
    assert stage.peer.committed_zxid == later


def test_a_second_change_waits_for_the_first() -> None:
    """19.4: another reconfig pending (ReconfigInProgress)."""
    stage = stage_of(1, 2, 3)
    epoch = stage.lead(1, 3)
    zxid = propose_change(stage, 1, 2, 3, observers=(4,))
    assert stage.peer.is_changing
    with pytest.raises(NotLeadingError, match="not committed yet"):
        propose_change(stage, 1, 2)
    stage.hear(1, Ack(epoch, zxid))
    assert not stage.peer.is_changing


def test_a_quorum_of_the_new_one_must_be_synchronized() -> None:
    """19.4: no quorum of the new configuration connected and synced with the leader (NewConfigNoQuorum)."""
    stage = stage_of(1, 2, 3)
    epoch = stage.lead(1)
    wanted = Membership.of([2, 4, 5])
    assert not stage.peer.can_change_to(wanted)
    stage.hear(4, FollowerInfo(1, 1, 1, END), AckEpoch(epoch, 1, END, True))
    assert not stage.peer.can_change_to(wanted), "server 4 is still being synchronized"
    stage.hear(4, AckNewLeader(epoch))
    stage.peer.confirm_leadership()
    stage.carry_out()
    serial = stage.peer._replica.confirm_serial
    stage.hear(1, HeartbeatAck(epoch, serial))
    assert stage.peer.can_change_to(wanted)


def test_a_joiner_is_synchronized_before_it_counts() -> None:
    """19.5: a joiner connects as non-voting follower; it gets every proposal."""
    stage = stage_of(1, 2, 3)
    epoch = stage.lead(1)
    stage.hear(4, FollowerInfo(1, 0, 0, 0), AckEpoch(epoch, 0, 0, True), AckNewLeader(epoch))
    stage.take_sent()
    zxid = stage.propose()
    assert [each.proposal.last_zxid for each in stage.take_sent(4) if isinstance(each, Propose)] == [zxid]
    stage.hear(4, Ack(epoch, zxid))
    assert stage.peer.committed_zxid == END


def test_a_leader_with_a_change_in_its_tail_needs_both_quorums() -> None:
    """19.5, 20.3: it may have been committed, or not; whoever can have committed it must be asked."""
    tail = change(make_zxid(1, 4), (2, 4, 5))
    stage = stage_of(1, 2, 3, log=(*OLD, tail))
    stage.connect(1, 3, 4)
    stage.vote(1, ME, 1, tail.last_zxid)
    stage.vote(3, ME, 1, tail.last_zxid)
    stage.pass_time(stage.config.finalize_wait_ms)
    assert stage.role is Role.LOOKING
    stage.vote(4, ME, 1, tail.last_zxid)
    stage.pass_time(stage.config.finalize_wait_ms)
    assert stage.role is Role.LEADING
    stage.hear(1, FollowerInfo(1, 1, 1, END))
    assert stage.peer.accepted_epoch == 1, "the epoch is chosen by both"
    stage.hear(4, FollowerInfo(1, 1, 1, END))
    stage.hear(1, AckEpoch(2, 1, END, True))
    stage.hear(4, AckEpoch(2, 1, END, True))
    stage.hear(1, AckNewLeader(2))
    assert not stage.peer.status.serving
    stage.hear(4, AckNewLeader(2))
    assert stage.peer.status.serving
    assert stage.peer.membership.participants == {2, 4, 5}


def test_a_change_that_is_cut_never_was() -> None:
    """An uncommitted change of a deposed leader goes with the rest of its tail."""
    stage = stage_of(1, 2, 3, log=(*OLD, change(make_zxid(1, 4), (2,))))
    stage.elect(3, current_epoch=3, zxid=END)
    attempt = next(each for each in stage.take_sent() if isinstance(each, FollowerInfo)).attempt
    stage.hear(3, LeaderInfo(attempt, 4), Truncate(4, END), NewLeader(4, END), UpToDate(4, END))
    assert stage.peer.status.serving
    stage.disconnect(3)
    stage.disconnect(1)
    stage.pass_time(5000)
    assert stage.role is Role.LOOKING, "alone it is no quorum of three"


def test_a_change_known_committed_by_others_is_committed_here() -> None:
    """Else a server could wait for a quorum of a membership that is gone by right."""
    tail = change(make_zxid(1, 4), (2,), (4,))
    stage = stage_of(2, 3, log=(*OLD, tail))
    stage.connect(4)
    told = replace(Membership.of([2], [4]), version=tail.last_zxid).encode()
    stage.hear(4, Notification(Role.LOOKING, 1, 2, 1, tail.last_zxid, 1, tail.last_zxid, told))
    assert stage.peer.status.serving
    assert stage.executed == [tail]


def test_a_vote_for_one_that_only_a_missed_change_lets_lead_counts() -> None:
    """20.3, 19.5: we, without the change, are needed by the quorum before it."""
    stage = stage_of(1, 2)
    stage.connect(1, 3)
    stage.vote(3, 3, 1, make_zxid(1, 4))
    assert stage.role is Role.LOOKING
    stage.vote(1, 3, 1, make_zxid(1, 4))
    assert (stage.role, stage.peer.status.leader) == (Role.FOLLOWING, 3)


def test_who_has_missed_changes_follows_the_leader_of_today() -> None:
    """19.5: a server that was away finds the ensemble though none of its own is left."""
    stage = stage_of(1, 2, 3)
    stage.connect(4)
    told = replace(Membership.of([2, 4, 5]), version=make_zxid(7, 1)).encode()
    stage.connect(5)
    stage.hear(5, Notification(Role.FOLLOWING, 1, 4, 0, 0, 7, make_zxid(7, 9), told))
    stage.hear(4, Notification(Role.LEADING, 1, 4, 0, 0, 7, make_zxid(7, 9), told))
    assert (stage.role, stage.peer.status.leader) == (Role.FOLLOWING, 4)


def test_a_leader_that_is_removed_hands_over() -> None:
    """19.5: if the leader is removed or becomes observer it names a designated leader and steps down."""
    stage = stage_of(1, 2, 3)
    epoch = stage.lead(1, 3)
    stage.take_sent()
    zxid = propose_change(stage, 1, 3)
    stage.hear(1, Ack(epoch, zxid))
    assert stage.role is Role.LEADING, "nobody has everything but what quorums need"
    stage.hear(3, Ack(epoch, zxid))
    assert HandOver(epoch, 3) in stage.take_sent(3)
    stage.hear(3, Notification(Role.LEADING, 1, 3, 0, 0, epoch, zxid))
    assert HandOver(epoch, 3) in stage.take_sent(1)
    assert (stage.role, stage.peer.status.leader) == (Role.FOLLOWING, 3)


def test_a_successor_leads_without_a_vote() -> None:
    """19.5: the designated leader; it has everything, and asks a quorum like any leader."""
    stage = stage_of(1, 2, 3)
    stage.serve_under(2, END)
    stage.take_sent()
    stage.hear(3, Commit(2, END), HandOver(2, ME))
    assert stage.role is Role.LEADING
    stage.hear(1, FollowerInfo(9, 2, 2, END))
    assert LeaderInfo(9, 3, compares=True) in stage.take_sent(1)


def test_handing_over_proposes_nothing_more_and_ends_after_a_tick() -> None:
    """A successor that does not answer costs a tick, not the leadership."""
    stage = stage_of(1, 2, 3)
    epoch = stage.lead(1, 3)
    assert stage.peer.hand_over(stage.now_ms)
    stage.carry_out()
    assert not stage.peer.can_propose
    assert [each for each in stage.take_sent() if isinstance(each, HandOver)] == [HandOver(epoch, 3)]
    stage.pass_time(stage.config.tick_ms)
    assert stage.peer.can_propose
    assert stage.propose() == make_zxid(epoch, 1)


def test_nobody_to_hand_over_to() -> None:
    """An observer cannot take over, nor can a server that is not a member."""
    stage = stage_of(2, observers=(4,))
    stage.hear(4, FollowerInfo(1, 1, 1, END, True))
    stage.hear(5, FollowerInfo(1, 1, 1, END))
    for sid in (4, 5):
        stage.hear(sid, AckEpoch(2, 1, END, True), AckNewLeader(2))
    assert not stage.peer.hand_over(stage.now_ms)


def test_a_participant_that_becomes_an_observer_comes_anew() -> None:
    """19.5: role swap; it then gets what is committed only."""
    stage = stage_of(1, 2, 3)
    stage.serve_under(2, END)
    made = change(make_zxid(2, 1), (1, 3), (2,))
    stage.hear(3, Propose(2, END, END, made), Commit(2, made.last_zxid))
    assert stage.role is Role.LOOKING
    stage.take_sent()
    stage.hear(3, Notification(Role.LEADING, 1, 3, 0, 0, 2, made.last_zxid))
    assert [each.observes for each in stage.take_sent(3) if isinstance(each, FollowerInfo)] == [True]


def test_whose_vote_is_being_taken_away_still_counts() -> None:
    """19.5: the old quorum is needed too: it is no observer before the change is committed."""
    tail = change(make_zxid(1, 4), (2,), (1, 3))
    stage = stage_of(1, 2, 3, log=(*OLD, tail))
    stage.elect(2, current_epoch=1, zxid=tail.last_zxid)
    stage.hear(1, FollowerInfo(1, 1, 1, tail.last_zxid))
    assert LeaderInfo(1, 2, compares=True) in stage.take_sent(1)


def test_a_membership_is_read_back_or_refused() -> None:
    made = Membership(
        frozenset({Sid(1), Sid(2), Sid(3)}),
        frozenset({Sid(9)}),
        (frozenset({Sid(1), Sid(3)}), frozenset({Sid(2)})),
        ((Sid(1), 5),),
        0x100000007,
    )
    assert made.encode() == "100000007/1,2,3/9/1,3;2/1,5"
    assert Membership.decode(made.encode()) == made
    for text in ("", "1/2", "x/1///", "1/1,2/// ", "1/a///", "1////", "1/1//2/"):
        with pytest.raises(ValueError, match=r"\w"):
            Membership.decode(text)
