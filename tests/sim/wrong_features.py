"""Observers, weights, hand-over and roll-over done wrong; `tests.sim.defects` says what each is."""

from collections.abc import Collection

from coord.zab.follower import Follower
from coord.zab.handing_over import best_successor
from coord.zab.leader import Leader, Phase
from coord.zab.messages import HandOver, Proposal, Propose, Sid, counter_of, epoch_of, make_zxid
from coord.zab.quorum import Hierarchical, Majority
from coord.zab.replica import Replica

EPOCH_COUNTER_MAX = 60
"""Zxids in an epoch where the roll-over is looked at."""

_RIGHT_COUNTABLE = Replica.countable
_RIGHT_TELL_EPOCH = Leader._tell_epoch


# Observers in the quorum.


def strangers_count(quorum: Majority, sids: Collection[Sid]) -> bool:
    """Counts whoever there is against a majority of the participants."""
    return 2 * len(set(sids)) > len(quorum.participants)


def observers_have_a_voice(replica: Replica) -> set[Sid]:
    return _RIGHT_COUNTABLE(replica) | (replica.connected & replica.newest_membership.observers)


def epoch_told_to_all(leader: Leader, *, voters: bool) -> None:
    _RIGHT_TELL_EPOCH(leader, voters=True)
    _RIGHT_TELL_EPOCH(leader, voters=False)


def observers_support(leader: Leader) -> bool:
    counting = {each.sid for each in leader._followers if each.counts or each.observes}
    return leader._replica.quorum.contains(counting | {leader._replica.sid})


# Weights.


def weightless_electable(quorum: Hierarchical) -> frozenset[Sid]:
    """A server of weight 0 stands for election (19.7)."""
    return quorum.participants


# Handing over.


def names_anybody(leader: Leader) -> None:
    """Names the successor at once, whatever that one has."""
    _name(leader, best_successor(leader.successors))


def names_the_last(leader: Leader) -> None:
    """Names the one that has least, at once."""
    _name(leader, min(leader.successors, key=lambda each: (each.logged, each.sid), default=None))


def _name(leader: Leader, best: Follower | None) -> None:
    handing_over = leader._handing_over
    if not handing_over.is_under_way or handing_over.successor is not None or best is None:
        return
    handing_over.successor = best.sid
    leader.announce_commit()
    leader._replica.send(best.sid, HandOver(leader.epoch, best.sid))


# Roll-over.


def never_ends(leader: Leader) -> bool:
    return False


def first_zxid_again(leader: Leader) -> int:
    """After the last zxid of the epoch comes its first."""
    last = leader._history.last_appended
    used_up = epoch_of(last) != leader.epoch or counter_of(last) > EPOCH_COUNTER_MAX - 8
    return make_zxid(leader.epoch, 1) if used_up else last + 1


def propose_with_first_zxid_again(leader: Leader, payload: bytes, count: int) -> int:
    assert leader._phase is Phase.ESTABLISHED
    first, previous = first_zxid_again(leader), leader._history.last_appended
    batch = Proposal(first, first + count - 1, payload)
    leader._history.append(batch)
    message = Propose(leader.epoch, previous, leader._history.committed, batch)
    leader._replica.broadcast(leader._followers.joined, message)
    return first
