"""The command `python -m coord.server zoo.cfg`: reads the configuration, serves until a signal, explains
failures.

Exit status: 0 after SIGTERM or SIGINT, 1 when the server cannot run, 2 for a bad configuration; each failure
is one line on standard error. (A disk that fails while serving ends the process with 70,
`coord.log.fail_stop`.)
"""

import signal
import sys
from collections.abc import Sequence

import trio

from coord.disk import DamagedFileError, DiskLockedError
from coord.log import LogDamagedError
from coord.reactor import run_hosted
from coord.server.config import ConfigError, ServerConfig, load_config
from coord.server.lifetime import serve
from coord.server.startup import connections_wanted, raise_file_limit
from coord.storage import DataDirectoryError, RecoveryError
from coord.zab import FeatureLevelError, HistoryConflictError

_EXPECTED = (
    ConfigError,
    DataDirectoryError,
    DamagedFileError,
    DiskLockedError,
    FeatureLevelError,
    HistoryConflictError,
    LogDamagedError,
    OSError,
    RecoveryError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a server; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 1:
        return _fail("usage: python -m coord.server zoo.cfg", 2)
    try:
        config = load_config(arguments[0])
    except ConfigError as error:
        return _fail(str(error), 2)
    raise_file_limit(connections_wanted(config))
    failures: list[BaseException] = []
    try:
        run_hosted(_run, config)
    except* _EXPECTED as group:
        failures = _leaves(group)
    if not failures:
        return 0
    return _fail(_reason(failures[0]), 2 if isinstance(failures[0], ConfigError) else 1)


async def _run(config: ServerConfig) -> None:
    """Serves until SIGTERM or SIGINT."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, config)
            async for _ in signals:
                nursery.cancel_scope.cancel()
                break


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is None and error.strerror:
        return error.strerror
    return str(error)


def _fail(text: str, status: int) -> int:
    sys.stderr.write(text.replace("\n", " ") + "\n")
    return status
