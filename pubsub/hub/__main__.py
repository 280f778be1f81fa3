"""`python -m pubsub.hub --coord HOSTS --dir DIR`: one hub in the foreground, for tests and benches.

Prints one JSON line with its address once it is registered; SIGTERM and SIGINT stop it in order. Users run
`zoolog hub serve`.
"""

import argparse
import json
import signal
import sys
from pathlib import Path

import trio

from pubsub.core.retention import RollPolicy
from pubsub.hub.config import HubConfig
from pubsub.hub.registration import DirectoryInUseError
from pubsub.hub.server import serve

_FAILURES = (DirectoryInUseError, OSError)


async def run(config: HubConfig) -> None:
    """Serve until a signal comes."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            host, port = await nursery.start(serve, config)
            sys.stdout.write(json.dumps({"host": host, "port": port}) + "\n")
            sys.stdout.flush()
            async for _ in signals:
                nursery.cancel_scope.cancel()
                break


def main() -> int:
    """The exit status: 0 after a signal, 1 after a failure, which is one line."""
    parser = argparse.ArgumentParser(prog="python -m pubsub.hub", description="Run one hub.")
    parser.add_argument("--coord", required=True)
    parser.add_argument("--dir", required=True, type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--roll-bytes", type=int, default=RollPolicy().bytes_max)
    parser.add_argument("--maintenance-ms", type=int, default=10_000)
    given = parser.parse_args()
    config = HubConfig(
        directory=given.dir.resolve(),
        coord=given.coord,
        host=given.host,
        port=given.port,
        roll=RollPolicy(bytes_max=given.roll_bytes),
        maintenance_interval_ms=given.maintenance_ms,
    )
    failures: list[BaseException] = []
    try:
        trio.run(run, config, strict_exception_groups=True)
    except* _FAILURES as group:
        failures.extend(group.exceptions)
    for failure in failures:
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        sys.stderr.write(f"hub: {failure}\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
