"""One bookie process: from a data directory to a registered server, and back.

Start: lock the directory, check the cookie, open the store (which replays the log), open the network,
register. Stop: take the registration back, answer who waits, close the network, write a last checkpoint. A
disk that fails stops the process at once, without any of that (R-J1).
"""

import os
import secrets
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, NoReturn, TypeVar

import trio

import coord
from bookie.ledger.layout import Registration
from bookie.ledger.wire import BOOKIE_PROTOCOL, FRAME_BYTES_MAX
from bookie.server import upkeep
from bookie.server.config import BookieConfig
from bookie.server.cookie import Cookie, IdentityError, Verdict
from bookie.server.garbage import collect_regularly
from bookie.server.identity import confirm, establish
from bookie.server.meters import make_registry
from bookie.server.reader import SegmentReader
from bookie.server.registration import Registrar
from bookie.server.requests import Requests
from bookie.server.session import Connect, Session
from bookie.storage import Store, StoreLimits, open_store
from coord import eventlog, gc
from coord.clock import SYSTEM_CLOCK
from coord.disk import Disk, RealDisk, SessionFile
from coord.errors import CoordError
from coord.listening import named_listener
from coord.log import fail_stop
from coord.looplag import measure_loop_lag
from coord.metrics import Registry
from coord.reactor import Reactor
from coord.rpc import RpcService

RETRY_S: Final = 0.5
T = TypeVar("T")
OnDiskFailure = Callable[[BaseException], NoReturn]

_log = eventlog.get("bookie.server")


def stop_at_once(error: BaseException) -> NoReturn:
    """What a bookie does whose disk failed."""
    fail_stop(error, "the bookie's log")


@dataclass(frozen=True, slots=True)
class RunningBookie:
    """What `serve` reports once it is registered."""

    bookie_id: str
    incarnation: int
    host: str
    port: int
    store: Store
    metrics: Registry


async def serve(
    config: BookieConfig,
    *,
    connect: Connect | None = None,
    disk: Disk | None = None,
    on_disk_failure: OnDiskFailure = stop_at_once,
    task_status: trio.TaskStatus[RunningBookie] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run one bookie until cancelled, which stops it in order.

    Args:
        connect: opens a client of the coordination service; `coord.connect` with the settings' hosts by
            default.
        disk: of the data directory.
        on_disk_failure: called when the log can no longer be written; must not return (R-J1).

    Raises:
        DiskLockedError: another process uses the directory.
        IdentityError: the directory is not this bookie's (10.1).
        StoreDamagedError: the data cannot be served from.
        RegistrationError: the id is another's.
        OSError: the address cannot be bound, or the disk failed at the start.
    """
    disk = disk or RealDisk()
    connect = connect or _connector(config)
    directory = str(config.directory)
    disk.make_directory(directory)
    lock = disk.lock(os.path.join(directory, "lock"))
    try:
        verdict = await _establish(connect, disk, config)
        store, wake = await _open_store(disk, config, verdict)
        try:
            if verdict.fresh:
                cookie = verdict.cookie
                await _with_session(connect, lambda zk: confirm(zk, disk, directory, cookie))
            server = _Server(config, connect, disk, store, wake, verdict.cookie, on_disk_failure)
            await _run_in_order(server, task_status)
        finally:
            store.close()
    finally:
        lock.release()


class _Wake:
    """Where the log's thread reports to: nowhere until the reactor is there."""

    def __init__(self) -> None:
        self.set: Callable[[], None] = lambda: None

    def __call__(self) -> None:
        self.set()


def _connector(config: BookieConfig) -> Connect:
    return partial(coord.connect, config.coord, session_timeout_ms=config.session_timeout_ms)


async def _with_session(connect: Connect, action: Callable[[Session], Awaitable[T]]) -> T:
    """Run `action` in a session of its own, again and again until the coordination service answers."""
    while True:
        failure: Exception | None = None
        try:
            async with connect() as zk:
                try:
                    result = await action(zk)
                except (CoordError, IdentityError) as error:
                    failure = error  # raised outside: what leaves the block comes out as a group
        except CoordError as error:
            failure = error
        if failure is None:
            return result
        if not isinstance(failure, CoordError):
            raise failure
        _log.warning("cannot check the cookie", do="check the coordination service", error=failure)
        await trio.sleep(RETRY_S)


async def _establish(connect: Connect, disk: Disk, config: BookieConfig) -> Verdict:
    def default_id(incarnation: int) -> str:
        host = config.advertised_host or config.host
        return f"{host}:{config.port}" if config.port else f"bookie-{incarnation >> 32:08x}"

    return await _with_session(
        connect,
        lambda zk: establish(
            zk,
            disk,
            str(config.directory),
            configured_id=config.bookie_id,
            default_id=default_id,
            new_incarnation=lambda: secrets.randbelow((1 << 64) - 1) + 1,
            new_instance_id=lambda: str(uuid.uuid4()),
        ),
    )


async def _open_store(disk: Disk, config: BookieConfig, verdict: Verdict) -> tuple[Store, _Wake]:
    wake = _Wake()
    limits = StoreLimits(
        unlogged_bytes_max=config.unlogged_bytes_max,
        cache_bytes_max=config.cache_bytes_max,
        checkpoint_bytes_max=config.checkpoint_bytes_max,
        recent_runs_max=config.recent_runs_max,
        ledgers_cached_max=config.ledgers_cached_max,
        segment_bytes_max=config.segment_bytes_max,
    )
    opening = partial(
        open_store,
        disk,
        str(config.directory),
        verdict.cookie.incarnation,
        fresh=verdict.fresh,
        notify=wake,
        limits=limits,
    )
    return await trio.to_thread.run_sync(opening), wake


async def _run_in_order(server: "_Server", task_status: trio.TaskStatus[RunningBookie]) -> None:
    """Run until cancelled. The inside is shielded, so that a stop has its order."""
    stop = trio.Event()

    async def inside() -> None:
        with trio.CancelScope(shield=True):
            await server.run(stop, task_status)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(inside)
        try:
            await trio.sleep_forever()
        finally:
            stop.set()


class _Server:
    """The tasks of a bookie whose store is open."""

    def __init__(
        self,
        config: BookieConfig,
        connect: Connect,
        disk: Disk,
        store: Store,
        wake: _Wake,
        cookie: Cookie,
        on_disk_failure: OnDiskFailure,
    ) -> None:
        self._config = config
        self._connect = connect
        self._disk = disk
        self._store = store
        self._cookie = cookie
        self._on_disk_failure = on_disk_failure
        self._reactor = Reactor(
            output_bytes_max=config.peer_output_bytes_max, connections_max=config.connections_max
        )
        wake.set = self._reactor.wakeup(self._on_log).set
        self._reader = SegmentReader(store, self._reactor.flush)
        self._requests = Requests(store, cookie, config, SYSTEM_CLOCK, self._reader, on_disk_failure)
        self._checkpoints = upkeep.Checkpoints(store, self._reactor.flush, on_disk_failure)
        self._service = RpcService(
            BOOKIE_PROTOCOL,
            self._requests,
            frame_bytes_max=FRAME_BYTES_MAX,
            inflight_max=config.peer_requests_max,
            inflight_bytes_max=config.peer_request_bytes_max,
        )
        self._metrics = make_registry(store, self._requests, self._reader, self._reactor)
        self._loop_lag_us = self._metrics.summary("loop_lag_us", "How late the loop is")
        self._gc_pause_us = self._metrics.summary("gc_pause_us", "Pauses for garbage collection")

    async def run(self, stop: trio.Event, task_status: trio.TaskStatus[RunningBookie]) -> None:
        """Serve until `stop`, then stop in order."""
        config, store, reactor = self._config, self._store, self._reactor
        try:
            with named_listener("--port", "--host", config.host, config.port):
                host, port = reactor.listen(config.host, config.port, self._service)
            running = RunningBookie(
                self._cookie.bookie_id, self._cookie.incarnation, host, port, store, self._metrics
            )
            upkeep.look_at_disk(store, self._disk, str(config.directory), config, lambda: None)
            async with trio.open_nursery() as nursery:
                await nursery.start(reactor.run)
                registrar = self._registrar(host, port)
                self._start_upkeep(nursery, registrar)
                async with trio.open_nursery() as registering:
                    registering.start_soon(registrar.run, lambda: task_status.started(running))
                    await stop.wait()
                    registering.cancel_scope.cancel()  # the node goes before the network does (11.4)
                self._requests.waiting.empty()
                reactor.flush()
                await self._checkpoints.write()
                nursery.cancel_scope.cancel()
        finally:
            reactor.close()
        _log.info("stopped", bookie=self._cookie.bookie_id)

    def _registrar(self, host: str, port: int) -> Registrar:
        config = self._config
        incarnation = self._cookie.incarnation
        return Registrar(
            self._connect,
            SessionFile(self._disk, str(config.directory)),
            self._cookie.bookie_id,
            Registration(config.advertised_host or host, port, incarnation),
            lambda: self._store.read_only,
            patience_ms=2 * config.session_timeout_ms,
        )

    def _start_upkeep(self, nursery: trio.Nursery, registrar: Registrar) -> None:
        config, store, flush = self._config, self._store, self._reactor.flush
        waiting = self._requests.waiting

        def on_deleted(ledger_ids: tuple[int, ...]) -> None:
            store.flush()
            for ledger_id in ledger_ids:
                waiting.wake(ledger_id)
            waiting.answer_risen()
            flush()

        nursery.start_soon(self._reader.run)
        nursery.start_soon(self._checkpoints.write_regularly, config)
        nursery.start_soon(upkeep.expire_waiters, waiting, SYSTEM_CLOCK, flush)
        nursery.start_soon(
            upkeep.watch_disk, store, self._disk, str(config.directory), config, registrar.note_change
        )
        nursery.start_soon(
            collect_regularly, store, lambda: registrar.session, self._cookie.instance_id, config, on_deleted
        )
        nursery.start_soon(partial(measure_loop_lag, self._loop_lag_us, registry=self._metrics))
        nursery.start_soon(gc.tend, self._gc_pause_us)

    def _on_log(self) -> None:
        try:
            self._store.on_log()
        except OSError as error:
            self._on_disk_failure(error)
