"""`zoolog inspect` rows for a bookie's files: facts where they are whole, a damage row where not."""

from bookie.storage import inspect_index, inspect_segment_records
from coord.disk import FaultyDisk, RealDisk


def test_a_segment_is_shown_record_by_record(bench):
    bench.add(1, 0, [b"a", b"b"])
    bench.fence(1)
    bench.store.write_lac(1, b"k" * 20, 0, lambda: None)
    bench.store.delete(1)
    bench.settle()
    path = f"/data/segments/{bench.disk.list('/data/segments')[-1]}"
    rows = [row for row in inspect_segment_records(bench.disk, path) if row.kind not in ("segment", "zeros")]
    assert [row.kind for row in rows] == ["opened", "key", "extent", "fence", "lac", "tombstone"]
    extent = rows[2].facts
    assert (extent["ledger"], extent["entries"], extent["lac"], extent["payload_bytes"]) == (
        "1",
        "0..1",
        "-1",
        "2",
    )
    assert bench.disk.content(path)[rows[2].offset : rows[2].offset + 1] == b"\x01"
    assert all(row.facts["ledger"] == "1" for row in rows[1:])


def test_damage_is_a_row(bench):
    bench.add(1, 0, [b"damage" * 200])
    bench.settle()
    bench.add(1, 1, [b"b"])
    bench.settle()
    path = f"/data/segments/{bench.disk.list('/data/segments')[-1]}"
    at = bench.disk.content(path).index(b"damage")
    bench.disk.flip_bit(path, 8 * at)
    assert "damage" in [row.kind for row in inspect_segment_records(bench.disk, path)]


def test_somebody_elses_log_is_told_from_a_bookies(tmp_path):
    from coord.log import open_log

    disk = FaultyDisk()
    log = open_log(disk, "/other", "txn")
    log.write_group([5], [b"hello"])
    path = f"/other/{disk.list('/other')[-1]}"
    assert "damage" in [row.kind for row in inspect_segment_records(disk, path)]
    assert RealDisk().exists(str(tmp_path))


def test_an_index_is_shown_table_by_table(bench):
    bench.add(1, 0, [b"a", b"b"])
    bench.add(2, 0, [b"c"])
    bench.settle()
    bench.store.delete(2)
    bench.settle()
    bench.checkpoint()
    bench.close()
    rows = list(inspect_index(f"{bench.index_directory}/index"))
    facts = {row.kind: row.facts for row in rows}
    assert facts["ledgers"]["last_entry"] == "1"
    assert facts["runs"]["entries"] == "0..1"
    assert facts["tombstones"]["ledgers"] == "2..2"
    assert {"segments", "meta"} <= facts.keys()
    assert "damage" not in facts
