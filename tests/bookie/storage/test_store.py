"""What the store accepts, refuses and promises: rules R-B1 to R-B12 of the ledger specification."""

import pytest

from bookie.ledger.wire import Code, Stop
from bookie.storage import RefusedError, StoreLimits


def refusal(error: pytest.ExceptionInfo[RefusedError]) -> Code:
    return error.value.code


def test_an_accepted_add_is_read_before_it_is_durable(bench):
    """R-B2."""
    bench.add(1, 0, [b"a", b"b"])
    assert bench.read(1, 0, 1) == [b"a", b"b"]
    assert bench.acknowledged == []


def test_an_add_is_answered_when_it_is_durable(bench):
    bench.add(1, 0, [b"a"])
    bench.store.flush()
    assert bench.acknowledged == []
    bench.settle()
    assert bench.acknowledged == [(1, 0)]


def test_what_was_answered_survives_a_crash(bench):
    bench.add(1, 0, [b"a", b"b"])
    bench.settle()
    bench.add(1, 2, [b"c"])
    bench.store.flush()
    bench.crash()
    assert bench.read(1, 0, 1) == [b"a", b"b"]
    answer = bench.answer(1, 2, 2)
    assert (answer.stop, answer.next_entry_id, answer.extents) == (Stop.NO_ENTRY, 2, [])


@pytest.mark.parametrize("checkpoint", [False, True])
def test_entries_come_in_any_order_and_with_gaps(bench, checkpoint):
    """R-B8."""
    bench.add(1, 7, [b"7", b"8"])
    bench.add(1, 2, [b"2"])
    bench.settle()
    if checkpoint:
        bench.checkpoint()
    bench.add(1, 0, [b"0"])
    bench.settle()
    if checkpoint:
        bench.checkpoint()
    assert bench.read(1, 7, 8) == [b"7", b"8"]
    assert bench.read(1, 0, 0) == [b"0"]
    assert bench.held(1) == (((0, 0), (2, 2), (7, 8)), 1000)
    assert bench.answer(1, 0, 8).next_entry_id == 1
    assert bench.answer(1, 3, 8).stop is Stop.NO_ENTRY


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("settle", [False, True])
def test_a_repeat_that_overlaps_is_decided_entry_by_entry(bench, checkpoint, settle):
    """R-B7: the ids that are not there yet are stored before OK."""
    bench.add(1, 2, [b"2", b"3"], token="old")
    if settle or checkpoint:
        bench.settle()
    if checkpoint:
        bench.checkpoint()
    bench.add(1, 0, [b"0", b"1", b"2", b"3", b"4", b"5"], token="new")
    bench.settle()
    assert bench.acknowledged == ["old", "new"]
    assert bench.read(1, 0, 5) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    bench.crash()
    assert bench.read(1, 0, 5) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    bench.checkpoint()
    assert bench.read(1, 1, 4) == [b"1", b"2", b"3", b"4"]


def test_a_copy_on_its_way_does_not_take_the_place_of_a_durable_one(bench):
    """A checkpoint between acceptance and durability must not drop what was acknowledged."""
    bench.add(1, 0, [b"0", b"1", b"2"])
    bench.settle()
    frozen = []
    bench.store.begin_checkpoint(frozen.append)
    bench.add(1, 1, [b"1"])
    bench.store.flush()
    assert bench.store.writer.step()
    bench.store.on_log()
    bench.store.index.commit(frozen[0])
    bench.crash()
    assert bench.read(1, 0, 2) == [b"0", b"1", b"2"]


def test_a_normal_add_to_a_fenced_ledger_is_refused_and_a_recovery_add_is_taken(bench):
    """R-B5."""
    bench.fence(1)
    with pytest.raises(RefusedError) as error:
        bench.add(1, 0, [b"a"])
    assert refusal(error) is Code.FENCED
    bench.add(1, 0, [b"r"], recovery=True)
    bench.settle()
    assert bench.read(1, 0, 0) == [b"r"]


def test_a_fence_counts_at_once_and_is_answered_when_it_is_durable(bench):
    """R-B3: also for a ledger nobody knew (R-B4)."""
    bench.fence(5)
    bench.fence(5)
    assert bench.store.ledger(5).fenced
    assert bench.acknowledged == []
    bench.settle()
    assert bench.acknowledged == [("fence", 5), ("fence", 5)]
    bench.fence(5)
    assert len(bench.acknowledged) == 3


def test_a_fence_that_is_not_durable_is_not_answered_and_not_remembered(bench):
    """R-B3: after the crash nobody was promised anything."""
    bench.add(1, 0, [b"a"])
    bench.settle()
    bench.fence(1)
    bench.store.flush()
    bench.crash()
    assert ("fence", 1) not in bench.acknowledged
    bench.add(1, 1, [b"b"])


@pytest.mark.parametrize("checkpoint", [False, True])
def test_fences_keys_and_lac_survive_restarts(bench, checkpoint):
    bench.add(1, 0, [b"a"], lac=-1)
    bench.store.write_lac(1, b"k" * 20, 0, lambda: None)
    bench.fence(1)
    bench.fence(2)
    bench.settle()
    if checkpoint:
        bench.checkpoint()
    for _ in range(2):
        bench.crash()
        for ledger_id in (1, 2):
            with pytest.raises(RefusedError) as error:
                bench.add(ledger_id, 1, [b"b"], lac=0)
            assert refusal(error) is Code.FENCED
            with pytest.raises(RefusedError) as error:
                bench.add(ledger_id, 1, [b"b"], key=b"x" * 20, recovery=True)
            assert refusal(error) is Code.UNAUTHORIZED
        assert bench.store.ledger(1).lac == 0


def test_an_add_accepted_before_the_fence_is_still_answered(bench):
    """R-B6."""
    bench.add(1, 0, [b"a"])
    bench.fence(1)
    bench.settle()
    assert bench.acknowledged == [(1, 0), ("fence", 1)]


def test_another_master_key_is_refused_without_effect(bench):
    """1.4, R-B12."""
    bench.add(1, 0, [b"a"])
    with pytest.raises(RefusedError) as error:
        bench.fence(1, b"x" * 20)
    assert refusal(error) is Code.UNAUTHORIZED
    assert not bench.store.ledger(1).fenced
    with pytest.raises(RefusedError):
        bench.add(1, 1, [b"b"], key=b"x" * 20)
    assert bench.held(1)[0] == ((0, 0),)


def test_an_empty_key_is_replaced_by_the_first_real_one(bench):
    """1.4: as an index rebuild leaves it."""
    bench.add(1, 0, [b"a"], key=b"")
    bench.add(1, 1, [b"b"])
    bench.settle()
    bench.crash()
    with pytest.raises(RefusedError) as error:
        bench.add(1, 2, [b"c"], key=b"x" * 20)
    assert refusal(error) is Code.UNAUTHORIZED


def test_the_lac_is_the_highest_received_and_nothing_else(bench):
    """R-F8: entries do not raise it, LAC fields do."""
    bench.add(1, 5, [b"a"], lac=3)
    bench.add(1, 6, [b"b"], lac=1)
    assert bench.store.ledger(1).lac == 3
    assert bench.store.ledger(1).last_entry_id == 6
    bench.settle()
    bench.checkpoint()
    bench.crash()
    assert bench.store.ledger(1).lac == 3
    assert bench.store.ledger(1).last_entry_id == 6


def test_a_rising_lac_wakes_who_watches_the_ledger(bench):
    heard: list[tuple[int, int]] = []
    bench.store.on_lac = lambda ledger_id, lac: heard.append((ledger_id, lac))
    bench.store.lac_watched.add(1)
    bench.add(1, 3, [b"a"], lac=2)
    bench.add(2, 3, [b"a"], lac=2)
    bench.add(1, 4, [b"a"], lac=2)
    assert heard == [(1, 2)]


def test_a_read_only_bookie_takes_fences_and_recovery_adds(bench):
    """R-B11."""
    bench.store.read_only = True
    with pytest.raises(RefusedError) as error:
        bench.add(1, 0, [b"a"])
    assert refusal(error) is Code.READ_ONLY
    assert bench.store.ledger(1) is None
    bench.fence(1)
    bench.add(1, 0, [b"a"], recovery=True)
    bench.store.refuse_recovery = True
    with pytest.raises(RefusedError) as error:
        bench.add(1, 1, [b"a"], recovery=True)
    assert refusal(error) is Code.READ_ONLY


class TestAdmission:
    @pytest.fixture
    def limits(self):
        return StoreLimits(unlogged_bytes_max=1000, cache_bytes_max=3000, ledgers_cached_max=2)

    def test_too_many_bytes_on_their_way_refuse_an_add_without_effect(self, bench):
        """R-B12."""
        bench.add(1, 0, [b"x" * 1000])
        with pytest.raises(RefusedError) as error:
            bench.add(2, 0, [b"y"])
        assert refusal(error) is Code.TOO_MANY_REQUESTS
        assert bench.store.ledger(2) is None
        bench.settle()
        bench.add(2, 0, [b"y"])

    def test_the_cache_of_recent_extents_is_bounded(self, bench):
        for entry_id in range(20):
            bench.add(1, entry_id, [bytes([entry_id]) * 500])
            bench.settle()
        assert bench.store.statistics()["cache_bytes"] <= 3000
        assert bench.read(1, 0, 19) == [bytes([entry_id]) * 500 for entry_id in range(20)]

    def test_idle_ledgers_leave_memory_after_a_checkpoint(self, bench):
        for ledger_id in range(10):
            bench.add(ledger_id, 0, [b"a"])
            bench.settle()
        bench.checkpoint()
        assert bench.store.statistics()["ledgers_in_memory"] == 2
        assert bench.store.statistics()["recent_runs"] == 0
        for ledger_id in range(10):
            assert bench.read(ledger_id, 0, 0) == [b"a"]


class TestDeletion:
    def test_a_deleted_ledger_is_unknown_and_refuses_its_old_writer(self, bench):
        """R-G5."""
        bench.add(1, 0, [b"a"])
        bench.settle()
        assert bench.store.delete(1)
        assert bench.store.ledger(1) is None
        assert not bench.store.delete(1)
        bench.settle()
        bench.checkpoint()
        for _ in range(2):
            with pytest.raises(RefusedError) as error:
                bench.add(1, 1, [b"b"])
            assert refusal(error) is Code.FENCED
            assert bench.store.ledger_ids(-1, 10) == ([], False)
            bench.crash()

    def test_re_replication_may_bring_a_deleted_ledger_back_and_it_is_fenced(self, bench):
        """R-G5, #4668."""
        bench.add(1, 0, [b"a"])
        bench.settle()
        bench.store.delete(1)
        bench.settle()
        with pytest.raises(RefusedError) as error:
            bench.add(1, 0, [b"a"], recovery=True)
        assert refusal(error) is Code.TOO_MANY_REQUESTS
        bench.checkpoint()
        bench.add(1, 0, [b"again"], recovery=True)
        bench.settle()
        bench.crash()
        assert bench.read(1, 0, 0) == [b"again"]
        with pytest.raises(RefusedError) as error:
            bench.add(1, 1, [b"b"])
        assert refusal(error) is Code.FENCED

    def test_a_deletion_between_two_checkpoints_is_replayed(self, bench):
        bench.add(1, 0, [b"a"])
        bench.add(2, 0, [b"a"])
        bench.settle()
        bench.checkpoint()
        bench.add(1, 1, [b"b"])
        bench.store.delete(1)
        bench.settle()
        bench.crash()
        assert bench.store.ledger(1) is None
        assert bench.store.ledger_ids(-1, 10) == ([2], False)

    def test_an_add_on_its_way_does_not_bring_its_ledger_back(self, bench):
        bench.add(1, 0, [b"a"])
        bench.store.delete(1)
        bench.settle()
        bench.checkpoint()
        assert bench.store.ledger(1) is None
        bench.crash()
        assert bench.store.ledger(1) is None

    def test_a_deletion_that_a_crash_interrupts_goes_on(self, bench, monkeypatch):
        """One commit removes so many runs; what is left must not stay for ever, nor the id be refused."""
        monkeypatch.setattr("bookie.storage.index_commit.DELETED_RUNS_MAX", 2)
        for entry_id in range(9):
            bench.add(1, entry_id, [b"a"])
            bench.settle()
        bench.checkpoint()
        bench.store.delete(1)
        bench.settle()
        bench.checkpoint()
        bench.crash()
        assert bench.store.ledger(1) is None
        assert bench.store.ledger_ids(-1, 10) == ([], False)
        with pytest.raises(RefusedError) as error:
            bench.add(1, 9, [b"b"])
        assert refusal(error) is Code.FENCED
        while bench.store.has_changes:
            bench.checkpoint()
        assert {runs for runs, _ in bench.store.index.segments.values()} == {0}
        bench.add(1, 4, [b"new"], recovery=True)
        bench.settle()
        bench.checkpoint()
        bench.crash()
        assert bench.held(1) == (((4, 4),), 1000)

    def test_neighbouring_tombstones_are_one_range(self, bench):
        for ledger_id in (3, 5, 4, 9):
            bench.add(ledger_id, 0, [b"a"])
            bench.settle()
            bench.store.delete(ledger_id)
            bench.settle()
            bench.checkpoint()
        assert list(bench.store.index.tombstones) == [(3, 5), (9, 9)]
        bench.crash()
        assert list(bench.store.index.tombstones) == [(3, 5), (9, 9)]


class TestSegments:
    @pytest.fixture
    def limits(self):
        return StoreLimits(segment_bytes_max=4096)

    def remove(self, bench):
        removed: list[int] = []
        bench.store.remove_segments(removed.extend)
        bench.settle()
        bench.store.index.forget_segments(removed)
        bench.store.index.drop_counters(removed)
        return removed

    def test_segments_without_live_extents_go_after_the_checkpoint(self, bench):
        """R-G3, and the keys, fences and tombstones they held are in the index by then."""
        bench.fence(7)
        for entry_id in range(20):
            bench.add(entry_id % 2, entry_id // 2, [bytes([entry_id]) * 1000])
            bench.settle()
        bench.store.delete(0)
        bench.settle()
        assert self.remove(bench) == []
        bench.checkpoint()
        self.remove(bench)
        bench.store.delete(1)
        bench.settle()
        before = len(bench.store.log.segments())
        bench.checkpoint()
        assert self.remove(bench)
        assert len(bench.store.log.segments()) < before
        bench.crash()
        assert bench.store.ledger(7).fenced
        with pytest.raises(RefusedError):
            bench.add(1, 50, [b"b"])

    def test_a_segment_being_read_stays(self, bench):
        for entry_id in range(10):
            bench.add(1, entry_id, [bytes([entry_id]) * 1000])
            bench.settle()
        places = [piece.source for piece in bench.store.ledger(1).pieces(bench.store.index, 0, 9)]
        bench.store.begin_read(places)
        bench.store.delete(1)
        bench.settle()
        bench.checkpoint()
        bench.store.begin_read(places[:1])
        bench.store.end_read(places)
        held = places[0].segment
        assert held not in bench.store.removable_segments()
        bench.store.end_read(places[:1])
        assert held in bench.store.removable_segments()

    def test_a_segment_with_one_live_entry_stays(self, bench):
        bench.add(1, 0, [b"a" * 3000])
        bench.add(2, 0, [b"keep"])
        bench.settle()
        for entry_id in range(1, 6):
            bench.add(1, entry_id, [b"a" * 3000])
            bench.settle()
        bench.store.delete(1)
        bench.settle()
        bench.checkpoint()
        assert self.remove(bench)
        bench.crash()
        assert bench.read(2, 0, 0) == [b"keep"]


def test_ledgers_are_listed_page_by_page_from_memory_and_index(bench):
    for ledger_id in range(0, 20, 2):
        bench.add(ledger_id, 0, [b"a"])
    bench.settle()
    bench.checkpoint()
    for ledger_id in range(1, 20, 2):
        bench.add(ledger_id, 0, [b"a"])
    for ledger_id in (4, 5, 6):
        bench.store.delete(ledger_id)
    found: list[int] = []
    after, more = -1, True
    while more:
        page, more = bench.store.ledger_ids(after, 3)
        found += page
        after = page[-1] if page else after
    assert found == [n for n in range(20) if n not in (4, 5, 6)]
