"""A standalone server in the test's own loop, over real sockets and files: what its operators see."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import trio

from coord.server import ServerConfig, serve
from coord.server.config import WORDS_ALL
from coord.server.words import NOT_SERVING as NOT_SERVING_TEXT
from tests.coord.server.wire_client import Wire

NOT_SERVING = NOT_SERVING_TEXT.encode()


@asynccontextmanager
async def operated(directory: Path, **changes: object) -> AsyncIterator[int]:
    """A server that serves; its client port.

    Args:
        changes: fields of its `ServerConfig`.
    """
    config = ServerConfig(
        data_dir=str(directory),
        data_log_dir=str(directory),
        client_port=0,
        client_address="127.0.0.1",
        tick_ms=100,
        session_timeout_ms_min=200,
        session_timeout_ms_max=20_000,
        words=WORDS_ALL,
    )
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve, replace(config, **changes))  # type: ignore[arg-type]
        port = int(address[1])
        with trio.fail_after(60):
            while await ask(port, b"srvr") == NOT_SERVING:  # noqa: ASYNC110 (it is asked over the wire)
                await trio.sleep(0.01)
        yield port
        nursery.cancel_scope.cancel()


async def ask(port: int, word: bytes) -> bytes:
    """All that is answered to these first bytes of a connection."""
    async with await Wire.open(port) as wire:
        await wire.send(word)
        return await wire.rest()
