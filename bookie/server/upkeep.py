"""What a bookie does beside serving: checkpoints, disk space, and letting go of what waits too long."""

from collections.abc import Callable
from typing import Final, NoReturn

import lmdb
import trio

from bookie.server.config import BookieConfig
from bookie.server.waiting import WaitingRoom
from bookie.storage import Store
from bookie.storage.index import Changes
from bookie.storage.index_format import IndexDamagedError
from coord import eventlog
from coord.clock import Clock
from coord.disk import Disk

LOOK_MS: Final = 500
"""How often it is looked whether a checkpoint is due before its time."""

EXPIRE_MS: Final = 50
"""Grain of the deadlines of parked requests."""

_log = eventlog.get("bookie.server")


class Checkpoints:
    """Writes checkpoints, one at a time (R-J6).

    Args:
        flush: the reactor's, for answers that go out meanwhile.
        on_disk_failure: called when the index could not be written. What a failed commit left in memory
            cannot be told from what it wrote, so the process stops and the next start replays.
    """

    def __init__(
        self, store: Store, flush: Callable[[], None], on_disk_failure: Callable[[BaseException], NoReturn]
    ) -> None:
        self._store = store
        self._flush = flush
        self._on_disk_failure = on_disk_failure
        self._one_at_a_time = trio.Lock()

    async def write(self) -> None:
        """One checkpoint, and the removal of segments that nothing needs after it.

        Cancelled at its beginning nothing was written; the store is not to be used after that.
        """
        async with self._one_at_a_time:
            changes = await self._freeze()
            with trio.CancelScope(shield=True):
                try:
                    report = await trio.to_thread.run_sync(self._store.index.commit, changes)
                    self._store.finish_checkpoint(report)
                    await self._remove_segments()
                except (lmdb.Error, IndexDamagedError) as error:
                    self._on_disk_failure(error)
        self._flush()

    async def write_regularly(self, config: BookieConfig) -> None:
        """Checkpoint when one is due by time, by bytes or by index memory."""
        store = self._store
        due = trio.current_time() + config.checkpoint_interval_ms / 1000
        while True:
            await trio.sleep(min(LOOK_MS, config.checkpoint_interval_ms) / 1000)
            if store.checkpoint_due or (trio.current_time() >= due and store.has_changes):
                await self.write()
                due = trio.current_time() + config.checkpoint_interval_ms / 1000

    async def _freeze(self) -> Changes:
        frozen = trio.Event()
        found: list[Changes] = []

        def on_frozen(changes: Changes) -> None:
            found.append(changes)
            frozen.set()

        self._store.begin_checkpoint(on_frozen)
        await frozen.wait()
        return found[0]

    async def _remove_segments(self) -> None:
        gone = trio.Event()
        removed: list[int] = []

        def on_removed(numbers: list[int]) -> None:
            removed.extend(numbers)
            gone.set()

        if self._store.remove_segments(on_removed):
            await gone.wait()
            await trio.to_thread.run_sync(self._store.index.forget_segments, removed)
            self._store.index.drop_counters(removed)
            _log.info("removed segments without live entries", segments=len(removed))


async def expire_waiters(waiting: WaitingRoom, clock: Clock, flush: Callable[[], None]) -> None:
    """Answer parked requests whose time is over."""
    while True:
        await trio.sleep(EXPIRE_MS / 1000)
        if waiting:
            waiting.expire(clock.monotonic_ms())
            flush()


async def watch_disk(
    store: Store, disk: Disk, directory: str, config: BookieConfig, on_change: Callable[[], None]
) -> None:
    """Turn read-only while the disk is nearly full, and back (11.3)."""
    while True:
        look_at_disk(store, disk, directory, config, on_change)
        await trio.sleep(config.disk_check_interval_ms / 1000)


def look_at_disk(
    store: Store, disk: Disk, directory: str, config: BookieConfig, on_change: Callable[[], None]
) -> None:
    """Compare free space with the thresholds: in memory first, registration follows (11.3)."""
    free = disk.free_bytes(directory)
    store.refuse_recovery = free < config.disk_reserve_bytes
    full = store.refuse_recovery or free < config.disk_free_bytes_min
    if full != store.read_only:
        store.read_only = full
        if full:
            _log.warning("disk nearly full, read-only", do="free space or add bookies", free_bytes=free)
        else:
            _log.info("disk has space again, writable", free_bytes=free)
        on_change()
