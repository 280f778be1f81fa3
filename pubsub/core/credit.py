"""The delivery window: how much a hub may push before the subscriber asks for more (2.15).

Counted in messages and bytes, granted by the client. A batch is never split, so one may drive the window
below zero once; the deficit is kept. Permits are state of the connection: a reconnect starts from the
client's window.
"""

from typing import Final

CREDIT_MAX: Final = 1 << 40
"""More than this is never outstanding: a hostile grant cannot grow the numbers."""


class CreditWindow:
    """What the hub still may send on one delivery channel."""

    __slots__ = ("bytes", "messages")

    def __init__(self, messages: int = 0, byte_count: int = 0) -> None:
        self.messages = messages
        self.bytes = byte_count

    @property
    def open(self) -> bool:
        """Another batch may be sent."""
        return self.messages > 0 and self.bytes > 0

    def spend(self, messages: int, byte_count: int) -> None:
        """A batch is sent."""
        self.messages -= messages
        self.bytes -= byte_count

    def grant(self, messages: int, byte_count: int) -> None:
        """The client asks for more; negative grants count as none."""
        self.messages = min(self.messages + max(messages, 0), CREDIT_MAX)
        self.bytes = min(self.bytes + max(byte_count, 0), CREDIT_MAX)


class CreditRefill:
    """The client's side: collects what the application has taken and says when to grant it back.

    Refilled at half the window, so a grant costs one small frame for many batches, and the window never runs
    dry while the application keeps up (P5: no deadlock for any window of at least one message).
    """

    __slots__ = ("_bytes", "_messages", "window_bytes", "window_messages")

    def __init__(self, window_messages: int, window_bytes: int) -> None:
        self.window_messages = window_messages
        self.window_bytes = window_bytes
        self._messages = 0
        self._bytes = 0

    def taken(self, messages: int, byte_count: int) -> None:
        """The application has taken these messages."""
        self._messages += messages
        self._bytes += byte_count

    def take_grant(self) -> tuple[int, int] | None:
        """The (messages, bytes) to grant, once half of either window is due; None before."""
        if 2 * self._messages < self.window_messages and 2 * self._bytes < self.window_bytes:
            return None
        grant = (self._messages, self._bytes)
        self._messages = self._bytes = 0
        return grant

    def reset(self) -> None:
        """The window was granted anew, on another connection."""
        self._messages = self._bytes = 0
