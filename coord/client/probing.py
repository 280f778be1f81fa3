"""Asking a server whether it has a quorum, with the four-letter word `isro` (spec 14.4)."""

from collections.abc import Awaitable, Callable

import trio


async def is_writable(
    dial: Callable[[str, int], Awaitable[trio.abc.Stream]], address: tuple[str, int]
) -> bool:
    """Whether the server takes writes; one that cannot be reached does not."""
    answer = b""
    try:
        stream = await dial(*address)
        try:
            await stream.send_all(b"isro")
            while len(answer) < 2 and (data := await stream.receive_some(16)):
                answer += data
        finally:
            await trio.aclose_forcefully(stream)
    except (OSError, trio.BrokenResourceError):
        return False
    return answer.startswith(b"rw")
