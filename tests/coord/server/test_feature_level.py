"""The feature level (DESIGN 4, docs/upgrade.md): raised by command, once all members know it."""

import contextlib
from collections.abc import Container
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

import coord
from coord.log.segments import TEMPORARY_SUFFIX
from coord.protocol import batch
from coord.zab import FeatureLevelError
from coord.zab.messages import FollowerInfo, LeaderInfo
from pubsub.command.serve import coord_command
from tests.coord.ensemble import Ensemble, member_lines
from tests.coord.server.test_reconfiguration import SUPER
from tests.coord.zab.stage import Stage

KEYS = {"DigestAuthenticationProvider__superDigest": "super:lK75jTNcA+U9vtVEw5vB51mj/w4="}


async def raise_level(client: coord.Client, level: int) -> None:
    """As the command does it."""
    with trio.fail_after(60):
        while True:
            try:
                await client.reconfig(members=[f"feature.level={level}"])
                return
            except coord.ReconfigInProgressError:
                with contextlib.suppress(coord.ConnectionLossError):
                    await client.sync("/")
            except coord.ConnectionLossError:
                pass  # its server had to find out that the leader had stopped


async def test_the_level_rises_when_all_members_know_it(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before, not by itself, and not without the right; then an older release does not start. Until then
    it could read every log: the groups have seals from level 2 on only.
    """
    lines = member_lines(3)
    ensemble = Ensemble(tmp_path, nursery, lines, **KEYS)
    monkeypatch.setattr(batch, "FEATURE_LEVEL", 1)
    await ensemble.start(3, wait=False)
    monkeypatch.setattr(batch, "FEATURE_LEVEL", 2)
    await ensemble.start(1, 2)
    leader = await ensemble.leader()
    async with coord.connect(f"127.0.0.1:{ensemble.port(1)}", auth=[SUPER]) as client:
        await client.create("/before", b"")
        with pytest.raises(coord.NewConfigNoQuorumError):
            await raise_level(client, 2)
        await ensemble.stop(3)
        with pytest.raises(coord.NewConfigNoQuorumError):
            await raise_level(client, 2)
    await ensemble.start(3)
    leader = await ensemble.leader()
    async with coord.connect(f"127.0.0.1:{ensemble.port(leader)}") as anybody:
        with pytest.raises(coord.NoAuthError):
            await raise_level(anybody, 2)
    assert set(segment_magics(tmp_path)) == {b"zoologS1"}
    async with coord.connect(f"127.0.0.1:{ensemble.port(leader)}", auth=[SUPER]) as client:
        for level in ("0", "x", "1e3", ""):
            with pytest.raises(coord.BadArgumentsError):
                await client.reconfig(members=[f"feature.level={level}"])
        with pytest.raises(coord.NewConfigNoQuorumError):
            await raise_level(client, 3)
        arguments = ["feature-level", "2", "--coord", f"127.0.0.1:{ensemble.port(1)}", "--auth", SUPER[1]]
        done = await trio.to_thread.run_sync(CliRunner().invoke, coord_command, arguments)
        assert done.exit_code == 0
        assert done.output.endswith("feature level 2\n")
        with pytest.raises(coord.BadArgumentsError):
            await raise_level(client, 1)
        await client.create("/after", b"")
    await ensemble.until_even()
    assert set(segment_magics(tmp_path, {b"2"})) == {b"zoologS1", b"zoologS2"}
    assert b"zoologS2" not in segment_magics(tmp_path, {b""}), "the directory does not say its level"
    other = next(sid for sid in (1, 2, 3) if sid != leader)
    await ensemble.stop(other)
    monkeypatch.setattr(batch, "FEATURE_LEVEL", 1)
    with pytest.raises(RuntimeError, match="started"):
        await ensemble.start(other, wait=False)
    failure = text_of(ensemble.failures.pop(other))
    assert "feature level 2, and this release knows up to 1" in failure
    monkeypatch.setattr(batch, "FEATURE_LEVEL", 2)
    await ensemble.stop()
    assert ensemble.failures == {}


def segment_magics(directory: Path, levels: Container[bytes] = (b"", b"2")) -> list[bytes]:
    """Of the logs of all servers whose directory says that it is of one of these levels."""
    found = []
    for path in directory.rglob("current"):
        words = path.read_bytes().split()
        level = words[4] if len(words) == 6 else b""
        if level in levels:
            segments = path.parent.rglob("txn.*")
            found += [one.read_bytes()[:8] for one in segments if one.suffix != TEMPORARY_SUFFIX]
    return found


def text_of(failure: BaseException) -> str:
    """Of the innermost error."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return str(failure)


def test_a_learner_stops_under_a_leader_of_a_level_it_does_not_know() -> None:
    """It refuses to join, before it has promised anything."""
    stage = Stage()
    stage.elect(3, current_epoch=0, zxid=0)
    (info,) = [each for each in stage.take_sent(3) if isinstance(each, FollowerInfo)]
    assert info.feature_level == 1
    with pytest.raises(FeatureLevelError, match="knows up to 1: run the release of the other servers"):
        stage.hear(3, LeaderInfo(info.attempt, 1, False, 2))
    assert stage.peer.accepted_epoch == 0


def test_the_command_says_what_is_wrong() -> None:
    done = CliRunner().invoke(coord_command, ["feature-level", "0", "--auth", "a:b"])
    assert done.exit_code == 2
    assert "0 is not in the range" in done.output
