"""A new epoch for the same service, when zxids are used up (20.1; chapter 24: without a service break)."""

import pytest

from coord.zab import NotLeadingError, Role, make_zxid
from coord.zab.messages import (
    COUNTER_MAX,
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
    UpToDate,
)
from tests.coord.zab.stage import ME, Stage, batches, recovered

OLD = batches(1, 3)
END = OLD[-1].last_zxid


def use_up(stage: Stage, epoch: int) -> int:
    """Nearly all zxids of the epoch are proposed, and server 1 has them; returns the last."""
    stage.propose(count=COUNTER_MAX - 5)
    last = make_zxid(epoch, COUNTER_MAX - 5)
    assert stage.role is Role.LEADING
    assert not stage.peer.can_propose
    return last


def renew(stage: Stage, epoch: int, last: int) -> None:
    """Server 1 goes through discovery and synchronization again."""
    stage.hear(1, FollowerInfo(2, epoch, epoch, last))
    stage.hear(1, AckEpoch(epoch + 1, epoch, last, True), AckNewLeader(epoch + 1))


def test_a_leader_takes_another_epoch_and_serves_all_the_time() -> None:
    """20.1: a new epoch starts; status never says that clients are to be closed."""
    stage = Stage(recovered(1, 1, OLD))
    epoch = stage.lead(1)
    last = use_up(stage, epoch)
    statuses = len(stage.statuses)
    stage.take_sent()
    stage.hear(1, Ack(epoch, last))
    assert HandOver(epoch, ME) in stage.take_sent(1)
    renew(stage, epoch, last)
    assert UpToDate(epoch + 1, last, epoch) in stage.take_sent(1)
    (status,) = stage.statuses[statuses:]
    assert (status.role, status.serving) == (Role.LEADING, True)
    assert (status.epoch, status.service) == (epoch + 1, epoch)
    assert stage.propose() == make_zxid(epoch + 1, 1)


def test_nothing_is_proposed_in_an_epoch_without_zxids() -> None:
    """20.1: and the new epoch waits until all is committed."""
    stage = Stage(recovered(1, 1, OLD))
    epoch = stage.lead(1)
    use_up(stage, epoch)
    with pytest.raises(NotLeadingError):
        stage.peer.propose(b"x", 1)
    assert not [each for each in stage.take_sent() if isinstance(each, HandOver)]


def test_a_learner_serves_while_its_leader_takes_another_epoch() -> None:
    """The same leader and service; reads go on from what was committed."""
    stage = Stage(recovered(1, 1, OLD))
    stage.follow(2, zxid=END)
    stage.hear(3, Diff(2), NewLeader(2, END), UpToDate(2, END, 2))
    statuses = len(stage.statuses)
    stage.take_sent()
    stage.hear(3, HandOver(2, 3))
    (info,) = [each for each in stage.take_sent(3) if isinstance(each, FollowerInfo)]
    stage.hear(3, LeaderInfo(info.attempt, 3), Diff(3), NewLeader(3, END), UpToDate(3, END, 2))
    (status,) = stage.statuses[statuses:]
    assert (status.epoch, status.service, status.serving) == (3, 2, True)


def test_a_renewal_that_comes_to_nothing_ends_the_service() -> None:
    """20.6: nobody serves for longer than syncLimit under a leader that is not one; what others still send
    for the old service then finds nobody.
    """
    stage = Stage(recovered(1, 1, OLD), discovery_timeout_ms=60_000)
    epoch = stage.lead(1)
    last = use_up(stage, epoch)
    stage.hear(1, Ack(epoch, last))
    stage.pass_time(stage.config.silence_ms - 1)
    assert stage.statuses[-1].serving
    stage.pass_time(1)
    assert not stage.statuses[-1].serving
    renew(stage, epoch, last)
    assert (stage.statuses[-1].serving, stage.statuses[-1].service) == (True, epoch + 1)


def test_a_learner_whose_leader_is_lost_meanwhile_stops_serving() -> None:
    stage = Stage(recovered(1, 1, OLD))
    stage.serve_under(2, END)
    stage.hear(3, HandOver(2, 3))
    assert stage.statuses[-1].serving
    stage.disconnect(3)
    assert not stage.statuses[-1].serving


def test_leadership_asked_for_meanwhile_is_confirmed_in_the_new_epoch() -> None:
    """20.7: a sync that waits is not forgotten."""
    stage = Stage(recovered(1, 1, OLD))
    epoch = stage.lead(1)
    last = use_up(stage, epoch)
    stage.hear(1, Ack(epoch, last))
    number = stage.peer.confirm_leadership()
    stage.carry_out()
    assert all(ready.confirmed_round == 0 for ready in stage.readies)
    renew(stage, epoch, last)
    stage.pass_time(stage.config.heartbeat_ms)
    asked = [each for each in stage.take_sent(1) if isinstance(each, Heartbeat)][-1]
    stage.hear(1, HeartbeatAck(epoch + 1, asked.serial))
    assert max(ready.confirmed_round for ready in stage.readies) >= number


def test_a_server_alone_renews_at_once() -> None:
    stage = Stage(recovered(1, 1, OLD), membership=Stage(size=3).config.membership.of([2]))
    epoch = stage.peer.status.epoch
    stage.propose(count=COUNTER_MAX - 5)
    assert (stage.peer.status.epoch, stage.peer.status.service) == (epoch + 1, epoch)
    assert stage.propose() == make_zxid(epoch + 1, 1)
    assert all(status.serving for status in stage.statuses[2:])
