"""Confirmation of leadership, so that a deposed leader answers no sync (20.7)."""

import pytest

from coord.zab import NotLeadingError, Role
from coord.zab.messages import (
    Ack,
    AckEpoch,
    AckNewLeader,
    FollowerInfo,
    Heartbeat,
    HeartbeatAck,
    LeaderInfo,
)
from tests.coord.zab.stage import Stage, batches, recovered

OLD = batches(1, 3)
END = OLD[-1].last_zxid


def test_a_quorum_confirms() -> None:
    stage = Stage(recovered(1, 1, OLD))
    epoch = stage.lead(1)
    stage.take_sent()
    number = stage.peer.confirm_leadership()
    stage.carry_out()
    assert stage.take_sent(1) == [Heartbeat(epoch, number, END)]
    stage.hear(1, HeartbeatAck(epoch, number))
    assert stage.readies[-1].confirmed_round == number


def test_syncs_of_a_tick_share_one_round() -> None:
    """DESIGN 4: syncs of a tick share one confirmation."""
    stage = Stage(recovered(1, 1, OLD))
    stage.lead(1)
    assert stage.peer.confirm_leadership() == stage.peer.confirm_leadership()


def test_an_echo_of_an_earlier_round_confirms_nothing_later() -> None:
    stage = Stage(recovered(1, 1, OLD))
    epoch = stage.lead(1)
    first = stage.peer.confirm_leadership()
    stage.carry_out()
    second = stage.peer.confirm_leadership()
    assert second == first + 1
    stage.hear(1, HeartbeatAck(epoch, first))
    assert stage.readies[-1].confirmed_round == first


def test_an_echo_of_a_round_that_was_never_asked_is_cut_down() -> None:
    stage = Stage(recovered(1, 1, OLD))
    epoch = stage.lead(1)
    stage.hear(1, HeartbeatAck(epoch, 1 << 40))
    assert all(ready.confirmed_round == 0 for ready in stage.readies)


def test_who_does_not_lead_confirms_nothing() -> None:
    stage = Stage(recovered(1, 1, OLD))
    stage.serve_under(2, END)
    with pytest.raises(NotLeadingError):
        stage.peer.confirm_leadership()


def test_follower_echoes_only_its_leaders_rounds() -> None:
    stage = Stage(recovered(1, 1, OLD))
    stage.serve_under(2, END)
    stage.take_sent()
    stage.hear(3, Heartbeat(2, 5, END))
    stage.hear(1, Heartbeat(2, 6, END))
    stage.hear(3, Heartbeat(1, 7, END))
    assert stage.take_sent() == [HeartbeatAck(2, 5)]


def test_proposals_are_refused_past_the_bound_and_taken_again_below() -> None:
    """Everything bounded: what is proposed and not committed."""
    stage = Stage(recovered(1, 1, OLD), outstanding_bytes_max=10)
    epoch = stage.lead(1)
    zxid = stage.propose(payload=bytes(10))
    assert not stage.peer.can_propose
    with pytest.raises(NotLeadingError):
        stage.peer.propose(b"x", 1)
    stage.hear(1, Ack(epoch, zxid))
    assert stage.peer.can_propose


def test_strangers_confirm_nothing() -> None:
    """19.5: who is no participant may learn; its promises and its acknowledgements move nobody."""
    stage = Stage(recovered(1, 1, OLD))
    epoch = stage.lead(1)
    stage.take_sent()
    stage.hear(9, FollowerInfo(1, 7, 7, END))
    assert stage.take_sent() == [LeaderInfo(1, epoch, compares=True)]
    stage.hear(9, AckEpoch(epoch, epoch, END, True), AckNewLeader(epoch))
    stage.peer.confirm_leadership()
    stage.carry_out()
    asked = [each for each in stage.take_sent(9) if isinstance(each, Heartbeat)][-1]
    stage.hear(9, HeartbeatAck(epoch, asked.serial))
    assert all(ready.confirmed_round == 0 for ready in stage.readies)
    assert stage.role is Role.LEADING
