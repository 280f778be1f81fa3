"""The kills: the coordination leader, then a bookie, then the topic's hub, each back before the next one
goes."""

from collections.abc import Callable
from dataclasses import dataclass

import trio

import coord
import pubsub
from coord.clock import SYSTEM_CLOCK
from pubsub.cluster import REGISTERED_BOOKIES, REGISTERED_HUBS, LocalCluster
from pubsub.mainjob.work import Marks

WARM_UP_S = 3.0
SETTLE_S = 2.0
BACK_DEADLINE_S = 30.0
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill -9 and what its clients noticed: the longest time in ms without `what`."""

    server: str
    what: str
    outage_ms: int | None


async def kill_in_turn(
    cluster: LocalCluster,
    zk: coord.Client,
    bus: pubsub.Bus,
    topic: str,
    writes: Marks,
    deliveries: Marks,
    on_event: Callable[[str], None],
) -> list[Kill]:
    """Kills one server of each kind, one after the other, under load.

    Raises:
        TooSlowError: a killed server was not back within BACK_DEADLINE_S.
    """
    await trio.sleep(WARM_UP_S)
    kills = []
    leader = cluster.name_of(await find_leader(cluster))
    kills.append(await _kill(cluster, zk, leader, "a completed write", writes, on_event))
    kills.append(await _kill(cluster, zk, "bookie-1", "a delivery", deliveries, on_event))
    owner = cluster.name_of((await bus.topic_info(topic)).owner)
    kills.append(await _kill(cluster, zk, owner, "a delivery", deliveries, on_event))
    return kills


async def _kill(
    cluster: LocalCluster,
    zk: coord.Client,
    name: str,
    what: str,
    marks: Marks,
    on_event: Callable[[str], None],
) -> Kill:
    before = cluster.starts[name]
    killed_ms = SYSTEM_CLOCK.monotonic_ms()
    cluster.kill(name)
    on_event(f"killed {name}")
    with trio.fail_after(BACK_DEADLINE_S):
        back = False
        while not back:
            await trio.sleep(POLL_S)
            back = cluster.starts[name] > before and await _is_back(cluster, zk, name)
    await trio.sleep(SETTLE_S)
    outage_ms = marks.gap_after(killed_ms, SYSTEM_CLOCK.monotonic_ms())
    on_event(f"{name} is back; {outage_ms} ms without {what}")
    return Kill(name, what, outage_ms)


async def _is_back(cluster: LocalCluster, zk: coord.Client, name: str) -> bool:
    if name.startswith("coord-"):
        return await ask_mode(cluster.servers[name].address) is not None
    path, count = (
        (REGISTERED_BOOKIES, cluster.plan.bookies)
        if name.startswith("bookie-")
        else (REGISTERED_HUBS, cluster.plan.hubs)
    )
    try:
        names = await zk.get_children(path)
    except (coord.ConnectionLossError, coord.NotConnectedError):
        return False
    return len([registered for registered in names if registered != "readonly"]) >= count


async def find_leader(cluster: LocalCluster) -> str:
    """The address of the coordination server that leads (or of the only one)."""
    while True:
        for address in cluster.addresses("coord"):
            if await ask_mode(address) in ("leader", "standalone"):
                return address
        await trio.sleep(POLL_S)


async def ask_mode(address: str) -> str | None:
    """What a coordination server is now; None while it does not serve."""
    host, port = coord.parse_address(address)
    try:
        with trio.fail_after(1):
            async with await trio.open_tcp_stream(host, port) as stream:
                await stream.send_all(b"srvr")
                text = b"".join([chunk async for chunk in stream]).decode("ascii", "replace")
    except (OSError, trio.BrokenResourceError, trio.TooSlowError):
        return None
    modes = [line.removeprefix("Mode: ") for line in text.splitlines() if line.startswith("Mode: ")]
    return modes[0] if modes else None
