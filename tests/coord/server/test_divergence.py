"""An ensemble in which one server's tree is falsified (20.8, 22.8 no. 86): it is found, and given the right
one.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio

import coord
from coord.inspection import json_to_state, state_to_json
from coord.protocol.batch import Block, Stamp
from coord.server.peer_tls import ByteStream
from coord.server.replica import Replica
from coord.server.snapshots import SnapshotSender
from coord.storage.divergence import DIVERGED_FILE
from tests.coord.ensemble import Ensemble, create_surely
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
        await create_surely(client, "/c")
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


async def test_86_a_divergence_is_not_hidden_by_a_restart(
    tmp_path: Path,
    falsify: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What is executed again is right this time: the server takes another state all the same, and only then
    serves.
    """
    gate = trio.Event()
    stream = SnapshotSender._stream

    async def stream_later(sender: SnapshotSender, sid: int, connection: ByteStream) -> None:
        await gate.wait()
        await stream(sender, sid, connection)

    monkeypatch.setattr(SnapshotSender, "_stream", stream_later)
    said = ""

    async def is_said(words: str) -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return words in said

    async with ensemble(tmp_path) as servers:
        victim = (await followers(servers))[0]
        other = next(sid for sid in servers.running if sid != victim)
        note = tmp_path / str(victim) / "zoolog" / DIVERGED_FILE
        async with coord.connect(f"127.0.0.1:{servers.port(other)}") as client:
            await client.create("/a", b"right")
            falsify(victim)
            await client.create("/b", b"")
            await until(lambda: is_said("fetches a snapshot"))
            assert note.exists()
            await servers.stop(victim)
            said = ""
            await servers.start(victim, wait=False)
            await until(lambda: is_said("fetches a snapshot"))
            assert "this server's state differed from a majority's" in said
            await servers.until(lambda: not servers.modes[victim], "the victim is out of service")
            gate.set()
            await all_serve(servers)
        assert not note.exists()
        async with coord.connect(f"127.0.0.1:{servers.port(victim)}") as client:
            await client.sync("/")
            assert (await client.get("/a"))[0] == b"right"


async def disputed(
    servers: Ensemble, falsify: Callable[[int], None], capfd: pytest.CaptureFixture[str]
) -> tuple[list[int], int]:
    """Two of four servers with the wrong state, and one with the right one; all serve."""
    said = ""

    async def is_disputed() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return "no majority of servers has the same state" in said

    wrong = (await followers(servers))[:2]
    right = next(sid for sid in servers.running if sid not in wrong)
    async with coord.connect(f"127.0.0.1:{servers.port(right)}") as client:
        await client.create("/a", b"right")
        for sid in wrong:
            falsify(sid)
        await client.create("/b", b"")
        await until(is_disputed)
        await all_serve(servers)
        await client.create("/c", b"")
    return wrong, right


async def test_two_against_two_are_decided_by_the_restart_of_one_whose_memory_was_wrong(
    tmp_path: Path, falsify: Callable[[int], None], capfd: pytest.CaptureFixture[str]
) -> None:
    async with ensemble(tmp_path, 4) as servers:
        wrong, _ = await disputed(servers, falsify, capfd)
        await servers.stop(wrong[0])
        await servers.start(wrong[0])
        async with coord.connect(f"127.0.0.1:{servers.port(wrong[0])}") as client:
            await client.create("/d", b"")

        async def is_given_another() -> bool:
            leader = await servers.leader()
            return await figure(servers, leader, "snap_count") >= 1

        await until(is_given_another)
        await all_serve(servers)
        async with coord.connect(f"127.0.0.1:{servers.port(wrong[1])}") as client:
            await client.sync("/")
            assert (await client.get("/a"))[0] == b"right"


async def test_two_against_two_are_decided_by_the_state_that_an_operator_loads(
    tmp_path: Path, falsify: Callable[[int], None], capfd: pytest.CaptureFixture[str]
) -> None:
    """The last remedy of docs/damage.md: one server's state, loaded on all."""
    async with ensemble(tmp_path, 4) as servers:
        wrong, right = await disputed(servers, falsify, capfd)
        await servers.stop()
        state = "".join(state_to_json(str(tmp_path / str(right))))
        for sid in servers.lines:
            home = tmp_path / str(sid)
            (home / "zoolog").rename(home / "zoolog-before")
            json_to_state(state, str(home))
        await servers.start()
        async with coord.connect(f"127.0.0.1:{servers.port(wrong[0])}") as client:
            await client.create("/d", b"")
            assert (await client.get("/a"))[0] == b"right"
            assert await client.exists("/c") is not None

        async def have_agreed() -> bool:
            answers = [await servers.ask(sid, "hash") for sid in servers.running]
            return bool(answers[0]) and len(set(answers)) == 1

        await until(have_agreed)
        for sid in servers.running:
            assert await figure(servers, sid, "digest_mismatches_count") == 0


async def test_86_equal_states_raise_no_alarm_and_are_kept(tmp_path: Path) -> None:
    """Writes, a change of leaders, a restart: nobody finds a difference."""
    async with ensemble(tmp_path) as servers:
        async with coord.connect(",".join(f"127.0.0.1:{servers.port(sid)}" for sid in (1, 2, 3))) as client:
            for number in range(300):
                await client.create(f"/n{number}", b"x", ephemeral=number % 2 == 0)
            leader = await servers.leader()
            await servers.stop(leader)
            await all_serve(servers)
            await create_surely(client, "/after")
            await servers.start(leader)
            await client.create("/again", b"")
            await trio.lowlevel.checkpoint()
            await all_serve(servers)
        for sid in servers.running:
            assert await figure(servers, sid, "digest_mismatches_count") == 0
        leader = await servers.leader()
        assert await figure(servers, leader, "diff_count") >= 1  # for the server that has come back
        assert await figure(servers, leader, "snap_count") == 0
        assert await figure(servers, leader, "cnt_quorum_ack_latency") >= 1
