"""Whole ensembles in one loop: real servers on real sockets and files, without processes of their own.

async with ensemble(tmp_path, local_sessions=True) as servers:
    async with await Wire.session(servers.ports[1]) as wire: ...
    await servers.stop(2)
    await servers.start(2)
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import trio

from coord.server import ServerConfig, serve
from coord.server.config import PeerAddress
from coord.server.config.record import WORDS_ALL
from coord.server.config.sessions import SessionsConfig
from tests.coord.server.wire_client import Wire
from tests.coord_servers import free_ports

SECONDS_MAX = 20


async def word(port: int, name: bytes) -> bytes:
    """The answer to a four-letter word; empty where nobody answers."""
    try:
        async with await Wire.open(port) as wire:
            await wire.send(name)
            return await wire.rest()
    except OSError:
        return b""


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Asks again and again; the test fails when it does not come true."""
    with trio.fail_after(SECONDS_MAX):
        while not await condition():  # noqa: ASYNC110 (it is asked over the wire)
            await trio.sleep(0.02)


class Ensemble:
    """Servers by their numbers, from 1 on."""

    def __init__(self, nursery: trio.Nursery, configs: dict[int, ServerConfig]) -> None:
        self._nursery = nursery
        self._scopes: dict[int, tuple[trio.CancelScope, trio.Event]] = {}
        self.configs = configs
        self.ports = {sid: config.client_port or 0 for sid, config in configs.items()}

    async def start(self, *sids: int) -> None:
        """Until their ports listen."""
        for sid in sids:
            await self._nursery.start(self._run, sid)

    async def stop(self, *sids: int) -> None:
        for sid in sids:
            scope, stopped = self._scopes.pop(sid)
            scope.cancel()
            await stopped.wait()

    async def serving(self, *sids: int) -> None:
        for sid in sids or tuple(self._scopes):

            async def is_serving(port: int = self.ports[sid]) -> bool:
                return await word(port, b"isro") == b"rw"

            await until(is_serving)

    async def mode(self, sid: int) -> str:
        for line in (await word(self.ports[sid], b"srvr")).splitlines():
            if line.startswith(b"Mode: "):
                return line[6:].decode()
        return ""

    async def leader(self) -> int:
        modes = {sid: await self.mode(sid) for sid in self._scopes}
        return next(sid for sid, mode in modes.items() if mode == "leader")

    async def followers(self) -> list[int]:
        leader = await self.leader()
        return [sid for sid in self._scopes if sid != leader]

    async def _run(self, sid: int, task_status: trio.TaskStatus[tuple[str, int] | None]) -> None:
        stopped = trio.Event()
        with trio.CancelScope() as scope:
            self._scopes[sid] = scope, stopped
            await serve(self.configs[sid], task_status=task_status)
        stopped.set()


def make_configs(directory: Path, count: int = 3, **changes: object) -> dict[int, ServerConfig]:
    """Of `count` servers that know each other; `changes` are fields of `ServerConfig` or of its sessions."""
    ports = free_ports(3 * count)
    peers = tuple(
        PeerAddress(sid, "127.0.0.1", ports[3 * sid - 3], ports[3 * sid - 2]) for sid in range(1, count + 1)
    )
    of_sessions = {name: changes.pop(name) for name in SessionsConfig.__slots__ if name in changes}
    configs = {}
    for peer in peers:
        path = directory / str(peer.sid)
        path.mkdir(exist_ok=True)
        config = ServerConfig(
            data_dir=str(path),
            data_log_dir=str(path),
            client_port=ports[3 * peer.sid - 1],
            client_address="127.0.0.1",
            tick_ms=100,
            init_limit=50,
            sync_limit=20,
            session_timeout_ms_min=200,
            session_timeout_ms_max=20_000,
            max_client_connections=0,
            sid=peer.sid,
            servers=peers,
            words=WORDS_ALL,
            ensemble_secret=b"a secret of the tests only",
            sessions=SessionsConfig(**of_sessions),  # type: ignore[arg-type]
        )
        configs[peer.sid] = replace(config, **changes)  # type: ignore[arg-type]
    return configs


@asynccontextmanager
async def ensemble(directory: Path, count: int = 3, **changes: object) -> AsyncIterator[Ensemble]:
    """All servers in service."""
    async with trio.open_nursery() as nursery:
        servers = Ensemble(nursery, make_configs(directory, count, **changes))
        await servers.start(*servers.ports)
        await servers.serving()
        yield servers
        nursery.cancel_scope.cancel()
