"""One hub process: the port, the session with the coordination service, and what happens when that expires.

The port stays open over sessions. Each session is one registration: a new ephemeral, new `Holdings`. A hub
whose session expired drops its topics, whoever has taken them by then, and registers again; it does not exit
(DESIGN 6).
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random, SystemRandom
from typing import Final

import trio

import coord
from coord import eventlog, gc, looplag
from coord.clock import SYSTEM_CLOCK, Clock
from coord.listening import named_listener
from coord.metrics import Registry
from coord.reactor import Reactor
from coord.rpc import RpcService
from pubsub.core.record import Owner, TopicRecord
from pubsub.core.wire import FRAME_BYTES_MAX, HUB_PROTOCOL
from pubsub.hub.config import HubConfig
from pubsub.hub.flushing import Flusher
from pubsub.hub.ledgers import open_ledgers
from pubsub.hub.maintenance import Maintenance
from pubsub.hub.orphans import OrphanCollector
from pubsub.hub.ownership import Holdings
from pubsub.hub.registration import HubDirectory, Neighbours, register
from pubsub.hub.seams import Ledgers, LedgerStoreError
from pubsub.hub.service import HubService
from pubsub.hub.topic import Topic
from pubsub.metadata import ConflictError, TopicStore

STOP_DEADLINE_S: Final = 5.0
STOP_GRACE_S: Final = 2.0
"""More than that for closing session and connections."""
RECONNECT_DELAY_S: Final = 0.5
RELEASES_AT_ONCE_MAX: Final = 32

log = eventlog.get("pubsub.hub")


async def serve(
    config: HubConfig,
    *,
    clock: Clock = SYSTEM_CLOCK,
    task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Runs a hub until cancelled; then its topics are released, within STOP_DEADLINE_S.

    `task_status` gets the bound (host, port) once the hub is registered.

    Raises:
        DirectoryInUseError: another hub runs on the directory.
        OSError: the port or the directory cannot be had.
    """
    directory = HubDirectory(config.directory)
    stopping, stopped = trio.Event(), trio.Event()
    # Shielded, since releasing topics needs all that a cancellation would end: ledgers, session, connections.
    scope = trio.CancelScope(shield=True)

    async def stop_when_cancelled() -> None:
        try:
            await stopped.wait()
        finally:
            stopping.set()
            with trio.move_on_after(STOP_DEADLINE_S + STOP_GRACE_S, shield=True):
                await stopped.wait()
            scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_when_cancelled)
            try:
                with scope:
                    await _serve(config, directory, clock, task_status, stopping)
            finally:
                stopped.set()
    finally:
        directory.close()


async def _serve(
    config: HubConfig,
    directory: HubDirectory,
    clock: Clock,
    task_status: trio.TaskStatus[tuple[str, int]],
    stopping: trio.Event,
) -> None:
    registry = Registry()
    chance = SystemRandom()
    reactor = Reactor(
        clock, output_bytes_max=config.peer_output_bytes_max, connections_max=config.connections_max
    )
    bound: list[tuple[str, int]] = []

    def address() -> str:
        return f"{config.advertised_host or bound[0][0]}:{bound[0][1]}"

    async with trio.open_nursery() as nursery:
        flusher = Flusher(reactor.flush)
        nursery.start_soon(flusher.run)
        service = HubService(address, nursery, flusher.soon, clock, chance)
        rpc_service = RpcService(
            HUB_PROTOCOL,
            service,
            frame_bytes_max=FRAME_BYTES_MAX,
            inflight_max=config.peer_requests_max,
            inflight_bytes_max=config.peer_request_bytes_max,
            outgoing_bytes_max=config.peer_output_bytes_max // 2,
        )
        with named_listener("--port", "--host", config.host, config.port):
            bound.append(reactor.listen(config.host, config.port, rpc_service))
        await nursery.start(reactor.run)
        nursery.start_soon(looplag.measure_loop_lag, registry.summary("loop_lag_us", "Lateness of the loop"))
        nursery.start_soon(gc.tend, registry.summary("gc_pause_us", "Pauses for garbage"))
        hub = _Hub(config, directory, clock, chance, service, flusher.soon, address, stopping)
        await hub.run(lambda: task_status.started(bound[0]))
        nursery.cancel_scope.cancel()


class _Hub:
    """The sessions of one hub, one after the other."""

    def __init__(
        self,
        config: HubConfig,
        directory: HubDirectory,
        clock: Clock,
        chance: Random,
        service: HubService,
        flush: Callable[[], None],
        address: Callable[[], str],
        stopping: trio.Event,
    ) -> None:
        self._stopping = stopping
        self._config = config
        self._directory = directory
        self._clock = clock
        self._chance = chance
        self._service = service
        self._flush = flush
        self._address = address

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Returns once `stopping` is set; `on_ready` is called at the first registration."""
        is_ready = False

        def on_registered() -> None:
            nonlocal is_ready
            if not is_ready:
                is_ready = True
                on_ready()

        while not self._stopping.is_set():
            try:
                await self._serve_session(on_registered)
                if self._stopping.is_set():
                    return
                log.warning("session expired, registering again", address=self._address())
            except* coord.CoordError as group:
                log.warning(
                    "no session, trying again",
                    do="check that the coordination service runs",
                    error=str(group.exceptions[0]),
                )
            with trio.move_on_after(RECONNECT_DELAY_S):
                await self._stopping.wait()

    async def _serve_session(self, on_registered: Callable[[], None]) -> None:
        """One session; returns when it has expired."""
        config = self._config
        async with coord.connect(config.coord, session_timeout_ms=config.session_timeout_ms) as zk:
            await self._close_predecessor(zk)
            self._directory.write_session(zk.session_id, zk.session_password)
            async with (
                open_ledgers(zk, config.ensemble, config.write_quorum, config.ack_quorum) as ledgers,
                registered(
                    config,
                    zk,
                    ledgers,
                    self._service,
                    self._address(),
                    self._flush,
                    self._clock,
                    self._chance,
                ),
            ):
                on_registered()
                await wait_any(zk.expired, self._stopping)

    async def _close_predecessor(self, zk: coord.Client) -> None:
        session = self._directory.read_session()
        if session is not None and session[0] != zk.session_id:
            await zk.end_session(*session)


async def wait_any(*events: trio.Event) -> None:
    """Returns once one of them is set."""
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(wait, event)


@contextlib.asynccontextmanager
async def registered(
    config: HubConfig,
    zk: coord.Client,
    ledgers: Ledgers,
    service: HubService,
    address: str,
    flush: Callable[[], None],
    clock: Clock,
    chance: Random,
) -> AsyncIterator[Holdings]:
    """The hub in service at one registration, for the length of the block; then its topics are released."""
    store = TopicStore(zk)
    await store.prepare()
    registration = await register(zk, address, config.hub_id or address)
    async with trio.open_nursery() as nursery:
        neighbours = Neighbours(zk)
        holdings = Holdings(
            config,
            Owner(address, registration),
            store,
            ledgers,
            neighbours,
            clock,
            chance,
            nursery,
            flush,
            lambda topic: nursery.start_soon(maintenance.roll, topic),
        )
        maintenance = Maintenance(holdings, clock, config.maintenance_interval_ms)
        await neighbours.refresh()
        orphans = OrphanCollector(holdings, clock, config.orphan_interval_ms)
        for upkeep in (neighbours.watch, holdings.cursor_ledger.run, maintenance.run, orphans.run):
            nursery.start_soon(_keep_up, upkeep)
        service.holdings = holdings
        log.info("hub registered", address=address, registration=registration)
        try:
            yield holdings
            service.holdings = None
            if not zk.expired.is_set():
                with trio.move_on_after(STOP_DEADLINE_S):
                    await maintenance.end()
                    await release_all(holdings)
        finally:
            service.holdings = None
            holdings.end("the hub's session is over")
            nursery.cancel_scope.cancel()


async def _keep_up(upkeep: Callable[[], Awaitable[None]]) -> None:
    """Runs a task of the session; troubles of the coordination service interrupt it, only expiry ends it."""
    while True:
        try:
            await upkeep()
        except coord.SessionExpiredError:
            return
        except coord.CoordError as error:
            log.info("coordination service is in trouble, trying again", error=str(error))
            await trio.sleep(RECONNECT_DELAY_S)


async def release_all(holdings: Holdings) -> None:
    """Gives every topic up cleanly: confirmed, sealed, positions written, no owner. A successor recovers
    nothing.
    """
    limiter = trio.CapacityLimiter(RELEASES_AT_ONCE_MAX)

    async def release(topic: Topic) -> None:
        async with limiter:
            try:
                await topic.hold()
                if topic.is_lost:
                    return
                await holdings.cursor_ledger.write()
                await topic.ledger.close()
                last, byte_count, time_ms = topic.high_watermark, topic.open_bytes, topic.append_time_ms

                def change(record: TopicRecord) -> TopicRecord:
                    return record.closed(last, byte_count, time_ms).released()

                await holdings.change_record(topic, change)
            except (LedgerStoreError, ConflictError, coord.CoordError) as error:
                log.info(
                    "topic not released, a successor recovers it", topic=str(topic.name), error=str(error)
                )

    async with trio.open_nursery() as nursery:
        for topic in list(holdings.topics.values()):
            nursery.start_soon(release, topic)
    with contextlib.suppress(LedgerStoreError):
        await holdings.cursor_ledger.close()
