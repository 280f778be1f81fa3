"""A server without history is counted in no quorum while any server that answered has history (DESIGN 4)."""

from coord.zab import Recovered, Role, make_zxid
from coord.zab.messages import (
    Ack,
    AckEpoch,
    AckNewLeader,
    Diff,
    FollowerInfo,
    Heartbeat,
    HeartbeatAck,
    LeaderInfo,
    NewLeader,
    Notification,
    Propose,
    Sid,
)
from coord.zab.quorum import Standing, countable
from tests.coord.zab.stage import ME, Stage, batches, recovered

OLD = batches(1, 3)
END = OLD[-1].last_zxid
ALL = frozenset({Sid(1), Sid(2), Sid(3)})


def test_its_vote_elects_nobody() -> None:
    """A wiped disk must not outvote an acknowledged write."""
    stage = Stage(recovered(1, 1, OLD))
    stage.connect(1)
    stage.hear(1, Notification(Role.LOOKING, 1, ME, 1, END, 0, 0))
    stage.pass_time(10_000)
    assert stage.role is Role.LOOKING


def test_its_ack_of_the_epoch_does_not_count() -> None:
    stage = Stage(recovered(1, 1, OLD))
    stage.connect(1, 3)
    stage.vote(3, ME, 1, END)
    stage.hear(1, Notification(Role.LOOKING, 1, ME, 1, END, 0, 0))
    assert stage.role is Role.LEADING
    stage.hear(1, FollowerInfo(1, 0, 0, 0))
    assert stage.take_sent() == []
    assert stage.peer.accepted_epoch == 1


def test_it_counts_after_it_was_synchronized_and_the_leader_confirmed_without_it() -> None:
    """It syncs first, as a learner; and with its disk it lost its promises, so the leader asks the others
    once more.
    """
    stage = Stage(recovered(1, 1, OLD), size=3)
    epoch = stage.lead(1)
    stage.hear(3, FollowerInfo(1, 0, 0, 0), AckEpoch(epoch, 0, 0, True), AckNewLeader(epoch))
    asked = [each for each in stage.take_sent(1) if isinstance(each, Heartbeat)][-1]
    stage.propose()
    stage.hear(3, HeartbeatAck(epoch, asked.serial), Ack(epoch, make_zxid(epoch, 1)))
    assert stage.executed == []
    stage.hear(1, HeartbeatAck(epoch, asked.serial))
    assert len(stage.executed) == 1


def test_it_claims_the_epoch_only_with_all_that_it_may_have_acknowledged_in_it() -> None:
    """It may have lost its disk within this very epoch: the initial history is then not enough. It crashes,
    claims the epoch without what it had acknowledged, and a quorum with it would go on without that.
    """
    stage = Stage(recovered(1, 1, OLD), size=3)
    epoch = stage.lead(1)
    last = [stage.propose() for _ in range(2)][-1]
    stage.take_sent()
    stage.hear(3, FollowerInfo(1, epoch, 0, END), AckEpoch(epoch, 0, END, False))
    sent = [each for each in stage.take_sent(3) if isinstance(each, (Propose, NewLeader))]
    assert sent[-1] == NewLeader(epoch, last)
    assert len(sent) == 3


def test_one_that_has_kept_a_checkpoint_is_sent_what_is_behind_it() -> None:
    """It claims no epoch, and its state is a prefix of every leader's history all the same."""
    stage = Stage(recovered(1, 1, OLD), size=3)
    epoch = stage.lead(1)
    stage.take_sent()
    stage.hear(3, FollowerInfo(1, 1, 0, OLD[1].last_zxid), AckEpoch(epoch, 0, OLD[1].last_zxid, True))
    sent = stage.take_sent(3)
    assert [each for each in sent if isinstance(each, Diff)] == [Diff(epoch)]
    assert [each.proposal for each in sent if isinstance(each, Propose)] == [OLD[2]]


def test_who_lost_a_history_founds_no_new_ensemble() -> None:
    """All three may have lost it: better none than an empty one."""
    roles = []
    for lost in (True, False):
        stage = Stage(Recovered(accepted_epoch=3, history_lost=lost))
        stage.connect(1, 3)
        stage.vote(3, ME, 0, 0)
        stage.vote(1, ME, 0, 0)
        roles.append(stage.role)
    assert roles == [Role.LOOKING, Role.LEADING]


def test_who_lost_a_history_is_no_vote_for_one_who_never_had_any() -> None:
    """The other may believe that the ensemble is new, and found one; the third has the transactions."""
    counted = []
    for lost in (True, False):
        stage = Stage(Recovered(accepted_epoch=3, history_lost=lost))
        stage.connect(1, 3)
        stage.hear(3, Notification(Role.LEADING, 1, 3, 0, 0, 0, 0), LeaderInfo(1, 4))
        counted += [each.counted for each in stage.take_sent(3) if isinstance(each, AckEpoch)]
    assert counted == [False, True]


def test_nobody_has_history_everybody_counts() -> None:
    """A new ensemble."""
    standings = {Sid(1): Standing(0, 0), Sid(2): Standing(0, 0)}
    assert countable(standings, ALL) == {1, 2}


def test_somebody_has_transactions_only_synchronized_servers_count() -> None:
    standings = {Sid(1): Standing(1, END), Sid(2): Standing(1, 0), Sid(3): Standing(0, 0)}
    assert countable(standings, ALL) == {1, 2}


def test_a_server_in_the_middle_of_its_first_synchronization_does_not_count() -> None:
    """It has transactions, but not yet all of them: the current epoch says so."""
    standings = {Sid(1): Standing(1, END), Sid(2): Standing(0, END - 1)}
    assert countable(standings, ALL) == {1}


def test_a_first_epoch_interrupted_is_resumed_once_all_have_answered() -> None:
    """Else a new ensemble whose first leader crashed early could never start."""
    standings = {Sid(1): Standing(1, 0), Sid(2): Standing(0, 0)}
    assert countable(standings, ALL) == {1}
    assert countable({**standings, Sid(3): Standing(0, 0)}, ALL) == {1, 2, 3}


def test_history_once_seen_is_remembered() -> None:
    """The one with transactions may be gone again."""
    standings = {Sid(1): Standing(1, 0), Sid(2): Standing(0, 0), Sid(3): Standing(0, 0)}
    assert countable(standings, ALL, history_seen=True) == {1}


def test_a_stranger_counts_nowhere() -> None:
    assert countable({Sid(9): Standing(5, END)}, ALL) == set()
