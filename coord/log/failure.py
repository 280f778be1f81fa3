"""The end of a process whose disk failed: after a failed fsync nothing it could still say would be true."""

import os
from typing import NoReturn

from coord import eventlog

__all__ = ["EXIT_STATUS_DISK_FAILED", "fail_stop"]

EXIT_STATUS_DISK_FAILED = 70

_log = eventlog.get("coord.log")


def fail_stop(error: BaseException, what: str) -> NoReturn:
    """Report and leave at once, without clean-up: a clean-up could acknowledge or write something.

    Args:
        what: which file or log failed, for the operator.
    """
    _log.error(
        "the disk failed, stopping at once",
        do="check the device; started again, the server recovers from what is durable",
        what=what,
        error=repr(error),
    )
    os._exit(EXIT_STATUS_DISK_FAILED)
