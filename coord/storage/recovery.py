"""Start-up: from what is on disk to a state that holds exactly what is known to be committed.

    checkpoint (state as of Z) -> log above Z -> execute up to the highest committed zxid found -> the rest is
    the tail

The rest, batches that are logged but not known to be committed, are handed out unexecuted: they count for the
vote, may be truncated, and are executed only when an epoch commits them. A standalone server has nobody to
ask: what it logged is committed.

If the checkpoint is bad it is set aside. If the log reaches back to the first transaction, the state is
rebuilt from it. If not, or if the log is damaged, this server cannot prove its history: a member of an
ensemble sets the log aside and starts with an empty one, behind the checkpoint if that is good, in a new
generation if not. It counts in no quorum until a leader has synchronized it (`DataDirectory.lose_history`),
or the log has been repaired from those of its peers (`coord.storage.salvage`); what it promised to them
stays. A standalone server, and a member that has no peers, refuses to start.
"""

import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Generic

from coord.log import (
    LogConfig,
    LogDamagedError,
    LogTailDamagedError,
    Position,
    Record,
    SegmentedLog,
    TornTail,
    open_log,
    salvage_log,
)
from coord.storage.checkpoint import CheckpointDamagedError, CheckpointStore
from coord.storage.directory import DataDirectory
from coord.storage.environment import Environments
from coord.storage.source import S, StateKind
from coord.storage.txnlog import (
    KIND_BATCH,
    LoggedBatch,
    TxnLog,
    TxnLogGapError,
    decode_record,
    scan_batches,
    segment_starts,
)

__all__ = ["LogOptions", "RecoveredState", "RecoveryError", "begin_log", "open_state"]

WINDOW_BYTES_MAX = 64 << 20
LOG_PREFIX = "txn"


class RecoveryError(Exception):
    """The server must not start from what is on disk; the text is one line for the operator."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """How the transaction log is written; see `coord.log.LogWriter` for `notify`, `threaded` and `clock_ns`.

    Attributes:
        config: not `cached`: a server that runs never reads its log; without seals, unless the log has them
            already: see `TxnLog.seal`.
        new_file_id: 16 random bytes; from the seed in simulation.
    """

    notify: Callable[[], None]
    threaded: bool = True
    config: LogConfig = field(default_factory=lambda: LogConfig(cached=False, sealed=False))
    new_file_id: Callable[[], bytes] = lambda: secrets.token_bytes(16)
    clock_ns: Callable[[], int] = perf_counter_ns


@dataclass(slots=True)
class RecoveredState(Generic[S]):
    """What start-up found.

    Attributes:
        state: holds exactly the transactions up to `executed_zxid`.
        executed_zxid: never above what is known to be committed.
        after_zxid: the zxid before `batches`; at most `executed_zxid`.
        batches: the end of the log, in order: everything above `executed_zxid`, and before it what the window
            holds.
        log: open, continues behind the last batch.
        store: for the next checkpoints.
        history_lost: the log was damaged, or the checkpoint was and the log does not reach back: the state is
            that of a good checkpoint, or fresh, and what is behind it must come from a peer. True until that
            was done, over restarts too.
        set_aside: where a bad checkpoint is now.
        torn_tail: what was cut off the log's end.
        warnings: lines for the event log.
    """

    state: S
    executed_zxid: int
    after_zxid: int
    batches: list[LoggedBatch]
    log: TxnLog
    store: CheckpointStore
    history_lost: bool = False
    set_aside: str | None = None
    torn_tail: TornTail | None = None
    warnings: list[str] = field(default_factory=list)


def open_state(
    directory: DataDirectory,
    environments: Environments,
    kind: StateKind[S],
    options: LogOptions,
    *,
    standalone: bool,
    has_peers: bool | None = None,
    window_bytes_max: int = WINDOW_BYTES_MAX,
) -> RecoveredState[S]:
    """Load the checkpoint, replay the log, cut a torn tail.

    Blocks for as long as that takes (a million nodes: seconds).

    Args:
        standalone: what is logged counts as committed.
        has_peers: others may have what is lost here; None: unless it is standalone.

    Raises:
        RecoveryError: history is lost and there are no peers, or it contradicts the checkpoint or the epochs.
        LogDamagedError: the log is damaged, with file and offset, and there are no peers.
        OSError: the disk failed.
    """
    has_peers = not standalone if has_peers is None else has_peers
    loaded = _load_checkpoint(directory, environments, kind)
    try:
        return _replay_log(
            directory, kind, loaded, options, standalone=standalone, window_bytes_max=window_bytes_max
        )
    except (LogDamagedError, TxnLogGapError) as loss:
        what = str(loss)
        if isinstance(loss, TxnLogGapError):
            reach = f"the checkpoint is of {loaded.zxid:#x}" if loaded.is_there else "no usable checkpoint"
            what = f"{directory.root}: {reach}, and {loss}: the history of this server is lost"
        reason = "; ".join([*loaded.warnings, what])
        if not has_peers:
            if isinstance(loss, TxnLogGapError):
                raise RecoveryError(reason) from loss
            raise
        return _start_without_history(directory, environments, kind, options, loaded.set_aside, reason)


@dataclass(slots=True)
class _Loaded(Generic[S]):
    """A checkpoint's state, or a fresh one.

    Attributes:
        is_there: there is a good checkpoint, as of `zxid`.
        set_aside: where a bad one is now.
    """

    store: CheckpointStore
    state: S
    zxid: int = 0
    is_there: bool = False
    set_aside: str | None = None
    warnings: list[str] = field(default_factory=list)


def _load_checkpoint(directory: DataDirectory, environments: Environments, kind: StateKind[S]) -> _Loaded[S]:
    store = CheckpointStore(directory.disk, directory.checkpoint_path(), environments)
    try:
        loaded = store.load(kind)
    except CheckpointDamagedError as damage:
        set_aside = store.set_aside(directory.root)
        return _Loaded(store, kind.fresh(), set_aside=set_aside, warnings=[f"{damage}; moved to {set_aside}"])
    return _Loaded(store, kind.fresh()) if loaded is None else _Loaded(store, *loaded, is_there=True)


def _replay_log(
    directory: DataDirectory,
    kind: StateKind[S],
    loaded: _Loaded[S],
    options: LogOptions,
    *,
    standalone: bool,
    window_bytes_max: int,
) -> RecoveredState[S]:
    """Raises: TxnLogGapError, and what `open_state` does."""
    warnings = loaded.warnings
    log = _open_log(directory, options)
    try:
        starts = segment_starts(log)
        replay = _Replay(kind, loaded.state, loaded.zxid, window_bytes_max)
        if not loaded.is_there and not starts and (loaded.set_aside is not None or log.last_group > 0):
            raise TxnLogGapError("the log is empty")
        replay.run(log, starts)
        replay.finish(standalone=standalone)
        _check_end(directory, log, replay.last_zxid)
        if not standalone:
            _check_epoch(directory, replay.last_zxid)
        if starts and replay.last_zxid > replay.logged_zxid:
            warnings.append(
                f"the log ends at {replay.logged_zxid:#x}, before the checkpoint of {loaded.zxid:#x}; "
                "it begins anew"
            )
            log.cut(Position(0, 0))
            starts = {}
        directory.pass_log_end()
    except BaseException:
        log.close()
        raise
    return RecoveredState(
        state=loaded.state,
        executed_zxid=replay.executed_zxid,
        after_zxid=replay.after_zxid,
        batches=list(replay.window),
        log=_txn_log(log, options, starts, replay.last_zxid),
        store=loaded.store,
        history_lost=directory.loss is not None,
        set_aside=loaded.set_aside,
        torn_tail=log.torn_tail,
        warnings=warnings,
    )


def begin_log(directory: DataDirectory, after_zxid: int, options: LogOptions) -> TxnLog:
    """The empty log of a generation that a snapshot of `after_zxid` has just begun; removes the older
    generations.
    """
    directory.remove_other_generations()
    return _txn_log(_open_log(directory, options), options, {}, after_zxid)


def _open_log(directory: DataDirectory, options: LogOptions) -> SegmentedLog:
    """A last group that is bad is no loss if nothing is missing all the same: it was the mark of an orderly
    stop.
    """
    try:
        return _open_log_as(directory, options, judges_tail=True)
    except LogTailDamagedError:
        if not _reaches_its_end(directory):
            raise
    return _open_log_as(directory, options, judges_tail=False)


def _open_log_as(directory: DataDirectory, options: LogOptions, *, judges_tail: bool) -> SegmentedLog:
    return open_log(
        directory.disk,
        directory.log_path(),
        LOG_PREFIX,
        tag=directory.log_generation.encode(),
        config=options.config,
        judges_tail=judges_tail,
        new_file_id=options.new_file_id,
    )


def _reaches_its_end(directory: DataDirectory) -> bool:
    """Does what is good in the log reach the zxid at which it ended, when the server stopped in order?"""
    expected = directory.read_log_end()
    last = 0
    tag = directory.log_generation.encode()
    for item in salvage_log(directory.disk, directory.log_path(), LOG_PREFIX, tag=tag):
        if isinstance(item, Record):
            last = decode_record(item.payload, directory.log_path(), item.offset).last
    return expected.is_exact and last >= expected.zxid


def _txn_log(log: SegmentedLog, options: LogOptions, starts: dict[int, int], last_zxid: int) -> TxnLog:
    return TxnLog(
        log,
        options.notify,
        starts=starts,
        last_zxid=last_zxid,
        threaded=options.threaded,
        clock_ns=options.clock_ns,
    )


def _check_end(directory: DataDirectory, log: SegmentedLog, last_zxid: int) -> None:
    expected = directory.read_log_end()
    if last_zxid < expected.zxid:
        number, offset = log.end()
        what = (
            f"expected a log up to {expected.zxid:#x}, as when the server stopped; it ends at {last_zxid:#x}"
        )
        raise LogDamagedError(log.path(number), offset, what)


def _check_epoch(directory: DataDirectory, last_zxid: int) -> None:
    # Against the accepted epoch, where 20.2 has the current one: a learner that stops half way through its
    # synchronization has batches of an epoch that it has accepted and not yet made its own.
    accepted = directory.epochs.accepted
    if last_zxid >> 32 > accepted:
        what = f"the log holds zxid {last_zxid:#x}, but no epoch above {accepted} was ever accepted"
        raise RecoveryError(f"{directory.root}: {what}")


def _start_without_history(
    directory: DataDirectory,
    environments: Environments,
    kind: StateKind[S],
    options: LogOptions,
    set_aside: str | None,
    reason: str,
) -> RecoveredState[S]:
    """An empty log, for what is left of the old one does not lead on from what is here: behind the checkpoint
    (read anew, because replay has gone beyond it), or behind a fresh state in a new generation.
    """
    loaded = _load_checkpoint(directory, environments, kind)
    directory.lose_history(keep_checkpoint=loaded.is_there)
    store = loaded.store
    if not loaded.is_there:
        store = CheckpointStore(directory.disk, directory.checkpoint_path(), environments)
    return RecoveredState(
        state=loaded.state,
        executed_zxid=loaded.zxid,
        after_zxid=loaded.zxid,
        batches=[],
        log=begin_log(directory, loaded.zxid, options),
        store=store,
        history_lost=True,
        set_aside=loaded.set_aside or set_aside,
        warnings=[f"{reason}; the log was set aside in {directory.log_root}"],
    )


class _Replay(Generic[S]):
    """Executes batches as far as they are known to be committed, and keeps the end of the log in a window.

    Attributes:
        logged_zxid: last batch found in the log, 0 if none.
        last_zxid: where the history ends: in the log, or at the checkpoint.
    """

    def __init__(self, kind: StateKind[S], state: S, zxid: int, window_bytes_max: int) -> None:
        self._kind = kind
        self._state = state
        self._checkpoint_zxid = zxid
        self._waiting: deque[LoggedBatch] = deque()
        self._committed_zxid = zxid
        self._window_bytes = 0
        self._window_bytes_max = window_bytes_max
        self.executed_zxid = zxid
        self.logged_zxid = 0
        self.last_zxid = zxid
        self.after_zxid = zxid
        self.window: deque[LoggedBatch] = deque()

    def run(self, log: SegmentedLog, starts: dict[int, int]) -> None:
        """Raises: TxnLogGapError, LogDamagedError, RecoveryError."""
        for record, batch in scan_batches(log, starts, self._checkpoint_zxid):
            self.logged_zxid = batch.last
            self._committed_zxid = max(self._committed_zxid, batch.committed)
            if batch.kind == KIND_BATCH:
                if batch.last > self._checkpoint_zxid:
                    if batch.previous != self.last_zxid:
                        what = (
                            f"expected a batch after {self.last_zxid:#x}, got one after {batch.previous:#x}"
                        )
                        raise RecoveryError(f"{log.path(record.segment)} at {record.offset}: {what}")
                    self._waiting.append(batch)
                    self.last_zxid = batch.last
                self._keep(batch)
            self._execute()

    def finish(self, *, standalone: bool) -> None:
        if standalone:
            self._committed_zxid = self.last_zxid
            self._execute()
        if self.logged_zxid < self._checkpoint_zxid:
            self.window.clear()
        self.after_zxid = self.window[0].previous if self.window else self.executed_zxid

    def _keep(self, batch: LoggedBatch) -> None:
        self.window.append(batch)
        self._window_bytes += len(batch.payload)
        while self._window_bytes > self._window_bytes_max and self.window[0].last <= self.executed_zxid:
            self._window_bytes -= len(self.window.popleft().payload)

    def _execute(self) -> None:
        while self._waiting and self._waiting[0].last <= self._committed_zxid:
            batch = self._waiting.popleft()
            try:
                self._kind.apply(self._state, batch.payload)
            except ValueError as error:
                raise RecoveryError(
                    f"the logged batch {batch.first:#x} to {batch.last:#x}: {error}"
                ) from error
            self.executed_zxid = batch.last
