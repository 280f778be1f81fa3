"""Whether all files of a stopped server are what was written: every checksum, every record, and that they
belong together. Nothing is changed but for lock and marker files.

    current, epochs     their lines                    checkpoint   every value, the digest of the whole
    owner               its line, if a member has started here
    diverged            the same; a state that is known to be wrong is damage
    txn.N               every frame, record and batch; each batch follows the one before it; the log begins at
                        the checkpoint or below; what is committed can be executed on it

A torn end of the newest segment is no damage: it was never acknowledged, and start-up cuts it.
"""

import os
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Literal

from coord.disk import DamagedFileError, Disk, RealDisk, read_checked
from coord.log.format import segment_number
from coord.protocol.jute import DecodeError
from coord.server.state_files import OURS
from coord.server.tree_kind import TreeKind
from coord.storage import (
    CheckpointDamagedError,
    CheckpointStore,
    Environments,
    LmdbEnvironments,
    inspect_checkpoint,
    inspect_txnlog,
    read_owner,
)
from coord.storage.divergence import DIVERGED_FILE
from coord.storage.owner import OWNER_FILE
from coord.storage.recovery import LOG_PREFIX
from coord.tree import DataTree


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `offset` is None where the file as a whole is meant."""

    kind: Literal["ok", "note", "damage"]
    path: str
    offset: int | None
    text: str


class _Verification:
    """What has been learnt from the files looked at so far."""

    def __init__(self, disk: Disk, environments: Environments, root: str, log_root: str) -> None:
        self._disk = disk
        self._environments = environments
        self._root = root
        self._log_root = log_root
        self._tree: DataTree | None = None
        self._checkpoint_zxid = 0
        self._last_zxid: int | None = None
        self._committed_zxid = 0
        self._waiting: deque[tuple[str, int, int, bytes]] = deque()

    def run(self) -> Iterator[Finding]:
        generation = yield from self._small_file("current", "zoolog-generation", 1, 3)
        epochs = yield from self._small_file("epochs", "zoolog-epochs", 2, 2)
        yield from self._owner()
        if self._disk.exists(os.path.join(self._root, DIVERGED_FILE)):
            diverged = yield from self._small_file(DIVERGED_FILE, "zoolog-diverged", 4, 4)
            if diverged is not None and generation is not None and diverged[0] == generation[0]:
                text = "the state differs from a majority's; a leader has to give this server another"
                yield Finding("damage", os.path.join(self._root, DIVERGED_FILE), None, text)
        if generation is None:
            return
        yield from self._checkpoint(os.path.join(self._root, f"generation-{generation[0]}", "checkpoint"))
        log_path = os.path.join(self._log_root, f"log-{generation[min(1, len(generation) - 1)]}")
        if not self._disk.exists(log_path):
            yield Finding("damage", log_path, None, "there is no transaction log of the current generation")
            return
        names = {segment_number(LOG_PREFIX, name): name for name in self._disk.list(log_path)}
        numbers = sorted(number for number in names if number is not None)
        for number in numbers:
            path = os.path.join(log_path, names[number])
            yield from self._segment(path, is_last=number == numbers[-1])
        yield from self._execute()
        last = max(self._last_zxid or 0, self._checkpoint_zxid)
        if epochs is not None and epochs[0].isdigit() and last >> 32 > int(epochs[0]):
            text = f"accepted epoch {epochs[0]}, but there is a zxid {last:#x}"
            yield Finding("damage", os.path.join(self._root, "epochs"), None, text)

    def _small_file(
        self, name: str, kind: str, words_min: int, words_max: int
    ) -> Generator[Finding, None, tuple[str, ...] | None]:
        path = os.path.join(self._root, name)
        try:
            found = read_checked(self._disk, path, kind)
        except DamagedFileError as damage:
            yield Finding("damage", path, 0, str(damage))
            return None
        if found is None or not words_min <= len(found) <= words_max:
            text = "missing" if found is None else f"expected {words_min} to {words_max} words"
            yield Finding("damage", path, None, text)
            return None
        yield Finding("ok", path, None, " ".join(found))
        return found

    def _owner(self) -> Iterator[Finding]:
        path = os.path.join(self._root, OWNER_FILE)
        try:
            owner = read_owner(self._disk, self._root)
        except DamagedFileError as damage:
            yield Finding("damage", path, 0, str(damage))
            return
        if owner is not None:
            yield Finding("ok", path, None, str(owner))

    def _checkpoint(self, path: str) -> Iterator[Finding]:
        self._tree = DataTree.fresh()
        if not self._disk.exists(path):
            yield Finding("note", path, None, "no checkpoint yet")
            return
        damaged = False
        for row in inspect_checkpoint(self._environments, path):
            if row.kind == "damage":
                damaged = True
                yield Finding("damage", path, None, row.facts["problem"])
        if damaged:
            self._tree = None
            return
        try:
            loaded = CheckpointStore(self._disk, path, self._environments).load(TreeKind())
        except CheckpointDamagedError as damage:
            self._tree = None
            yield Finding("damage", path, None, str(damage))
            return
        if loaded is not None:
            self._tree, self._checkpoint_zxid = loaded
            text = f"zxid {self._checkpoint_zxid:#x}, {len(self._tree.nodes)} nodes"
            yield Finding("ok", path, None, text)

    def _segment(self, path: str, *, is_last: bool) -> Iterator[Finding]:
        batches = 0
        damaged = False
        for row in inspect_txnlog(self._disk, path):
            if row.kind in ("batch", "mark"):
                batches += row.kind == "batch"
                yield from self._record(path, row.offset, row.kind, row.facts, row.payload)
            elif row.kind in ("damage", "full") or (row.kind == "torn" and not is_last):
                damaged = True
                yield Finding("damage", path, row.offset, row.facts["problem"])
            elif row.kind == "torn":
                yield Finding("note", path, row.offset, f"torn end, will be cut: {row.facts['problem']}")
        if not damaged:
            yield Finding("ok", path, None, f"{batches} batches")

    def _record(
        self, path: str, offset: int, kind: str, facts: dict[str, str], payload: bytes
    ) -> Iterator[Finding]:
        first, _, last = facts["zxids"].partition("-")
        previous, committed = int(facts["previous"], 16), int(facts["committed"], 16)
        self._committed_zxid = max(self._committed_zxid, committed)
        if self._last_zxid is None and previous > self._checkpoint_zxid:
            text = f"the log begins after {previous:#x}, the checkpoint is of {self._checkpoint_zxid:#x}"
            yield Finding("damage", path, offset, text)
        elif self._last_zxid is not None and previous != self._last_zxid:
            text = f"expected a batch after {self._last_zxid:#x}, got one after {previous:#x}"
            yield Finding("damage", path, offset, text)
        self._last_zxid = int(last, 16)
        if kind == "batch" and int(first, 16) > self._checkpoint_zxid:
            self._waiting.append((path, offset, self._last_zxid, payload))
        if self._tree is not None:
            yield from self._execute()

    def _execute(self) -> Iterator[Finding]:
        """What is known to be committed, on the checkpoint."""
        while self._tree is not None and self._waiting and self._waiting[0][2] <= self._committed_zxid:
            path, offset, _, payload = self._waiting.popleft()
            try:
                TreeKind().apply(self._tree, payload)
            except DecodeError as error:
                self._tree = None
                yield Finding("damage", path, offset, f"a batch that cannot be read: {error}")


def verify_directory(data_dir: str, data_log_dir: str | None = None) -> Iterator[Finding]:
    """Looks at all files of the current generation.

    Raises:
        DiskLockedError: a server runs on it.
        OSError: a file cannot be read.
    """
    disk = RealDisk()
    root, log_root = os.path.join(data_dir, OURS), os.path.join(data_log_dir or data_dir, OURS)
    if not disk.exists(root):
        yield Finding("damage", root, None, "there is no state of zoolog's")
        return
    locks = []
    try:
        for directory in dict.fromkeys((root, log_root)):
            locks.append(disk.lock(os.path.join(directory, "lock")))
        yield from _Verification(disk, LmdbEnvironments(), root, log_root).run()
    finally:
        for lock in locks:
            lock.release()
