"""SNAP: a checkpoint as a stream, received whole or not at all, into a new generation behind one pointer."""

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coord.disk import FaultyDisk, PowerLossError, RealDisk
from coord.storage import (
    CheckpointDamagedError,
    Checkpointer,
    CheckpointStore,
    DataDirectory,
    DiskEnvironments,
    EnvironmentFailedError,
    LmdbEnvironments,
    LogOptions,
    SnapshotDamagedError,
    SnapshotReader,
    SnapshotReceiver,
    begin_log,
    open_data_directory,
)


class StillClock:
    def monotonic_ms(self) -> int:
        return 0

    def wall_ms(self) -> int:
        return 0


@pytest.fixture
def leader(small_kind: Any, nodes_at: Any) -> Callable[..., CheckpointStore]:
    """A store with a checkpoint of so many transactions, and some nodes larger than a chunk."""

    def make(last: int, large: int = 0) -> CheckpointStore:
        disk = FaultyDisk()
        disk.make_directory("/leader")
        store = CheckpointStore(disk, "/leader/checkpoint", DiskEnvironments(disk))
        state = small_kind.fresh()
        state.zxid = last
        for number, value in nodes_at(last).items():
            state.put(number, value)
        for number in range(large):
            state.put(1000 + number, bytes([number]) * 50_000)
        checkpointer = Checkpointer(store, StillClock(), lambda: None, threaded=False)
        checkpointer.begin(state)
        while checkpointer.take_finished() is None:
            checkpointer.work()
        return store

    return make


def chunks(store: CheckpointStore) -> list[bytes]:
    reader = SnapshotReader(store)
    taken = []
    while (chunk := reader.next_chunk()) is not None:
        taken.append(chunk)
    assert reader.next_chunk() is None
    reader.close()
    reader.close()
    return taken


def learner(disk: FaultyDisk, seed: int = 5) -> DataDirectory:
    source = random.Random(seed)
    return open_data_directory(disk, "/data", new_id=lambda: source.randbytes(8))


def receive(directory: DataDirectory, kind: Any, stream: list[bytes]) -> SnapshotReceiver[Any]:
    receiver = SnapshotReceiver(
        directory, DiskEnvironments(directory.disk), kind, lambda: None, threaded=False
    )
    ends = [receiver.feed(chunk) for chunk in stream]
    assert ends == [False] * (len(stream) - 1) + [True]
    return receiver


def test_is_received_into_a_new_generation(
    disk: FaultyDisk, leader: Any, small_kind: Any, nodes_at: Any
) -> None:
    directory = learner(disk)
    old = directory.generation
    stream = chunks(leader(80, large=6))
    assert len(stream) > 3
    assert max(map(len, stream)) < 200_000
    receiver = receive(directory, small_kind, stream)
    assert directory.generation == old
    installed = receiver.take_installed()
    assert installed is not None
    assert installed.zxid == 80
    assert {number: installed.state.nodes[number] for number in nodes_at(80)} == nodes_at(80)
    assert directory.generation == installed.generation != old
    checkpointer = Checkpointer(installed.store, StillClock(), lambda: None, threaded=False)
    installed.state.put(7, b"changed")
    checkpointer.begin(installed.state)
    assert list(installed.state.frozen.pending) == [7]
    checkpointer.close()
    log = begin_log(directory, installed.zxid, small_options())
    assert log.last_zxid == 80
    assert not disk.exists(directory.log_path(old))
    log.append(81, 81, (b"x",), 80, None)


def small_options() -> LogOptions:
    return LogOptions(lambda: None, threaded=False)


def test_a_server_that_restarts_continues_from_what_was_installed(
    disk: FaultyDisk, leader: Any, small_kind: Any, nodes_at: Any, server: Callable[..., Any]
) -> None:
    running = server(disk, standalone=False)
    running.write(1, 2, 3)
    receiver = receive(running.directory, small_kind, chunks(leader(80)))
    running.log.close()
    installed = receiver.take_installed()
    assert installed is not None
    log = begin_log(running.directory, installed.zxid, running.options)
    log.close()
    running.directory.close()
    found = server(disk, 2, standalone=False).found
    assert (found.executed_zxid, found.state.nodes, found.batches) == (80, nodes_at(80), [])
    assert found.log.last_zxid == 80


def test_a_crash_at_any_step_of_the_installation_leaves_the_old_state_or_the_new(
    leader: Any, small_kind: Any, nodes_at: Any, server: Callable[..., Any]
) -> None:
    stream = chunks(leader(80))
    outcomes = set()
    for step in range(45):
        disk = FaultyDisk()
        running = server(disk)
        running.write(1, 2, 3)
        disk.power_off_after(step)
        installed = None
        finished = False
        try:
            receiver = receive(running.directory, small_kind, stream)
            installed = receiver.take_installed()
            assert installed is not None
            begin_log(running.directory, installed.zxid, running.options)
            finished = True
        except PowerLossError:
            pass
        disk.restart(random.Random(step))
        found = server(disk, 2).found
        assert (found.executed_zxid, found.state.nodes) in ((3, nodes_at(3)), (80, nodes_at(80)))
        assert found.executed_zxid == 80 or installed is None
        assert found.warnings == []
        outcomes.add((found.executed_zxid, finished))
        names = [name for name in disk.list("/data/zoolog") if not name.endswith(".new")]
        assert names[2:] == [
            f"{kind}-{found.log.writer._log.directory[-16:]}" for kind in ("generation", "log")
        ]
    assert {zxid for zxid, _ in outcomes} == {3, 80}
    assert (80, True) in outcomes


def test_every_damaged_chunk_is_refused_and_nothing_is_changed(
    disk: FaultyDisk, leader: Any, small_kind: Any
) -> None:
    stream = chunks(leader(12))
    assert len(stream) == 1
    directory = learner(disk)
    generation = directory.generation
    for bit in range(0, len(stream[0]) * 8, 3):
        bad = bytearray(stream[0])
        bad[bit // 8] ^= 1 << bit % 8
        receiver = SnapshotReceiver(
            directory, DiskEnvironments(disk), small_kind, lambda: None, threaded=False
        )
        with pytest.raises(SnapshotDamagedError):
            receiver.feed(bytes(bad))
            raise SnapshotDamagedError("incomplete") if receiver.take_installed() is None else AssertionError
        receiver.abort()
    assert directory.generation == generation
    assert len(disk.list("/data/zoolog")) == 4


@pytest.mark.parametrize("change", ["dropped", "repeated", "swapped", "cut", "headless", "longer"])
def test_a_stream_that_is_not_whole_is_refused(
    disk: FaultyDisk, leader: Any, small_kind: Any, change: str
) -> None:
    stream = chunks(leader(80, large=6))
    match change:
        case "dropped":
            del stream[1]
        case "repeated":
            stream.insert(1, stream[1])
        case "swapped":
            stream[1], stream[2] = stream[2], stream[1]
        case "cut":
            stream[1] = stream[1][:-1]
        case "headless":
            del stream[0]
        case "longer":
            stream.append(stream[1])
    receiver = SnapshotReceiver(
        learner(disk), DiskEnvironments(disk), small_kind, lambda: None, threaded=False
    )
    with pytest.raises(SnapshotDamagedError):
        for chunk in stream:
            receiver.feed(chunk)
    receiver.abort()


def test_an_aborted_reception_leaves_no_trace(disk: FaultyDisk, leader: Any, small_kind: Any) -> None:
    directory = learner(disk)
    before = disk.list("/data/zoolog")
    receiver = SnapshotReceiver(directory, DiskEnvironments(disk), small_kind, lambda: None, threaded=False)
    receiver.feed(chunks(leader(80, large=6))[0])
    receiver.abort()
    assert disk.list("/data/zoolog") == before


def test_a_full_disk_is_told_before_the_switch(disk: FaultyDisk, leader: Any, small_kind: Any) -> None:
    directory = learner(disk)
    generation = directory.generation
    disk.capacity_bytes = 4000
    receiver = receive(directory, small_kind, chunks(leader(80, large=6)))
    with pytest.raises(EnvironmentFailedError) as failed:
        receiver.take_installed()
    assert failed.value.disk_full
    receiver.abort()
    assert directory.generation == generation


def test_a_stream_is_of_one_zxid_whatever_checkpoints_follow(
    tmp_path: Path, small_kind: Any, batch_at: Any
) -> None:
    """On LMDB, with threads, from one real directory to another."""
    store = CheckpointStore(RealDisk(), str(tmp_path / "checkpoint"), LmdbEnvironments())
    state = small_kind.fresh()
    checkpointer = Checkpointer(store, StillClock(), lambda: None, threaded=False)

    def checkpoint(first: int, last: int) -> None:
        for zxid in range(first, last + 1):
            small_kind.apply(state, batch_at(zxid))
        checkpointer.begin(state)
        while checkpointer.take_finished() is None:
            checkpointer.work()

    for number in range(100, 110):
        state.put(number, b"large" * 10_000)
    checkpoint(1, 50)
    frozen = dict(state.nodes)
    reader = SnapshotReader(store)
    assert reader.zxid == 50
    first = reader.next_chunk()
    assert first is not None
    checkpoint(51, 90)
    directory = open_data_directory(RealDisk(), str(tmp_path / "data"))
    notified = threading.Semaphore(0)
    receiver = SnapshotReceiver(directory, LmdbEnvironments(), small_kind, notified.release)
    ended = receiver.feed(first)
    while not ended:
        chunk = reader.next_chunk()
        assert chunk is not None
        ended = receiver.feed(chunk)
    reader.close()
    assert notified.acquire(timeout=60)
    installed = receiver.take_installed()
    assert installed is not None
    assert (installed.zxid, installed.state.nodes) == (50, frozen)
    assert receiver.queued_bytes == 0
    received = CheckpointStore(RealDisk(), directory.checkpoint_path(), LmdbEnvironments()).load(small_kind)
    assert received is not None
    assert (received[1], received[0].nodes) == (50, frozen)
    directory.close()
    checkpointer.close()


def test_without_a_checkpoint_there_is_nothing_to_stream(disk: FaultyDisk) -> None:
    disk.make_directory("/g")
    with pytest.raises(CheckpointDamagedError, match="there is no checkpoint"):
        SnapshotReader(CheckpointStore(disk, "/g/checkpoint", DiskEnvironments(disk)))
    assert not disk.exists("/g/checkpoint.open")


@pytest.mark.parametrize("place", [0, -1])
def test_a_value_that_has_changed_since_it_was_written_is_not_streamed(leader: Any, place: int) -> None:
    store = leader(50)
    writing = store.open().write()
    reading = store.open().read()
    key, sealed = list(reading.items(0))[place]
    reading.close()
    writing.put_many(0, [(key, bytes([sealed[0] ^ 1]) + sealed[1:])])
    writing.commit()
    with pytest.raises(CheckpointDamagedError, match="checksum"):
        chunks(store)
