"""Why a request got no reply, and whether it may have happened."""

from typing import ClassVar


class RpcError(Exception):
    """A request that got no reply.

    `happened` says whether the other side may have acted on it: False is certainty that it did not, None is
    not known.
    """

    happened: ClassVar[bool | None] = None


class RemoteError(RpcError):
    """The server answered that it did not do it. `code` is from its protocol's own table."""

    happened = False

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} (error {code})" if text else f"error {code}")
        self.code = code
        self.text = text


class LinkClosedError(RpcError):
    """The link ended before the reply came: a request that was sent may or may not have happened."""

    def __init__(self, reason: str, *, was_sent: bool = True) -> None:
        super().__init__(f"link closed: {reason}")
        self.reason = reason
        self.happened = None if was_sent else False  # type: ignore[misc]


class LinkFullError(RpcError):
    """Too much is outstanding on this link; nothing was queued. Wait with `Link.wait_writable`."""

    happened = False


class ConnectError(RpcError):
    """No connection could be made."""

    happened = False
