"""Damages LMDB's file in many places and loads the checkpoint after each, in a process of its own, since a
mapped file that lies about its pages can end the process that reads it.

Prints, as JSON, how often each outcome came: "right", "older" (the checkpoint before, whole) and "none"
(both are the log's to make good: it is replayed from there, or does not reach back), "damaged" (and said so),
"died", "died again" (a second start, warned by the marker, that did not say so), "wrong".
"""

import collections
import json
import os
import random
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from coord.disk import RealDisk
from coord.storage import CheckpointDamagedError, Checkpointer, CheckpointStore, LmdbEnvironments
from tests.coord.storage.conftest import SmallKind, SmallState

PAGE = 4096
OUTCOMES = {0: "right", 1: "older", 2: "none", 10: "damaged"}
SECOND_STARTS_MAX = 3
SECONDS_MAX = 20


class StillClock:
    def monotonic_ms(self) -> int:
        return 0

    def wall_ms(self) -> int:
        return 0


def write_checkpoints(store: CheckpointStore, source: random.Random) -> list[tuple[int, dict[int, bytes]]]:
    """Several in one environment; (zxid, nodes) of each."""
    state = SmallState()
    checkpointer = Checkpointer(store, StillClock(), lambda: None, threaded=False)
    written = []
    for zxid in range(1, 5):
        for number in range(120) if zxid == 1 else source.sample(range(120), 30):
            state.put(number, source.randbytes(source.choice((20, 200, 9000 if number % 20 == 0 else 90))))
        state.zxid = zxid
        checkpointer.begin(state)
        while checkpointer.take_finished() is None:
            checkpointer.work()
        written.append((zxid, dict(state.nodes)))
    checkpointer.close()
    return written


def damaged_contents(content: bytes, source: random.Random) -> Iterator[bytes]:
    pages = range(0, len(content), PAGE)
    for at in pages:
        for place in (*range(at // PAGE % 4, 32, 4), source.randrange(PAGE), source.randrange(PAGE)):
            flipped = content[at + place] ^ 1 << source.randrange(8)
            yield content[: at + place] + bytes((flipped,)) + content[at + place + 1 :]
        yield content[:at] + bytes(PAGE) + content[at + PAGE :]
        elsewhere = source.choice(pages)
        yield content[:at] + content[elsewhere : elsewhere + PAGE] + content[at + PAGE :]
        yield content[:at]
        yield content[: at + PAGE // 2]


def load(path: str, written: list[tuple[int, dict[int, bytes]]]) -> int:
    """The exit status of a process that loads it."""
    try:
        loaded = CheckpointStore(RealDisk(), path, LmdbEnvironments()).load(SmallKind())
    except CheckpointDamagedError:
        return 10
    if loaded is None:
        return 2
    found = loaded[1], loaded[0].nodes
    return 0 if found == written[-1] else 1 if found == written[-2] else 11


def load_apart(path: str, written: list[tuple[int, dict[int, bytes]]]) -> str:
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS_MAX)
        os._exit(load(path, written))
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "died"
    return OUTCOMES.get(os.WEXITSTATUS(status), "wrong")


def main(directory: str) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source = random.Random(7)
    path = os.path.join(directory, "checkpoint")
    written = write_checkpoints(CheckpointStore(RealDisk(), path, LmdbEnvironments()), source)
    file, marker = Path(path, "data.mdb"), Path(path + ".open")
    content = file.read_bytes()
    counts: collections.Counter[str] = collections.Counter()
    for damaged in damaged_contents(content, source):
        if damaged == content:
            continue
        file.write_bytes(damaged)
        marker.unlink(missing_ok=True)
        outcome = load_apart(path, written)
        counts[outcome] += 1
        if outcome == "died" and counts[outcome] <= SECOND_STARTS_MAX:
            file.write_bytes(damaged)
            counts["died again"] += load_apart(path, written) != "damaged"
    print(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1])
