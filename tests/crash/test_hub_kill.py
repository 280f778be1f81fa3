"""Real hubs, bookies and a coordination server; kill -9, pauses, restarts under load (2.25, 4.1; P11)."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

import coord
import pubsub
from tests.bookie.bookie_servers import BookieServers
from tests.coord_servers import CoordServers
from tests.pubsub.hub_load import SECONDS_MAX, Cluster, goes_on, under_load
from tests.pubsub.hub_servers import HubServers

pytestmark = pytest.mark.crash

SESSIONS = "minSessionTimeout=60000\nmaxSessionTimeout=60000"
RECEIVE_AGAIN_SECONDS_MAX = 45.0
"""Who receives again sooner than that has not waited for the end of a dead hub's session."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with (
        CoordServers(tmp_path / "coord", 1, tick_ms=500, extra=SESSIONS) as coord_servers,
        BookieServers(tmp_path, coord_servers.hosts, 3) as bookies,
        HubServers(tmp_path, coord_servers.hosts, 2, "--maintenance-ms", "200") as hubs,
    ):
        yield Cluster(coord_servers.hosts, bookies, hubs)


async def test_hubs_killed_in_turn_lose_nothing_and_subscribers_receive_again_soon(cluster: Cluster) -> None:
    async with under_load(cluster, "t") as (bus, numbers, reader):
        for _ in range(4):
            hub = await cluster.owner(bus, "t")
            hub.kill()
            with trio.fail_after(RECEIVE_AGAIN_SECONDS_MAX):
                await goes_on(numbers, reader)
            hub.spawn()
            await trio.to_thread.run_sync(hub.wait_ready)


async def test_a_restarted_hub_leaves_no_registration_of_its_predecessor(cluster: Cluster) -> None:
    hub = cluster.hubs[0]
    for _ in range(3):
        hub.kill()
        hub.start()
    async with coord.connect(cluster.hosts) as zk:
        assert len(await zk.get_children(pubsub.HUBS_PATH)) == 2


async def test_the_only_hub_killed_and_started_again_goes_on(cluster: Cluster) -> None:
    cluster.hubs[1].stop()
    async with under_load(cluster, "t") as (_, numbers, reader):
        for _ in range(2):
            cluster.hubs[0].kill()
            await trio.to_thread.run_sync(cluster.hubs[0].start)
            await goes_on(numbers, reader)


async def test_positions_are_kept_over_kills_and_unconsumed_messages_come_again(cluster: Cluster) -> None:
    with trio.fail_after(SECONDS_MAX):
        async with pubsub.connect(cluster.hosts) as bus:
            async with bus.subscribe("t", "s") as messages:
                await bus.publish_many("t", [b"%d" % i for i in range(100)])
                for _ in range(60):
                    message = await messages.__anext__()
                await messages.consume(message)
                await messages.flush()
            for expected in (61, 61):
                (await cluster.owner(bus, "t")).kill()
                async with bus.subscribe("t", "s") as messages:
                    assert (await messages.__anext__()).sequence == expected
                for hub in cluster.hubs.servers:
                    if hub.process is None:
                        await trio.to_thread.run_sync(hub.start)


async def test_zombie_hub_paused_and_resumed_stores_nothing_and_gives_up(cluster: Cluster) -> None:
    async with under_load(cluster, "t") as (bus, numbers, reader):
        zombie = await cluster.owner(bus, "t")
        zombie.signal(signal.SIGSTOP)
        await goes_on(numbers, reader)
        assert await cluster.owner(bus, "t") is not zombie
        zombie.signal(signal.SIGCONT)
        while "topic given up" not in zombie.log_path.read_text():  # noqa: ASYNC110
            await trio.sleep(0.01)
        assert await cluster.owner(bus, "t") is not zombie


async def test_topics_go_on_while_a_bookie_is_dead(cluster: Cluster) -> None:
    """An ack quorum is left: the ledger keeps its failed bookie, a take-over makes one of two copies."""
    async with under_load(cluster, "t") as (bus, numbers, reader):
        cluster.bookies[0].kill()
        await goes_on(numbers, reader)
        hub = await cluster.owner(bus, "t")
        hub.kill()
        await goes_on(numbers, reader)
        hub.spawn()
        await trio.to_thread.run_sync(hub.wait_ready)
        await trio.to_thread.run_sync(cluster.bookies[0].start)
        while (await bus.topic_info("t")).ledgers[-1].copies < 3:  # noqa: ASYNC110
            await trio.sleep(0.1)
        await goes_on(numbers, reader)


async def test_a_hub_stopped_in_order_releases_its_topics(cluster: Cluster) -> None:
    async with under_load(cluster, "t") as (bus, numbers, reader):
        hub = await cluster.owner(bus, "t")
        assert await trio.to_thread.run_sync(hub.stop) == 0
        with trio.fail_after(RECEIVE_AGAIN_SECONDS_MAX):
            await goes_on(numbers, reader)
        assert await cluster.owner(bus, "t") is not hub
