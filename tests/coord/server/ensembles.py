"""Whole ensembles for tests of sessions: their ticks are short, and followers are found by asking.

async with ensemble(tmp_path, localSessionsEnabled="true") as servers:
    async with await Wire.session(servers.port(1)) as wire: ...
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.coord.ensemble import Ensemble, member_lines
from tests.coord.server.wire_client import Wire

SECONDS_MAX = 60


async def word(port: int, name: bytes) -> bytes:
    """The answer to a four-letter word; empty where nobody answers."""
    try:
        async with await Wire.open(port) as wire:
            await wire.send(name)
            return await wire.rest()
    except (OSError, trio.BrokenResourceError):
        return b""


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Asks again and again; the test fails when it does not come true."""
    with trio.fail_after(SECONDS_MAX):
        while not await condition():  # noqa: ASYNC110 (it is asked over the wire)
            await trio.sleep(0.02)


async def followers(servers: Ensemble) -> list[int]:
    leader = await servers.leader()
    return [sid for sid in servers.running if sid != leader]


async def all_serve(servers: Ensemble) -> None:
    """Until every running server is in service, with a leader among them."""
    await servers.until(
        lambda: "leader" in servers.modes.values() and all(servers.modes.values()), "all servers serve"
    )


async def figure(servers: Ensemble, sid: int, name: str) -> int:
    """What `mntr` says of a metric, once the server is in service."""
    with trio.move_on_after(SECONDS_MAX):
        while True:
            for line in (await word(servers.port(sid), b"mntr")).decode().splitlines():
                key, _, value = line.partition("\t")
                if key == f"zk_{name}":
                    return int(value)
            await trio.sleep(0.02)
    raise AssertionError(f"mntr of server {sid} does not say {name}")


@asynccontextmanager
async def ensemble(directory: Path, count: int = 3, **keys: object) -> AsyncIterator[Ensemble]:
    """All servers in service; `keys` are lines of zoo.cfg."""
    ticks = {"tickTime": 100, "initLimit": 200, "syncLimit": 50, "minSessionTimeout": 200}
    async with trio.open_nursery() as nursery:
        servers = Ensemble(
            directory, nursery, member_lines(count), **{**ticks, "maxSessionTimeout": 20_000, **keys}
        )
        await servers.start()
        yield servers
        nursery.cancel_scope.cancel()
