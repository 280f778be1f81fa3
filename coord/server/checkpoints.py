"""When checkpoints are made, and what goes away after one: a task beside the server's loop, in slices."""

from pathlib import Path
from typing import Final, NamedTuple

import trio

from coord import eventlog
from coord.clock import Clock
from coord.log import fail_stop
from coord.server.agreement import Agreement
from coord.server.durable import DurableLog
from coord.server.meters import Meters
from coord.server.retention import SHORT_LOG_BYTES, Purge, Retention
from coord.server.state import State
from coord.storage import Checkpointed, Checkpointer, CheckpointSchedule, CheckpointStore

LOOK_SECONDS: Final = 1.0
SLICE_PAUSE_SECONDS: Final = 0.002
"""Between two slices of encoding, of a millisecond each: at most a third of the loop goes into a checkpoint.
"""

HELD_PAUSE_SECONDS: Final = 0.05
"""Between two looks whether a checkpoint that is ready may be kept."""

log = eventlog.get("coord.server")


class _Making(NamedTuple):
    """A checkpoint under way: who writes it, what it is as of, and since when."""

    checkpointer: Checkpointer
    zxid: int
    started_ms: int


class Checkpoints:
    """Makes checkpoints of the server's state when they are due, or when somebody needs a newer one.

    Args:
        notify: thread-safe, leads to `on_report` on the loop.
        agreement: whether the state may be kept.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        state: State,
        store: CheckpointStore,
        durable_log: DurableLog,
        schedule: CheckpointSchedule,
        checkpointer: Checkpointer,
        meters: Meters,
        retention: Retention,
        agreement: Agreement,
    ) -> None:
        self._agreement = agreement
        self._retention = retention
        self._meters = meters
        self._clock = clock
        self._state = state
        self._log = durable_log
        self._schedule = schedule
        self._checkpointer = checkpointer
        self._wanted = False
        self._making: _Making | None = None
        self._report = trio.Event()
        schedule.begun(clock.monotonic_ms(), store.zxid, 0)
        self.store = store
        self.made_wall_ms: int | None = None
        """When the last checkpoint of this process became durable."""
        self.finished = trio.Event()
        """Set, and replaced, whenever a checkpoint has become durable."""

    def last(self) -> tuple[int, int] | None:
        """Zxid of the durable checkpoint, and when it was made, in seconds since 1970; None without one."""
        if not self.store.zxid and self.made_wall_ms is None:
            return None
        if self.made_wall_ms is not None:
            return self.store.zxid, self.made_wall_ms // 1000
        return self.store.zxid, int(Path(self.store.path, "data.mdb").stat().st_mtime)

    @property
    def is_under_way(self) -> bool:
        """One is being encoded and written, or waits to be committed."""
        return self._making is not None

    def on_report(self) -> None:
        """The writing thread is done."""
        self._report.set()

    def want(self) -> None:
        """Have one begin soon, due or not."""
        self._wanted = True
        self._report.set()

    def reaches(self, zxid: int) -> bool:
        """Whether the durable checkpoint is as of `zxid` or later; else one begins soon."""
        if self.store.zxid >= zxid:
            return True
        self.want()
        return False

    def make_room(self, free_bytes: int) -> None:
        """Call it now and then. While space is short, log that is not needed goes, and where there is much of
        it since the last checkpoint, another one is made.
        """
        purge = self._retention.when_short(self.store.zxid, free_bytes, self._clock.monotonic_ms())
        if purge is None:
            return
        self._purge(purge)
        grown = self._log.txn_log.appended_bytes - self._schedule.began_log_bytes
        if grown > SHORT_LOG_BYTES and not self._checkpointer.busy:
            log.warning("disk space is short: a checkpoint makes room", free_bytes=free_bytes)
            self.want()

    def _purge(self, purge: Purge | None) -> None:
        if purge is not None and purge.below_zxid:
            self._log.remove_below(purge.below_zxid, purge.keep_bytes)

    def replace(self, store: CheckpointStore, checkpointer: Checkpointer) -> None:
        """The state was replaced by a snapshot: its checkpoints go into another generation."""
        self._checkpointer.close()
        self._checkpointer = checkpointer
        self.store = store
        self._retention.forget()
        self._schedule.begun(self._clock.monotonic_ms(), store.zxid, 0)  # the log begins anew with it

    async def run(self) -> None:
        while True:
            with trio.move_on_after(self._pause_seconds()):
                await self._report.wait()
            self._report = trio.Event()
            self.go_on()

    def _pause_seconds(self) -> float:
        if self._making is None:
            return LOOK_SECONDS
        return HELD_PAUSE_SECONDS if self._checkpointer.is_held else SLICE_PAUSE_SECONDS

    def go_on(self) -> bool:
        """Begins a checkpoint if one is due, or does one slice of that under way; whether one is under way
        then.
        """
        if self._making is None and self._is_due():
            self._begin()
        making = self._making
        if making is None:
            return False
        if making.checkpointer is not self._checkpointer:
            self._making = None  # a snapshot has replaced the state meanwhile
            return False
        finished = making.checkpointer.take_finished()
        if finished is None:
            waited_ms = self._clock.monotonic_ms() - making.started_ms
            making.checkpointer.work(may_commit=self._agreement.allows(making.zxid, waited_ms))
            return True
        self._making = None
        self._finish(making, finished)
        return False

    def close(self) -> None:
        self._checkpointer.close()

    def _is_due(self) -> bool:
        tree = self._state.tree
        if self._agreement.is_denied:
            return False
        if self._wanted:
            return True
        appended = self._log.txn_log.appended_bytes
        return self._schedule.due(self._clock.monotonic_ms(), tree.last_zxid, appended, tree.data_bytes)

    def _begin(self) -> None:
        self._wanted = False
        started_ms = self._clock.monotonic_ms()
        zxid = self._checkpointer.begin(self._state.tree)
        self._agreement.note(zxid, self._state.tree.state_digest())
        self._schedule.begun(started_ms, zxid, self._log.txn_log.appended_bytes)
        self._making = _Making(self._checkpointer, zxid, started_ms)

    def _finish(self, making: _Making, finished: Checkpointed) -> None:
        if finished.failure is not None:
            if not finished.failure.disk_full:
                fail_stop(finished.failure, "the checkpoint")
            log.error(
                "no space for a checkpoint", do="free space on dataDir; writes go on", error=finished.failure
            )
            return
        elapsed_ms = self._clock.monotonic_ms() - making.started_ms
        self._meters.note("snapshottime", elapsed_ms)
        log.info(
            "checkpoint", zxid=hex(making.zxid), nodes=len(self._state.tree.nodes), elapsed_ms=elapsed_ms
        )
        self.made_wall_ms = self._clock.wall_ms()
        self._purge(self._retention.on_checkpoint(making.zxid, self._clock.monotonic_ms()))
        self.finished.set()
        self.finished = trio.Event()
