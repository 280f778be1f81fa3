"""A thread that runs one step after the other: where a write transaction lives from its beginning to its end.

Steps are calls that let go of the GIL within microseconds (LMDB puts of ready bytes, a commit); everything
that needs Python is done before, on the loop.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue

__all__ = ["Steps"]

_PAUSE_S = 100e-6
"""Between two steps. A step's calls let go of the GIL too briefly for the loop to wake up; without a pause
the loop stood still for up to 9 ms while a checkpoint was written."""


class Steps:
    """Runs steps in order, in a thread, or at once where determinism is wanted.

    A step must not raise: it records its failure for whoever waits for the outcome.
    """

    def __init__(self, name: str, *, threaded: bool) -> None:
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        if threaded:
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()

    def do(self, step: Callable[[], None]) -> None:
        if self._thread is None:
            step()
        else:
            self._queue.put(step)

    def close(self) -> None:
        """Run what is queued, then end the thread."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        pause = threading.Event()
        while (step := self._queue.get()) is not None:
            step()
            del step  # or its bytes would live until the next one
            pause.wait(_PAUSE_S)
