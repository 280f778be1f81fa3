"""`python -m bookie.server --coord HOSTS --dir DIR`: one bookie in the foreground, for tests and benches.

Prints one JSON line with its address once it is registered; SIGTERM and SIGINT stop it in order. Users run
`zoolog bookie serve`.
"""

import argparse
import json
import signal
import sys
from pathlib import Path

import trio

from bookie.server.config import BookieConfig
from bookie.server.cookie import IdentityError
from bookie.server.registration import RegistrationError
from bookie.server.server import RunningBookie, serve
from bookie.storage import StoreDamagedError
from coord.disk import DiskLockedError
from coord.reactor import run_hosted

_FAILURES = (IdentityError, RegistrationError, StoreDamagedError, DiskLockedError, OSError)


async def run(config: BookieConfig) -> None:
    """Serve until a signal comes."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            running: RunningBookie = await nursery.start(serve, config)
            ready = {"bookie_id": running.bookie_id, "host": running.host, "port": running.port}
            sys.stdout.write(json.dumps(ready) + "\n")
            sys.stdout.flush()
            async for _ in signals:
                nursery.cancel_scope.cancel()
                break


def main() -> int:
    """The exit status: 0 after a signal, 1 after a failure, which is one line."""
    parser = argparse.ArgumentParser(prog="python -m bookie.server", description="Run one bookie.")
    parser.add_argument("--coord", required=True)
    parser.add_argument("--dir", required=True, type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--id")
    parser.add_argument("--segment-bytes", type=int, default=256 << 20)
    parser.add_argument("--checkpoint-ms", type=int, default=60_000)
    given = parser.parse_args()
    config = BookieConfig(
        directory=given.dir.resolve(),
        coord=given.coord,
        host=given.host,
        port=given.port,
        bookie_id=given.id,
        segment_bytes_max=given.segment_bytes,
        checkpoint_interval_ms=given.checkpoint_ms,
    )
    failures: list[BaseException] = []
    try:
        run_hosted(run, config)
    except* _FAILURES as group:
        failures.extend(group.exceptions)
    for failure in failures:
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        sys.stderr.write(f"bookie: {failure}\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
