"""The index on disk against a model, and against bit rot: a negative is believed only where a checksum says
so.
"""

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bookie.storage.index import Changes, Index, LedgerChange
from bookie.storage.index_format import IndexDamagedError, LedgerRecord, RunRecord, run_key
from coord.log import Position

EMPTY = LedgerRecord(b"k" * 20)


@pytest.fixture
def index(tmp_path):
    made = Index(str(tmp_path / "index"), 77, create=True)
    yield made
    made.close()


MARK = Position(1, 512)


def commit(index, *changes, mark=MARK):
    report = index.commit(Changes(mark, [LedgerChange(*change) for change in changes]))
    index.refresh(report)
    return report


def run(first, last, segment=1, offset=0):
    return RunRecord(first, last, segment, offset, 100, 10 * (last - first + 1))


operations = st.lists(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 10)), min_size=1, max_size=5),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(operations)
def test_committed_runs_are_what_the_newest_of_each_commit_says(tmp_path_factory, commits):
    index = Index(str(tmp_path_factory.mktemp("index") / "index"), 1, create=True)
    model: dict[int, int] = {}
    try:
        for number, batch in enumerate(commits):
            taken: set[int] = set()
            runs = []
            for first, count in batch:
                ids = set(range(first, first + count))
                if not ids & taken:  # a checkpoint's runs are disjoint
                    taken |= ids
                    runs.append(run(first, first + count - 1, segment=number + 1, offset=first))
                    model.update(dict.fromkeys(ids, number + 1))
            commit(index, (5, EMPTY, sorted(runs)))
        record = index.ledger(5)
        assert record.last_entry_id == max(model)
        found = {}
        for piece in index.runs_from(5, 0, record.last_entry_id):
            found.update(dict.fromkeys(range(piece.first, piece.last + 1), piece.segment))
        assert found == model
        for entry in range(75):
            at = index.find(5, entry, record.last_entry_id)
            assert (at is not None and at.first <= entry) == (entry in model)
        live = [index.segments.get(number + 1, (0, 0)) for number in range(len(commits))]
        assert sum(runs for runs, _ in live) == record.runs
        assert [bool(runs) for runs, _ in live] == [n + 1 in model.values() for n in range(len(commits))]
    finally:
        index.close()


def test_the_mark_never_goes_back(index):
    """R-J6."""
    commit(index, mark=Position(3, 900))
    commit(index, mark=Position(2, 512))
    assert index.mark == (3, 900)


def test_what_was_committed_is_there_after_opening_again(tmp_path):
    index = Index(str(tmp_path / "i"), 9, create=True)
    commit(index, (1, LedgerRecord(b"key", fenced=True, lac=4), [run(0, 9)]), mark=Position(2, 1024))
    index.close()
    index = Index(str(tmp_path / "i"), 9)
    assert index.mark == (2, 1024)
    assert index.ledger(1) == LedgerRecord(b"key", fenced=True, lac=4, last_entry_id=9, runs=1)
    assert index.segments == {1: (1, 100)}
    index.close()


def test_another_incarnations_index_is_refused(tmp_path):
    Index(str(tmp_path / "i"), 9, create=True).close()
    with pytest.raises(IndexDamagedError, match="incarnation"):
        Index(str(tmp_path / "i"), 10)


def test_a_large_deletion_takes_several_commits(index, monkeypatch):
    monkeypatch.setattr("bookie.storage.index_commit.DELETED_RUNS_MAX", 4)
    commit(index, (1, EMPTY, [run(n, n) for n in range(10)]), (2, EMPTY, [run(0, 3)]))
    deleting = LedgerRecord(b"k" * 20, deleting=True)
    assert commit(index, (1, deleting, [])).deleted == ()
    assert index.ledger(1).runs == 6
    commit(index, (1, deleting, []))
    assert commit(index, (1, deleting, [])).deleted == (1,)
    assert index.ledger(1) is None
    assert index.segments == {1: (1, 40)}
    assert index.ledger(2).last_entry_id == 3


def tamper(path, table, key, change):
    env = lmdb.open(path, max_dbs=8)
    with env.begin(write=True, db=env.open_db(table)) as txn:
        value = txn.get(key)
        txn.delete(key)
        changed = change(key, value)
        if changed is not None:
            txn.put(*changed)
    env.close()


def flip(key, value):
    return key, bytes([value[0] ^ 1]) + value[1:]


@pytest.mark.parametrize(
    "change",
    [flip, lambda key, value: None, lambda key, value: (key[:-1] + bytes([key[-1] ^ 64]), value)],
    ids=["value", "lost", "moved"],
)
def test_a_damaged_run_is_an_error_and_never_an_absence(tmp_path, change):
    """R-B9, 17.5."""
    path = str(tmp_path / "i")
    index = Index(path, 9, create=True)
    commit(index, (1, EMPTY, [run(0, 4), run(5, 9), run(12, 14)]))
    index.close()
    tamper(path, b"runs", run_key(1, 9), change)
    index = Index(path, 9)
    with pytest.raises(IndexDamagedError):
        index.find(1, 6, 14)
    with pytest.raises(IndexDamagedError):
        list(index.runs_from(1, 0, 14))
    assert index.find(1, 0, 14).last == 4
    index.close()


def test_a_lost_last_run_is_an_error(tmp_path):
    """R-B9: the ledger's record knows its last entry."""
    path = str(tmp_path / "i")
    index = Index(path, 9, create=True)
    commit(index, (1, EMPTY, [run(0, 4), run(5, 9)]), (2, EMPTY, [run(0, 1)]))
    index.close()
    tamper(path, b"runs", run_key(1, 9), lambda key, value: None)
    index = Index(path, 9)
    for entry in (5, 9):
        with pytest.raises(IndexDamagedError):
            index.find(1, entry, 9)
    assert index.find(1, 10, 9) is None
    index.close()


@pytest.mark.parametrize("change", [flip, lambda key, value: None], ids=["value", "lost"])
def test_a_damaged_ledger_table_is_found_at_the_start(tmp_path, change):
    """R-B9: "no such ledger" is a promise too."""
    path = str(tmp_path / "i")
    index = Index(path, 9, create=True)
    commit(index, (1, EMPTY, []), (2, EMPTY, []))
    index.close()
    tamper(path, b"ledgers", (1).to_bytes(8, "big"), change)
    with pytest.raises(IndexDamagedError):
        Index(path, 9)
