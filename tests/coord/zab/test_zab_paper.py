"""Paper tests: the protocol's sentences, one test each (specification 20.1 - 20.6; Junqueira, Reed,
Serafini 2011).
"""

import pytest

from coord.zab import HistoryConflictError, Proposal, Role, make_zxid
from coord.zab.messages import (
    Ack,
    AckEpoch,
    AckNewLeader,
    Commit,
    Diff,
    FollowerInfo,
    Heartbeat,
    HeartbeatAck,
    LeaderInfo,
    NewLeader,
    Propose,
    Snapshot,
    SnapshotInstalled,
    Truncate,
    UpToDate,
)
from tests.coord.zab.stage import ME, Stage, batches, recovered

Z = make_zxid
OLD = batches(1, 3)
"""Epoch 1 left three batches."""
END = OLD[-1].last_zxid


def propose(epoch: int, batch: Proposal, previous: int, committed: int = 0) -> Propose:
    return Propose(epoch, previous, committed, batch)


# 20.1 Zxids.


def test_first_transaction_of_an_epoch_has_counter_1() -> None:
    """20.1: transactions start at counter 1."""
    stage = Stage(recovered(1, 1, OLD))
    epoch = stage.lead(1)
    assert stage.propose() == Z(epoch, 1)
    assert stage.propose(count=3) == Z(epoch, 2)
    assert stage.propose() == Z(epoch, 5)


# 20.2 What is persistent.


def test_current_epoch_above_the_accepted_is_refused() -> None:
    """20.2: acceptedEpoch >= currentEpoch."""
    with pytest.raises(ValueError, match="above accepted epoch"):
        Stage(recovered(1, 2))


def test_a_log_beyond_the_accepted_epoch_is_refused() -> None:
    """20.2: else refuse to start."""
    with pytest.raises(ValueError, match="beyond accepted epoch"):
        Stage(recovered(1, 1, batches(2, 1)))


def test_a_log_out_of_order_is_refused() -> None:
    with pytest.raises(ValueError, match="does not follow"):
        Stage(recovered(1, 1, (OLD[1], OLD[0])))


# 20.4 Discovery.


def test_follower_opens_with_its_accepted_epoch() -> None:
    """20.4: followers send FOLLOWERINFO with acceptedEpoch."""
    stage = Stage(recovered(4, 1, OLD))
    stage.elect(3, current_epoch=2, zxid=END)
    assert stage.take_sent() == [FollowerInfo(1, 4, 1, END)]


def test_leader_takes_an_epoch_above_all_of_a_quorum() -> None:
    """20.4: from a quorum the leader picks e' = max + 1 and answers LEADERINFO(e')."""
    stage = Stage(recovered(1, 1, OLD))
    stage.elect(ME, current_epoch=1, zxid=END)
    assert stage.take_sent() == []
    stage.hear(1, FollowerInfo(5, 7, 1, END))
    assert stage.take_sent() == [LeaderInfo(5, 8, compares=True)]


def test_leader_promises_its_epoch_before_it_asks_others() -> None:
    """20.4, paper: the leader is a member of its own quorum."""
    stage = Stage(recovered(1, 1, OLD))
    stage.elect(ME, current_epoch=1, zxid=END)
    stage.hold_epochs = True
    stage.hear(1, FollowerInfo(5, 1, 1, END))
    assert stage.take_sent() == []
    stage.flush_epochs()
    assert stage.epochs[-1].accepted == 2
    assert stage.take_sent() == [LeaderInfo(5, 2, compares=True)]


def test_follower_persists_the_epoch_before_it_acks() -> None:
    """20.4: a follower with acceptedEpoch < e' persists it and acks with (currentEpoch, lastZxid)."""
    stage = Stage(recovered(1, 1, OLD))
    stage.hold_epochs = True
    stage.follow(4, zxid=END)
    assert stage.take_sent() == []
    stage.flush_epochs()
    assert stage.epochs[-1].accepted == 4
    assert stage.take_sent() == [AckEpoch(4, 1, END, True)]


def test_an_epoch_accepted_before_a_restart_is_acked_without_counting() -> None:
    """20.4: equal -> acks without counting again; for it may have been promised to another leader."""
    stage = Stage(recovered(4, 1, OLD))
    stage.follow(4, zxid=END)
    assert stage.take_sent() == [AckEpoch(4, 1, END, False)]


def test_an_uncounted_ack_is_no_vote_for_the_epoch() -> None:
    """20.4: equal -> acks without counting again."""
    stage = Stage(recovered(1, 1, OLD))
    stage.elect(ME, current_epoch=1, zxid=END)
    stage.hear(1, FollowerInfo(1, 1, 1, END), AckEpoch(2, 1, END, False))
    assert stage.take_sent(1) == [LeaderInfo(1, 2, compares=True)]


def test_follower_abandons_a_leader_of_a_lower_epoch() -> None:
    """20.4: greater -> abandons the leader."""
    stage = Stage(recovered(5, 1, OLD))
    stage.follow(4, zxid=END)
    assert stage.role is Role.LOOKING
    assert stage.take_sent() == []


@pytest.mark.parametrize("ahead", [(2, END), (1, END + 1)])
def test_leader_gives_up_when_an_acker_is_ahead(ahead: tuple[int, int]) -> None:
    """20.4: compared by (currentEpoch, lastZxid); if some acker is ahead it gives up."""
    stage = Stage(recovered(2, 1, OLD))
    stage.elect(ME, current_epoch=1, zxid=END)
    stage.hear(1, FollowerInfo(1, 2, 1, END), AckEpoch(3, *ahead, True))
    assert stage.role is Role.LOOKING


def test_leader_gives_up_for_a_peer_that_accepted_a_later_epoch() -> None:
    """It could never follow; a quorum was asked for that epoch."""
    stage = Stage(recovered(1, 1, OLD))
    stage.lead(1)
    stage.hear(3, FollowerInfo(1, 9, 1, END))
    assert stage.role is Role.LOOKING


# 20.5 Synchronization, the leader's side.


def synchronize(stage: Stage, current_epoch: int, zxid: int) -> list[object]:
    """What a second follower with this history is sent."""
    stage.take_sent()
    stage.hear(3, FollowerInfo(1, 1, current_epoch, zxid))
    stage.hear(3, AckEpoch(stage.peer.accepted_epoch, current_epoch, zxid, True))
    return [message for message in stage.take_sent(3) if not isinstance(message, LeaderInfo)]


def test_equal_history_gets_an_empty_diff() -> None:
    """20.5: p == max -> empty DIFF. Then NEWLEADER(e')."""
    stage = Stage(recovered(1, 1, OLD))
    stage.lead(1)
    assert synchronize(stage, 1, END) == [Diff(2), NewLeader(2, END)]


def test_longer_history_is_truncated_to_the_leaders_end() -> None:
    """20.5: p > max -> TRUNC to max."""
    stage = Stage(recovered(1, 1, OLD))
    stage.lead(1)
    assert synchronize(stage, 1, END + 2) == [Truncate(2, END), NewLeader(2, END)]


def test_shorter_history_gets_what_is_missing() -> None:
    """20.5: p inside -> DIFF of what is missing."""
    stage = Stage(recovered(1, 1, OLD))
    stage.lead(1)
    assert synchronize(stage, 1, Z(1, 1)) == [
        Diff(2),
        propose(2, OLD[1], Z(1, 1), END),
        propose(2, OLD[2], Z(1, 2), END),
        NewLeader(2, END),
    ]


def test_a_tail_unknown_to_the_leader_is_truncated_to_the_last_common_batch() -> None:
    """20.5: preceded by TRUNC to the last common zxid if p's own entry is unknown to the leader."""
    later = batches(3, 1)
    stage = Stage(recovered(3, 3, OLD + later))
    stage.lead(1)
    assert synchronize(stage, 2, Z(2, 7)) == [
        Truncate(4, END),
        propose(4, later[0], END, later[0].last_zxid),
        NewLeader(4, later[0].last_zxid),
    ]


def test_history_older_than_the_window_gets_a_snapshot() -> None:
    """20.5: p older -> SNAP; and then what the snapshot lacks."""
    stage = Stage(recovered(1, 1, OLD[1:], after=Z(1, 1)))
    stage.lead(1)
    assert synchronize(stage, 0, 0) == [Snapshot(2)]
    order = stage.readies[-1].send_snapshot[0]
    assert order.sid == 3
    assert order.at_least_zxid == Z(1, 1)
    stage.hear(3, SnapshotInstalled(2, Z(1, 2)))
    assert stage.take_sent(3) == [Diff(2), propose(2, OLD[2], Z(1, 2), END), NewLeader(2, END)]


def test_a_snapshot_that_came_too_late_is_followed_by_another() -> None:
    """20.5: p older -> SNAP, also when p is that of a snapshot just installed."""
    stage = Stage(recovered(1, 1, OLD[2:], after=Z(1, 2)))
    stage.lead(1)
    assert synchronize(stage, 0, 0) == [Snapshot(2)]
    stage.hear(3, SnapshotInstalled(2, Z(1, 1)))
    assert stage.take_sent(3) == [Snapshot(2)]


def test_window_is_bounded_in_bytes() -> None:
    """20.5: the leader's log window."""
    stage = Stage(recovered(1, 1, OLD), window_bytes_max=1000)
    epoch = stage.lead(1)
    for counter in range(1, 31):
        stage.propose(payload=bytes(100))
        stage.hear(1, Ack(epoch, Z(epoch, counter)))
    assert synchronize(stage, 1, Z(epoch, 25))[0] == Diff(epoch)
    assert synchronize(stage, 1, Z(epoch, 15)) == [Snapshot(epoch)]


def test_leader_serves_after_a_quorum_acked_newleader() -> None:
    """20.5: with a quorum of acks the leader commits the history, sends UPTODATE, and servers start
    serving.
    """
    stage = Stage(recovered(1, 1, OLD, executed=1))
    stage.elect(ME, current_epoch=1, zxid=END)
    stage.hear(1, FollowerInfo(1, 1, 1, END), AckEpoch(2, 1, END, True))
    assert not stage.peer.status.serving
    assert stage.executed == []
    stage.hear(1, AckNewLeader(2))
    assert stage.peer.status.serving
    assert stage.executed == list(OLD[1:])
    assert stage.take_sent()[-1] == UpToDate(2, END, 2)


def test_leader_counts_itself_only_once_its_epoch_is_durable() -> None:
    """20.5: everything durable before it sets currentEpoch and acks; the leader too."""
    stage = Stage(recovered(1, 1, OLD))
    stage.elect(ME, current_epoch=1, zxid=END)
    stage.hear(1, FollowerInfo(1, 1, 1, END))
    stage.hold_epochs = True
    stage.hear(1, AckEpoch(2, 1, END, True), AckNewLeader(2))
    assert not stage.peer.status.serving
    stage.flush_epochs()
    assert stage.epochs[-1].current == 2
    assert stage.peer.status.serving


# 20.5 Synchronization, the learner's side.


def test_history_then_epoch_then_ack() -> None:
    """20.5: everything durable before it sets currentEpoch = e' and acks NEWLEADER (ZOOKEEPER-3911,
    -4643, -4646).
    """
    stage = Stage(recovered(1, 1, OLD[:1]))
    stage.follow(2, zxid=END)
    stage.take_sent()
    stage.hold_log = stage.hold_epochs = True
    stage.hear(3, Diff(2), propose(2, OLD[1], Z(1, 1)), propose(2, OLD[2], Z(1, 2)), NewLeader(2, END))
    stage.flush_epochs()
    assert stage.peer.current_epoch == 1
    assert stage.take_sent() == []
    stage.flush_log()
    assert stage.peer.current_epoch == 2
    assert stage.take_sent() == []
    stage.flush_epochs()
    assert stage.epochs[-1].current == 2
    assert stage.take_sent() == [AckNewLeader(2), Ack(2, END)]


def test_a_truncation_is_awaited_like_history() -> None:
    """20.5: TRUNC is history too; it must be durable before the ack."""
    stage = Stage(recovered(1, 1, OLD, executed=1))
    stage.follow(2, current_epoch=2, zxid=Z(1, 1))
    stage.take_sent()
    stage.hold_log = True
    stage.hear(3, Truncate(2, Z(1, 1)), NewLeader(2, Z(1, 1)))
    assert stage.take_sent() == []
    assert stage.peer.current_epoch == 1
    stage.flush_log()
    assert stage.log == [Z(1, 1)]
    assert stage.take_sent() == [AckNewLeader(2), Ack(2, Z(1, 1))]


def test_a_report_from_before_the_truncation_does_not_count() -> None:
    """20.5: what was logged and then cut is not history; the same zxid sent again must be logged again."""
    stage = Stage(recovered(1, 1, OLD[:1]))
    stage.follow(2, zxid=END)
    stage.hold_log = True
    stage.hear(3, Diff(2), propose(2, OLD[1], Z(1, 1)))
    stage.disconnect(3)
    stage.connect(3)
    stage.vote(1, 3, 2, END, round=9)
    stage.vote(3, 3, 2, END, round=9)
    attempt = [each for each in stage.take_sent() if isinstance(each, FollowerInfo)][-1].attempt
    stage.hear(3, LeaderInfo(attempt, 3), Truncate(3, Z(1, 1)))
    stage.hear(3, propose(3, OLD[1], Z(1, 1)), NewLeader(3, Z(1, 2)))
    stage.take_sent()
    stage.peer.logged(Z(1, 2))  # of the first append, before the cut
    stage.carry_out()
    assert stage.peer.logged_zxid == Z(1, 1)
    assert stage.take_sent() == []
    stage.flush_log()
    assert stage.take_sent() == [AckNewLeader(3), Ack(3, Z(1, 2))]


def test_follower_serves_when_told_that_the_epoch_is_established() -> None:
    """20.5: UPTODATE, and servers start serving; the history is executed now and not before."""
    stage = Stage(recovered(1, 1, OLD, executed=1))
    stage.follow(2, zxid=END)
    stage.hear(3, Diff(2), NewLeader(2, END))
    assert stage.executed == []
    assert not stage.peer.status.serving
    stage.hear(3, UpToDate(2, END))
    assert stage.executed == list(OLD[1:])
    assert stage.peer.status.serving


def test_uncommitted_tail_is_not_executed_when_leadership_is_lost() -> None:
    """20.5: not known committed must be discarded or re-proposed, never kept in the state
    (ZOOKEEPER-2845).
    """
    stage = Stage(recovered(1, 1, OLD))
    epoch = stage.lead(1)
    stage.propose()
    stage.disconnect(1)
    stage.pass_time(10 * stage.config.tick_ms)
    assert stage.role is Role.LOOKING
    assert stage.executed == []
    assert stage.peer.last_zxid == Z(epoch, 1)


def test_uncommitted_tail_is_discarded_by_truncation() -> None:
    """20.5: discarded ..."""
    stage = Stage(recovered(2, 2, OLD + batches(2, 2), executed=3))
    stage.follow(4, current_epoch=3, zxid=Z(3, 1))
    later = batches(3, 1)
    stage.hear(3, Truncate(4, END), propose(4, later[0], END), NewLeader(4, Z(3, 1)), UpToDate(4, Z(3, 1)))
    assert stage.log[0] == END
    assert stage.executed == list(later)


def test_uncommitted_tail_is_executed_when_an_epoch_commits_it() -> None:
    """20.5: ... or re-proposed: as the new leader's history."""
    tail = batches(2, 2)
    stage = Stage(recovered(2, 2, OLD + tail, executed=3))
    stage.lead(1)
    assert stage.executed == list(tail)


def test_truncating_what_was_committed_stops_the_server() -> None:
    """Chapter 21 proposalInconsistent: told to truncate below what it committed."""
    stage = Stage(recovered(1, 1, OLD))
    stage.follow(2, current_epoch=2, zxid=Z(1, 1))
    with pytest.raises(HistoryConflictError, match="committed here"):
        stage.hear(3, Truncate(2, Z(1, 1)))


def test_a_snapshot_replaces_history_and_the_rest_follows() -> None:
    """20.5: SNAP (full state), installed durably before anything is said."""
    stage = Stage(recovered(1, 1, OLD, executed=1))
    stage.follow(5, current_epoch=4, zxid=Z(4, 9))
    stage.take_sent()
    stage.hear(3, Snapshot(5))
    assert stage.readies[-1].install_snapshot_from == 3
    assert stage.take_sent() == []
    stage.peer.snapshot_installed(Z(4, 8), stage.config.membership, stage.now_ms)
    stage.carry_out()
    assert stage.take_sent() == [SnapshotInstalled(5, Z(4, 8))]
    tail = batches(4, 1, first=9)
    stage.hear(3, Diff(5), propose(5, tail[0], Z(4, 8)), NewLeader(5, Z(4, 9)), UpToDate(5, Z(4, 9)))
    assert stage.executed == list(tail)
    assert stage.peer.status.serving


def test_an_abandoned_snapshot_is_settled_before_the_next_vote() -> None:
    """A snapshot under way may still replace the history that a vote would speak of."""
    stage = Stage(recovered(1, 1, OLD))
    stage.follow(2, zxid=END)
    stage.hear(3, Snapshot(2))
    stage.sent.clear()
    stage.disconnect(3)
    assert stage.readies[-1].cancel_install
    assert stage.sent == []
    stage.peer.snapshot_installed(Z(1, 9), stage.config.membership, stage.now_ms)
    stage.carry_out()
    assert stage.sent[-1][1].last_zxid == Z(1, 9)  # type: ignore[union-attr]


# 20.6 Broadcast.


def test_proposals_go_out_in_zxid_order_each_after_the_one_before() -> None:
    """20.6: proposals in zxid order."""
    stage = Stage(recovered(1, 1, OLD))
    epoch = stage.lead(1)
    stage.take_sent()
    stage.propose(count=2, payload=b"a")
    stage.propose(payload=b"b")
    assert stage.take_sent(1) == [
        propose(epoch, Proposal(Z(epoch, 1), Z(epoch, 2), b"a"), END, END),
        propose(epoch, Proposal(Z(epoch, 3), Z(epoch, 3), b"b"), Z(epoch, 2), END),
    ]


def test_follower_acks_when_the_batch_is_durable() -> None:
    """20.6: a follower appends + fsyncs, acks."""
    stage = Stage(recovered(1, 1, OLD))
    stage.serve_under(2, END)
    stage.take_sent()
    stage.hold_log = True
    new = batches(2, 2)
    stage.hear(3, propose(2, new[0], END), propose(2, new[1], Z(2, 1)))
    assert stage.take_sent() == []
    stage.peer.logged(Z(2, 2))
    stage.carry_out()
    assert stage.take_sent() == [Ack(2, Z(2, 2))]


def test_group_commit_is_one_ack() -> None:
    """20.6: group commit of fsyncs is allowed."""
    stage = Stage(recovered(1, 1, OLD))
    stage.serve_under(2, END)
    stage.take_sent()
    stage.hold_log = True
    previous = END
    for batch in batches(2, 5):
        stage.hear(3, propose(2, batch, previous))
        previous = batch.last_zxid
    stage.peer.logged(Z(2, 5))
    stage.carry_out()
    assert stage.take_sent() == [Ack(2, Z(2, 5))]


def test_commit_needs_a_quorum_of_logs() -> None:
    """20.6: the leader commits z only after a quorum acked z; its own log counts when it is durable."""
    stage = Stage(recovered(1, 1, OLD), size=5)
    epoch = stage.lead(1, 3, 4, 5)
    stage.hold_log = True
    stage.propose()
    stage.hear(1, Ack(epoch, Z(epoch, 1)))
    stage.hear(3, Ack(epoch, Z(epoch, 1)))
    assert stage.peer.committed_zxid == END
    stage.flush_log()
    assert stage.peer.committed_zxid == Z(epoch, 1)


def test_commit_by_followers_is_executed_only_when_logged_here() -> None:
    """DESIGN 4: a replica executes a batch when it is committed and logged locally."""
    stage = Stage(recovered(1, 1, OLD))
    epoch = stage.lead(1, 3)
    stage.take_sent()
    stage.hold_log = True
    stage.propose()
    stage.hear(1, Ack(epoch, Z(epoch, 1)))
    stage.hear(3, Ack(epoch, Z(epoch, 1)))
    assert stage.take_sent()[-1] == Commit(epoch, Z(epoch, 1))
    assert stage.executed == []
    stage.flush_log()
    assert len(stage.executed) == 1


def test_commit_covers_everything_before() -> None:
    """20.6: and everything before z is committed; COMMIT messages in order."""
    stage = Stage(recovered(1, 1, OLD))
    epoch = stage.lead(1)
    for _ in range(3):
        stage.propose()
    stage.take_sent()
    stage.hear(1, Ack(epoch, Z(epoch, 2)))
    stage.hear(1, Ack(epoch, Z(epoch, 3)))
    assert [each for each in stage.take_sent() if isinstance(each, Commit)] == [
        Commit(epoch, Z(epoch, 2)),
        Commit(epoch, Z(epoch, 3)),
    ]
    assert [batch.last_zxid for batch in stage.executed] == [Z(epoch, 1), Z(epoch, 2), Z(epoch, 3)]


def test_only_committed_batches_are_executed() -> None:
    """20.6: delivery only of committed transactions, in order."""
    stage = Stage(recovered(1, 1, OLD))
    stage.serve_under(2, END)
    new = batches(2, 3)
    stage.hear(3, propose(2, new[0], END), propose(2, new[1], Z(2, 1)), propose(2, new[2], Z(2, 2)))
    assert stage.executed == []
    stage.hear(3, Commit(2, Z(2, 2)))
    assert stage.executed == list(new[:2])


def test_proposals_and_heartbeats_carry_the_commit() -> None:
    """20.6: a follower learns the commit from whatever comes first."""
    stage = Stage(recovered(1, 1, OLD))
    stage.serve_under(2, END)
    new = batches(2, 2)
    stage.hear(3, propose(2, new[0], END), propose(2, new[1], Z(2, 1), committed=Z(2, 1)))
    assert stage.executed == [new[0]]
    stage.hear(3, Heartbeat(2, 0, Z(2, 2)))
    assert stage.executed == list(new)


def test_leader_without_a_quorum_steps_down_within_sync_limit() -> None:
    """20.6: leader steps down when it has no quorum of followers heard within syncLimit ticks."""
    stage = Stage(recovered(1, 1, OLD))
    stage.lead(1)
    stage.pass_time(stage.config.silence_ms - 1)
    assert stage.role is Role.LEADING
    stage.pass_time(1)
    assert stage.role is Role.LOOKING


def test_leader_whose_links_are_lost_steps_down_after_a_tick() -> None:
    """20.6, sooner: a lost link is known at once; one tick is left to come back."""
    stage = Stage(recovered(1, 1, OLD))
    stage.lead(1)
    stage.disconnect(1)
    stage.pass_time(stage.config.tick_ms - 1)
    assert stage.role is Role.LEADING
    stage.pass_time(1)
    assert stage.role is Role.LOOKING


def test_leader_heard_by_a_quorum_stays() -> None:
    """20.6: heartbeats are answered."""
    stage = Stage(recovered(1, 1, OLD))
    epoch = stage.lead(1)
    for _ in range(20):
        stage.pass_time(stage.config.tick_ms)
        stage.hear(1, HeartbeatAck(epoch, 0))
    assert stage.role is Role.LEADING


def test_follower_leaves_a_silent_leader() -> None:
    """20.6: a follower leaves a leader silent for syncLimit ticks; on leaving, it stops serving at once."""
    stage = Stage(recovered(1, 1, OLD))
    stage.serve_under(2, END)
    stage.pass_time(stage.config.silence_ms - 1)
    assert stage.peer.status.serving
    stage.pass_time(1)
    assert stage.role is Role.LOOKING
    assert not stage.statuses[-1].serving


def test_init_limit_bounds_synchronization() -> None:
    """20.6: initLimit bounds connecting + syncing."""
    stage = Stage(recovered(1, 1, OLD))
    stage.follow(2, zxid=END)
    for _ in range(stage.config.init_limit):
        stage.hear(3, Heartbeat(2, 0, 0))
        stage.pass_time(stage.config.tick_ms)
    assert stage.role is Role.LOOKING


def test_leader_to_whom_nobody_comes_gives_up() -> None:
    """20.6: connecting is bounded for the leader too."""
    stage = Stage(recovered(1, 1, OLD))
    stage.elect(ME, current_epoch=1, zxid=END)
    stage.pass_time(stage.config.discovery_timeout_ms)
    assert stage.role is Role.LOOKING


def test_leader_whose_followers_go_before_its_epoch_stands_gives_up() -> None:
    """20.6: ... and is not bound by initLimit when it waits for nobody."""
    stage = Stage(recovered(1, 1, OLD))
    stage.elect(ME, current_epoch=1, zxid=END)
    stage.hear(1, FollowerInfo(1, 1, 1, END))
    stage.pass_time(2 * stage.config.discovery_timeout_ms)
    assert stage.role is Role.LEADING
    stage.hear(1, FollowerInfo(2, 1, 1, END))
    stage.disconnect(1)
    stage.pass_time(stage.config.discovery_timeout_ms)
    assert stage.role is Role.LOOKING


def test_leader_does_not_wait_for_acks_that_do_not_count() -> None:
    """20.4: the epoch may have been accepted for somebody else; the next one is free."""
    stage = Stage(recovered(1, 1, OLD))
    stage.elect(ME, current_epoch=1, zxid=END)
    stage.hear(1, FollowerInfo(1, 1, 1, END), AckEpoch(2, 1, END, False))
    stage.pass_time(stage.config.discovery_timeout_ms)
    assert stage.role is Role.LOOKING


# Chapter 21, lessons.


def test_late_joiner_gets_what_is_outstanding() -> None:
    """Lesson 1: a proposal goes to every learner whose ack of the epoch has arrived."""
    stage = Stage(recovered(1, 1, OLD))
    epoch = stage.lead(1)
    stage.propose(payload=b"a")
    sent = synchronize(stage, 1, END)
    assert sent == [
        Diff(epoch),
        NewLeader(epoch, END),
        propose(epoch, Proposal(Z(epoch, 1), Z(epoch, 1), b"a"), END, END),
    ]
    stage.propose(payload=b"b")
    assert stage.take_sent(3) == [propose(epoch, Proposal(Z(epoch, 2), Z(epoch, 2), b"b"), Z(epoch, 1), END)]


def test_batches_of_the_epoch_wait_for_the_epoch_file() -> None:
    """20.2: the epoch of the last logged zxid is at most the current epoch, at every moment."""
    stage = Stage(recovered(1, 1, OLD))
    stage.follow(2, zxid=END)
    stage.hold_epochs = True
    new = batches(2, 1)
    stage.hear(3, Diff(2), NewLeader(2, END), propose(2, new[0], END))
    assert stage.log == []
    stage.flush_epochs()
    assert stage.log == list(new)


def test_repeated_proposal_is_harmless() -> None:
    """Lesson 2: a learner tolerates a redundant PROPOSE of an entry it already has."""
    stage = Stage(recovered(1, 1, OLD))
    stage.serve_under(2, END)
    new = batches(2, 1)
    stage.hear(3, propose(2, new[0], END), propose(2, new[0], END), propose(2, OLD[1], Z(1, 1)))
    assert stage.log == list(new)
    assert stage.role is Role.FOLLOWING
    assert stage.incidents == []


def test_up_to_date_names_the_leaders_latest_commit() -> None:
    """Lesson 3: not the zxid the learner acked."""
    stage = Stage(recovered(1, 1, OLD))
    epoch = stage.lead(1)
    synchronize(stage, 1, END)
    stage.propose()
    stage.hear(1, Ack(epoch, Z(epoch, 1)))
    stage.take_sent()
    stage.hear(3, AckNewLeader(epoch))
    assert stage.take_sent(3) == [UpToDate(epoch, Z(epoch, 1), epoch)]


def test_a_gap_makes_the_learner_leave() -> None:
    """Chapter 21 proposalInconsistent: a PROPOSAL that is not the successor of the last log entry."""
    stage = Stage(recovered(1, 1, OLD))
    stage.serve_under(2, END)
    stage.hear(3, propose(2, batches(2, 1, first=2)[0], Z(2, 1)))
    assert stage.role is Role.LOOKING
    assert stage.log == []
    assert len(stage.incidents) == 1


def test_an_ack_of_an_unknown_zxid_is_refused() -> None:
    """Chapter 21 ackInconsistent."""
    stage = Stage(recovered(1, 1, OLD))
    epoch = stage.lead(1)
    stage.hear(1, Ack(epoch, Z(epoch, 5)))
    assert stage.peer.committed_zxid == END
    assert len(stage.incidents) == 1
