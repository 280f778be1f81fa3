"""What ends or stops Apache's own server (specification 2.5, 6.3, 12.4), sent to ours over a raw socket: each
request is answered, and the server goes on, also after a restart that replays all of it.
"""

import struct

import pytest

from coord.server.config.nodes import NodesConfig
from tests.coord.server.test_server import Start, start
from tests.coord.server.wire_client import ACL, CREATE, GET_DATA, Wire, buffer, create, set_data, watched

__all__ = ["start"]

QUOTA = b"/zookeeper/quota"
SET_DATA, SET_ACL, CREATE2, RECONFIG, CREATE_CONTAINER, CREATE_TTL, DELETE = 5, 7, 15, 16, 19, 21, 2
BODIES = {
    CREATE: create(b"/x", b"data"),
    DELETE: buffer(b"/x") + struct.pack(">i", -1),
    SET_DATA: set_data(b"/x", b"data"),
    SET_ACL: buffer(b"/x") + ACL + struct.pack(">i", -1),
    CREATE2: create(b"/x", b"data"),
    RECONFIG: struct.pack(">iiiq", -1, -1, -1, -1),
    CREATE_CONTAINER: create(b"/x", b"data"),
    CREATE_TTL: create(b"/x", b"data", 5) + struct.pack(">q", 1000),
}


async def goes_on(start: Start, port: int) -> None:
    """Now, and after a restart."""
    for name in (b"/now", b"/later"):
        async with await Wire.session(port) as wire:
            assert (await wire.call(1, CREATE, create(name)))[0] == 0
            assert (await wire.call(2, GET_DATA, watched(b"/now")))[0] == 0
        port = await start()


async def test_2_5_writes_that_end_early(start: Start) -> None:
    port = await start(nodes=NodesConfig(extended_types=True))
    async with await Wire.session(port) as wire:
        for op, body in BODIES.items():
            for size in (0, 3, len(body) // 2, len(body) - 1):
                assert await wire.call(op, op, body[:size]) == (-5, b""), (op, size)
    await goes_on(start, port)


async def test_6_3_a_createttl_of_a_mode_without_one(start: Start) -> None:
    port = await start(nodes=NodesConfig(extended_types=True))
    async with await Wire.session(port) as wire:
        for flags in (0, 1, 2, 3, 4):
            body = create(b"/t", b"", flags) + struct.pack(">q", -1)
            assert await wire.call(1, CREATE_TTL, body) == (-8, b"")
    await goes_on(start, port)


@pytest.mark.parametrize("name", [b"zookeeper_stats", b"zookeeper_limits"])
async def test_12_4_a_quota_on_the_root(start: Start, name: bytes) -> None:
    port = await start()
    async with await Wire.session(port) as wire:
        assert (await wire.call(1, CREATE, create(QUOTA + b"/" + name, b"count=1")))[0] == 0
    await goes_on(start, port)


async def test_12_4_statistics_that_are_no_statistics(start: Start) -> None:
    port = await start()
    async with await Wire.session(port) as wire:
        for path in (b"/q", QUOTA + b"/q", QUOTA + b"/q/zookeeper_limits", QUOTA + b"/q/zookeeper_stats"):
            assert (await wire.call(1, CREATE, create(path)))[0] == 0
        assert (await wire.call(2, SET_DATA, set_data(QUOTA + b"/q/zookeeper_stats", b"nonsense")))[0] == 0
        assert (await wire.call(3, CREATE, create(b"/q/k")))[0] == 0
    await goes_on(start, port)
