"""What a real process writes, recorded below Python: its system calls on files, played back onto a disk that
can lose power (`tests.crash_states`).

LMDB writes by itself, so a recording disk does not see it. A library preloaded into a process of its own
(`recorded_files.c`) notes each write with its bytes and whether it is synchronous (O_DSYNC, RWF_DSYNC), each
sync of a file or directory, and each change of a name, below one directory. Played back in full they give the
files that the process has left, which every recording is held to: nothing that was written was missed.
"""

import contextlib
import json
import os
import pickle
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path

import lmdb
import pytest

from coord.disk.faulty import _Inode
from tests import crash_states
from tests.crash_states import RecordingDisk, record
from tests.shared_library import compile_library

__all__ = [
    "Operation",
    "Recording",
    "build_library",
    "note",
    "outcomes_without",
    "print_outcomes",
    "quick_syncs",
    "record_process",
    "run",
]

ROOT = Path(__file__).parents[1]
NOTE = "N"
_SECONDS_MAX = 100
_HEAD = struct.Struct("<cxxxIIIQQ")
_LOCK_FILE = "lock.mdb"
"""LMDB's, mapped for writing; without content for anybody who comes after the process."""

SOURCE = Path(__file__).with_suffix(".c")
"""Preloaded into a process: notes what it does to files below RECORDED_ROOT in RECORDED_TO."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One system call that succeeded, or a note of the process.

    Attributes:
        kind: O created, W written, S synced, T truncated, A allocated, R renamed, U unlinked, K directory
            made, D directory removed, M mapped for writing, N noted.
        a, b: offset and whether it is durable of a write; size of a truncation; offset and length allocated.
        data: written or noted bytes, or the new name.
    """

    kind: str
    path: str
    a: int = 0
    b: int = 0
    data: bytes = b""


def build_library(directory: Path) -> Path:
    """Skips the test where there is no C compiler."""
    library = compile_library(SOURCE, directory) if sys.platform.startswith("linux") else None
    if library is None:
        pytest.skip("recording a process's writes needs Linux and a C compiler")
    return library


def note(data: bytes) -> None:
    """Called by the process itself: puts a note between its operations."""
    descriptor = os.open(os.environ["RECORDED_TO"], os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, _HEAD.pack(NOTE.encode(), 0, len(data), 0, 0, 0) + data)
    os.close(descriptor)


@dataclass(frozen=True)
class Recording:
    """What a process did below a directory.

    Attributes:
        files: what was there before it, durably.
    """

    root: Path
    files: dict[str, bytes | None]
    operations: tuple[Operation, ...]

    def without(self, kind: str, pattern: str) -> "Recording":
        """As if the code had forgotten to sync ("S"), or to write synchronously ("W"), such files."""
        kept = []
        for operation in self.operations:
            if operation.kind == kind and re.search(pattern, operation.path.removeprefix(str(self.root))):
                if kind == "S":
                    continue
                operation = replace(operation, b=0)
            kept.append(operation)
        assert len(kept) < len(self.operations) or kept != list(self.operations)
        return replace(self, operations=tuple(kept))

    def play(self, disk: RecordingDisk, on_note: Callable[[bytes], None]) -> None:
        for operation in self.operations:
            if operation.kind == NOTE:
                on_note(operation.data)
            else:
                _play(disk, operation)


def record_process(library: Path, root: Path, arguments: list[str]) -> Recording:
    """Runs `python arguments` to its end; what it did below `root`, which exists.

    Played back in full it gives the files that are there now: nothing was missed.
    """
    record = root.parent / f"{root.name}.record"
    record.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "RECORDED_ROOT": str(root),
        "RECORDED_TO": str(record),
        "PYTHONPATH": str(ROOT),
    }
    files = _files_of(root)
    result = subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    recording = Recording(root, files, tuple(_decode(record.read_bytes())))
    disk = _disk_of(files)
    recording.play(disk, lambda data: None)
    played = {path: None if inode is None else bytes(inode.cached) for path, inode in disk._names.items()}
    assert {path: played[path] for path in played if _is_below(path, root)} == _files_of(root)
    return recording


Start = Callable[[bytes, Path], None]
"""Gets the last note, and a directory with the files; raises what it finds wrong."""


@dataclass(frozen=True)
class _OnRealFiles:
    """A start from what is below `root` on a disk, written to real files for it."""

    disk: RecordingDisk
    promised: bytes
    root: Path
    place: Path
    call: Start

    def start(self) -> None:
        _materialize(self.disk, self.root, self.place)
        self.call(self.promised, self.place)
        shutil.rmtree(self.place)


def run(
    recording: Recording, start: Start, target: Path, *, states_max: int, seed: int, share: float = 1.0
) -> int:
    """Starts from the files that a power loss may leave of a recording; returns how many times.

    Args:
        share: of the crash points.
    """
    source = random.Random(seed)
    noted = b""

    def on_note(data: bytes) -> None:
        nonlocal noted
        noted = data

    disk = _disk_of(recording.files)
    points = record(
        disk,
        lambda: noted,
        lambda: recording.play(disk, on_note),
        is_wanted=lambda number: source.random() < share,
    )
    source.shuffle(points)
    target.mkdir(exist_ok=True)
    numbers = count()

    def succeed(disk: RecordingDisk, noted: bytes) -> _OnRealFiles:
        return _OnRealFiles(disk, noted, recording.root, target / str(next(numbers)), start)

    return crash_states.run(points, succeed, states_max=states_max, seed=seed)


def outcomes_without(
    module: str, what: str, recording: Recording, syncs: list[tuple[str, str]], target: Path
) -> set[str]:
    """Test the tester: what starts come to from a recording without each of the syncs (see
    `Recording.without`): "good", "found" by an exception, "died" of what was read, or "late".

    Args:
        module: run with "forgotten" and the name of a file, passes that name to `print_outcomes`: in a
            process of its own, for what a file of LMDB's that lies may end.
    """
    path = target / "arguments"
    path.write_bytes(pickle.dumps((what, recording, syncs, target)))
    command = [sys.executable, "-m", module, "forgotten", str(path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout))


def print_outcomes(path: str, starts: Mapping[str, Start]) -> None:
    """The other half of `outcomes_without`, with the starts for each kind of recording."""
    what, recording, syncs, target = pickle.loads(Path(path).read_bytes())
    outcomes = []
    with quick_syncs():
        for number, sync in enumerate(syncs):
            place = target / f"without-{number}"
            attempt = partial(run, recording.without(*sync), starts[what], place, states_max=12, seed=1)
            outcomes.append(_outcome_apart(attempt))
    print(json.dumps(outcomes))


def _outcome_apart(call: Callable[[], object]) -> str:
    child = os.fork()
    if child == 0:
        signal.alarm(_SECONDS_MAX)
        with contextlib.suppress(BaseException):
            call()
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "late" if os.WTERMSIG(status) == signal.SIGALRM else "died"
    return "found" if os.WEXITSTATUS(status) else "good"


@contextlib.contextmanager
def quick_syncs() -> Iterator[None]:
    """Starts need not wait for this machine's disk: their files are thrown away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "RWF_DSYNC", 0)
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr(os, "fdatasync", lambda descriptor: None)
        patch.setattr(lmdb, "open", partial(lmdb.open, sync=False))
        yield


def _decode(data: bytes) -> Iterator[Operation]:
    at = 0
    while at < len(data):
        kind, path_length, size, _, a, b = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        middle, end = at + path_length, at + path_length + size
        yield Operation(kind.decode(), os.fsdecode(data[at:middle]), a, b, data[middle:end])
        at = end


def _is_below(path: str, root: Path) -> bool:
    return path == str(root) or path.startswith(f"{root}/")


def _files_of(root: Path) -> dict[str, bytes | None]:
    """What is below a directory, and itself; None: a directory."""
    found: dict[str, bytes | None] = {str(root): None}
    for path in sorted(root.rglob("*")):
        if path.name != _LOCK_FILE:
            found[str(path)] = None if path.is_dir() else path.read_bytes()
    return found


def _disk_of(files: dict[str, bytes | None]) -> RecordingDisk:
    """A disk on which exactly these files are, durably."""
    disk = RecordingDisk()
    for path in (*(str(parent) for parent in Path(min(files)).parents), *files):
        content = files.get(path)
        inode = None if content is None else _Inode(bytearray(content), bytearray(content))
        disk._names[path] = disk._durable_names[path] = inode
    return disk


def _play(disk: RecordingDisk, operation: Operation) -> None:
    """Does to a disk what was done to the files."""
    path = operation.path
    if path.endswith(_LOCK_FILE):
        return
    match operation.kind:
        case "O":
            disk.open(path, create=True).close()
        case "W":
            file = disk.open(path)
            (file.pwrite_durable if operation.b else file.pwrite)((operation.data,), operation.a)
        case "S" if disk._names.get(path, ...) is None:
            disk.fsync_directory(path)
        case "S":
            disk.open(path).fdatasync()
        case "T":
            disk.open(path).truncate(operation.a)
        case "A":
            disk.open(path).allocate(operation.a, operation.b)
        case "R":
            disk.rename(path, os.fsdecode(operation.data))
        case "U":
            disk.unlink(path)
        case "K":
            disk.check("make_directory", path, changes=True)
            disk._change_name(path, "", None)
        case "D":
            disk.check("unlink", path, changes=True)
            disk._change_name(path, path, None)
        case _:
            raise AssertionError(f"{path} was mapped for writing: what reaches it cannot be recorded")


def _materialize(disk: RecordingDisk, root: Path, target: Path) -> None:
    """Writes what is below `root` on a disk to real files below `target`."""
    for path, inode in sorted(disk._names.items()):
        if _is_below(path, root):
            here = target / os.path.relpath(path, root)
            if not here.parent.is_dir():
                continue  # the directory that it is in has no name
            if inode is None:
                here.mkdir(exist_ok=True)
            else:
                here.write_bytes(inode.cached)
