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


async def checkpoint(
    store: Store, flush: Callable[[], None], on_disk_failure: Callable[[BaseException], NoReturn]
) -> None:
    """One checkpoint, and the removal of segments that nothing needs after it.

    Cancelled in between, what was committed is committed and the rest is replayed at the next start.

    Args:
        flush: the reactor's, for answers that go out meanwhile.
        on_disk_failure: called when the index could not be written. What a failed commit left in memory
            cannot be told from what it wrote, so the process stops and the next start replays.
    """
    frozen = trio.Event()
    changes: list[Changes] = []

    def on_frozen(found: Changes) -> None:
        changes.append(found)
        frozen.set()

    store.begin_checkpoint(on_frozen)
    await frozen.wait()
    with trio.CancelScope(shield=True):
        try:
            report = await trio.to_thread.run_sync(store.index.commit, changes[0])
        except (lmdb.Error, IndexDamagedError) as error:
            on_disk_failure(error)
        store.finish_checkpoint(report)
        removed: list[int] = []
        gone = trio.Event()

        def on_removed(numbers: list[int]) -> None:
            removed.extend(numbers)
            gone.set()

        if store.remove_segments(on_removed):
            await gone.wait()
            await trio.to_thread.run_sync(store.index.forget_segments, removed)
            store.index.drop_counters(removed)
            _log.info("removed segments without live entries", segments=len(removed))
    flush()


async def checkpoint_regularly(
    store: Store,
    config: BookieConfig,
    flush: Callable[[], None],
    on_disk_failure: Callable[[BaseException], NoReturn],
) -> None:
    """Checkpoint when one is due by time, by bytes or by index memory."""
    due = trio.current_time() + config.checkpoint_interval_ms / 1000
    while True:
        await trio.sleep(min(LOOK_MS, config.checkpoint_interval_ms) / 1000)
        if store.checkpoint_due or (trio.current_time() >= due and store.has_changes):
            await checkpoint(store, flush, on_disk_failure)
            due = trio.current_time() + config.checkpoint_interval_ms / 1000


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
