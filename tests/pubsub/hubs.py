"""Hubs in this process on fake layers: real port, real client library, one loop."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import trio

from coord.clock import SYSTEM_CLOCK
from coord.nursery import open_private_nursery
from coord.reactor import Reactor
from coord.rpc import RpcService
from pubsub.client.bus import Bus
from pubsub.core.retention import RollPolicy
from pubsub.core.wire import FRAME_BYTES_MAX, HUB_PROTOCOL
from pubsub.hub.config import HubConfig
from pubsub.hub.flushing import Flusher
from pubsub.hub.ownership import Holdings
from pubsub.hub.server import registered, wait_any
from pubsub.hub.service import HubService
from tests.pubsub.fakes import FakeBookies, FakeEnsemble, FakeLedgers, FakeZk, Killed


@dataclass
class FakeHub:
    """One running hub and its handles on the layers below."""

    address: str
    zk: FakeZk
    ledgers: FakeLedgers
    service: HubService
    reactor: Reactor
    scope: trio.CancelScope
    stopping: trio.Event
    gone: trio.Event = field(default_factory=trio.Event)

    @property
    def holdings(self) -> Holdings:
        assert self.service.holdings is not None
        return self.service.holdings

    async def kill(self) -> None:
        """As kill -9: nothing more reaches the layers below, connections are reset."""
        self.die()
        await self.gone.wait()

    async def stop(self) -> None:
        """As SIGTERM: topics are released first."""
        self.stopping.set()
        await self.gone.wait()

    def die(self) -> None:
        self.zk.is_dead = self.ledgers.is_dead = True
        self.scope.cancel()


@dataclass
class World:
    """The layers below, the hubs, and a bus."""

    nursery: trio.Nursery
    ensemble: FakeEnsemble = field(default_factory=FakeEnsemble)
    bookies: FakeBookies = field(default_factory=FakeBookies)
    seed: int = 1

    async def hub(self, **options: Any) -> FakeHub:
        """Starts one more hub."""
        options.setdefault("cursor_interval_ms", 20)
        options.setdefault("roll", RollPolicy())
        config = HubConfig(directory=Path("unused"), coord="unused", **options)
        self.seed += 1
        return await self.nursery.start(self._run, config, Random(self.seed))

    async def _run(self, config: HubConfig, chance: Random, *, task_status: trio.TaskStatus[FakeHub]) -> None:
        zk, ledgers = self.ensemble.client(), self.bookies.client()
        reactor = Reactor(output_bytes_max=config.peer_output_bytes_max)
        hub: FakeHub | None = None
        try:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    flusher = Flusher(reactor.flush)
                    nursery.start_soon(flusher.run)
                    service = HubService(lambda: address, nursery, flusher.soon, SYSTEM_CLOCK, chance)
                    rpc_service = RpcService(HUB_PROTOCOL, service, frame_bytes_max=FRAME_BYTES_MAX)
                    host, port = reactor.listen("127.0.0.1", 0, rpc_service)
                    address = f"{host}:{port}"
                    await nursery.start(reactor.run)
                    async with registered(
                        config,
                        zk,  # type: ignore[arg-type]
                        ledgers,
                        service,
                        address,
                        flusher.soon,
                        SYSTEM_CLOCK,
                        chance,
                    ):
                        stopping = trio.Event()
                        hub = FakeHub(address, zk, ledgers, service, reactor, scope, stopping)
                        task_status.started(hub)
                        await wait_any(zk.expired, stopping)
                    if not stopping.is_set():
                        await trio.sleep_forever()  # expired: the port stays open, as the real one's does
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            if group.split(Killed)[1] is not None and group.split((Killed, trio.Cancelled))[1] is not None:
                raise
        finally:
            if zk.is_dead:
                self.ensemble.end_session(zk.session_id)
            if hub is not None:
                hub.gone.set()

    @asynccontextmanager
    async def bus(self) -> AsyncIterator[Bus]:
        """A client of its own."""
        zk = self.ensemble.client()
        self.seed += 1
        async with open_private_nursery() as nursery:
            bus = Bus(zk, "unused", nursery, SYSTEM_CLOCK, Random(self.seed))  # type: ignore[arg-type]
            try:
                yield bus
                await bus._close()
            finally:
                bus._hubs.close()


@asynccontextmanager
async def world(**options: Any) -> AsyncIterator[World]:
    """Everything, for the length of a test; ends within 60 s or fails."""
    with trio.fail_after(60):
        async with open_private_nursery() as nursery:
            yield World(nursery, **options)
