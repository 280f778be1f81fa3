"""A server's storage in a process of its own, to be killed: writes, checkpoints, prints each durable zxid."""

import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from conftest import SmallKind, batch

from coord.clock import SYSTEM_CLOCK
from coord.disk import RealDisk
from coord.log import LogConfig
from coord.storage import Checkpointer, LmdbEnvironments, LogOptions, open_data_directory, open_state


def main(path: str) -> None:
    directory = open_data_directory(RealDisk(), path)
    notified = threading.Semaphore(0)
    options = LogOptions(notified.release, config=LogConfig(segment_bytes_max=100_000))
    found = open_state(directory, LmdbEnvironments(), SmallKind(), options, standalone=True)
    checkpointer = Checkpointer(found.store, SYSTEM_CLOCK, lambda: None)
    zxid = found.executed_zxid
    while True:
        for _ in range(zxid % 5 + 1):
            zxid += 1
            found.log.append(zxid, zxid, (batch(zxid),), 0, zxid)
        notified.acquire()
        for token in found.log.take_durable():
            if isinstance(token, int):
                SmallKind().apply(found.state, batch(token))
                print(token, flush=True)
        if checkpointer.busy:
            checkpointer.work()
            if (finished := checkpointer.take_finished()) is not None:
                assert finished.failure is None
                found.log.remove_below(finished.zxid, keep_bytes=0)
        elif found.state.zxid % 7 == 0:
            checkpointer.begin(found.state)


if __name__ == "__main__":
    main(sys.argv[1])
