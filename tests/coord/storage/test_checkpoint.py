"""Checkpoints: exactly one zxid's state whatever happens meanwhile; every flipped bit is found."""

import errno
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord.disk import DiskFault, FaultyDisk, PowerLossError, RealDisk
from coord.storage import (
    CheckpointDamagedError,
    Checkpointed,
    Checkpointer,
    CheckpointSchedule,
    CheckpointStore,
    DiskEnvironments,
    EnvironmentFailedError,
    Environments,
    LmdbEnvironments,
)
from coord.storage.checkpoint import decode_state, encode_state, seal, unseal
from coord.storage.environment import NODES


class StillClock:
    """Time stands still: one `work` does everything."""

    def monotonic_ms(self) -> int:
        return 0

    def wall_ms(self) -> int:
        return 0


class RunningClock(StillClock):
    """Every look costs a millisecond: one `work` does one slice."""

    def __init__(self) -> None:
        self.now = 0

    def monotonic_ms(self) -> int:
        self.now += 1
        return self.now


@pytest.fixture(params=["lmdb", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], CheckpointStore]:
    disk = RealDisk() if request.param == "lmdb" else FaultyDisk()
    environments: Environments = LmdbEnvironments() if request.param == "lmdb" else DiskEnvironments(disk)
    disk.make_directory(str(tmp_path))
    return lambda: CheckpointStore(disk, str(tmp_path / "checkpoint"), environments)


def finish(checkpointer: Checkpointer) -> Checkpointed:
    for _ in range(1000):
        checkpointer.work()
        finished = checkpointer.take_finished()
        if finished is not None:
            return finished
    raise AssertionError("the checkpoint does not end")


def filled(kind: Any, batch: Callable[[int], bytes], last: int) -> Any:
    state = kind.fresh()
    for zxid in range(1, last + 1):
        kind.apply(state, batch(zxid))
    return state


def test_there_is_no_checkpoint_at_first(store: Callable[[], CheckpointStore], small_kind: Any) -> None:
    assert store().load(small_kind) is None


def test_holds_exactly_the_frozen_zxid_while_execution_goes_on(
    store: Callable[[], CheckpointStore], small_kind: Any, batch_at: Any
) -> None:
    state = filled(small_kind, batch_at, 50)
    frozen = dict(state.nodes)
    checkpointer = Checkpointer(store(), RunningClock(), lambda: None, threaded=False)
    assert checkpointer.begin(state) == 50
    zxid = 50
    while (finished := checkpointer.take_finished()) is None:
        checkpointer.work()
        zxid += 1
        small_kind.apply(state, batch_at(zxid))
    assert finished == Checkpointed(50)
    assert zxid > 53
    loaded = store().load(small_kind)
    assert loaded is not None
    assert (loaded[0].nodes, loaded[1]) == (frozen, 50)
    checkpointer.close()


def test_one_that_is_held_takes_the_place_of_the_last_only_when_it_may(
    store: Callable[[], CheckpointStore], small_kind: Any, batch_at: Any
) -> None:
    state = filled(small_kind, batch_at, 50)
    checkpointer = Checkpointer(store(), StillClock(), lambda: None, threaded=False)
    checkpointer.begin(state)
    finish(checkpointer)
    small_kind.apply(state, batch_at(51))
    checkpointer.begin(state)
    for _ in range(100):
        checkpointer.work(may_commit=False)
    assert checkpointer.is_held
    assert checkpointer.take_finished() is None
    assert finish(checkpointer) == Checkpointed(51)
    assert not checkpointer.is_held
    checkpointer.begin(state)
    checkpointer.work(may_commit=False)
    checkpointer.close()
    loaded = store().load(small_kind)
    assert loaded is not None
    assert loaded[1] == 51


def test_later_checkpoints_write_only_what_changed_and_remove_what_went(
    store: Callable[[], CheckpointStore], small_kind: Any, batch_at: Any
) -> None:
    state = filled(small_kind, batch_at, 60)
    checkpointer = Checkpointer(store(), StillClock(), lambda: None, threaded=False)
    checkpointer.begin(state)
    finish(checkpointer)
    for zxid in range(61, 120):
        small_kind.apply(state, batch_at(zxid))
        if zxid % 20 == 0:
            assert len(state.dirty) < 40
            checkpointer.begin(state)
            assert finish(checkpointer).failure is None
            loaded = store().load(small_kind)
            assert loaded is not None
            assert (loaded[0].nodes, loaded[1]) == (state.nodes, zxid)
    checkpointer.close()


def test_the_thread_writes_the_same(
    store: Callable[[], CheckpointStore], small_kind: Any, batch_at: Any
) -> None:
    state = filled(small_kind, batch_at, 80)
    notified = threading.Semaphore(0)
    checkpointer = Checkpointer(store(), StillClock(), notified.release)
    checkpointer.begin(state)
    checkpointer.work()
    assert notified.acquire(timeout=60)
    assert finish(checkpointer) == Checkpointed(80)
    checkpointer.begin(state)
    checkpointer.close()
    loaded = store().load(small_kind)
    assert loaded is not None
    assert loaded[0].nodes == state.nodes


def test_given_up_half_way_the_durable_one_stays(
    store: Callable[[], CheckpointStore], small_kind: Any, batch_at: Any
) -> None:
    state = filled(small_kind, batch_at, 30)
    checkpointer = Checkpointer(store(), RunningClock(), lambda: None, threaded=False)
    checkpointer.begin(state)
    finish(checkpointer)
    before = dict(state.nodes)
    small_kind.apply(state, batch_at(31))
    checkpointer.begin(state)
    checkpointer.work()
    checkpointer.close()
    loaded = store().load(small_kind)
    assert loaded is not None
    assert (loaded[0].nodes, loaded[1]) == (before, 30)


def test_after_a_full_disk_the_next_checkpoint_makes_up_for_it(small_kind: Any, batch_at: Any) -> None:
    disk = FaultyDisk()
    disk.make_directory("/g")
    store = CheckpointStore(disk, "/g/checkpoint", DiskEnvironments(disk))
    state = filled(small_kind, batch_at, 30)
    checkpointer = Checkpointer(store, StillClock(), lambda: None, threaded=False)
    disk.capacity_bytes = 10
    checkpointer.begin(state)
    failed = finish(checkpointer).failure
    assert failed is not None
    assert failed.disk_full
    disk.capacity_bytes = 1 << 30
    checkpointer.begin(state)
    assert finish(checkpointer) == Checkpointed(30)
    loaded = store.load(small_kind)
    assert loaded is not None
    assert loaded[0].nodes == state.nodes


def test_a_checkpoint_without_all_nodes_of_the_state_is_not_committed(
    store: Callable[[], CheckpointStore], small_kind: Any, batch_at: Any
) -> None:
    """Its digest would be wrong, which only the next start would find."""
    state = filled(small_kind, batch_at, 30)
    state.dirty.remove(min(state.nodes))
    checkpointer = Checkpointer(store(), StillClock(), lambda: None, threaded=False)
    checkpointer.begin(state)
    failure = finish(checkpointer).failure
    assert failure is not None
    assert not failure.disk_full
    assert f"expected {len(state.nodes)} nodes" in str(failure)
    assert store().load(small_kind) is None


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_opens_nothing_fails_the_checkpoint(small_kind: Any, batch_at: Any, error: int) -> None:
    disk = FaultyDisk()
    disk.make_directory("/g")
    store = CheckpointStore(disk, "/g/checkpoint", DiskEnvironments(disk))
    checkpointer = Checkpointer(store, StillClock(), lambda: None, threaded=False)
    disk.faults.append(DiskFault("open", error))
    checkpointer.begin(filled(small_kind, batch_at, 3))
    failure = finish(checkpointer).failure
    assert failure is not None
    assert failure.disk_full == (error == errno.ENOSPC)


def test_a_failed_sync_of_a_checkpoint_is_not_taken_for_a_full_disk(small_kind: Any, batch_at: Any) -> None:
    """R-J1: the owner stops the process."""
    disk = FaultyDisk()
    disk.make_directory("/g")
    checkpointer = Checkpointer(
        CheckpointStore(disk, "/g/checkpoint", DiskEnvironments(disk)),
        StillClock(),
        lambda: None,
        threaded=False,
    )
    disk.faults.append(DiskFault("fdatasync", errno.EIO))
    checkpointer.begin(filled(small_kind, batch_at, 3))
    failed = finish(checkpointer).failure
    assert failed is not None
    assert not failed.disk_full


def test_a_crash_at_any_step_leaves_the_old_checkpoint_or_the_new(small_kind: Any, batch_at: Any) -> None:
    found = set()
    for step in range(40):
        disk = FaultyDisk()
        disk.make_directory("/g")
        store = CheckpointStore(disk, "/g/checkpoint", DiskEnvironments(disk))
        state = filled(small_kind, batch_at, 20)
        states = {20: dict(state.nodes)}
        checkpointer = Checkpointer(store, StillClock(), lambda: None, threaded=False)
        checkpointer.begin(state)
        finish(checkpointer)
        for zxid in range(21, 30):
            small_kind.apply(state, batch_at(zxid))
        states[29] = dict(state.nodes)
        disk.power_off_after(step)
        reported = 20
        try:
            checkpointer.begin(state)
            reported = finish(checkpointer).zxid
        except PowerLossError:
            pass
        disk.restart(random.Random(step))
        loaded = CheckpointStore(disk, "/g/checkpoint", DiskEnvironments(disk)).load(small_kind)
        assert loaded is not None
        assert loaded[1] >= reported
        assert loaded[0].nodes == states[loaded[1]]
        found.add(loaded[1])
    assert found == {20, 29}


def test_every_flipped_bit_of_every_value_is_found(
    store: Callable[[], CheckpointStore], small_kind: Any, batch_at: Any
) -> None:
    opened = store()
    state = filled(small_kind, batch_at, 6)
    checkpointer = Checkpointer(opened, StillClock(), lambda: None, threaded=False)
    checkpointer.begin(state)
    finish(checkpointer)
    number = min(state.nodes, key=lambda number: len(state.nodes[number]))
    key = number.to_bytes(8, "big")
    good = seal(NODES, key, state.nodes[number])
    for bit in range(len(good) * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        environment = opened.open()
        write = environment.write()
        write.put_many(NODES, [(key, bytes(bad))])
        write.commit()
        opened.close()
        with pytest.raises(CheckpointDamagedError, match=key.hex()):
            store().load(small_kind)
    checkpointer.close()


@pytest.mark.parametrize("change", ["moved", "lost", "added", "short key"])
def test_right_values_in_wrong_places_are_found(
    store: Callable[[], CheckpointStore], small_kind: Any, batch_at: Any, change: str
) -> None:
    opened = store()
    state = filled(small_kind, batch_at, 20)
    checkpointer = Checkpointer(opened, StillClock(), lambda: None, threaded=False)
    checkpointer.begin(state)
    finish(checkpointer)
    first, second, *_ = sorted(state.nodes)
    write = opened.open().write()
    value = seal(NODES, first.to_bytes(8, "big"), state.nodes[first])
    if change == "moved":
        write.put_many(NODES, [(second.to_bytes(8, "big"), value)])
    elif change == "lost":
        write.remove_many(NODES, [first.to_bytes(8, "big")])
    elif change == "added":
        other = (999).to_bytes(8, "big")
        write.put_many(NODES, [(other, seal(NODES, other, b"more"))])
    else:
        write.put_many(NODES, [(b"k", value)])
    write.commit()
    opened.close()
    with pytest.raises(CheckpointDamagedError):
        store().load(small_kind)


def test_flipped_bits_in_lmdbs_file_are_found(tmp_path: Path, small_kind: Any, batch_at: Any) -> None:
    """Only flips in the values' own bytes: others may end the process, which is what `probe` is for."""
    store = CheckpointStore(RealDisk(), str(tmp_path / "checkpoint"), LmdbEnvironments())
    state = filled(small_kind, batch_at, 60)
    checkpointer = Checkpointer(store, StillClock(), lambda: None, threaded=False)
    checkpointer.begin(state)
    finish(checkpointer)
    checkpointer.close()
    file = tmp_path / "checkpoint" / "data.mdb"
    content = file.read_bytes()
    source = random.Random(3)
    for value in state.nodes.values():
        flipped = bytearray(value)
        flipped[source.randrange(len(value))] ^= 1 << source.randrange(8)
        file.write_bytes(
            content.replace(value, bytes(flipped))
        )  # also where a page was split and left a copy
        with pytest.raises(CheckpointDamagedError):
            store.load(small_kind)
    file.write_bytes(content)
    assert store.load(small_kind) is not None


class Crashing(LmdbEnvironments):
    """An environment that another process found deadly."""

    def probe(self, path: str) -> str | None:
        return "reading it ended with status -11"


def test_a_marker_left_behind_lets_another_process_read_first(
    tmp_path: Path, small_kind: Any, batch_at: Any
) -> None:
    path = str(tmp_path / "checkpoint")
    store = CheckpointStore(RealDisk(), path, LmdbEnvironments())
    state = filled(small_kind, batch_at, 10)
    checkpointer = Checkpointer(store, StillClock(), lambda: None, threaded=False)
    checkpointer.begin(state)
    finish(checkpointer)
    assert not (tmp_path / "checkpoint.open").exists()
    store.open()
    store._environment.close()  # type: ignore[union-attr]  # the process dies
    again = CheckpointStore(RealDisk(), path, LmdbEnvironments())
    loaded = again.load(small_kind)
    assert loaded is not None
    assert loaded[0].nodes == state.nodes
    assert not (tmp_path / "checkpoint.open").exists()
    (tmp_path / "checkpoint.open").touch()
    with pytest.raises(CheckpointDamagedError, match="status -11"):
        CheckpointStore(RealDisk(), path, Crashing()).load(small_kind)
    aside = store.set_aside(str(tmp_path))
    assert Path(aside, "data.mdb").exists()
    assert store.load(small_kind) is None


@given(st.integers(0, 255), st.binary(max_size=20), st.binary(max_size=50), st.binary(max_size=20))
def test_seals_hold_for_their_own_key_only(table: int, key: bytes, value: bytes, other: bytes) -> None:
    sealed = seal(table, key, value)
    assert unseal(table, key, sealed, "p") == value
    if other != key:
        with pytest.raises(CheckpointDamagedError):
            unseal(table, other, sealed, "p")


@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1), st.binary(max_size=50))
def test_state_records_survive_both_directions(zxid: int, nodes: int, facts: bytes) -> None:
    checkpoint = decode_state(encode_state(zxid, nodes, facts), "p")
    assert (checkpoint.zxid, checkpoint.nodes, checkpoint.facts) == (zxid, nodes, facts)


def test_a_state_record_of_another_version_is_refused() -> None:
    other = seal(1, b"state", b"\x02" + bytes(19))
    with pytest.raises(CheckpointDamagedError, match="expected checkpoint version 1, got 2"):
        decode_state(other, "p")


def test_the_schedule_asks_for_growth_or_time_and_for_something_new() -> None:
    schedule = CheckpointSchedule(transactions_min=10, log_bytes_min=1000, interval_ms=5000)
    assert not schedule.due(9999, 0, 5000, 0)
    assert not schedule.due(100, 20, 1000, 0)
    assert schedule.due(100, 20, 1001, 500)
    assert not schedule.due(100, 20, 1001, 2000)
    assert schedule.due(5000, 20, 0, 2000)
    assert not schedule.due(5000, 9, 0, 2000)
    schedule.begun(5000, 20, 1001)
    assert not schedule.due(6000, 40, 1500, 0)
    assert schedule.due(6000, 40, 2002, 0)


def test_an_environment_that_cannot_be_opened_fails_the_checkpoint(
    tmp_path: Path, small_kind: Any, batch_at: Any
) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "data.mdb").write_bytes(b"no such thing" * 1000)
    store = CheckpointStore(RealDisk(), str(tmp_path / "checkpoint"), LmdbEnvironments())
    checkpointer = Checkpointer(store, StillClock(), lambda: None, threaded=False)
    checkpointer.begin(filled(small_kind, batch_at, 3))
    failure = finish(checkpointer).failure
    assert isinstance(failure, EnvironmentFailedError)
    checkpointer.close()
