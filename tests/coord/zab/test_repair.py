"""What a damaged log gets back, what it may take from whom, and what proves that something is nowhere."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coord.zab import Proposal, Sid, make_zxid
from coord.zab.repair import (
    ZXID_MAX,
    Given,
    PeerStanding,
    Remains,
    Repair,
    RepairConflictError,
    Span,
)

OTHERS = frozenset({Sid(1), Sid(3)})
WHOLE = PeerStanding(1, is_whole=True)
DAMAGED = PeerStanding(1, is_whole=False)


def zxid(number: int, epoch: int = 1) -> int:
    return make_zxid(epoch, number)


def line(count: int, epoch: int = 1, previous: int = 0) -> list[Given]:
    """Batches of one request, each of ten bytes."""
    made = []
    for number in range(1, count + 1):
        last = zxid(number, epoch)
        made.append(Given(previous, Proposal(last, last, b"%10d" % last)))
        previous = last
    return made


def repair_of(
    history: Sequence[Given],
    good: Sequence[int],
    *,
    end: int | None = None,
    tail_bytes: int | None = 0,
    committed: int = 0,
    current_epoch: int = 1,
) -> Repair:
    """Of a log that held `history`; `good`: places of those batches that are still there."""
    kept = {history[place].proposal.last_zxid: history[place].previous_zxid for place in good}
    end_zxid = history[-1].proposal.last_zxid if end is None else end
    remains = Remains(0, kept, end_zxid, tail_bytes, committed, committed, current_epoch)
    return Repair(remains, OTHERS)


def answer(repair: Repair, sid: int, standing: PeerStanding, has: Sequence[Given]) -> None:
    """As a peer whose log reaches back to the beginning."""
    spans = repair.spans()
    for one in has:
        if any(span.above < one.proposal.last_zxid <= span.upto for span in spans):
            repair.receive(Sid(sid), standing, one)
    repair.answered(Sid(sid), standing, spans)


def test_a_log_without_holes_is_whole_at_once() -> None:
    repair = repair_of(line(3), [0, 1, 2])
    assert repair.is_done
    assert repair.history() == [zxid(1), zxid(2), zxid(3)]
    assert repair.repaired == 0


def test_each_hole_is_asked_for_and_filled_by_whoever_has_it() -> None:
    history = line(6)
    repair = repair_of(history, [0, 2, 5])
    assert repair.spans() == [Span(zxid(1), zxid(2)), Span(zxid(3), zxid(5))]
    answer(repair, 1, DAMAGED, [history[1], history[4]])
    assert repair.spans() == [Span(zxid(3), zxid(4))]
    answer(repair, 3, DAMAGED, [history[3]])
    assert repair.is_done
    assert repair.history() == [one.proposal.last_zxid for one in history]
    assert repair.given(zxid(4)) == history[3]
    assert (repair.repaired, repair.is_cut) == (3, False)


def test_what_is_not_on_the_way_back_from_a_good_batch_is_never_taken() -> None:
    """Server 1 missed epoch 2; what it has of epoch 1 was cut off here."""
    old, new = line(2), line(2, 2, zxid(1))
    repair = repair_of([old[0], *new], [0, 2], current_epoch=2)
    answer(repair, 1, WHOLE, old)
    assert repair.spans() == [Span(zxid(1), zxid(1, 2))]
    answer(repair, 3, PeerStanding(2, is_whole=True), new)
    assert repair.history() == [zxid(1), zxid(1, 2), zxid(2, 2)]


def test_a_known_tail_is_filled_exactly() -> None:
    history = line(5)
    repair = repair_of(history[:4], [0, 1], end=zxid(2), tail_bytes=20)
    assert repair.spans() == [Span(zxid(2), ZXID_MAX)]
    answer(repair, 1, DAMAGED, history)
    assert repair.history()[-1] == zxid(4)


def test_an_unknown_tail_ends_where_all_others_have_nothing_more() -> None:
    history = line(4)
    repair = repair_of(history, [0, 1], end=zxid(2), tail_bytes=None)
    answer(repair, 1, WHOLE, history[:3])
    answer(repair, 3, WHOLE, history[:2])
    assert not repair.is_done  # server 1 was asked for what follows batch 2, and has given it
    answer(repair, 1, WHOLE, history[:3])
    assert repair.is_done
    assert repair.history()[-1] == zxid(3)


@pytest.mark.parametrize(
    "standing", [DAMAGED, PeerStanding(0, is_whole=False), PeerStanding(1, is_whole=True, is_led=True)]
)
def test_who_is_damaged_or_has_a_leader_proves_nothing(standing: PeerStanding) -> None:
    history = line(3)
    repair = repair_of(history, [0, 2])
    for _ in range(2):
        answer(repair, 1, WHOLE, history[:1])
        answer(repair, 3, standing, history[:1])
    assert repair.spans() == [Span(zxid(1), zxid(2))]


def test_what_all_others_lack_is_cut_off() -> None:
    history = line(3)
    repair = repair_of(history, [0, 2], committed=zxid(1))
    answer(repair, 1, WHOLE, history[:1])
    answer(repair, 3, WHOLE, history[:1])
    for sid in OTHERS:  # and nothing was between the two
        answer(repair, sid, WHOLE, history[:1])
    assert repair.history() == [zxid(1)]
    assert repair.is_cut


def test_a_cut_does_not_take_what_stood_before_it_in_the_same_hole() -> None:
    """Batch 2 was committed, batch 3 not; both are bad here."""
    history = line(4)
    repair = repair_of(history, [0, 3], committed=0)
    for _ in range(3):
        answer(repair, 1, WHOLE, history[:2])
        answer(repair, 3, WHOLE, history[:2])
    assert repair.history() == [zxid(1), zxid(2)]


def test_what_is_known_committed_is_never_cut_off() -> None:
    history = line(3)
    repair = repair_of(history, [0, 2], committed=zxid(2))
    for _ in range(3):
        answer(repair, 1, WHOLE, history[:1])
        answer(repair, 3, WHOLE, history[:1])
    assert repair.spans() == [Span(zxid(1), zxid(2))]


def test_a_sole_participant_cuts_nothing() -> None:
    """What it has logged is committed; its observers may have it, or not yet."""
    history = line(3)
    kept = {zxid(1): 0, zxid(3): zxid(2)}
    repair = Repair(Remains(0, kept, zxid(3), 0, 0, 0, 1), frozenset())
    answer(repair, 9, WHOLE, history[:1])
    assert repair.spans() == [Span(zxid(1), zxid(2))]
    answer(repair, 9, WHOLE, history)
    assert repair.is_done


def test_one_with_a_whole_later_history_is_proof_enough() -> None:
    history = line(3)
    repair = repair_of(history, [0, 2])
    later = PeerStanding(2, is_whole=True)
    for _ in range(2):
        answer(repair, 1, later, [history[0], *line(1, 2, zxid(1))])
    assert repair.history() == [zxid(1)]


def test_who_has_something_else_behind_the_end_does_not_lack_it() -> None:
    """Batch 2 of epoch 1, which server 1 has, may be just what was lost; but server 1 has missed epoch 2."""
    repair = repair_of(line(2), [0], end=zxid(1), tail_bytes=None, current_epoch=2)
    for _ in range(3):
        answer(repair, 1, WHOLE, line(2))
        answer(repair, 3, WHOLE, line(1))
    assert not repair.is_done


def test_two_batches_with_one_zxid_are_a_conflict() -> None:
    repair = repair_of(line(3), [0, 2])
    repair.receive(Sid(1), DAMAGED, line(2)[1])
    with pytest.raises(RepairConflictError):
        repair.receive(Sid(3), DAMAGED, Given(zxid(1), Proposal(zxid(2), zxid(2), b"another")))


def test_a_chain_that_passes_the_checkpoint_is_a_conflict() -> None:
    remains = Remains(zxid(2), {zxid(3): zxid(1)}, zxid(3), 0, 0, 0, 1)
    with pytest.raises(RepairConflictError):
        Repair(remains, OTHERS)


# Whatever has happened before: servers that live through epochs, then lose parts of their logs.


@dataclass
class Life:
    """A server's log and promises, and what of the log is good."""

    current_epoch: int = 0
    log: list[Given] = field(default_factory=list)
    good: set[int] = field(default_factory=set)
    repair: Repair | None = None

    @property
    def last(self) -> int:
        return self.log[-1].proposal.last_zxid if self.log else 0

    @property
    def is_whole(self) -> bool:
        return self.repair is None

    @property
    def standing(self) -> PeerStanding:
        return PeerStanding(self.current_epoch, self.is_whole)

    @property
    def readable(self) -> list[Given]:
        return self.log if self.is_whole else [self.log[place] for place in sorted(self.good)]


def epochs(draw: random.Random, lives: dict[int, Life]) -> set[int]:
    """Some epochs of Zab; returns the zxids that were committed."""
    committed: set[int] = set()
    for epoch in range(1, draw.randrange(2, 6)):
        quorum = draw.sample(sorted(lives), draw.choice((2, 2, 3)))
        leader = lives[max(quorum, key=lambda sid: (lives[sid].current_epoch, lives[sid].last))]
        synced = [lives[sid] for sid in quorum if draw.random() < 0.8]
        initial = list(leader.log)
        for one in synced:
            common = [given for given in one.log if given in initial]
            one.log = initial[: draw.randrange(len(common), len(initial) + 1)]
            if draw.random() < 0.85:
                one.log, one.current_epoch = list(initial), epoch
        followers = [one for one in synced if one.current_epoch == epoch and one is not leader]
        if leader.current_epoch != epoch or not followers:
            continue
        committed |= {given.proposal.last_zxid for given in initial}
        for one_more in line(draw.randrange(4), epoch, leader.last):
            leader.log.append(one_more)
            holders = 1
            for one in followers:
                if one.log == leader.log[:-1] and draw.random() < 0.7:
                    one.log.append(one_more)
                    holders += 1
            if holders >= 2 and committed >= {each.proposal.last_zxid for each in leader.log[:-1]}:
                committed.add(one_more.proposal.last_zxid)
    return committed


def hurt(draw: random.Random, life: Life, others: frozenset[Sid], committed: set[int]) -> None:
    """Damages some of a log; how much is known of its end differs."""
    count = len(life.log)
    life.good = {place for place in range(count) if draw.random() < draw.choice((0.3, 0.7))}
    if life.current_epoch == 0 or (len(life.good) == count and draw.random() < 0.8):
        return
    known_end = max(life.good, default=-1)
    tail: int | None = sum(len(given.proposal.payload) for given in life.log[known_end + 1 :])
    if known_end < 0 or draw.random() < 0.5:
        tail = None
    if draw.random() < 0.4:
        known_end, tail = count - 1, 0  # it stopped in order
    known = [given.proposal.last_zxid for given in life.log if given.proposal.last_zxid in committed]
    known_committed = draw.choice([0, *known])
    remains = Remains(
        0,
        {life.log[place].proposal.last_zxid: life.log[place].previous_zxid for place in life.good},
        life.log[known_end].proposal.last_zxid if known_end >= 0 else 0,
        tail,
        known_committed,
        known_committed,
        life.current_epoch,
    )
    life.repair = Repair(remains, others)


def repair_all(lives: dict[int, Life]) -> None:
    """Until nothing moves; who is whole again has the history that was found."""
    batches = {given.proposal.last_zxid: given for life in lives.values() for given in life.log}
    for _ in range(12):
        for sid, life in lives.items():
            for other, peer in lives.items():
                if life.repair is not None and other != sid and not life.repair.is_done:
                    answer(life.repair, other, peer.standing, peer.readable)
            if life.repair is not None and life.repair.is_done:
                life.log = [batches[zxid] for zxid in life.repair.history()]
                life.repair = None


def test_no_quorum_of_repaired_servers_ever_lacks_what_was_committed() -> None:
    for seed in range(4000):
        _check_quorums(random.Random(seed), f"seed {seed}")


def _check_quorums(draw: random.Random, seed: str) -> None:
    lives = {sid: Life() for sid in (1, 2, 3)}
    committed = epochs(draw, lives)
    for sid, life in lives.items():
        if draw.random() < 0.7:
            hurt(draw, life, frozenset(Sid(other) for other in lives if other != sid), committed)
    repair_all(lives)
    whole = [life for life in lives.values() if life.is_whole and life.current_epoch > 0]
    for quorum in itertools.combinations(whole, 2):
        leader = max(quorum, key=lambda life: (life.current_epoch, life.last))
        assert committed <= {given.proposal.last_zxid for given in leader.log}, seed
    for life in whole:
        assert all(one.previous_zxid == before for one, before in _links(life.log)), seed


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False))
def test_what_has_a_good_copy_comes_back_if_all_ends_are_known(draw: random.Random) -> None:
    history = line(draw.randrange(1, 8))
    lives = {sid: Life(1, list(history)) for sid in (1, 2, 3)}
    keepers = [draw.choice((1, 2, 3)) for _ in history]
    for sid, life in lives.items():
        life.good = {n for n, keeper in enumerate(keepers) if keeper == sid or draw.random() < 0.4}
        others = frozenset(Sid(other) for other in lives if other != sid)
        kept = {history[n].proposal.last_zxid: history[n].previous_zxid for n in life.good}
        life.repair = Repair(Remains(0, kept, life.last, 0, 0, 0, 1), others)
    repair_all(lives)
    assert all(life.is_whole and life.log == history for life in lives.values())


def _links(log: Sequence[Given]) -> list[tuple[Given, int]]:
    return list(zip(log, [0, *(one.proposal.last_zxid for one in log)], strict=False))
