"""Power losses at every point, torn tails, bit rot and lost files (spec 17.4 to 17.7)."""

import errno
import random
import shutil

import pytest

from bookie.ledger.wire import Code, Stop
from bookie.storage import RefusedError, StoreDamagedError, StoreLimits
from bookie.storage.index import Index
from coord.disk import DiskFault, PowerLossError
from coord.log import LogFailedError
from tests.bookie.storage.conftest import INCARNATION, Bench

SEGMENTS = "/data/segments"


def segment_paths(bench):
    return [f"{SEGMENTS}/{name}" for name in bench.disk.list(SEGMENTS)]


class Script:
    """A writer that is fenced and recovered, a second ledger, a deletion, and checkpoints in between."""

    def __init__(self, bench):
        self.bench = bench
        self.fenced: set[int] = set()

    def steps(self):
        bench = self.bench
        for entry_id in range(0, 12, 2):
            yield lambda e=entry_id: bench.add(
                1, e, [b"1-%d" % e, b"1-%d" % (e + 1)], lac=e - 1, token=(1, e, e + 1)
            )
            yield lambda e=entry_id: bench.add(2, e * 10, [b"2-%d" % (e * 10)] * 3, token=(2, e * 10, e * 10))
            if entry_id % 6 == 2:
                yield bench.checkpoint
            yield bench.settle
        yield lambda: bench.add(3, 0, [b"gone"], token=(3, 0, 0))
        yield lambda: bench.fence(1)
        yield bench.settle
        yield lambda: bench.add(1, 11, [b"1-11", b"1-12"], recovery=True, token=(1, 11, 12))
        yield lambda: bench.store.delete(3)
        yield bench.settle
        yield bench.checkpoint
        yield lambda: bench.add(2, 400, [b"2-400"], token=(2, 400, 400))
        yield bench.settle

    def run(self):
        for step in self.steps():
            step()
            if self.bench.store.writer.failure is not None:
                raise PowerLossError


def state_of(bench):
    """Everything the store answers, for comparison."""
    ids, _ = bench.store.ledger_ids(-1, 100)
    return {
        number: (
            bench.held(number),
            bench.store.ledger(number).fenced,
            bench.store.ledger(number).lac,
            bench.store.ledger(number).master_key,
        )
        for number in ids
    }


def check_acknowledged(bench):
    deleted = bench.store.ledger(3) is None
    for token in bench.acknowledged:
        if token[0] == "fence":
            assert bench.store.ledger(token[1]).fenced
            with pytest.raises(RefusedError):
                bench.add(token[1], 900, [b"x"])
            continue
        ledger_id, first, last = token
        if ledger_id == 3 and deleted:
            continue
        for entry_id in range(first, last + 1):
            assert (
                bench.read(ledger_id, entry_id, entry_id) == [b"%d-%d" % (ledger_id, entry_id)]
                or ledger_id == 3
            )


@pytest.mark.parametrize("seed", range(3))
def test_what_was_acknowledged_survives_a_power_loss_at_any_point(tmp_path, seed):
    """17.4, 17.6: acked is stored, fences, keys and LACs stay, and replaying twice gives the same."""
    changes, done = 0, False
    while not done:
        bench = Bench(tmp_path / f"{changes}", StoreLimits(segment_bytes_max=3000))
        rng = random.Random(f"{seed} {changes}")
        bench.disk.power_off_after(changes)
        try:
            Script(bench).run()
            done = True
        except (PowerLossError, LogFailedError):
            pass
        bench.crash(rng)
        check_acknowledged(bench)
        first = state_of(bench)
        for _ in range(2):
            bench.crash(rng)
            assert state_of(bench) == first
        bench.add(7, 0, [b"alive"])
        bench.settle()
        bench.close()
        changes += 1
    assert changes > 20


@pytest.mark.parametrize("kept", [1, 511, 600, 2500])
def test_a_torn_tail_is_cut_and_what_came_before_it_stays(bench, kept):
    """17.7: a torn group was never acknowledged (R-N3)."""
    bench.add(1, 0, [b"a"])
    bench.settle()
    path, end = segment_paths(bench)[-1], bench.store.log.end().offset
    bench.add(1, 1, [b"b" * 3000])
    bench.settle()
    bench.disk.replace_content(path, bench.disk.content(path)[: end + kept])
    bench.crash()
    assert bench.read(1, 0, 0) == [b"a"]
    assert bench.answer(1, 1, 1).stop is Stop.NO_ENTRY


def test_damage_behind_the_mark_stops_the_start(bench):
    """R-J4, 17.7: in the middle of what must be replayed nothing may be skipped."""
    bench.add(1, 0, [b"a" * 600])
    bench.settle()
    path = segment_paths(bench)[-1]
    bench.add(1, 1, [b"b" * 600])
    bench.settle()
    at = bench.disk.content(path).index(b"a" * 600)
    bench.close()
    bench.disk.flip_bit(path, 8 * at)
    with pytest.raises(StoreDamagedError, match="damaged at offset"):
        bench.crash()


@pytest.mark.parametrize("where", [b"payload" * 20, b"zlx1"])
def test_bit_rot_in_what_the_index_holds_is_an_io_error_and_never_an_absence(bench, where):
    """R-B9, R-S2, 17.5."""
    bench.add(1, 0, [b"payload" * 20])
    bench.add(1, 1, [b"other"])
    bench.settle()
    bench.checkpoint()
    bench.crash()
    for path in segment_paths(bench):
        at = bench.disk.content(path).find(where)
        if at >= 0:
            bench.disk.flip_bit(path, 8 * at + 3)
    answer = bench.answer(1, 0, 0)
    assert (answer.stop, answer.next_entry_id, answer.error) == (Stop.ERROR, 0, Code.IO_ERROR)
    assert bench.read(1, 1, 1) == [b"other"]
    assert bench.held(1) == (((0, 1),), 1000)


@pytest.mark.parametrize("damage", ["unlink", "truncate", "swap"])
def test_a_segment_that_is_lost_short_or_anothers_is_an_io_error(bench, damage):
    """R-B9, 17.5."""
    bench.add(1, 0, [b"one" * 300])
    bench.add(2, 0, [b"two" * 300])
    bench.settle()
    bench.checkpoint()
    bench.crash()
    (path,) = [path for path in segment_paths(bench) if b"oneone" in bench.disk.content(path)]
    content = bench.disk.content(path)
    if damage == "unlink":
        bench.disk.unlink(path)
    elif damage == "truncate":
        bench.disk.replace_content(path, content[:1024])
    else:
        one, two = content.index(b"oneone"), content.index(b"twotwo")
        bench.disk.replace_content(path, content[:one] + content[two : two + 900] + content[one + 900 :])
    answer = bench.answer(1, 0, 0)
    assert (answer.stop, answer.error) == (Stop.ERROR, Code.IO_ERROR)


def test_a_read_error_of_the_disk_is_an_io_error(bench):
    bench.add(1, 0, [b"a"])
    bench.settle()
    bench.checkpoint()
    bench.crash()
    bench.disk.faults.append(DiskFault("pread", errno.EIO))
    assert bench.answer(1, 0, 0).error == Code.IO_ERROR
    assert bench.read(1, 0, 0) == [b"a"]


def test_a_newer_copy_heals_a_damaged_one(bench):
    """R-B7: re-adding what bit rot has taken makes the entry readable here again."""
    bench.add(1, 0, [b"x" * 600, b"y"])
    bench.settle()
    bench.checkpoint()
    bench.crash()
    for path in segment_paths(bench):
        at = bench.disk.content(path).find(b"x" * 600)
        if at >= 0:
            bench.disk.flip_bit(path, 8 * at)
    assert bench.answer(1, 0, 1).error == Code.IO_ERROR
    bench.add(1, 0, [b"x" * 600], recovery=True)
    bench.settle()
    assert bench.read(1, 0, 0) == [b"x" * 600]
    bench.checkpoint()
    bench.crash()
    assert bench.read(1, 0, 0) == [b"x" * 600]


def test_a_failed_sync_answers_nobody_then_or_later(bench):
    """R-J1, R-J3."""
    bench.disk.faults.append(DiskFault("fdatasync", errno.EIO, path_part="segment"))
    bench.add(1, 0, [b"a"])
    bench.fence(2)
    bench.store.flush()
    bench.store.writer.step()
    with pytest.raises(OSError, match="Input/output"):
        bench.store.on_log()
    bench.add(1, 1, [b"b"])
    with pytest.raises(LogFailedError):
        bench.store.flush()
    assert bench.acknowledged == []


class TestIndexLost:
    def lose_index(self, bench, how):
        bench.close()
        path = f"{bench.index_directory}/index/data.mdb"
        if how == "damaged":
            with open(path, "r+b") as file:
                file.write(b"\xff" * 8192)
        else:
            import os

            os.unlink(path)

    @pytest.mark.parametrize("how", ["damaged", "lost"])
    def test_it_is_rebuilt_from_all_segments_with_every_ledger_fenced(self, bench, how):
        """9.6, DESIGN 5."""
        bench.add(1, 0, [b"a", b"b"], lac=-1)
        bench.add(2, 0, [b"c"])
        bench.settle()
        bench.checkpoint()
        bench.add(1, 2, [b"d"], lac=1)
        bench.store.delete(2)
        bench.settle()
        self.lose_index(bench, how)
        bench.crash()
        assert bench.read(1, 0, 2) == [b"a", b"b", b"d"]
        assert bench.store.ledger(1).lac == 1
        assert bench.store.ledger(1).fenced
        assert bench.store.ledger(2) is None
        with pytest.raises(RefusedError) as error:
            bench.add(1, 3, [b"e"], key=b"x" * 20, recovery=True)
        assert error.value.code is Code.UNAUTHORIZED
        bench.crash()
        assert bench.read(1, 0, 2) == [b"a", b"b", b"d"]

    def test_a_rebuilt_index_keeps_what_came_after_a_deletion(self, tmp_path, monkeypatch):
        """R-G5: a recovery add has brought the ledger back; the replay may write checkpoints on its way."""
        monkeypatch.setattr("bookie.storage.index_commit.DELETED_RUNS_MAX", 2)
        bench = Bench(tmp_path, StoreLimits(recent_runs_max=1))
        for entry_id in range(9):
            bench.add(1, entry_id, [b"old"])
            bench.settle()
        bench.store.delete(1)
        bench.settle()
        while bench.store.has_changes:
            bench.checkpoint()
        bench.add(1, 4, [b"new"], recovery=True)
        bench.settle()
        for entry_id in range(4):
            bench.add(2, entry_id, [b"other"])
            bench.settle()
        self.lose_index(bench, "lost")
        bench.crash()
        assert bench.held(1) == (((4, 4),), 1000)
        assert bench.read(1, 4, 4) == [b"new"]
        bench.close()

    def test_it_is_not_rebuilt_when_segments_were_removed(self, tmp_path):
        """R-B9: a fence of a ledger without entries may have been in one of them."""
        bench = Bench(tmp_path, StoreLimits(segment_bytes_max=2048))
        for entry_id in range(6):
            bench.add(1, entry_id, [b"x" * 1500])
            bench.settle()
        bench.store.delete(1)
        bench.settle()
        bench.checkpoint()
        removed: list[int] = []
        assert bench.store.remove_segments(removed.extend)
        bench.settle()
        self.lose_index(bench, "lost")
        with pytest.raises(StoreDamagedError, match="cannot be rebuilt"):
            bench.crash()


def test_a_lost_segment_that_the_mark_names_stops_the_start(bench):
    """9.5: what was written behind the mark is nowhere else."""
    bench.add(1, 0, [b"a"])
    bench.settle()
    bench.checkpoint()
    bench.add(1, 1, [b"b"])
    bench.settle()
    mark = bench.store.index.mark
    bench.close()
    bench.disk.unlink(f"{SEGMENTS}/segment.{mark.segment:016x}")
    bench.disk.fsync_directory(SEGMENTS)
    with pytest.raises(StoreDamagedError, match="missing"):
        bench.crash()


@pytest.mark.parametrize("after_mark", [1, 2])
def test_a_lost_segment_behind_the_mark_stops_the_start(tmp_path, after_mark):
    """R-B9: what was acknowledged in it is nowhere else, and would be denied."""
    bench = Bench(tmp_path, StoreLimits(segment_bytes_max=2048))
    bench.checkpoint()
    mark = bench.store.index.mark
    for entry_id in range(9):
        bench.add(1, entry_id, [b"x" * 1500])
        bench.settle()
    assert bench.store.index.mark == mark
    bench.close()
    path = f"{SEGMENTS}/segment.{mark.segment + after_mark:016x}"
    bench.disk.unlink(path)
    bench.disk.fsync_directory(SEGMENTS)
    with pytest.raises(StoreDamagedError, match=f"segment {mark.segment + after_mark} before it is missing"):
        bench.crash()


def test_an_index_without_a_mark_beside_a_log_without_its_beginning_stops_the_start(tmp_path):
    bench = Bench(tmp_path, StoreLimits(segment_bytes_max=2048))
    bench.checkpoint()
    mark = bench.store.index.mark
    for entry_id in range(3):
        bench.add(1, entry_id, [b"x" * 1500])
        bench.settle()
    bench.close()
    shutil.rmtree(tmp_path / "index")
    Index(str(tmp_path / "index"), INCARNATION, create=True).close()
    bench.disk.unlink(f"{SEGMENTS}/segment.{mark.segment:016x}")
    bench.disk.fsync_directory(SEGMENTS)
    with pytest.raises(StoreDamagedError, match="does not know the beginning"):
        bench.crash()


def test_many_restarts_leave_few_segments(bench):
    bench.add(1, 0, [b"a"])
    bench.settle()
    for _ in range(20):
        bench.crash()
        bench.store.remove_segments(lambda numbers: None)
        bench.settle()
    assert len(bench.store.log.segments()) <= 4
    assert bench.read(1, 0, 0) == [b"a"]


def test_an_index_whose_damage_shows_only_in_use_is_rebuilt_at_the_start(bench):
    """A run that is gone: the checkpoint behind the replay finds it, and the segments tell everything."""
    import lmdb

    from bookie.storage.index_format import run_key

    bench.add(1, 0, [b"a", b"b", b"c"])
    bench.settle()
    bench.checkpoint()
    bench.add(1, 1, [b"b"])
    bench.settle()
    bench.close()
    env = lmdb.open(f"{bench.index_directory}/index", max_dbs=8)
    with env.begin(write=True, db=env.open_db(b"runs")) as txn:
        assert txn.delete(run_key(1, 2))
    env.close()
    bench.crash()
    assert bench.read(1, 0, 2) == [b"a", b"b", b"c"]
    assert bench.store.ledger(1).fenced
