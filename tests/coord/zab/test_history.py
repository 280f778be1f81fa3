"""The window of batches and its positions, against a plain model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord.zab import HistoryConflictError, Membership, Proposal
from coord.zab.history import History
from coord.zab.ready import no_membership
from tests.coord.zab.stage import batches

SOME = batches(1, 6)
ALONE = Membership.of([1])


def zxid(count: int) -> int:
    return SOME[count - 1].last_zxid if count else 0


def history(recovered: int = 0, executed: int = 0, bytes_max: int = 1 << 20) -> History:
    return History(0, SOME[:recovered], zxid(executed), bytes_max, ALONE, no_membership)


def test_recovered_batches_are_logged_and_the_tail_is_not_delivered() -> None:
    it = history(4, 2)
    assert (it.logged, it.committed, it.delivered) == (zxid(4), zxid(2), zxid(2))
    it.commit(zxid(4))
    assert it.take_committed() == list(SOME[2:4])


def test_executed_zxid_must_be_the_end_of_a_batch() -> None:
    with pytest.raises(ValueError, match="not the end"):
        History(0, (Proposal((1 << 32) + 1, (1 << 32) + 5, b""),), (1 << 32) + 3, 100, ALONE, no_membership)


def test_truncation_of_what_the_log_never_got_needs_no_cut() -> None:
    it = history(2, 1)
    it.append(SOME[2])
    it.append(SOME[3])
    it.truncate(zxid(2))
    assert it.take_truncate() is None
    assert it.take_append() == ()
    assert it.settled


def test_truncation_of_what_the_log_got_is_cut_before_the_next_append() -> None:
    it = history(2, 1)
    it.append(SOME[2])
    it.take_append()
    it.append(SOME[3])
    it.truncate(zxid(1))
    it.append(SOME[1])
    assert it.take_truncate() == zxid(1)
    assert it.take_append() == [SOME[1]]
    assert not it.settled
    it.on_truncated()
    it.on_logged(zxid(2))
    assert it.settled


def test_two_truncations_become_the_lower() -> None:
    it = history(5, 1)
    it.truncate(zxid(3))
    it.truncate(zxid(2))
    assert it.take_truncate() == zxid(2)
    it.on_truncated()
    assert it.settled


def test_committed_batches_are_never_cut() -> None:
    it = history(4, 3)
    with pytest.raises(HistoryConflictError):
        it.truncate(zxid(2))


def test_a_pinned_window_is_kept_up_to_twice_its_bound() -> None:
    """A learner that installs a snapshot will need what follows it."""
    it = History(0, (), 0, 1000, ALONE, no_membership)
    it.pin(7, 0)
    last = 0
    for batch in batches(1, 100):
        batch = Proposal(batch.first_zxid, batch.last_zxid, bytes(100))
        it.append(batch)
        last = batch.last_zxid
        it.take_append()
        it.on_logged(last)
        it.commit(last)
        it.take_committed()
        kept = len(it.batches_after(0))
        assert kept <= 21
    assert kept >= 18
    it.unpin(7)
    assert it.has_boundary(it.floor)


@given(st.lists(st.sampled_from(["append", "log", "commit", "cut", "take", "cut report"]), max_size=60))
def test_positions_keep_their_order(steps: list[str]) -> None:
    """floor <= delivered <= committed <= last_appended, delivered <= logged <= last_appended; each batch
    once.
    """
    it = History(0, (), 0, 300, ALONE, no_membership)
    counter, epoch, delivered = 0, 1, 0
    log: list[Proposal | int] = []
    for step in steps:
        if step == "append":
            counter += 1
            number = epoch << 32 | counter
            it.append(Proposal(number, number, bytes(100)))
        elif step == "commit":
            it.commit(it.last_appended)
        elif step == "cut" and it.committed < it.last_appended:
            it.truncate(it.committed)
            epoch, counter = epoch + 1, 0
        elif step == "take":
            cut = it.take_truncate()
            if cut is not None:
                log.append(cut)
            log.extend(it.take_append())
        elif step in ("log", "cut report") and log:
            done = log.pop(0)
            if isinstance(done, Proposal):
                it.on_logged(done.last_zxid)
            else:
                it.on_truncated()
        for batch in it.take_committed():
            assert batch.first_zxid > delivered
            delivered = batch.last_zxid
        assert it.floor <= it.delivered <= it.committed <= it.last_appended
        assert it.delivered <= it.logged <= it.last_appended
        assert it.undelivered_bytes == 100 * len(it.batches_after(it.delivered))
