"""Every disk that a power loss may leave behind: a run's changes are recorded, and the legal states after a
crash at each of them enumerated.

A `RecordingDisk` is photographed before each changing operation (a write, a sync of a file or directory, a
rename, an unlink, a truncation). From one photograph come the disks that `FaultyDisk` declares legal: of the
changed names that no sync of their directory has made durable a prefix is kept, as a journalling file system
does, and of the unsynced sectors any subset. All subsets are tried while they are few; of more, none, all,
each prefix and each single one missing, as far as the bound goes, and a sample by seed.

Who starts from such a disk is a `Successor`; the power may go a second time while it does (`run`), or have
been on at first (`run_after_kills`).
"""

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, cast

from coord.disk import DiskFile, FaultyDisk
from coord.disk.faulty import _Inode

__all__ = [
    "CrashPoint",
    "RecordingDisk",
    "Successor",
    "crashed_disks",
    "photograph",
    "record",
    "run",
    "run_after_kills",
]

CHANGES_OF_START = 24
"""About so many are usual."""
T = TypeVar("T")
P = TypeVar("P", covariant=True)
_END = "the end"


class RecordingDisk(FaultyDisk):
    """Calls `before_change` with the operation and its path before each change takes place.

    Args:
        ignores: an operation, "fdatasync" or "fsync_directory", and a part of a path: it does nothing there,
            as if the code had forgotten it. For testing the testers.
    """

    def __init__(self, ignores: tuple[str, str] | None = None) -> None:
        super().__init__()
        self.ignores = ignores
        self.before_change: Callable[[str, str], None] = lambda operation, path: None

    def check(self, operation: str, path: str, *, changes: bool) -> int:
        if changes:
            self.before_change(operation, path)
        return super().check(operation, path, changes=changes)

    def sync_is_ignored(self, operation: str, path: str) -> bool:
        return self.ignores is not None and operation == self.ignores[0] and self.ignores[1] in path

    def fsync_directory(self, path: str) -> None:
        if not self.sync_is_ignored("fsync_directory", path):
            super().fsync_directory(path)

    def open(self, path: str, *, writable: bool = True, create: bool = False) -> DiskFile:
        file = super().open(path, writable=writable, create=create)
        return cast(DiskFile, _UnsyncedFile(file)) if self.sync_is_ignored("fdatasync", path) else file


class _UnsyncedFile:
    """A file whose syncs do nothing."""

    def __init__(self, file: DiskFile) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def pwrite_durable(self, parts: Sequence[bytes], offset: int) -> None:
        self._file.pwrite(parts, offset)

    def fdatasync(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class CrashPoint(Generic[T]):
    """A moment at which the power may go off.

    Attributes:
        what: the change that does not happen any more.
        disk: as the running process saw it.
        promised: what the run had promised by then.
    """

    number: int
    what: str
    disk: FaultyDisk
    promised: T


def photograph(disk: FaultyDisk) -> RecordingDisk:
    """The same files, durable and not, on a disk of their own without faults and locks."""
    taken = RecordingDisk()
    copies: dict[int, _Inode] = {}  # an inode that several names lead to stays one

    def copied(inode: _Inode | None) -> _Inode | None:
        if inode is None:
            return None
        if id(inode) not in copies:
            copies[id(inode)] = _Inode(bytearray(inode.cached), bytearray(inode.durable), list(inode.pending))
        return copies[id(inode)]

    taken._names = {path: copied(inode) for path, inode in disk._names.items()}
    taken._durable_names = {path: copied(inode) for path, inode in disk._durable_names.items()}
    taken._pending_names = [(path, target, copied(inode)) for path, target, inode in disk._pending_names]
    return taken


@dataclass
class _Recorder(Generic[T]):
    disk: RecordingDisk
    promised: Callable[[], T]
    is_wanted: Callable[[int], bool]
    points: list[CrashPoint[T]] = field(default_factory=list)
    number: int = 0

    def take(self, operation: str, path: str) -> None:
        if self.is_wanted(self.number) or operation == _END:
            what = f"{operation} {path}"
            self.points.append(CrashPoint(self.number, what, photograph(self.disk), self.promised()))
        self.number += 1


def record(
    disk: RecordingDisk,
    promised: Callable[[], T],
    run: Callable[[], None],
    is_wanted: Callable[[int], bool] = lambda number: True,
) -> list[CrashPoint[T]]:
    """The crash points of a run, the one after its end included.

    Args:
        promised: asked at each point; must return a value that the run does not change afterwards.
        is_wanted: says by its number whether a point is kept; the last one always is.
    """
    recorder = _Recorder(disk, promised, is_wanted)
    disk.before_change = recorder.take
    try:
        run()
    finally:
        disk.before_change = lambda operation, path: None
    recorder.take(_END, "")
    return recorder.points


class Successor(Protocol[P]):
    """A process on a disk that a crash has left."""

    @property
    def promised(self) -> P:
        """What its predecessors and it have promised by now; a value that does not change afterwards."""
        ...

    def start(self) -> None:
        """Raises what it finds wrong."""


Succeed = Callable[[RecordingDisk, T], Successor[T]]
"""Makes the successor of a process that had promised this."""


def run(
    points: list[CrashPoint[T]],
    succeed: Succeed[T],
    *,
    states_max: int,
    second_max: int = 0,
    changes: int = CHANGES_OF_START,
    seed: int,
) -> int:
    """Starts from the disks of all points, and after second crashes in some of those starts; returns how many
    disks that were.

    Args:
        states_max: disks of a point, at most about so many.
        second_max: second crashes in each start.
        changes: a second crash comes before one of so many of a start, or at the end of one that makes fewer.
    """
    source = random.Random(seed)
    count = 0
    for point in points:
        for words, disk in crashed_disks(point.disk, source, states_max=states_max):
            with _telling(f"seed {seed}, crash before {point.number}: {point.what}; kept: {words}"):
                second = frozenset(source.sample(range(changes), second_max))
                count += 1 + _start_twice(succeed, disk, point.promised, second, source)
    return count


def _start_twice(
    succeed: Succeed[T], disk: RecordingDisk, promised: T, second: frozenset[int], source: random.Random
) -> int:
    first = succeed(disk, promised)
    points = record(disk, lambda: first.promised, first.start, is_wanted=second.__contains__)[: len(second)]
    for point in points:
        words, again = source.choice(list(crashed_disks(point.disk, source, states_max=8)))
        with _telling(f"second crash before {point.number}: {point.what}; kept: {words}"):
            succeed(again, point.promised).start()
    return len(points)


def run_after_kills(points: list[CrashPoint[T]], succeed: Succeed[T], *, states_max: int, seed: int) -> int:
    """The process is killed: the system shows its successor what is not durable too. Then the power goes.
    Returns from how many disks somebody has started after that.
    """
    source = random.Random(seed)
    count = 0
    for point in points:
        where = f"seed {seed}, killed before {point.number}: {point.what}"
        disk = photograph(point.disk)
        first = succeed(disk, point.promised)
        with _telling(f"{where}; the power was on"):
            first.start()
        promised = first.promised
        for words, crashed in crashed_disks(disk, source, states_max=states_max):
            with _telling(f"{where}; kept: {words}"):
                succeed(crashed, promised).start()
            count += 1
    return count


@contextlib.contextmanager
def _telling(where: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(where)
        raise


def crashed_disks(
    disk: FaultyDisk, source: random.Random, *, states_max: int
) -> Iterator[tuple[str, RecordingDisk]]:
    """The distinct disks after a power loss now, each with the words for what survived.

    Args:
        states_max: at most about so many, spread evenly over how many of the changed names survive.
    """
    seen: set[object] = set()
    names = len(disk._pending_names)
    per_name = max(states_max // (names + 1), 3)
    for names_kept in range(names, -1, -1):
        asked: list[int] = []
        _restarted(disk, names_kept, lambda index, asked=asked: bool(asked.append(index)))  # type: ignore[misc]
        sectors = len(asked)
        for kept in _subsets(sectors, source, per_name):
            crashed = _restarted(disk, names_kept, kept.__contains__)
            content = _content(crashed)
            if content not in seen:
                seen.add(content)
                yield f"{names_kept} of {names} names, sectors {sorted(kept)} of {sectors}", crashed


def _restarted(disk: FaultyDisk, names_kept: int, survives: Callable[[int], bool]) -> RecordingDisk:
    crashed = photograph(disk)
    crashed.restart(survives, names_kept=names_kept)
    return crashed


def _subsets(count: int, source: random.Random, at_most: int) -> Iterator[frozenset[int]]:
    if 1 << min(count, 60) <= at_most:
        for mask in range(1 << count):
            yield frozenset(index for index in range(count) if mask >> index & 1)
        return
    whole = range(count)
    likely = [frozenset(whole), frozenset[int]()]
    likely += [frozenset(range(kept)) for kept in range(1, count)]
    likely += [frozenset(whole) - {index} for index in whole]
    yield from likely[:2]
    yield from source.sample(likely[2:], min(max(at_most - 2, 0) // 2, len(likely) - 2))
    for _ in range(max(at_most - 2, 0) // 2):
        chance = source.choice((0.1, 0.5, 0.9))
        yield frozenset(index for index in whole if source.random() < chance)


def _content(disk: FaultyDisk) -> object:
    return frozenset(
        (path, None if inode is None else bytes(inode.durable)) for path, inode in disk._names.items()
    )
