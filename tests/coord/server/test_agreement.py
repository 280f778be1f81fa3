"""When a checkpoint may take the place of the last one (DESIGN 4): with an ensemble of one, and with servers
that the test plays.
"""

from coord.server.agreement import HOLD_MS_MAX, Agreement
from coord.zab import Config, Membership, Peer, Recovered, Sid
from coord.zab.messages import StateDigest, StateVerdict
from tests.coord.zab.stage import Stage, batches, recovered

LOG = batches(1, 3)
LAST = LOG[-1].last_zxid


def leader() -> tuple[Stage, int]:
    stage = Stage(recovered(1, 1, LOG))
    return stage, stage.lead(1, 3)


def test_a_server_that_is_alone_agrees_with_itself() -> None:
    peer = Peer(Config(Sid(1), Membership.of([1])), Recovered(), 0)
    peer.take_ready()
    peer.epochs_persisted(1, 0, 0)
    peer.take_ready()
    peer.epochs_persisted(1, 1, 0)
    peer.take_ready()
    agreement = Agreement(peer)
    agreement.note(7, 11)
    assert agreement.allows(7, 0)


def test_a_checkpoint_waits_for_a_quorum() -> None:
    stage, epoch = leader()
    agreement = Agreement(stage.peer)
    agreement.note(LAST, 11)
    assert not agreement.allows(LAST, 0)
    stage.hear(1, StateDigest(epoch, LAST, 11))
    assert agreement.allows(LAST, 0)
    assert not agreement.allows(LAST + 1, 0)


def test_who_is_away_holds_nothing_up_for_ever() -> None:
    stage, _ = leader()
    agreement = Agreement(stage.peer)
    agreement.note(LAST, 11)
    assert not agreement.allows(LAST, HOLD_MS_MAX - 1)
    assert agreement.allows(LAST, HOLD_MS_MAX)


def test_a_dispute_holds_it_up_until_it_is_decided() -> None:
    stage = Stage(recovered(1, 1, LOG))
    stage.serve_under(2, LAST)
    agreement = Agreement(stage.peer)
    agreement.note(LAST, 11)
    stage.hear(3, StateVerdict(2, LAST, 0, agreed=False))
    assert not agreement.allows(LAST, 100 * HOLD_MS_MAX)


def test_a_state_known_to_be_wrong_is_not_kept() -> None:
    stage = Stage(recovered(1, 1, LOG))
    stage.serve_under(2, LAST)
    agreement = Agreement(stage.peer)
    agreement.note(LAST, 11)
    assert not agreement.is_denied
    stage.hear(3, StateVerdict(2, LAST, 12, agreed=True))
    assert agreement.is_denied
    assert not agreement.allows(LAST, 100 * HOLD_MS_MAX)
