"""Observers among real servers (19.6, 22.8 no. 87): they serve, and never count."""

from pathlib import Path

import trio

import coord
from tests.coord.ensemble import Ensemble, member_lines


async def test_observers_serve_reads_and_writes_and_never_count(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    """87: observers serve reads and writes; leader loss closes them; they never count for a quorum."""
    ensemble = Ensemble(tmp_path, nursery, member_lines(3, observers=2))
    await ensemble.start()
    assert sorted(ensemble.modes.values()) == ["follower", "follower", "leader", "observer", "observer"]
    assert [ensemble.modes[4], ensemble.modes[5]] == ["observer", "observer"]
    leader = await ensemble.leader()
    monitor = await ensemble.ask(leader, "mntr")
    assert "zk_synced_observers\t2\n" in monitor
    assert "zk_synced_followers\t2\n" in monitor
    assert "zk_quorum_size\t3\n" in monitor
    assert "zk_peer_state\tobserving - broadcast\n" in await ensemble.ask(4, "mntr")
    async with (
        coord.connect(f"127.0.0.1:{ensemble.port(4)}") as one,
        coord.connect(f"127.0.0.1:{ensemble.port(leader)}") as other,
    ):
        await one.create("/by-observer", b"1")
        await other.create("/by-leader", b"2")
        await one.sync("/")
        assert (await one.get("/by-leader"))[0] == b"2"
        assert (await one.get("/by-observer"))[0] == b"1"
    followers = [sid for sid in (1, 2, 3) if sid != leader]
    await ensemble.stop(*followers)
    await ensemble.until(lambda: not any(ensemble.modes.values()), "one of three and two observers rest")
    await ensemble.start(followers[0])
    await ensemble.until(lambda: ensemble.modes[5] == "observer", "observers serve again")
    async with coord.connect(f"127.0.0.1:{ensemble.port(5)}") as again:
        await again.sync("/")
        assert (await again.get("/by-leader"))[0] == b"2"
    await ensemble.stop()
    assert ensemble.failures == {}


async def test_an_observer_that_was_away_catches_up(tmp_path: Path, nursery: trio.Nursery) -> None:
    """19.6: it is synchronized like any learner."""
    ensemble = Ensemble(tmp_path, nursery, member_lines(3, observers=1))
    await ensemble.start(1, 2, 3)
    async with coord.connect(f"127.0.0.1:{ensemble.port(1)}") as client:
        for number in range(20):
            await client.create(f"/n{number}", b"x" * 1000)
        await ensemble.start(4)
        async with coord.connect(f"127.0.0.1:{ensemble.port(4)}") as late:
            assert len(await late.get_children("/")) == 21
            await client.create("/more", b"")
            await late.sync("/")
            assert await late.exists("/more") is not None
    await ensemble.stop()
    assert ensemble.failures == {}


async def test_groups_decide_by_weight(tmp_path: Path, nursery: trio.Nursery) -> None:
    """19.7: with a weight of 0 it follows, however high its number; without it the ensemble goes on."""
    lines = member_lines(3)
    keys = {"group__1": "1:2:3", "weight__1": "1", "weight__2": "1", "weight__3": "0"}
    ensemble = Ensemble(tmp_path, nursery, lines, **keys)
    await ensemble.start()
    assert ensemble.modes[3] == "follower"
    leader = await ensemble.leader()
    await ensemble.stop(3)
    async with coord.connect(f"127.0.0.1:{ensemble.port(leader)}") as client:
        await client.create("/without-3", b"")
    await ensemble.start(3)
    await ensemble.stop(3 - leader)
    await ensemble.until(lambda: not any(ensemble.modes.values()), "the two with one weight rest")
    await ensemble.stop()
    assert ensemble.failures == {}
