"""Lives of a bookie's store with real files, LMDB's index among them, in a process whose writes are recorded;
each change of what is promised is noted. And what starts come to without one of the syncs.
"""

import pickle
import sys
from dataclasses import replace
from pathlib import Path

from coord.disk import RealDisk
from tests.bookie.storage.test_crash_states import Bookie, Promised, small_sizes
from tests.recorded_files import note, print_outcomes


class NotedBookie(Bookie):
    def on_change(self) -> None:
        note(pickle.dumps(replace(self._promised, nodes=tuple(self._service.nodes.items()))))


def live(directory: Path) -> None:
    NotedBookie(RealDisk(), directory, Promised(), str(directory)).live()


def live_with_all_segments(directory: Path) -> None:
    """Leaves beside the directory what was promised, and a damaged index."""
    bookie = Bookie(RealDisk(), directory, Promised(), str(directory), removes=False)
    bookie.live()
    damaged = frozenset(bookie.store.ledger_ids(-1, 100)[0])
    promised = replace(bookie.promised, index=None, damaged=damaged)
    bookie.close()
    directory.with_suffix(".promised").write_bytes(pickle.dumps(promised))
    with (directory / "index" / "data.mdb").open("r+b") as file:
        file.write(b"\xff" * 8192)


def rebuild(directory: Path) -> None:
    """A start that rebuilds the index, and what makes the first segments go."""
    promised = pickle.loads(directory.with_suffix(".promised").read_bytes())
    bookie = NotedBookie(RealDisk(), directory, promised, str(directory))
    bookie.on_change()
    bookie.boot()
    before = len(bookie.store.log.segments())
    for ledger_id in (1, 2, 4):
        bookie.delete(ledger_id)
    bookie.settle()
    while bookie.store.has_changes:
        bookie.checkpoint()
    assert len(bookie.store.log.segments()) < before
    bookie.put(7, 0, 3)
    bookie.settle()


LIVES = {"life": live, "prepare": live_with_all_segments, "rebuild": rebuild}


def start(noted: bytes, place: Path) -> None:
    promised = pickle.loads(noted) if noted else Promised()
    with small_sizes():
        Bookie(RealDisk(), place, promised, str(place)).start()


STARTS = {"life": start, "rebuild": start}


def main(what: str, path: str) -> None:
    if what in LIVES:
        with small_sizes():
            LIVES[what](Path(path))
    else:
        print_outcomes(path, STARTS)


if __name__ == "__main__":
    main(*sys.argv[1:])
