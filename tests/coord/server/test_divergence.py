"""An ensemble in which one server's tree is falsified (20.8, 22.8 no. 86): it is found, and given the right
one.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio.lowlevel

import coord
from coord.protocol.batch import Block, Stamp
from coord.server.replica import Replica
from tests.coord.ensemble import Ensemble
from tests.coord.server.ensembles import all_serve, ensemble, figure, followers, until

PATH = b"/a"
WRONG = b"\0\0\0\5wrong"


@pytest.fixture
def falsify(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Call it with a server's number: with the next batch that server gets a node of other content."""
    victims: set[int] = set()
    right = Replica.execute

    def execute(replica: Replica, stamp: Stamp, blocks: Sequence[Block]) -> None:
        tree, sid = replica._state.tree, replica._sid
        if sid in victims and PATH in tree.nodes:
            victims.remove(sid)
            tree.touch(PATH, tree.nodes[PATH])
            tree.nodes[PATH].data = WRONG
        right(replica, stamp, blocks)

    monkeypatch.setattr(Replica, "execute", execute)
    return victims.add


async def found_and_repaired(servers: Ensemble, victim: int, falsify: Callable[[int], None]) -> None:
    other = next(sid for sid in servers.running if sid != victim)
    async with coord.connect(f"127.0.0.1:{servers.port(other)}") as client:
        await client.create("/a", b"right")
        falsify(victim)
        await client.create("/b", b"")

        async def is_found() -> bool:
            monitor = await servers.ask(victim, "mntr")  # nothing of the kind while it is out of service
            return (
                "zk_digest_mismatches_count\t" in monitor and "zk_digest_mismatches_count\t0" not in monitor
            )

        await until(is_found)
        await all_serve(servers)
        await client.create("/c", b"")
    async with coord.connect(f"127.0.0.1:{servers.port(victim)}") as client:
        await client.sync("/")
        assert (await client.get("/a"))[0] == b"right"
        assert await client.exists("/c") is not None


async def test_86_a_follower_with_another_state_is_found_and_repaired(
    tmp_path: Path, falsify: Callable[[int], None]
) -> None:
    async with ensemble(tmp_path) as servers:
        victim = (await followers(servers))[0]
        leader = await servers.leader()
        await found_and_repaired(servers, victim, falsify)
        assert await servers.leader() == leader
        assert await figure(servers, leader, "digest_mismatches_count") >= 1
        assert await figure(servers, leader, "snap_count") >= 1


async def test_86_a_leader_with_another_state_steps_down_and_is_repaired(
    tmp_path: Path, falsify: Callable[[int], None]
) -> None:
    async with ensemble(tmp_path) as servers:
        victim = await servers.leader()
        await found_and_repaired(servers, victim, falsify)
        assert await servers.leader() != victim


async def test_86_the_repaired_state_outlives_a_restart(
    tmp_path: Path, falsify: Callable[[int], None]
) -> None:
    async with ensemble(tmp_path) as servers:
        victim = (await followers(servers))[0]
        await found_and_repaired(servers, victim, falsify)
        await servers.stop(victim)
        await servers.start(victim)
        async with coord.connect(f"127.0.0.1:{servers.port(victim)}") as client:
            await client.sync("/")
            assert (await client.get("/a"))[0] == b"right"


async def test_86_equal_states_raise_no_alarm_and_are_kept(tmp_path: Path) -> None:
    """Writes, a change of leaders, a restart: nobody finds a difference."""
    async with ensemble(tmp_path) as servers:
        async with coord.connect(",".join(f"127.0.0.1:{servers.port(sid)}" for sid in (1, 2, 3))) as client:
            for number in range(300):
                await client.create(f"/n{number}", b"x", ephemeral=number % 2 == 0)
            leader = await servers.leader()
            await servers.stop(leader)
            await all_serve(servers)
            await client.create("/after", b"")
            await servers.start(leader)
            await client.create("/again", b"")
            await trio.lowlevel.checkpoint()
            await all_serve(servers)
        for sid in servers.running:
            assert await figure(servers, sid, "digest_mismatches_count") == 0
