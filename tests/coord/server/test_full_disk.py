"""A disk that fills up: writes are refused or wait, reads go on, and with space all is well (DESIGN 4)."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from coord.disk import RealDisk
from coord.server.housekeeping import FREE_BYTES_HALT, FREE_BYTES_MIN
from coord.server.orders import SYSTEM_ERROR
from tests.coord.server.operated import operated
from tests.coord.server.wire_client import CREATE, GET_DATA, Wire, create, request, watched

PLENTY = 100 << 30


class Space:
    """What the disk says it has left; `looks` counts how often it was asked."""

    def __init__(self) -> None:
        self.free_bytes = PLENTY
        self.looks = 0

    async def become(self, free_bytes: int) -> None:
        """The server has seen it twice, so it has drawn its conclusions."""
        self.free_bytes = free_bytes
        seen = self.looks
        with trio.fail_after(60):
            while self.looks < seen + 2:  # noqa: ASYNC110 (the server's own rhythm)
                await trio.sleep(0.01)


@pytest.fixture
async def space(monkeypatch: pytest.MonkeyPatch) -> Space:
    made = Space()

    def free_bytes(self: RealDisk, path: str) -> int:
        made.looks += 1
        return made.free_bytes

    monkeypatch.setattr(RealDisk, "free_bytes", free_bytes)
    return made


@pytest.fixture
async def wire(tmp_path: Path, space: Space) -> AsyncIterator[Wire]:
    async with operated(tmp_path) as port, await Wire.session(port, timeout_ms=20_000) as wire:
        assert (await wire.call(1, CREATE, create(b"/before", b"x")))[0] == 0
        yield wire


async def test_writes_are_refused_while_reads_go_on(wire: Wire, space: Space) -> None:
    await space.become(FREE_BYTES_MIN - 1)
    assert (await wire.call(2, CREATE, create(b"/refused")))[0] == SYSTEM_ERROR
    assert (await wire.call(3, GET_DATA, watched(b"/before")))[0] == 0
    await space.become(PLENTY)
    assert (await wire.call(4, CREATE, create(b"/after")))[0] == 0
    assert (await wire.call(5, GET_DATA, watched(b"/refused")))[0] == -101


async def test_on_a_full_disk_writes_wait_for_space(wire: Wire, space: Space) -> None:
    await space.become(FREE_BYTES_HALT - 1)
    await wire.send(request(2, CREATE, create(b"/late")))
    with trio.move_on_after(0.2) as waited:
        await wire.reply()
    assert waited.cancelled_caught
    await space.become(PLENTY)
    xid, _, error, _ = await wire.reply()
    assert (xid, error) == (2, 0)
