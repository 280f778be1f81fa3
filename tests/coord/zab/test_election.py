"""Fast leader election (20.3), on one peer among peers played by the test."""

import pytest

from coord.zab import Config, Membership, Peer, Recovered, Role, Sid, make_zxid
from coord.zab.messages import FollowerInfo, LeaderInfo, Notification
from tests.coord.zab.stage import ME, Stage, batches, recovered

OLD = batches(1, 3)
END = OLD[-1].last_zxid


def votes(stage: Stage) -> list[Notification]:
    return [message for _, message in stage.sent if isinstance(message, Notification)]


def looking(leader: int, *, round: int = 1, current_epoch: int = 1, zxid: int = END) -> Notification:
    return Notification(Role.LOOKING, round, leader, current_epoch, zxid, current_epoch, zxid)


def leading(leader: int, role: Role = Role.LEADING, round: int = 1) -> Notification:
    return Notification(role, round, leader, 0, 0, 1, END)


def test_first_vote_is_for_itself() -> None:
    """20.3: each LOOKING server votes for itself with (leader id, last zxid, currentEpoch, round)."""
    stage = Stage(recovered(1, 1, OLD))
    stage.connect(1)
    assert votes(stage) == [Notification(Role.LOOKING, 1, ME, 1, END, 1, END)]


@pytest.mark.parametrize(
    ("vote", "better"),
    [
        (looking(1, current_epoch=2, zxid=make_zxid(1, 1)), True),
        (looking(1, zxid=END + 1), True),
        (looking(3), True),
        (looking(1), False),
        (looking(3, zxid=END - 1), False),
        (looking(3, current_epoch=0, zxid=END + 9), False),
    ],
)
def test_vote_order(vote: Notification, better: bool) -> None:
    """20.3: higher epoch, then higher zxid, then higher id; adopt if it beats, re-broadcast."""
    stage = Stage(recovered(1, 1, OLD), size=5)
    stage.connect(1, 3, 4)
    stage.sent.clear()
    stage.hear(4, vote)
    assert stage.peer.status.role is Role.LOOKING
    assert {each.leader for each in votes(stage)} == {vote.leader if better else ME}


def test_agreement_of_all_connected_peers_decides_at_once() -> None:
    """20.3, the fail-over bar: no finalize wait when nobody is left who could know better."""
    stage = Stage(recovered(1, 1, OLD))
    stage.connect(1)
    stage.hear(1, looking(ME))
    assert stage.role is Role.LEADING


def test_a_connected_peer_without_agreement_costs_the_finalize_wait() -> None:
    """20.3: when a quorum equals the proposal, wait 200 ms for anything better, then decide."""
    stage = Stage(recovered(1, 1, OLD))
    stage.connect(1, 3)
    stage.hear(1, looking(ME))
    assert stage.role is Role.LOOKING
    stage.pass_time(199)
    assert stage.role is Role.LOOKING
    stage.pass_time(1)
    assert stage.role is Role.LEADING


def test_a_better_vote_within_the_wait_restarts_it() -> None:
    """20.3: wait for anything better."""
    stage = Stage(recovered(1, 1, OLD), size=5)
    stage.connect(1, 3, 4)
    stage.hear(1, looking(ME))
    stage.hear(4, looking(ME))
    stage.pass_time(150)
    stage.hear(3, looking(3))
    stage.pass_time(100)
    assert stage.role is Role.LOOKING


def test_later_round_restarts_the_count() -> None:
    """20.3: higher round -> adopt the round, clear collected votes, restart from max(own initial vote,
    theirs).
    """
    stage = Stage(recovered(1, 1, OLD))
    stage.connect(1, 3)
    stage.hear(3, looking(3))
    stage.sent.clear()
    stage.hear(1, looking(1, round=5))
    assert votes(stage)[0].round == 5
    assert votes(stage)[0].leader == ME
    assert stage.role is Role.LOOKING


def test_earlier_round_is_answered_and_ignored() -> None:
    """20.3: lower round -> answer with own, ignore."""
    stage = Stage(recovered(1, 1, OLD))
    stage.connect(1, 3)
    stage.hear(1, looking(1, round=5))
    stage.sent.clear()
    stage.hear(3, looking(3, round=2))
    assert stage.sent == [((3,), Notification(Role.LOOKING, 5, ME, 1, END, 1, END))]


def test_a_lower_vote_of_the_same_round_is_answered() -> None:
    """Its sender may have been following a dead leader when we told everybody; without this it waits for our
    next repetition.
    """
    stage = Stage(recovered(1, 1, OLD))
    stage.connect(1, 3)
    stage.sent.clear()
    stage.hear(1, looking(1))
    assert [(sids, each.leader) for sids, each in stage.sent] == [((1,), ME)]  # type: ignore[union-attr]


def test_a_peer_that_already_follows_us_has_voted_for_us() -> None:
    """It decided in this round, before we did."""
    stage = Stage(recovered(1, 1, OLD))
    stage.connect(1, 3)
    stage.hear(3, looking(ME))
    stage.hear(1, leading(ME, Role.FOLLOWING))
    assert stage.role is Role.LEADING


def test_an_elected_leader_gives_up_when_a_quorum_has_another() -> None:
    """Waiting for them would be in vain."""
    stage = Stage(recovered(1, 1, OLD))
    stage.elect(ME, current_epoch=1, zxid=END)
    assert stage.role is Role.LEADING
    stage.hear(1, leading(3, Role.FOLLOWING))
    assert stage.role is Role.LEADING
    stage.hear(3, leading(3))
    assert stage.role is not Role.LEADING


def test_existing_leader_is_joined_when_it_and_a_quorum_say_so() -> None:
    """20.3: join the existing leader if a quorum reports it and the leader itself confirms LEADING."""
    stage = Stage(recovered(1, 1, OLD), size=5)
    stage.connect(1, 3, 4)
    stage.hear(1, leading(3, Role.FOLLOWING, round=7))
    stage.hear(4, leading(3, Role.FOLLOWING, round=7))
    assert stage.role is Role.LOOKING
    stage.hear(3, leading(3, round=7))
    assert stage.role is Role.FOLLOWING
    assert stage.peer.status.leader == 3


def test_a_leader_that_this_peer_completes_is_joined() -> None:
    """A leader whose only follower blinked is found again."""
    stage = Stage(recovered(1, 1, OLD))
    stage.connect(3)
    stage.hear(3, leading(3))
    assert stage.role is Role.FOLLOWING


def test_lost_link_to_the_leader_starts_an_election_at_once() -> None:
    """The fail-over bar: nothing is waited for."""
    stage = Stage(recovered(1, 1, OLD))
    stage.serve_under(2, END)
    stage.sent.clear()
    stage.disconnect(3)
    assert stage.role is Role.LOOKING
    assert votes(stage) == [Notification(Role.LOOKING, 2, ME, 2, END, 2, END)]


def test_a_leader_that_was_left_is_not_joined_on_its_old_word() -> None:
    """A hung leader said long ago that it leads."""
    stage = Stage(recovered(1, 1, OLD))
    stage.serve_under(2, END)
    stage.hear(3, leading(3))
    stage.pass_time(stage.config.silence_ms)
    assert stage.role is Role.LOOKING


def test_votes_for_an_unreachable_server_are_not_adopted() -> None:
    """It could not be followed."""
    stage = Stage(recovered(1, 1, OLD), size=5)
    stage.connect(1)
    stage.sent.clear()
    stage.hear(1, looking(5, zxid=END + 9))
    assert votes(stage) == []


def test_a_candidate_whose_link_is_lost_is_given_up() -> None:
    stage = Stage(recovered(1, 1, OLD), size=5)
    stage.connect(1, 3)
    stage.hear(3, looking(3))
    stage.sent.clear()
    stage.disconnect(3)
    assert [(each.round, each.leader) for each in votes(stage)] == [(2, ME)]


def test_a_leading_peer_answers_votes_with_its_leader() -> None:
    """20.3: votes from FOLLOWING/LEADING peers."""
    stage = Stage(recovered(1, 1, OLD))
    stage.lead(1)
    stage.sent.clear()
    stage.hear(3, looking(3, round=9))
    assert [(each.role, each.leader) for each in votes(stage)] == [(Role.LEADING, ME)]


def test_unanswered_votes_are_repeated_with_back_off() -> None:
    """20.3: repeated with back-off."""
    stage = Stage(recovered(1, 1, OLD))
    stage.connect(1)
    stage.sent.clear()
    stage.pass_time(4_000)
    assert 3 <= len(votes(stage)) <= 6


def test_follower_leaves_a_leader_that_votes_again() -> None:
    stage = Stage(recovered(1, 1, OLD))
    stage.serve_under(2, END)
    stage.hear(3, looking(3, round=2))
    assert stage.role is Role.LOOKING


def test_follower_that_decided_first_is_kept_until_the_leader_decides() -> None:
    """Its FollowerInfo may overtake our own decision."""
    stage = Stage(recovered(1, 1, OLD))
    stage.connect(1, 3)
    stage.hear(1, FollowerInfo(4, 1, 1, END))
    assert stage.role is Role.LOOKING
    stage.vote(1, ME, 1, END)
    stage.hear(1, FollowerInfo(5, 1, 1, END))
    stage.vote(3, ME, 1, END)
    assert stage.role is Role.LEADING
    assert stage.take_sent(1) == [LeaderInfo(5, 2, compares=True)]


def test_a_sole_participant_leads_at_once() -> None:
    """One participant: elected and serving with its own log and epoch file only."""
    peer = Peer(Config(Sid(1), Membership.of([1])), Recovered(), 0)
    for _ in range(3):
        ready = peer.take_ready()
        if ready.persist_epochs is not None:
            peer.epochs_persisted(ready.persist_epochs.accepted, ready.persist_epochs.current, 0)
    assert peer.status.serving
    assert peer.propose(b"x", 1) == make_zxid(1, 1)
    assert peer.take_ready().committed == ()
    peer.logged(make_zxid(1, 1))
    assert len(peer.take_ready().committed) == 1
