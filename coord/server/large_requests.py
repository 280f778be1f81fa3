"""How many bytes of large requests may be under way at once (specification 15, `largeRequestMaxBytes`)."""

from collections.abc import Callable
from struct import Struct

from coord.server.connection import ClientConnection

_unpack_int = Struct(">i").unpack_from


class LargeRequests:
    """Counts them while they are received; on their way to execution they are counted by who has them.

    Args:
        bytes_min: a longer frame is a large one.
        bytes_max: of large frames at once.
        under_way: bytes of large requests that are received and not executed.
    """

    def __init__(self, bytes_min: int, bytes_max: int, under_way: Callable[[], int]) -> None:
        self._bytes_min = bytes_min
        self._bytes_max = bytes_max
        self._under_way = under_way
        self._receiving: dict[ClientConnection, int] = {}

    def admit(self, client: ClientConnection, data: bytes) -> int:
        """The length of a frame that must not be taken; 0 when all of `data`, which begins with a frame, may.

        The last frame may be incomplete; it counts from the moment its length is known.
        """
        self.forget(client)
        offset, end = 0, len(data)
        taken = 0
        while end - offset >= 4:
            length: int = _unpack_int(data, offset)[0]
            if length > self._bytes_min:
                if taken + length + self._under_way() + sum(self._receiving.values()) > self._bytes_max:
                    return length
                taken += length
            offset += 4 + max(length, 0)
            if offset > end and length > self._bytes_min:
                self._receiving[client] = length
        return 0

    def weigh(self, bodies: list[bytes]) -> int:
        """Bytes of the large ones among them."""
        return sum(size for size in map(len, bodies) if size > self._bytes_min)

    def forget(self, client: ClientConnection) -> None:
        """What was being received has arrived, or the connection has ended."""
        self._receiving.pop(client, None)
