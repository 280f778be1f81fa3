"""Our recipes and kazoo's, side by side on one tree."""

import secrets
from functools import partial

import pytest
import trio

import coord
from tests.coord_servers import CoordServers
from tests.interop.conftest import MakeClient

pytestmark = pytest.mark.interop
HOLD_S = 60.0


@pytest.fixture
def root() -> str:
    return f"/t-{secrets.token_hex(6)}"


async def test_a_kazoo_lock_and_our_leader_exclude_each_other(
    standalone: CoordServers, make_client: MakeClient, root: str
) -> None:
    kazoo = await trio.to_thread.run_sync(make_client, standalone.hosts)
    lock = kazoo.Lock(root, "kazoo")
    async with coord.connect(standalone.hosts) as zk:
        with trio.fail_after(HOLD_S):
            async with coord.lead(zk, root, b"ours"):
                assert not await trio.to_thread.run_sync(partial(lock.acquire, blocking=False))
            assert await trio.to_thread.run_sync(partial(lock.acquire, timeout=60))
            led = trio.Event()

            async def stand() -> None:
                async with coord.lead(zk, root, b"ours"):
                    led.set()

            async with trio.open_nursery() as nursery, zk.watch(root, children=True) as events:
                nursery.start_soon(stand)
                async for _ in events:
                    if len(events.children) == 2:
                        break
                assert await trio.to_thread.run_sync(lock.contenders) == ["kazoo", "ours"]
                assert not led.is_set()
                await trio.to_thread.run_sync(lock.release)
                await led.wait()


async def test_a_kazoo_candidate_leads_after_ours_resigned(
    standalone: CoordServers, make_client: MakeClient, root: str
) -> None:
    kazoo = await trio.to_thread.run_sync(make_client, standalone.hosts)
    election = kazoo.Election(root, "kazoo")
    order: list[str] = []
    async with coord.connect(standalone.hosts) as zk:
        with trio.fail_after(HOLD_S):
            async with trio.open_nursery() as nursery, coord.lead(zk, root, b"ours"):
                nursery.start_soon(
                    trio.to_thread.run_sync, partial(election.run, partial(order.append, "kazoo"))
                )
                async with zk.watch(root, children=True) as events:
                    async for _ in events:
                        if len(events.children) == 2:
                            break
                order.append("ours")
    assert order == ["ours", "kazoo"]
