"""Which of the files in ZooKeeper's `version-2` directories make the state, and the state they make.

    snapshot.ZXID[.gz|.snappy]     in dataDir; the newest complete one is where it begins
    log.ZXID                       in dataLogDir, named after the first transaction
    currentEpoch, acceptedEpoch    in dataDir, on members of an ensemble

Beyond what ZooKeeper checks when it starts, the transactions must follow each other without a gap (within an
epoch their numbers do), and the digests that the files hold must be those of the tree.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from coord.apache.compression import SUFFIXES
from coord.apache.database import DIGEST_MASK, Database
from coord.apache.errors import ApacheDataError, DamagedApacheFileError
from coord.apache.quotas import count_quotas
from coord.apache.replay import apply_transaction
from coord.apache.snapshot import DIGEST_VERSION, TELL_EVERY, SnapshotDigest, is_complete, read_snapshot
from coord.apache.txnlog import TornEnd, Transaction, read_transactions

VERSION_DIRECTORY: Final = "version-2"
_SNAPSHOT: Final = "snapshot."
_LOG: Final = "log."
_COUNTER_BITS: Final = 32
#: Of a standalone server, and of the first epoch of an ensemble: what is before them is nothing.
_FIRST_ZXIDS: Final = frozenset({1, 1 << _COUNTER_BITS | 1})


@dataclass(frozen=True, slots=True)
class ApacheFile:
    """A snapshot or log and the zxid in its name."""

    zxid: int
    path: str

    def read(self) -> bytes:
        """Raises: ApacheDataError."""
        try:
            return Path(self.path).read_bytes()
        except OSError as error:
            raise ApacheDataError(f"{self.path}: {error.strerror or error}") from error


@dataclass(slots=True)
class ApacheState:
    """What the files say.

    Attributes:
        zxid: of the last transaction.
        epoch: the highest that a leader had or was promised.
        transactions: how many were replayed.
        digests: how many of them proved the tree.
        notes: what the operator should know, a line each.
    """

    database: Database
    zxid: int
    epoch: int
    snapshot_path: str | None
    transactions: int = 0
    digests: int = 0
    notes: list[str] = field(default_factory=list)


def load_state(
    data_dir: str,
    log_dir: str | None = None,
    *,
    snapshot: str | None = None,
    check_digests: bool = True,
    tell: Callable[[int], None] = lambda count: None,
) -> ApacheState:
    """Reads a stopped server's state.

    Args:
        data_dir: ZooKeeper's dataDir, or the `version-2` in it.
        log_dir: its dataLogDir, where it had another.
        snapshot: the file to begin with, instead of the newest complete one.
        check_digests: compare the digests in the files with the tree's.
        tell: hears of so many nodes or transactions more, now and then.

    Raises:
        ApacheDataError: there is no state, something is damaged or missing; names file and place.
    """
    directory, log_directory = version_directory(data_dir), version_directory(log_dir or data_dir)
    state, digest = _begin(directory, snapshot, tell)
    logs = _logs_from(log_directory, state.zxid)
    if state.snapshot_path is None and not logs:
        raise ApacheDataError(f"{directory} holds neither a snapshot nor a log of ZooKeeper's")
    _Replay(state, digest, tell, check_digests=check_digests).run(logs)
    _end_dead_sessions(state)
    _check_acls(state)
    count_quotas(state.database)
    # A standalone ZooKeeper counts in epoch 0, in which servers of ours have no history yet.
    state.epoch = max(int(state.zxid > 0), state.zxid >> _COUNTER_BITS, *_epochs(directory))
    return state


def version_directory(directory: str) -> str:
    """The `version-2` of a dataDir. Raises: ApacheDataError."""
    if os.path.basename(os.path.normpath(directory)) == VERSION_DIRECTORY:
        found = directory
    else:
        found = os.path.join(directory, VERSION_DIRECTORY)
    if not os.path.isdir(found):
        raise ApacheDataError(f"{directory} holds no {VERSION_DIRECTORY}: expected ZooKeeper's dataDir")
    return found


def _files(directory: str, prefix: str, suffixes: tuple[str, ...]) -> list[ApacheFile]:
    """The files of a kind by rising zxid; others (`*.tmp`, backups) are none of them."""
    found = []
    for name in os.listdir(directory):
        for suffix in suffixes:
            digits = name[len(prefix) : len(name) - len(suffix)]
            if name == f"{prefix}{digits}{suffix}" and digits and not set(digits) - set("0123456789abcdef"):
                found.append(ApacheFile(int(digits, 16), os.path.join(directory, name)))
    return sorted(found, key=lambda file: (file.zxid, file.path))


def _begin(
    directory: str, snapshot: str | None, tell: Callable[[int], None]
) -> tuple[ApacheState, SnapshotDigest | None]:
    """The state of the snapshot to begin with, or that of an empty ZooKeeper."""
    snapshots = _files(directory, _SNAPSHOT, SUFFIXES)
    if snapshot is not None:
        wanted = os.path.realpath(snapshot)
        snapshots = [file for file in snapshots if os.path.realpath(file.path) == wanted]
        if not snapshots:
            raise ApacheDataError(f"{snapshot} is no snapshot in {directory}")
    notes = []
    for file in reversed(snapshots):
        data = file.read()
        if not is_complete(file.path, data):
            notes.append(f"{file.path} was not written to its end and is passed over")
            continue
        try:
            read = read_snapshot(file.path, data, tell)
        except DamagedApacheFileError as damage:
            raise ApacheDataError(
                f"{damage}; an older snapshot can be named, the logs behind it must all be there"
            ) from damage
        return ApacheState(read.database, file.zxid, 0, file.path, notes=notes), read.digest
    if snapshots:
        raise ApacheDataError(f"no snapshot in {directory} was written to its end")
    return ApacheState(Database.fresh(), 0, 0, None, notes=notes), None


def _logs_from(directory: str, zxid: int) -> list[ApacheFile]:
    """The logs with transactions above a zxid: from the last one on that begins at or below the next."""
    logs = _files(directory, _LOG, ("",))
    first = max((place for place, file in enumerate(logs) if file.zxid <= zxid + 1), default=0)
    return logs[first:]


def _epochs(directory: str) -> list[int]:
    """What `currentEpoch` and `acceptedEpoch` say; a standalone server has neither."""
    found = [0]
    for name in ("currentEpoch", "acceptedEpoch"):
        path = os.path.join(directory, name)
        if os.path.exists(path):
            text = ApacheFile(0, path).read().strip()
            if not text.isdigit() or len(text) > 10:
                raise ApacheDataError(f"{path}: expected a number, got {text[:40]!r}")
            found.append(int(text))
    return found


class _Replay:
    """Transactions behind the snapshot, in order, each checked against the one before.

    A snapshot is fuzzy up to the zxid of its digest, so digests are compared from there on. One that says
    none (before 3.6, or switched off) is compared from the first digest of the log that agrees.
    """

    def __init__(
        self,
        state: ApacheState,
        digest: SnapshotDigest | None,
        tell: Callable[[int], None],
        *,
        check_digests: bool,
    ) -> None:
        self._state = state
        self._tell = tell
        self._check = check_digests
        if digest is not None and (
            digest.zxid <= 0 or digest.zxid < state.zxid or digest.version != DIGEST_VERSION
        ):
            digest = None
        self._pending = digest
        self._is_proven = state.snapshot_path is None

    def run(self, logs: list[ApacheFile]) -> None:
        state = self._state
        self._compare_snapshot(state.snapshot_path or "")
        for number, file in enumerate(logs, 1):
            for record in read_transactions(file.path, file.read()):
                if isinstance(record, TornEnd):
                    if number == len(logs):
                        state.notes.append(
                            f"{file.path} at {record.offset}: a record that was being written is left out"
                        )
                elif record.zxid > state.zxid:
                    self._apply(file.path, record)
        if self._check and self._pending is not None:
            raise ApacheDataError(
                f"{state.snapshot_path} holds effects of transactions up to {self._pending.zxid:#x}, but the "
                f"logs end at {state.zxid:#x}: the end of the log is missing"
            )
        if self._check and not self._is_proven:
            state.notes.append("no digest proves the tree: the files of this release hold none")

    def _apply(self, path: str, txn: Transaction) -> None:
        state = self._state
        if state.snapshot_path is None and state.zxid == 0 and txn.zxid not in _FIRST_ZXIDS:
            raise DamagedApacheFileError(
                path, txn.offset, f"there is no snapshot, and the first transaction is {txn.zxid:#x}"
            )
        if not follows(txn.zxid, state.zxid):
            raise DamagedApacheFileError(
                path,
                txn.offset,
                f"transaction {txn.zxid:#x} does not follow {state.zxid:#x}: a log between them is missing",
            )
        digest = apply_transaction(state.database, txn, path)
        state.zxid = txn.zxid
        state.transactions += 1
        if state.transactions % TELL_EVERY == 0:
            self._tell(TELL_EVERY)
        if not self._check:
            return
        if self._pending is not None:
            self._compare_snapshot(path)
        elif digest is not None and digest[0] == DIGEST_VERSION:
            self._compare(digest[1], f"{path} at {txn.offset}")

    def _compare_snapshot(self, path: str) -> None:
        pending = self._pending
        if self._check and pending is not None and pending.zxid == self._state.zxid:
            self._pending = None
            self._is_proven = True
            self._compare(pending.value & DIGEST_MASK, path)

    def _compare(self, expected: int, where: str) -> None:
        if self._state.database.digest == expected:
            self._is_proven = True
            self._state.digests += 1
        elif self._is_proven:
            raise ApacheDataError(
                f"{where}: expected a tree with digest {expected:016x} as of {self._state.zxid:#x}, got one "
                f"with {self._state.database.digest:016x}"
            )


def follows(zxid: int, last: int) -> bool:
    """Whether nothing was between two transactions: counters rise by one, an epoch begins with 1."""
    return zxid == last + 1 or (
        zxid >> _COUNTER_BITS > last >> _COUNTER_BITS and zxid & (1 << _COUNTER_BITS) - 1 == 1
    )


def _end_dead_sessions(state: ApacheState) -> None:
    """Ephemerals of sessions that are gone go as well, as when ZooKeeper starts."""
    database = state.database
    for session_id in sorted(database.ephemerals.keys() - database.sessions.keys()):
        if database.ephemerals[session_id]:
            state.notes.append(
                f"ephemeral nodes of session {session_id & DIGEST_MASK:#x}, which has ended, are left out"
            )
        database.close_session(session_id, state.zxid, ())


def _check_acls(state: ApacheState) -> None:
    for path, node in state.database.nodes.items():
        if node.acl is None:
            raise ApacheDataError(
                f"{state.snapshot_path}: node {path!r} names an ACL that is not in the file"
            )
