"""How a helper thread reports to the loop: an eventfd in the loop's own epoll."""

import os
import threading
from collections.abc import Callable


class Wakeup:
    """Runs a callback in the reactor's next tick, once for any number of `set` calls before it.

    `set` may be called from any thread. What a thread published before `set` is seen by the callback.
    """

    __slots__ = ("_callback", "_is_set", "_lock", "_on_due", "fd")

    def __init__(self, callback: Callable[[], None], on_due: Callable[[Callable[[], None]], None]) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._callback = callback
        self._on_due = on_due
        self._is_set = False
        self._lock = threading.Lock()

    def set(self) -> None:
        """Have the callback run. After `close` this does nothing."""
        # The flag saves the system call when the loop is behind. It is cleared before the callback runs, so
        # whoever finds it set has published early enough.
        if not self._is_set:
            self._is_set = True
            with self._lock:  # a descriptor closed meanwhile may be somebody's file already
                if self.fd >= 0:
                    os.eventfd_write(self.fd, 1)

    def on_event(self, mask: int) -> None:
        """For the reactor: note that the callback is due this tick."""
        os.eventfd_read(self.fd)
        self._is_set = False
        self._on_due(self._callback)

    def close(self) -> None:
        """For the reactor, when it ends."""
        with self._lock:
            fd, self.fd = self.fd, -1
            if fd >= 0:
                os.close(fd)
