"""The experiment of protocol-aware recovery (Alagappan et al., FAST 2018) on our storage and our Zab: three
servers, damage in any entries of their logs. What has one good copy left comes back, and all serve; what has
none is not made up, and nobody serves without it if it was committed.
"""

import itertools
import random
from collections.abc import Iterator

import pytest

from coord.disk import PowerLossError
from coord.log import LogDamagedError
from coord.log.format import FRAME_HEADER_BYTES
from coord.storage import LogsToGive
from tests.coord.storage.conftest import state_at
from tests.coord.storage.replicas import BASE, SIDS, Replicas, expected

ENTRIES = 3


def patterns(entries: int) -> Iterator[list[tuple[int, int]]]:
    """All subsets of (sid, entry)."""
    places = list(itertools.product(SIDS, range(1, entries + 1)))
    for bits in range(1 << len(places)):
        yield [place for number, place in enumerate(places) if bits >> number & 1]


def has_good_copies(damage: list[tuple[int, int]], entries: int) -> bool:
    counts = [sum((sid, number) in damage for sid in SIDS) for number in range(1, entries + 1)]
    return max(counts) < len(SIDS)


def damaged(ensemble: Replicas, damage: list[tuple[int, int]]) -> Replicas:
    source = random.Random(repr(damage))
    for sid, number in damage:
        ensemble.damage(sid, number, source)
    ensemble.open()
    return ensemble


def go_on(ensemble: Replicas) -> None:
    """Repair, then an election."""
    ensemble.repair_all()
    ensemble.elect()


def check_all_have(ensemble: Replicas, count: int) -> None:
    for replica in ensemble.replicas:
        assert replica.is_serving
        assert replica.server is not None
        assert replica.server.state.nodes == state_at(BASE + count, BASE + 1)


def check_all_serve(ensemble: Replicas, count: int) -> None:
    """All of it by their logs, which no checkpoint has cut."""
    check_all_have(ensemble, count)
    assert all(replica.logged() == expected(count) for replica in ensemble.replicas)


@pytest.mark.parametrize("part", range(8))
def test_every_pattern_of_damage_that_leaves_a_good_copy_is_recovered(part: int) -> None:
    for damage in itertools.islice(patterns(ENTRIES), part, None, 8):
        if has_good_copies(damage, ENTRIES):
            ensemble = damaged(Replicas(ENTRIES), damage)
            go_on(ensemble)
            check_all_serve(ensemble, ENTRIES)


@pytest.mark.parametrize("part", range(2))
def test_a_committed_entry_without_a_good_copy_is_waited_for(part: int) -> None:
    """Nobody serves, and whoever is damaged says what is missing."""
    for damage in itertools.islice(patterns(ENTRIES), part, None, 2):
        if not has_good_copies(damage, ENTRIES):
            ensemble = damaged(Replicas(ENTRIES), damage)
            go_on(ensemble)
            assert not any(replica.is_serving for replica in ensemble.replicas)
            assert all(replica.repair is not None and replica.repair.spans() for replica in ensemble.replicas)


def test_after_a_crash_what_comes_back_is_all_or_nothing() -> None:
    """Without a mark behind the last entry nobody may know how much there was. Then servers that all are
    damaged wait, rather than to go on without what may have been acknowledged.
    """
    outcomes = {True: 0, False: 0}
    for damage in itertools.islice(patterns(ENTRIES), 0, None, 3):
        ensemble = damaged(Replicas(ENTRIES, marked=False), damage)
        go_on(ensemble)
        serve = [replica.is_serving for replica in ensemble.replicas]
        outcomes[all(serve)] += 1
        if any(serve):
            check_all_serve(ensemble, ENTRIES)
    assert outcomes[True] > 60


HEADER_ALONE = FRAME_HEADER_BYTES
HEADER_AND_DATA = FRAME_HEADER_BYTES + 30


@pytest.mark.parametrize("length", [HEADER_ALONE, HEADER_AND_DATA])
@pytest.mark.parametrize("sids", [(1, 2), (1, 3), (2, 3)])
def test_two_servers_whose_last_header_is_destroyed_by_a_crash_do_not_wait(
    sids: tuple[int, int], length: int
) -> None:
    """The third one is whole, and has all there was: its seal says how much that is."""
    ensemble = Replicas(ENTRIES, marked=False)
    for sid in sids:
        ensemble.destroy_begin(sid, ENTRIES, length)
    ensemble.open()
    assert [replica.sid for replica in ensemble.replicas if replica.lost is not None] == list(sids)
    go_on(ensemble)
    check_all_serve(ensemble, ENTRIES)


@pytest.mark.parametrize("part", range(4))
def test_after_a_crash_every_pattern_of_destroyed_begins_is_recovered(part: int) -> None:
    """Seals say how much there was: with a good copy of each entry nobody waits."""
    for damage in itertools.islice(patterns(ENTRIES), part, None, 8):
        if has_good_copies(damage, ENTRIES):
            ensemble = Replicas(ENTRIES, marked=False)
            for sid, number in damage:
                ensemble.destroy_begin(sid, number, HEADER_AND_DATA)
            ensemble.open()
            go_on(ensemble)
            check_all_serve(ensemble, ENTRIES)


def test_destroyed_headers_cost_nothing_where_no_other_server_has_the_batch() -> None:
    ensemble = Replicas(ENTRIES, marked=False)
    for sid in SIDS:
        ensemble.destroy_begin(sid, ENTRIES, HEADER_ALONE)
    ensemble.open()
    go_on(ensemble)
    check_all_serve(ensemble, ENTRIES)


def test_a_destroyed_last_batch_that_the_whole_server_never_had_is_waited_for() -> None:
    """Servers 1 and 2 were a quorum for it: it may have been acknowledged."""
    ensemble = Replicas(ENTRIES, marked=False, counts={3: ENTRIES - 1})
    for sid in (1, 2):
        ensemble.destroy_begin(sid, ENTRIES, HEADER_AND_DATA)
    ensemble.open()
    go_on(ensemble)
    assert not any(replica.is_serving for replica in ensemble.replicas)


@pytest.mark.parametrize("seed", range(30))
def test_longer_logs_of_several_segments_are_recovered(seed: int) -> None:
    """Of each entry one good copy, at random; up to half a log may be missing."""
    draw = random.Random(seed)
    count = draw.randrange(20, 60)
    damage = []
    for number in range(1, count + 1):
        keeper = draw.choice(SIDS)
        damage += [(sid, number) for sid in SIDS if sid != keeper and draw.random() < 0.5]
    ensemble = damaged(Replicas(count), damage)
    if draw.random() < 0.5:
        ensemble.elect(ms=300)  # a leader, if there is one, comes first
        ensemble.reopen()
    go_on(ensemble)
    check_all_serve(ensemble, count)


def test_a_repaired_log_bears_damage_as_the_one_before_did() -> None:
    """Entry by entry: what befalls one entry of it does not take others along."""
    ensemble = damaged(Replicas(ENTRIES), [(sid, number) for sid in (1, 2) for number in (1, 2)])
    go_on(ensemble)
    for sid in SIDS:
        ensemble.damage_again(sid, sid)
    ensemble.reopen()
    go_on(ensemble)
    check_all_serve(ensemble, ENTRIES)


def test_what_was_never_committed_and_is_lost_is_cut_off() -> None:
    """Server 1 has logged a third entry, nobody else has; it is bad."""
    ensemble = damaged(Replicas(3, committed=2, counts={2: 2, 3: 2}), [(1, 3), (2, 1), (3, 2)])
    ensemble.repair_all()
    assert ensemble[1].repair is None
    assert ensemble[1].logged() == expected(2)
    ensemble.elect()
    check_all_serve(ensemble, 2)


def test_what_is_lost_and_may_have_been_committed_is_not_cut_off_while_one_is_away() -> None:
    """Server 3 has it; server 2, which answers, has never had it."""
    ensemble = damaged(Replicas(3, committed=2, counts={2: 2}), [(1, 3)])
    ensemble.replicas = ensemble.replicas[:2]
    ensemble.repair_all()
    assert ensemble[1].repair is not None
    assert [span.upto for span in ensemble[1].repair.spans()] == [BASE + 3]


def test_a_lost_segment_comes_back() -> None:
    """Its file is gone, the others say that there was one."""
    count = 40
    ensemble = Replicas(count)
    for sid, number in ((1, 20), (2, 35)):
        disk, path = ensemble[sid].disk, ensemble.frames[sid, number].path
        disk.unlink(path)
        disk.fsync_directory(path.rpartition("/")[0])
    ensemble.open()
    go_on(ensemble)
    check_all_serve(ensemble, count)


def test_a_good_checkpoint_makes_what_is_below_it_unnecessary() -> None:
    """Entry 1 is bad everywhere; it is in the checkpoint of each."""
    ensemble = Replicas(4, checkpoint=2)
    source = random.Random(1)
    for sid, number in ((1, 1), (2, 1), (3, 1), (1, 3), (2, 4)):
        ensemble.damage(sid, number, source)
    ensemble.open()
    go_on(ensemble)
    check_all_have(ensemble, 4)


@pytest.mark.parametrize("first", [1, 2])
def test_the_last_good_copy_may_be_behind_a_checkpoint_that_only_its_server_has(first: int) -> None:
    """That server is repaired too, before the others or behind them."""
    holder, others = (1, (2, 3)) if first == 1 else (3, (1, 2))
    ensemble = Replicas(4, checkpoint={holder: 3})
    source = random.Random(1)
    for sid, number in ((holder, 4), *((sid, number) for sid in others for number in (1, 2))):
        ensemble.damage(sid, number, source)
    ensemble.open()
    go_on(ensemble)
    check_all_have(ensemble, 4)


def test_a_power_loss_at_any_step_of_a_repair_leaves_something_to_repair_from() -> None:
    """And never a server that claims what it does not have."""
    finished = 0
    for step in range(80):
        ensemble = damaged(Replicas(4), [(1, 2), (2, 3)])
        victim = ensemble[1]
        victim.disk.power_off_after(step)
        try:
            ensemble.repair_all()
            finished += 1
        except PowerLossError:
            pass
        victim.disk.restart(random.Random(step))
        assert victim.open().found.state is not None
        if victim.server is not None and victim.server.directory.epochs.current > 0:
            assert victim.logged() == expected(4)
        go_on(ensemble)
        check_all_serve(ensemble, 4)
    assert 0 < finished < 80


def test_a_log_that_is_damaged_later_still_has_what_is_behind() -> None:
    """Its server began with it whole."""
    ensemble = Replicas(5)
    ensemble.open()
    ensemble.damage(1, 2, random.Random(0))
    server = ensemble[1].server
    assert server is not None
    logs = LogsToGive(server.directory, None)
    with pytest.raises(LogDamagedError):
        list(logs.batches_above(server.log, BASE))
    found = [(one.first, one.last, one.payload) for one in logs.batches_in_spite_of_damage(BASE)]
    assert found == [each for each in expected(5) if each[1] != BASE + 2]
