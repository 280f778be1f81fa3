"""Servers whose logs are damaged in different entries give each other what is missing, and go on together."""

from pathlib import Path

import pytest
import trio

from coord.disk import RealDisk
from coord.server.giving import LogGiver
from coord.storage import CheckpointSchedule, inspect_txnlog
from tests.coord.ensemble import Ensemble, member_lines
from tests.coord.server.wire_client import CLOSE, CREATE, EXISTS, Wire, create, watched

WRITES = 12

Batch = tuple[str, bytes]


def batches(ensemble: Ensemble, sid: int) -> list[tuple[str, int, Batch]]:
    """(file, offset of its record, batch) of all in the log of one server."""
    found = []
    for path in sorted((ensemble.directory / str(sid) / "zoolog").glob("log-*/txn.*")):
        for row in inspect_txnlog(RealDisk(), str(path)):
            if row.kind == "batch":
                found.append((str(path), row.offset, (row.facts["zxids"], row.payload)))
    return found


def damage(ensemble: Ensemble, sid: int, number: int) -> None:
    """A bit of the batch that is `number` from the end."""
    path, offset, _ = batches(ensemble, sid)[-number]
    content = bytearray(Path(path).read_bytes())
    content[offset] ^= 4
    Path(path).write_bytes(content)


async def write(ensemble: Ensemble, first: int, count: int = WRITES) -> None:
    """One batch each, in a group of its own: the next leaves when all servers have the one before."""
    async with await Wire.session(ensemble.port(await ensemble.leader())) as wire:
        await ensemble.until_even()
        for number in range(first, first + count):
            assert (await wire.call(number, CREATE, create(b"/n%d" % number)))[0] == 0
            await ensemble.until_even()
        await wire.call(0, CLOSE)
    await ensemble.until_even()


async def has_all(ensemble: Ensemble, sid: int, count: int) -> bool:
    async with await Wire.session(ensemble.port(sid)) as wire:
        found = [(await wire.call(number, EXISTS, watched(b"/n%d" % number)))[0] for number in range(count)]
        await wire.call(0, CLOSE)
    return found == [0] * count


@pytest.fixture
async def stopped(tmp_path: Path, nursery: trio.Nursery) -> Ensemble:
    """Three servers that have written a little and stopped in order."""
    ensemble = Ensemble(tmp_path, nursery, member_lines(3))
    await ensemble.start()
    await write(ensemble, 0)
    await ensemble.stop()
    return ensemble


async def test_batches_are_the_same_bytes_on_all_servers(stopped: Ensemble) -> None:
    logs = [[batch for *_, batch in batches(stopped, sid)] for sid in (1, 2, 3)]
    assert logs[0] == logs[1] == logs[2]
    assert len(logs[0]) >= WRITES


@pytest.mark.parametrize("victims", [(1, 2), (1, 2, 3)])
async def test_servers_with_different_damage_repair_each_other(
    stopped: Ensemble, victims: tuple[int, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    for number, sid in enumerate(victims):
        damage(stopped, sid, 2 + number)
        damage(stopped, sid, 6 + number)
    await stopped.start()
    for sid in (1, 2, 3):
        assert await has_all(stopped, sid, WRITES)
    await write(stopped, WRITES, 3)
    await stopped.stop()
    logs = [[batch for *_, batch in batches(stopped, sid)][-WRITES:] for sid in (1, 2, 3)]
    assert logs[0] == logs[1] == logs[2]
    said = capfd.readouterr().err
    assert said.count("its log is whole again") >= len(victims) - 1  # the last one may find a leader first
    assert "repaired=2 is_cut=False" in said


async def test_what_no_server_has_is_waited_for(stopped: Ensemble, capfd: pytest.CaptureFixture[str]) -> None:
    for sid in (1, 2, 3):
        damage(stopped, sid, 3)
    await stopped.start(wait=False)
    said = ""
    with trio.fail_after(60):
        while said.count("no peer has all that its log misses") < 3:
            await trio.sleep(0.02)
            said += capfd.readouterr().err
    assert "is damaged too" in said
    await stopped.until(lambda: not any(stopped.modes.values()), "nobody serves")


async def test_servers_wait_for_the_one_that_has_it(
    stopped: Ensemble, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(stopped, 1, 3)
    damage(stopped, 2, 3)
    await stopped.start(1, 2, wait=False)
    said = ""
    with trio.fail_after(60):
        while said.count("server 3 away") < 2:
            await trio.sleep(0.02)
            said += capfd.readouterr().err
    await stopped.until(lambda: not any(stopped.modes.values()), "nobody serves")
    await stopped.start(3, wait=False)
    await stopped.until(lambda: all(stopped.modes.get(sid) for sid in (1, 2, 3)), "all serve")
    for sid in (1, 2, 3):
        assert await has_all(stopped, sid, WRITES)


async def until_said(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    """Waits until the servers' log has all of these; returns it."""
    said = ""
    with trio.fail_after(60):
        while not all(word in said for word in words):
            await trio.sleep(0.02)
            said += capfd.readouterr().err
    return said


async def test_more_than_can_be_repaired_is_left_to_a_leader(
    stopped: Ensemble, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coord.server.repairing.RECEIVED_BYTES_MAX", 10)
    damage(stopped, 1, 3)
    await stopped.start(1, 2, wait=False)
    said = await until_said(capfd, "its log cannot be repaired")
    assert "more is missing than 10 bytes" in said
    assert "from-json" in said
    await stopped.until(lambda: not any(stopped.modes.values()), "nobody serves")
    await stopped.start(3, wait=False)
    await stopped.until(lambda: all(stopped.modes.get(sid) for sid in (1, 2, 3)), "all serve")
    assert await has_all(stopped, 1, WRITES)


def remove_begin(ensemble: Ensemble, sid: int) -> None:
    """The segments with the first writes."""
    for path in {path for path, *_ in batches(ensemble, sid)[:WRITES]}:
        Path(path).unlink()


def destroy_checkpoint(ensemble: Ensemble, sid: int) -> None:
    (path,) = (ensemble.directory / str(sid) / "zoolog").glob("generation-*/checkpoint/data.mdb")
    path.write_bytes(b"\xa5" * path.stat().st_size)


async def test_what_is_older_than_the_logs_of_the_others_comes_as_a_state(
    stopped: Ensemble, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Server 1 has lost its checkpoint and an early batch, which the others have in checkpoints only."""
    with monkeypatch.context() as often:
        often.setattr(CheckpointSchedule, "due", lambda schedule, now, zxid, *_: zxid != schedule.began_zxid)
        often.setattr("coord.server.checkpoints.LOOK_SECONDS", 0.02)
        often.setattr("coord.server.agreement.HOLD_MS_MAX", 0)
        await stopped.start()
        said = ""
        with trio.fail_after(60):
            while True:
                said += capfd.readouterr().err
                zxid = (await stopped.ask(1, "srvr")).partition("Zxid: ")[2].partition("\n")[0]
                made = [
                    line for line in said.splitlines() if "checkpoint" in line and f" zxid={zxid} " in line
                ]
                if zxid and len(made) >= 3:
                    break
                await trio.sleep(0.02)
        await stopped.stop()
    await stopped.start()
    await write(stopped, WRITES)
    await stopped.stop()
    for sid in (2, 3):
        remove_begin(stopped, sid)
    destroy_checkpoint(stopped, 1)
    damage(stopped, 1, len(batches(stopped, 1)) - 3)
    await stopped.start(1, 2, wait=False)
    said = await until_said(capfd, "server 2 has a log that begins later", "server 3 away")
    await stopped.until(lambda: not any(stopped.modes.values()), "nobody serves")
    await stopped.start(3, wait=False)
    await stopped.until(lambda: all(stopped.modes.get(sid) for sid in (1, 2, 3)), "all serve")
    assert await has_all(stopped, 1, 2 * WRITES)
    assert "has a snapshot's state" in capfd.readouterr().err


async def test_a_log_that_is_damaged_while_its_server_runs_is_given_from_memory(
    stopped: Ensemble, capfd: pytest.CaptureFixture[str]
) -> None:
    """Server 2 finds out when it is asked. Nobody else has what server 1 misses; its memory has."""
    damage(stopped, 1, 3)
    damage(stopped, 1, 5)
    await stopped.start(2, wait=False)
    damage(stopped, 2, 3)
    damage(stopped, 2, 6)
    await stopped.start(1, wait=False)
    await until_said(capfd, "this server's own log is damaged", "its log is whole again")
    await stopped.until(lambda: all(stopped.modes.get(sid) for sid in (1, 2)), "both serve")
    for sid in (1, 2):
        assert await has_all(stopped, sid, WRITES)
    await stopped.stop()
    await stopped.start(1, 2)  # now server 2 repairs its log, or the leader does
    assert await has_all(stopped, 2, WRITES)


async def test_a_log_that_is_damaged_while_its_server_runs_is_given_from_behind_the_damage(
    stopped: Ensemble, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What server 1 misses is too old for anybody's memory."""
    monkeypatch.setattr(LogGiver, "_in_memory", lambda giver, above: iter(()))
    damage(stopped, 1, 3)
    damage(stopped, 1, 6)
    await stopped.start(2, wait=False)
    damage(stopped, 2, 5)
    await stopped.start(1, wait=False)
    await until_said(capfd, "this server's own log is damaged", "its log is whole again")
    await stopped.until(lambda: all(stopped.modes.get(sid) for sid in (1, 2)), "both serve")
    assert await has_all(stopped, 1, WRITES)
