"""Lives of a server's storage with real files and LMDB, in a process whose writes are recorded; each change
of what is promised is noted. And what starts come to without one of the syncs.
"""

import pickle
import random
import sys
from pathlib import Path
from typing import Any

from coord.disk import RealDisk
from coord.storage import Checkpointer, CheckpointStore, LmdbEnvironments
from tests.coord.storage.conftest import SmallKind, SmallState
from tests.coord.storage.test_crash_states import Life, Promised, Restarted, StillClock
from tests.recorded_files import note, print_outcomes

CHECKPOINTS = 9


class NotedLife(Life):
    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "promised":
            note(pickle.dumps(value))


class Unprobed(LmdbEnvironments):
    """Without another process that reads first."""

    def probe(self, path: str) -> str | None:
        return None


def start(noted: bytes, place: Path) -> None:
    promised = pickle.loads(noted) if noted else Promised()
    Restarted(RealDisk(), promised, str(place), Unprobed()).start()


def states() -> list[dict[int, bytes]]:
    """What the checkpoints hold, one after the other: small values and such that fill pages."""
    source = random.Random(5)
    state, found = SmallState(), [{}]
    for zxid in range(1, CHECKPOINTS + 1):
        for number in source.sample(range(60), 60 if zxid == 1 else 12):
            gone = zxid > 1 and source.random() < 0.3
            state.put(number, None if gone else source.randbytes(source.choice((20, 90, 9000))))
        found.append(dict(state.nodes))
    return found


def write_checkpoints(path: str) -> None:
    store = CheckpointStore(RealDisk(), path, LmdbEnvironments())
    checkpointer = Checkpointer(store, StillClock(), lambda: None, threaded=False)
    state = SmallState()
    for zxid, nodes in enumerate(states()):
        if zxid == 0:
            continue
        for number in {*nodes, *state.nodes}:
            if state.nodes.get(number) != nodes.get(number):
                state.put(number, nodes.get(number))
        state.zxid = zxid
        checkpointer.begin(state)
        while (finished := checkpointer.take_finished()) is None:
            checkpointer.work()
        assert finished.failure is None
        note(str(zxid).encode())
    checkpointer.close()


def load_checkpoint(noted: bytes, place: Path) -> None:
    """The last one that was reported, or the next."""
    least = int(noted or b"0")
    loaded = CheckpointStore(RealDisk(), str(place / "checkpoint"), Unprobed()).load(SmallKind())
    zxid, nodes = (loaded[1], loaded[0].nodes) if loaded else (0, {})
    assert least <= zxid <= least + 1
    assert nodes == states()[zxid]


STARTS = {"life": start, "checkpoints": load_checkpoint}


def main(what: str, path: str) -> None:
    if what == "life":
        NotedLife(RealDisk(), path, LmdbEnvironments()).live()
    elif what == "checkpoints":
        write_checkpoints(f"{path}/checkpoint")
    else:
        print_outcomes(path, STARTS)


if __name__ == "__main__":
    main(*sys.argv[1:])
