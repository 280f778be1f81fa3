"""The comparison of states (20.8, DESIGN 4): the pure comparison, and what each role makes of it."""

from dataclasses import replace

import pytest

from coord.message import MessageError
from coord.zab import Majority, Membership, Role, Sid, make_zxid
from coord.zab.digests import POINTS_MAX, Comparison, Dispute, Mismatch, OwnDigests
from coord.zab.messages import (
    Ack,
    AckEpoch,
    AckNewLeader,
    Diff,
    FollowerInfo,
    HandOver,
    Heartbeat,
    HeartbeatAck,
    LeaderInfo,
    NewLeader,
    Notification,
    Snapshot,
    SnapshotInstalled,
    StateDigest,
    StateVerdict,
    UpToDate,
    from_wire,
)
from tests.coord.zab.stage import ME, Stage, batches, recovered

THREE = Majority(frozenset(map(Sid, (1, 2, 3))))
FIVE = Majority(frozenset(map(Sid, (1, 2, 3, 4, 5))))
LOG = batches(1, 3)
LAST = LOG[-1].last_zxid


# The comparison.


def test_a_quorum_agrees_once() -> None:
    comparison = Comparison()
    assert not comparison.note(Sid(1), 7, 11, THREE)
    assert comparison.agreed(7) is None
    assert comparison.note(Sid(2), 7, 11, THREE)
    assert comparison.agreed(7) == 11
    assert not comparison.note(Sid(3), 7, 11, THREE)
    assert comparison.mismatches(7) == []


def test_digests_of_different_zxids_are_not_compared() -> None:
    comparison = Comparison()
    assert not comparison.note(Sid(1), 7, 11, THREE)
    assert not comparison.note(Sid(2), 8, 12, THREE)
    assert comparison.agreed(7) is None
    assert comparison.agreed(8) is None
    assert comparison.agreed(9) is None


def test_who_differs_is_named_whenever_it_reports() -> None:
    comparison = Comparison()
    comparison.note(Sid(3), 7, 13, THREE)
    comparison.note(Sid(1), 7, 11, THREE)
    assert comparison.note(Sid(2), 7, 11, THREE)
    comparison.note(Sid(9), 7, 14, THREE)
    assert comparison.mismatches(7) == [Mismatch(Sid(3), 7, 13, 11), Mismatch(Sid(9), 7, 14, 11)]


def test_observers_agree_with_nobody_but_may_differ() -> None:
    comparison = Comparison()
    comparison.note(Sid(1), 7, 11, THREE)
    assert not comparison.note(Sid(9), 7, 11, THREE)
    assert comparison.agreed(7) is None


def test_no_majority_is_a_dispute_after_a_whole_round() -> None:
    comparison = Comparison()
    for sid in (1, 2, 3):
        comparison.note(Sid(sid), 7, 10 + sid, THREE)
    assert comparison.take_disputes(THREE) == []
    expected = Dispute(7, ((Sid(1), 11), (Sid(2), 12), (Sid(3), 13)))
    assert comparison.take_disputes(THREE) == [expected]
    assert comparison.take_disputes(THREE) == []


def test_reports_that_are_still_on_their_way_are_no_dispute() -> None:
    comparison = Comparison()
    for sid, digest in ((1, 11), (2, 11), (3, 13)):
        comparison.note(Sid(sid), 7, digest, FIVE)
    assert comparison.take_disputes(FIVE) == []
    comparison.note(Sid(4), 7, 11, FIVE)
    assert comparison.take_disputes(FIVE) == []


def test_a_smaller_membership_makes_no_dispute_of_old_reports() -> None:
    comparison = Comparison()
    comparison.note(Sid(1), 7, 11, THREE)
    for _ in range(3):
        assert comparison.take_disputes(Majority(frozenset({Sid(1)}))) == []


def test_less_than_a_quorum_disputes_nothing() -> None:
    comparison = Comparison()
    comparison.note(Sid(1), 7, 11, FIVE)
    comparison.note(Sid(2), 7, 12, FIVE)
    for _ in range(3):
        assert comparison.take_disputes(FIVE) == []


def test_the_highest_zxids_are_remembered() -> None:
    comparison = Comparison()
    for zxid in range(1, POINTS_MAX + 2):
        comparison.note(Sid(1), zxid, 11, THREE)
    assert not comparison.note(Sid(2), 1, 11, THREE)
    assert comparison.note(Sid(2), 2, 11, THREE)


def test_an_old_report_of_a_server_that_comes_anew_is_forgotten() -> None:
    comparison = Comparison()
    comparison.note(Sid(1), 7, 11, THREE)
    comparison.forget(Sid(1))
    assert not comparison.note(Sid(2), 7, 11, THREE)


# What one server knows of its own.


def test_own_digest_is_judged() -> None:
    own = OwnDigests(ME)
    assert own.note(7, 11) is None
    assert own.judge(7, 11) is None
    assert own.agreed_zxid == 7
    own.note(8, 12)
    assert own.judge(8, 13) == Mismatch(ME, 8, 12, 13)
    assert own.agreed_zxid == 7


def test_what_was_agreed_is_kept_for_a_server_that_is_behind() -> None:
    own = OwnDigests(ME)
    assert own.judge(7, 11) is None
    assert own.note(7, 12) == Mismatch(ME, 7, 12, 11)
    assert own.judge(6, 99) is None


def test_a_dispute_lasts_until_something_later_is_agreed() -> None:
    own = OwnDigests(ME)
    own.note(7, 11)
    own.judge(7, 11)
    own.note(9, 12)
    own.dispute(8)
    assert own.is_disputed
    own.judge(9, 12)
    assert not own.is_disputed


def test_digests_of_a_replaced_state_mean_nothing() -> None:
    own = OwnDigests(ME)
    own.note(7, 11)
    own.replaced()
    assert own.latest is None
    assert own.judge(7, 12) is None


def test_remembered_digests_are_bounded() -> None:
    own = OwnDigests(ME)
    for zxid in range(1, POINTS_MAX + 2):
        own.note(zxid, 11)
        own.judge(1000 + zxid, 11)
    assert len(list(own)) == POINTS_MAX


# The learner.


def follower(zxid: int = LAST) -> Stage:
    """Follows server 3, which compares, in epoch 2."""
    stage = Stage(recovered(1, 1, LOG))
    stage.elect(3, current_epoch=1, zxid=zxid)
    join(stage)
    assert stage.peer.status.serving
    return stage


def join(stage: Stage, *, epoch: int = 2, compares: bool = True) -> None:
    info = next(message for message in stage.take_sent(3) if isinstance(message, FollowerInfo))
    stage.hear(3, LeaderInfo(info.attempt, epoch, compares=compares))
    stage.hear(3, Diff(epoch), NewLeader(epoch, LAST), UpToDate(epoch, LAST))


def note(stage: Stage, zxid: int, digest: int) -> None:
    stage.peer.note_digest(zxid, digest)
    stage.carry_out()


def test_a_learner_reports_its_digests() -> None:
    stage = follower()
    stage.take_sent()
    note(stage, LAST, 11)
    assert stage.take_sent(3) == [StateDigest(2, LAST, 11)]


def test_a_learner_reports_its_latest_digest_once_it_is_up_to_date() -> None:
    """20.8: an idle ensemble compares too, when it has another leader."""
    stage = Stage(recovered(1, 1, LOG))
    note(stage, LAST, 11)
    stage.elect(3, current_epoch=1, zxid=LAST)
    join(stage)
    assert StateDigest(2, LAST, 11) in stage.take_sent(3)


def test_a_leader_of_the_release_before_is_sent_no_digest() -> None:
    stage = Stage(recovered(1, 1, LOG))
    stage.elect(3, current_epoch=1, zxid=LAST)
    join(stage, compares=False)
    note(stage, LAST, 11)
    assert not any(isinstance(message, StateDigest) for message in stage.take_sent())


def test_a_learner_that_agrees_goes_on() -> None:
    stage = follower()
    note(stage, LAST, 11)
    stage.hear(3, StateVerdict(2, LAST, 11, True))
    assert stage.peer.agreed_zxid == LAST
    assert stage.peer.status.serving


def diverged() -> Stage:
    stage = follower()
    note(stage, LAST, 12)
    stage.take_sent()
    stage.hear(3, StateVerdict(2, LAST, 11, True))
    return stage


def test_a_learner_in_the_minority_stops_serving_and_keeps_the_evidence() -> None:
    stage = diverged()
    assert not stage.peer.status.serving
    assert stage.peer.has_diverged
    found = [each for ready in stage.readies for each in ready.mismatches]
    assert found == [Mismatch(ME, LAST, 12, 11)]


def test_a_learner_in_the_minority_takes_a_snapshot_from_its_leader() -> None:
    stage = diverged()
    info = next(message for message in stage.take_sent(3) if isinstance(message, FollowerInfo))
    stage.hear(3, LeaderInfo(info.attempt, 2, compares=True))
    assert stage.take_sent(3) == [AckEpoch(2, 2, LAST, True, True)]
    stage.hear(3, Snapshot(2))
    assert stage.readies[-1].install_snapshot_from == 3
    stage.peer.snapshot_installed(LAST, stage.config.membership, stage.now_ms)
    stage.carry_out()
    assert not stage.peer.has_diverged
    assert stage.take_sent(3) == [SnapshotInstalled(2, LAST)]
    stage.hear(3, Diff(2), NewLeader(2, LAST), UpToDate(2, LAST))
    assert stage.peer.status.serving


def test_a_learner_that_is_behind_diverges_when_it_gets_there() -> None:
    stage = follower()
    stage.hear(3, StateVerdict(2, LAST, 11, True))
    assert stage.peer.status.serving
    stage.take_sent()
    note(stage, LAST, 12)
    assert stage.peer.has_diverged
    assert not stage.peer.status.serving
    assert stage.take_sent(3)[0] == StateDigest(2, LAST, 12), "its leader keeps the evidence too"


def test_a_server_that_diverges_while_its_leader_takes_another_epoch_serves_no_longer() -> None:
    stage = follower()
    stage.hear(3, StateVerdict(2, LAST, 11, True), HandOver(2, 3))
    assert stage.peer.status.serving
    note(stage, LAST, 12)
    assert not stage.peer.status.serving


def test_a_diverged_server_stands_for_no_election() -> None:
    """It votes for whom the others want, and says who it is."""
    stage = diverged()
    stage.disconnect(3)
    own = [message for _, message in stage.sent if isinstance(message, Notification)]
    assert own[-1].role is Role.LOOKING
    assert own[-1].leader == 0
    stage.vote(1, 1, 2, LAST, round=own[-1].round)
    stage.pass_time(1000)
    assert [message for message in stage.take_sent(1) if isinstance(message, FollowerInfo)]


def test_a_diverged_server_whose_log_is_needed_serves_nobody() -> None:
    """The epoch needs its log, and no leader gives a snapshot before that: then it comes back."""
    stage = diverged()
    stage.take_sent()
    stage.disconnect(3)
    stage.connect(3)
    stage.vote(1, 3, 2, LAST, round=2)
    stage.vote(3, 3, 2, LAST, round=2)
    info = next(message for message in stage.take_sent(3) if isinstance(message, FollowerInfo))
    stage.hear(3, LeaderInfo(info.attempt, 3, compares=True), Diff(3), NewLeader(3, LAST))
    assert AckNewLeader(3) in stage.take_sent(3)
    stage.statuses.clear()
    stage.hear(3, UpToDate(3, LAST))
    assert not any(status.serving for status in stage.statuses)
    again = next(message for message in stage.take_sent(3) if isinstance(message, FollowerInfo))
    stage.hear(3, LeaderInfo(again.attempt, 3, compares=True))
    assert stage.take_sent(3) == [AckEpoch(3, 3, LAST, True, True)]


def test_a_server_that_had_diverged_before_a_restart_takes_a_snapshot_before_it_serves() -> None:
    """Whatever its state is now."""
    stage = Stage(replace(recovered(1, 1, LOG), diverged=Mismatch(ME, LAST, 12, 11)))
    note(stage, LAST, 11)
    assert stage.peer.has_diverged
    own = [message for _, message in stage.sent if isinstance(message, Notification)]
    assert all(message.leader != ME for message in own)
    stage.elect(3, current_epoch=1, zxid=LAST)
    join(stage)
    again = [message for message in stage.take_sent(3) if isinstance(message, FollowerInfo)][-1]
    stage.hear(3, LeaderInfo(again.attempt, 2, compares=True))
    assert AckEpoch(2, 2, LAST, True, True) in stage.take_sent(3)
    stage.hear(3, Snapshot(2))
    stage.peer.snapshot_installed(LAST, stage.config.membership, stage.now_ms)
    stage.carry_out()
    assert not any(status.serving for status in stage.statuses)
    stage.hear(3, Diff(2), NewLeader(2, LAST), UpToDate(2, LAST))
    assert stage.peer.status.serving


def test_a_diverged_server_reports_nothing() -> None:
    stage = diverged()
    stage.take_sent()
    note(stage, LAST + 1, 13)
    assert not any(isinstance(message, StateDigest) for message in stage.take_sent())


def test_a_learner_is_told_of_a_dispute() -> None:
    stage = follower()
    note(stage, LAST, 11)
    stage.hear(3, StateVerdict(2, LAST, 0, False))
    assert stage.peer.is_disputed
    assert stage.peer.status.serving
    assert stage.readies[-1].disputes == [Dispute(LAST)]


# The leader.


def leader(*followers: int) -> tuple[Stage, int]:
    stage = Stage(recovered(1, 1, LOG))
    epoch = stage.lead(*followers)
    stage.take_sent()
    return stage, epoch


def test_a_leader_offers_to_compare() -> None:
    stage = Stage(recovered(1, 1, LOG))
    stage.lead(1)
    assert [message.compares for message in stage.take_sent(1) if isinstance(message, LeaderInfo)] == [True]


def test_a_leader_tells_those_that_report_what_is_agreed_and_nobody_else() -> None:
    """Server 3 is of the release before: it would not understand."""
    stage, epoch = leader(1, 3)
    note(stage, LAST, 11)
    assert stage.peer.agreed_zxid == 0
    stage.hear(1, StateDigest(epoch, LAST, 11))
    assert stage.sent == [((Sid(1),), StateVerdict(epoch, LAST, 11, True))]
    assert stage.peer.agreed_zxid == LAST


def test_a_follower_in_the_minority_is_told_the_digest_of_the_others() -> None:
    stage, epoch = leader(1, 3)
    note(stage, LAST, 11)
    stage.hear(3, StateDigest(epoch, LAST, 13))
    stage.hear(1, StateDigest(epoch, LAST, 11))
    assert StateVerdict(epoch, LAST, 11, True) in stage.take_sent(3)
    assert [each for ready in stage.readies for each in ready.mismatches] == [Mismatch(Sid(3), LAST, 13, 11)]
    assert stage.peer.status.serving


def test_a_follower_that_reports_late_is_told_if_it_differs() -> None:
    stage, epoch = leader(1, 3)
    note(stage, LAST, 11)
    stage.hear(1, StateDigest(epoch, LAST, 11))
    stage.hear(3, StateDigest(epoch, LAST, 13))
    assert StateVerdict(epoch, LAST, 11, True) in stage.take_sent(3)


def test_what_was_noted_before_the_epoch_counts_for_the_leader() -> None:
    stage = Stage(recovered(1, 1, LOG))
    note(stage, LAST, 11)
    epoch = stage.lead(1)
    stage.hear(1, StateDigest(epoch, LAST, 11))
    assert stage.peer.agreed_zxid == LAST


def test_a_leader_in_the_minority_steps_down_and_does_not_stand_again() -> None:
    stage, epoch = leader(1, 3)
    note(stage, LAST, 12)
    stage.hear(1, StateDigest(epoch, LAST, 11))
    assert stage.peer.status.serving
    stage.hear(3, StateDigest(epoch, LAST, 11))
    assert stage.role is Role.LOOKING
    assert stage.peer.has_diverged
    assert [each for ready in stage.readies for each in ready.mismatches] == [Mismatch(ME, LAST, 12, 11)]
    votes = [message for _, message in stage.sent if isinstance(message, Notification)]
    assert votes[-1].leader == 0


def test_a_lone_server_agrees_with_itself() -> None:
    stage = Stage(recovered(1, 1, LOG), membership=Membership.of([ME]))
    note(stage, LAST, 11)
    assert stage.peer.agreed_zxid == LAST


def test_without_a_majority_nobody_stops() -> None:
    stage, epoch = leader(1, 3)
    note(stage, LAST, 12)
    stage.hear(1, StateDigest(epoch, LAST, 11))
    stage.hear(3, StateDigest(epoch, LAST, 13))
    stage.take_sent()
    for _ in range(3):
        stage.pass_time(1000)
        for sid in (1, 3):
            stage.hear(sid, HeartbeatAck(epoch, 0))
    assert [message for message in stage.take_sent(3) if not isinstance(message, Heartbeat)] == [
        StateVerdict(epoch, LAST, 0, False)
    ]
    expected = Dispute(LAST, ((Sid(1), 11), (ME, 12), (Sid(3), 13)))
    assert [each for ready in stage.readies for each in ready.disputes] == [expected]
    assert stage.peer.is_disputed
    assert stage.peer.status.serving
    zxid = stage.propose()
    stage.hear(1, Ack(epoch, zxid))
    assert stage.peer.committed_zxid == zxid


def test_a_quorum_that_needs_a_server_that_fetches_its_state_is_still_a_quorum() -> None:
    """Else the leader would give up while the snapshot is under way, again and again."""
    stage, epoch = leader(1)
    stage.hear(1, FollowerInfo(2, epoch, epoch, LAST))
    stage.hear(1, AckEpoch(epoch, epoch, LAST, True, wants_snapshot=True))
    assert Snapshot(epoch) in stage.take_sent(1)
    for _ in range(5):
        stage.pass_time(1000)
        stage.hear(1, HeartbeatAck(epoch, 0))
    assert stage.peer.status.serving
    zxid = stage.propose()
    assert stage.peer.committed_zxid < zxid


def test_a_server_in_doubt_that_is_ahead_does_not_end_a_leadership_that_needs_it_not() -> None:
    """A leader that stepped down may have proposed what nobody else has; that was not committed."""
    stage = Stage(recovered(1, 1, LOG))
    stage.elect(ME, current_epoch=1, zxid=LAST)
    for sid in (1, 3):
        stage.hear(sid, FollowerInfo(1, 1, 1, LAST))
    epoch = stage.peer.accepted_epoch
    stage.hear(3, AckEpoch(epoch, 1, LAST + 1, True, wants_snapshot=True))
    assert not any(isinstance(message, Diff) for message in stage.take_sent())
    stage.hear(1, AckEpoch(epoch, 1, LAST, True))
    stage.hear(1, AckNewLeader(epoch))
    assert stage.role is Role.LEADING
    assert stage.peer.status.serving


# On the wire.


def test_a_digest_has_64_bits() -> None:
    whole = StateDigest(1, make_zxid(1, 1), 0xFFFFFFFFFFFFFFFF)
    assert from_wire(whole) is whole
    with pytest.raises(MessageError, match="digest out of range"):
        from_wire(StateDigest(1, make_zxid(1, 1), 1 << 64))
