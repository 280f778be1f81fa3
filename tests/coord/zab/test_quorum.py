"""Quorum systems (19.7): which sets of servers decide, and who may lead."""

from collections.abc import Iterable, Iterator
from itertools import combinations

import pytest

from coord.zab import Hierarchical, Joint, Majority, Membership, Quorum, Role, Sid, make_zxid
from coord.zab.messages import AckEpoch, FollowerInfo, Truncate
from tests.coord.zab.stage import ME, Stage, batches, recovered


def sids(*numbers: int) -> frozenset[Sid]:
    return frozenset(map(Sid, numbers))


def grouped(*groups: tuple[int, ...], **weights: int) -> Membership:
    return Membership(
        sids(*[sid for group in groups for sid in group]),
        groups=tuple(sids(*group) for group in groups),
        weights=tuple((Sid(int(name[1:])), weight) for name, weight in weights.items()),
    )


THREE_GROUPS = grouped((1, 2, 3), (4, 5, 6), (7, 8, 9)).quorum
QUORUMS: tuple[Quorum, ...] = (
    Majority(sids(1, 2, 3)),
    Majority(sids(1, 2, 3, 4)),
    THREE_GROUPS,
    grouped((1, 2), (3, 4), (5,), s1=2, s5=0).quorum,
    grouped((1, 2, 3, 4), s1=3, s4=0).quorum,
    Joint(Majority(sids(1, 2, 3)), Majority(sids(3, 4, 5))),
    Joint(Majority(sids(1, 2, 3)), grouped((2, 3), (4, 5), s4=2).quorum),
)


def subsets(of: Iterable[Sid]) -> Iterator[frozenset[Sid]]:
    members = sorted(of)
    for size in range(len(members) + 1):
        for chosen in combinations(members, size):
            yield frozenset(chosen)


@pytest.mark.parametrize("quorum", QUORUMS)
def test_any_two_quorums_meet(quorum: Quorum) -> None:
    """19.7: the one property that safety rests on; nobody outside the participants matters."""
    deciding = [chosen for chosen in subsets(quorum.participants) if quorum.contains(chosen)]
    assert deciding
    assert all(one & other for one, other in combinations(deciding, 2))
    assert all(quorum.contains(chosen | sids(99)) for chosen in deciding)


@pytest.mark.parametrize("quorum", QUORUMS)
def test_logged_by_quorum_is_what_some_quorum_has(quorum: Quorum) -> None:
    """The highest zxid such that those who have it are a quorum, for every way of being behind."""
    members = sorted(quorum.participants)
    for shift in range(len(members)):
        logged = {sid: 10 * ((place + shift) % len(members)) + 1 for place, sid in enumerate(members)}
        logged[Sid(99)] = 1000
        zxid = quorum.logged_by_quorum(logged)
        assert quorum.contains([sid for sid in members if logged[sid] >= zxid])
        assert not quorum.contains([sid for sid in members if logged[sid] > zxid])


def test_too_few_logs_are_no_quorum() -> None:
    assert Majority(sids(1, 2, 3)).logged_by_quorum({Sid(1): 7}) == 0
    assert THREE_GROUPS.logged_by_quorum({Sid(1): 7, Sid(2): 7, Sid(4): 7}) == 0


def test_most_of_the_weight_in_most_of_the_groups_decides() -> None:
    """19.7: a strict majority of weight in a strict majority of the groups; 4 of 9 servers may do."""
    assert THREE_GROUPS.contains(sids(1, 2, 4, 5))
    assert not THREE_GROUPS.contains(sids(1, 2, 3, 4, 7))


def test_a_group_without_weight_does_not_count() -> None:
    """19.7: groups having non-zero weight."""
    quorum = grouped((1, 2), (3, 4), s3=0, s4=0).quorum
    assert quorum.contains(sids(1, 2))
    assert not quorum.contains(sids(1, 3, 4))


def test_groups_that_do_not_cover_the_participants_are_refused() -> None:
    """19.7: disjoint groups covering all participants."""
    with pytest.raises(ValueError, match="exactly one group"):
        Membership(sids(1, 2, 3), groups=(sids(1, 2),))
    with pytest.raises(ValueError, match="exactly one group"):
        Membership(sids(1, 2, 3), groups=(sids(1, 2), sids(2, 3)))
    with pytest.raises(ValueError, match="weight above 0"):
        grouped((1, 2), s1=0, s2=0)


def test_a_server_of_weight_0_votes_for_others_only() -> None:
    """19.7: weight 0 servers never become leader, however recent their history."""
    stage = Stage(recovered(1, 1, batches(1, 3)), membership=grouped((1, 2, 3), s2=0))
    stage.connect(1, 3)
    stage.vote(1, 1, 1, make_zxid(1, 1))
    stage.vote(3, 1, 1, make_zxid(1, 1))
    assert (stage.role, stage.peer.status.leader) == (Role.FOLLOWING, 1)


def test_what_only_a_server_of_weight_0_has_is_cut() -> None:
    """19.7, 20.4: it cannot lead, so a leader that gave up because it is ahead would give up for ever."""
    end = make_zxid(1, 1)
    stage = Stage(recovered(1, 1, batches(1, 1)), membership=grouped((1, 2, 3), s3=0))
    epoch = stage.lead(1)
    stage.peer.resign("again", stage.now_ms)
    stage.carry_out()
    stage.vote(1, ME, epoch, end, round=2)
    stage.vote(3, ME, epoch, end, round=2)
    stage.hear(3, FollowerInfo(1, epoch, epoch, make_zxid(epoch, 5)))
    stage.hear(1, FollowerInfo(2, epoch, epoch, end))
    stage.hear(3, AckEpoch(epoch + 1, epoch, make_zxid(epoch, 5), True))
    stage.hear(1, AckEpoch(epoch + 1, epoch, end, True))
    assert stage.role is Role.LEADING
    assert Truncate(epoch + 1, end) in stage.take_sent(3)


def test_hierarchical_is_what_groups_make() -> None:
    assert isinstance(THREE_GROUPS, Hierarchical)
    assert isinstance(Membership.of([1, 2]).quorum, Majority)
