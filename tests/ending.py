"""Whoever starts servers must stop them, also when it is itself told to end by a signal.

Servers of tests and benches are in sessions of their own, so that Ctrl-C reaches only who started them, and
are stopped at the end of `with` blocks. SIGTERM's default action runs no such end.
"""

import signal
from types import FrameType

__all__ = ["end_in_order"]


def end_in_order() -> None:
    """From now on SIGTERM and SIGHUP do what Ctrl-C does: KeyboardInterrupt, also where trio runs. To be
    called by the main thread, at the begin of a program.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So a shell starts what it runs in the background; trio too listens only where Python's own is set.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once: the end that it has set off is not to be interrupted
    signal.raise_signal(signal.SIGINT)
