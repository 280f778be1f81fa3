"""An ensemble that runs out of zxids all the time (20.1, 22.8 no. 85): nobody's connection notices."""

from pathlib import Path

import pytest
import trio

from tests.coord.ensemble import Ensemble, member_lines
from tests.coord.server.wire_client import CREATE, EXISTS, SYNC, Wire, buffer, create, request, watched

WRITES = 400


async def test_new_epochs_interrupt_no_connection(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """85, and chapter 24: service continues; here even the connections do, each write answered in order."""
    monkeypatch.setattr("coord.zab.leader.COUNTER_MAX", 100)
    ensemble = Ensemble(tmp_path, nursery, member_lines(3, observers=1))
    await ensemble.start()
    zxids: list[int] = []

    async def write(sid: int) -> None:
        async with await Wire.session(ensemble.port(sid)) as wire:
            assert (await wire.call(0, CREATE, create(b"/mine-%d" % sid, flags=1)))[0] == 0
            for number in range(1, WRITES + 1):
                await wire.send(
                    request(number, CREATE, create(b"/%d-%d" % (sid, number))),
                    request(number, EXISTS, watched(b"/%d-%d" % (sid, number))),
                    request(number, SYNC, buffer(b"/")),
                )
                replies = [await wire.reply() for _ in range(3)]
                assert [reply[::2] for reply in replies] == [(number, 0)] * 3
                zxids.append(replies[0][1])
            assert (await wire.call(0, EXISTS, watched(b"/mine-%d" % sid)))[0] == 0

    async with trio.open_nursery() as writers:
        for sid in (1, 2, 3, 4):
            writers.start_soon(write, sid)
    assert len({zxid >> 32 for zxid in zxids}) > 4 * WRITES // 100
    assert len(set(zxids)) == 4 * WRITES
    await ensemble.stop()
    assert ensemble.failures == {}
