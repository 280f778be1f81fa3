"""A bookie's start from every disk that a power loss may leave of its life (see `tests.crash_states`).

The life has everything that changes the disk: the first start with its cookie, groups of one and of several
records, rotation, zeros written ahead, fences, explicit LACs, deletions and what brings a deleted ledger
back, checkpoints, the removal of segments, and a stop in order. Whatever survives, the next start finds every
entry that was acknowledged, every fence and LAC that was answered, and nothing that it did not accept; and so
it does after a second power loss in the middle of that start.

Segments and cookie are on the recording disk. The index is LMDB's, on the real one: here a commit of it
happens or does not, and its file is photographed with the disk. (`test_recorded_crash_states` beside it
records what LMDB writes.)
"""

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import lmdb
import pytest
import trio

import coord
from bookie.ledger.wire import Code, Stop
from bookie.server.cookie import Cookie, IdentityError
from bookie.server.identity import confirm, establish
from bookie.storage import RefusedError, StoreDamagedError, StoreLimits, index_commit, open_store, opening
from bookie.storage.index import Changes, Index
from bookie.storage.index_format import IndexDamagedError
from coord.disk import Disk
from coord.errors import NodeExistsError, NoNodeError
from tests.bookie.storage.conftest import INCARNATION, Bench
from tests.crash_states import CrashPoint, RecordingDisk, record, run, run_after_kills

LIMITS = StoreLimits(segment_bytes_max=4096, recent_runs_max=3)
Entries = frozenset[tuple[int, int]]


@dataclass(frozen=True)
class Promised:
    """What a bookie must, and may, have after a crash.

    Attributes:
        nodes: of the coordination service; nothing of it is lost.
        index: the content of LMDB's file, None if there is none.
        added, acknowledged: (ledger, entry), accepted and answered.
        fenced, fenced_durably: ledgers, asked for and answered; a ledger that comes back is fenced.
        lacs, lacs_durable: the highest LAC of a ledger, received and answered.
        deleted, deleted_durably: ledgers.
        damaged: ledgers that were there when the index was damaged: they come back fenced.
    """

    nodes: tuple[tuple[str, bytes], ...] = ()
    index: bytes | None = None
    added: Entries = frozenset()
    acknowledged: Entries = frozenset()
    fenced: frozenset[int] = frozenset()
    fenced_durably: frozenset[int] = frozenset()
    lacs: tuple[tuple[int, int], ...] = ()
    lacs_durable: tuple[tuple[int, int], ...] = ()
    deleted: frozenset[int] = frozenset()
    deleted_durably: frozenset[int] = frozenset()
    damaged: frozenset[int] = frozenset()


def payload(ledger_id: int, entry_id: int) -> bytes:
    return b"%d-%d " % (ledger_id, entry_id) * (1 + (7 * ledger_id + entry_id) % 5 * 20)


def key(ledger_id: int) -> bytes:
    return b"%020d" % ledger_id


class Service:
    """As much of a coordination service as a bookie's identity needs."""

    def __init__(self, nodes: tuple[tuple[str, bytes], ...], on_change: Callable[[], None]) -> None:
        self.nodes = dict(nodes)
        self.on_change = on_change

    async def exists(self, path: str) -> object | None:
        return self.nodes.get(path)

    async def get(self, path: str) -> tuple[bytes, None]:
        if path not in self.nodes:
            raise NoNodeError(path)
        return self.nodes[path], None

    async def create(self, path: str, data: bytes) -> str:
        if path in self.nodes:
            raise NodeExistsError(path)
        self.nodes[path] = data
        self.on_change()
        return path

    async def multi(self, operations: list[coord.Create]) -> None:
        self.nodes.update({operation.path: operation.data or b"" for operation in operations})
        self.on_change()


class Bookie(Bench):
    """A bookie's disk and store, and the promises that go with what it does."""

    now: "Bookie"

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        promised: Promised,
        data_dir: str = "/data",
        *,
        removes: bool = True,
    ) -> None:
        Bookie.now = self
        self.disk = disk  # type: ignore[assignment]
        self.data_dir = data_dir
        self.index_directory = str(directory)
        self.limits = LIMITS
        self.acknowledged = []
        self.removes = removes
        self._store = None
        self._promised = promised
        self._service = Service(promised.nodes, self.on_change)
        self._file = directory / "index" / "data.mdb"
        self._deleting: list[int] = []
        self._given_up: Entries = frozenset()
        self._forgotten: bytes | None = None

    def on_change(self) -> None:
        """Something was promised."""

    @classmethod
    def after_crash(cls, directory: Path, disk: RecordingDisk, promised: Promised) -> "Bookie":
        """With the index that was photographed."""
        bookie = cls(disk, directory, promised)
        for name in ("data.mdb", "lock.mdb"):
            (bookie._file.parent / name).unlink(missing_ok=True)
        if promised.index is not None:
            bookie._file.parent.mkdir(exist_ok=True)
            bookie._file.write_bytes(promised.index)
        return bookie

    @property
    def promised(self) -> Promised:
        index = self._forgotten or self.index_content()
        return replace(self._promised, index=index, nodes=tuple(self._service.nodes.items()))

    def index_content(self) -> bytes | None:
        return self._file.read_bytes() if self._file.exists() else None

    def before_change_of_index(self, change: str) -> None:
        disk = cast(RecordingDisk, self.disk)
        disk.before_change(change, "index")
        if disk.ignores == (change, "index"):
            self._forgotten = self._forgotten or self.index_content()

    def promise(self, **changes: object) -> None:
        self._promised = replace(self._promised, **changes)  # type: ignore[arg-type]
        self.on_change()

    def boot(self) -> None:
        """As `bookie.server.serve` starts."""
        trio.run(self._boot)

    async def _boot(self) -> None:
        self.disk.make_directory(self.data_dir)
        verdict = await establish(
            self._service,  # type: ignore[arg-type]
            self.disk,
            self.data_dir,
            configured_id="b1",
            default_id=str,
            new_incarnation=lambda: INCARNATION,
            new_instance_id=lambda: "instance",
        )
        assert not (verdict.fresh and self._promised.added)
        self._store = open_store(
            self.disk,
            self.data_dir,
            verdict.cookie.incarnation,
            fresh=verdict.fresh,
            notify=lambda: None,
            limits=self.limits,
            index_directory=self.index_directory,
            threaded=False,
        )
        if verdict.fresh:
            await confirm(self._service, self.disk, self.data_dir, verdict.cookie)  # type: ignore[arg-type]
        assert Cookie.decode(self._service.nodes["/ledgers/cookies/b1"]) == verdict.cookie

    def put(self, ledger_id: int, first: int, last: int, *, lac: int = -1, recovery: bool = False) -> None:
        """Accept entries; they count as acknowledged when the answer would be sent."""
        entries = frozenset((ledger_id, entry_id) for entry_id in range(first, last + 1))
        self.promise(added=self._promised.added | entries, lacs=risen(self._promised.lacs, ledger_id, lac))
        self._given_up -= entries
        payloads = [payload(*entry) for entry in sorted(entries)]
        token = partial(self._on_added, entries, ledger_id, lac)
        self.add(ledger_id, first, payloads, lac=lac, recovery=recovery, key=key(ledger_id), token=token)

    def _on_added(self, entries: Entries, ledger_id: int, lac: int) -> None:
        self.promise(
            acknowledged=self._promised.acknowledged | entries - self._given_up,
            lacs_durable=risen(self._promised.lacs_durable, ledger_id, lac),
        )

    def put_fence(self, ledger_id: int) -> None:
        self.promise(fenced=self._promised.fenced | {ledger_id})

        def on_durable() -> None:
            self.promise(fenced_durably=self._promised.fenced_durably | {ledger_id})

        self.store.fence(ledger_id, key(ledger_id), on_durable)

    def put_lac(self, ledger_id: int, lac: int) -> None:
        self.promise(lacs=risen(self._promised.lacs, ledger_id, lac))

        def on_durable() -> None:
            self.promise(lacs_durable=risen(self._promised.lacs_durable, ledger_id, lac))

        self.store.write_lac(ledger_id, key(ledger_id), lac, on_durable)

    def delete(self, ledger_id: int) -> None:
        """What comes behind it in the log and is acknowledged shows that it is durable."""
        assert self.store.delete(ledger_id)
        self._given_up |= frozenset(one for one in self._promised.added if one[0] == ledger_id)
        self.promise(
            deleted=self._promised.deleted | {ledger_id},
            acknowledged=self._promised.acknowledged - self._given_up,
        )
        self._deleting.append(ledger_id)

    def settle(self) -> None:
        deleting, self._deleting = self._deleting, []
        super().settle()
        if self.store.writer.failure is not None:
            raise self.store.writer.failure
        for token in self.acknowledged:
            assert callable(token)
            token()
        self.acknowledged.clear()
        forgotten = frozenset(one for one in self._promised.added if one[0] in deleting)
        self.promise(
            deleted_durably=self._promised.deleted_durably | set(deleting),
            added=self._promised.added - forgotten,
        )

    def checkpoint(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """As `bookie.server.upkeep` writes one.

        Args:
            meanwhile: decides what the index may get to know before it is in the log.
        """
        frozen: list[Changes] = []
        self.store.begin_checkpoint(frozen.append)
        meanwhile()
        while not frozen:
            assert self.store.writer.step()
            self.store.on_log()
        self.store.finish_checkpoint(self.store.index.commit(frozen[0]))
        self.settle()
        removed: list[int] = []
        if self.removes and self.store.remove_segments(removed.extend):
            self.settle()
            assert removed
            self.store.index.forget_segments(removed)
            self.store.index.drop_counters(removed)

    def stop(self) -> None:
        self.checkpoint()
        self.store.close()
        self._store = None

    def live(self) -> None:
        self.boot()
        self.put(1, 0, 1)
        self.settle()
        self.put(1, 2, 2, lac=1)
        self.put(2, 0, 6)
        self.put_lac(2, 3)
        self.put(4, 0, 5)
        self.settle()
        self.put_fence(3)
        self.settle()
        self.checkpoint()
        self.put(1, 3, 5, lac=2)
        self.put_fence(1)
        self.settle()
        self.put(1, 5, 6, lac=2, recovery=True)
        self.put(4, 6, 30)
        self.settle()
        self.delete(4)
        self.put(2, 30, 31)
        self.settle()
        self.checkpoint()
        self.put(2, 10, 12, lac=9)
        self.settle()
        self.put(4, 2, 3, recovery=True)
        self.settle()
        for first in range(0, 60, 20):
            self.put(5, first, first + 19)
            self.put_fence(10 + first)
            self.settle()
        self.stop()
        self.boot()
        self.put_lac(5, 12)
        self.put_fence(2)
        self.delete(5)
        self.settle()
        self.checkpoint()
        self.checkpoint(self.decide)
        self.put(2, 3, 11, recovery=True)
        self.put(9, 1, 1)
        self.settle()
        self.put(9, 2, 9)
        self.settle()
        self.put(11, 0, 30)
        self.settle()
        self.put(11, 40, 70)  # a segment that no checkpoint knows before it may go
        self.put_fence(12)
        self.settle()
        self.delete(11)
        self.put(9, 10, 10)
        self.settle()
        self.checkpoint()

    def decide(self) -> None:
        self.put(6, 20, 22, lac=8)
        self.put_fence(6)
        self.put(8, 0, 2)
        self.delete(8)
        self.put(9, 0, 0)

    def check(self) -> None:
        """Does the store hold what was promised, and nothing else?"""
        promised, store = self._promised, self.store
        ids, more = store.ledger_ids(-1, 1000)
        assert not more
        held = frozenset((number, entry) for number in ids for entry in self._entries(number))
        assert promised.acknowledged <= held
        assert held <= promised.added
        for number in ids:
            ledger = store.ledger(number)
            assert ledger is not None
            # Behind a tombstone it comes back fenced; nothing else fences what nobody has fenced.
            may = promised.fenced | promised.deleted | promised.damaged
            must = promised.fenced_durably | promised.deleted_durably | promised.damaged
            assert (number in must) <= ledger.fenced <= (number in may)
            assert dict(promised.lacs_durable).get(number, -1) <= ledger.lac or number in promised.deleted
            assert ledger.lac <= dict(promised.lacs).get(number, -1)
            assert self._refusal(number, b"another key", recovery=True) is Code.UNAUTHORIZED
        for number in sorted(promised.fenced_durably | promised.deleted_durably):
            assert self._refusal(number, key(number)) is Code.FENCED

    def _refusal(self, ledger_id: int, master_key: bytes, *, recovery: bool = False) -> Code | None:
        try:
            self.add(ledger_id, 1000, [b"x"], key=master_key, recovery=recovery)
        except RefusedError as refused:
            return refused.code
        return None

    def _entries(self, ledger_id: int) -> Iterator[int]:
        ranges, end = self.held(ledger_id)
        assert end == 1000
        for first, last in ranges:
            answer = self.read(ledger_id, first, last)
            assert answer == [payload(ledger_id, entry_id) for entry_id in range(first, last + 1)]
            yield from range(first, last + 1)
        gone = self.answer(ledger_id, ranges[-1][1] + 1, 1000) if ranges else self.answer(ledger_id, 0, 1000)
        assert gone.stop is Stop.NO_ENTRY

    def start(self) -> None:
        """A start from what a crash has left, its check, and a little more life."""
        try:
            self.boot()
            self.check()
            self._believe()
            self.put(7, 50, 52, lac=49)
            self.settle()
            self.checkpoint()
            self.check()
        finally:
            self.close()

    def _believe(self) -> None:
        """What was found is there to stay."""
        ids, _ = self.store.ledger_ids(-1, 1000)
        held = frozenset((number, entry) for number in ids for entry in self._entries(number))
        states = {number: self.store.ledger(number) for number in ids}
        gone = self._promised.deleted - set(ids)
        fenced = frozenset(number for number, state in states.items() if state and state.fenced)
        self.promise(
            added=held,
            acknowledged=held,
            fenced=fenced,
            fenced_durably=fenced,
            damaged=frozenset(),
            lacs_durable=tuple((number, state.lac) for number, state in states.items() if state),
            deleted=gone,
            deleted_durably=self._promised.deleted_durably & gone,
        )


def risen(lacs: tuple[tuple[int, int], ...], ledger_id: int, lac: int) -> tuple[tuple[int, int], ...]:
    before = dict(lacs)
    return tuple({**before, ledger_id: max(lac, before.get(ledger_id, -1))}.items())


@contextlib.contextmanager
def small_sizes() -> Iterator[pytest.MonkeyPatch]:
    """What takes gigabytes in production happens in a short life."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_commit, "DELETED_RUNS_MAX", 2)
        patch.setattr(opening, "LogConfig", partial(opening.LogConfig, zero_ahead_bytes=1024))
        yield patch


@pytest.fixture(scope="module", autouse=True)
def commits_are_points() -> Iterator[None]:
    """A commit of the index is one change, and need not wait for this machine's disk."""
    with small_sizes() as patch:
        patch.setattr(lmdb, "open", partial(lmdb.open, sync=False))
        for name in ("commit", "forget_segments", "_create"):
            patch.setattr(Index, name, noted(name, getattr(Index, name)))
        yield


def noted(name: str, change: Callable[..., object]) -> Callable[..., object]:
    def noted_change(index: Index, argument: object, **options: bool) -> object:
        Bookie.now.before_change_of_index(name)
        return change(index, argument, **options)

    return noted_change


def live(directory: Path, ignores: tuple[str, str] | None = None) -> list[CrashPoint[Promised]]:
    directory.mkdir(exist_ok=True)
    disk = RecordingDisk(ignores)
    bookie = Bookie(disk, directory, Promised())
    try:
        return record(disk, lambda: bookie.promised, bookie.live)
    finally:
        bookie.close()


def starts_in(directory: Path) -> Callable[[RecordingDisk, Promised], Bookie]:
    return partial(Bookie.after_crash, directory)


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> list[CrashPoint[Promised]]:
    return live(tmp_path_factory.mktemp("life"))


def test_the_recorded_life_has_every_kind_of_change(points: list[CrashPoint[Promised]]) -> None:
    seen = {point.what.split()[0] for point in points}
    assert {"open", "pwrite", "fdatasync", "rename", "unlink", "fsync_directory"} <= seen
    assert {"_create", "commit", "forget_segments"} <= seen
    paths = " ".join(point.what for point in points)
    for part in ("cookie.new", "segment.0000000000000003.new", "unlink /data/segments/segment."):
        assert part in paths
    assert len(points) > 100


def test_a_power_loss_at_any_point_leaves_what_was_acknowledged(
    points: list[CrashPoint[Promised]], tmp_path: Path
) -> None:
    """A bounded sample at every other point; many more are for `make soak`."""
    assert run(points[::2], starts_in(tmp_path), states_max=4, second_max=1, seed=1) > 120


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2))
def test_many_more_disks_after_a_power_loss(
    points: list[CrashPoint[Promised]], tmp_path: Path, seed: int
) -> None:
    assert run(points, starts_in(tmp_path), states_max=128, second_max=4, seed=100 + seed) > 2500


def test_what_a_killed_process_has_left_is_durable_before_it_counts(
    points: list[CrashPoint[Promised]], tmp_path: Path
) -> None:
    """A sample; many more are for `make soak`."""
    assert run_after_kills(points[::3], starts_in(tmp_path), states_max=3, seed=1) > 40


@pytest.mark.slow
def test_what_any_killed_process_has_left_is_durable_before_it_counts(
    points: list[CrashPoint[Promised]], tmp_path: Path
) -> None:
    assert run_after_kills(points, starts_in(tmp_path), states_max=16, seed=2) > 120


@pytest.mark.parametrize(
    "forgotten",
    [
        ("fdatasync", "/segment."),
        ("fdatasync", "/cookie.new"),
        ("fsync_directory", "/data"),
        ("fsync_directory", "/segments"),
        ("commit", "index"),
    ],
)
def test_a_forgotten_sync_is_found(forgotten: tuple[str, str], tmp_path: Path) -> None:
    """Test the tester: without any one of the syncs some disk breaks a promise."""
    recorded = live(tmp_path, forgotten)
    random.Random(1).shuffle(recorded)
    with pytest.raises((AssertionError, IdentityError, IndexDamagedError, StoreDamagedError)):
        run(recorded, starts_in(tmp_path), states_max=24, seed=1)
