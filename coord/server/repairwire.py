"""What a server with a damaged log and a peer say to each other, on a connection of its own (purpose
"repair"): one question, one answer, and the connection ends.

    asker -> giver   Wanted                    which batches
    giver -> asker   Standing                  what its history is worth; then those batches that it has:
                     GivenBatch*               the frame's body is the batch
                     Answered                  the end, and what it would know of and does not have

Frames are those of links. A release that does not know the purpose refuses the connection at its
introduction, and says so; nothing here ever comes to it.
"""

from collections import deque
from typing import Final, cast

from coord.framing import FrameCutter
from coord.message import MessageError, Protocol, message
from coord.server.link import LINK_FRAME_BYTES_MAX, encode_frame, split_frame
from coord.server.peer_tls import ByteStream

RECEIVE_BYTES: Final = 1 << 18


@message(1)
class Wanted:
    """Spans of zxids, as `coord.zab.repair.Span`."""

    spans: list[tuple[int, int]]


@message(2)
class Standing:
    """As `coord.zab.repair.PeerStanding`."""

    current_epoch: int
    is_whole: bool
    is_led: bool


@message(3)
class GivenBatch:
    """A batch that ends within a span, and the CRC32C of its bytes."""

    previous: int
    first: int
    last: int
    crc: int


@message(4)
class Answered:
    """`lacked`: places in `Wanted.spans` of those whose every batch would be known here; `oldest`: what the
    giver's log begins behind.
    """

    lacked: list[int]
    oldest: int = 0


REPAIR_PROTOCOL: Final = Protocol("repair", [Wanted, Standing, GivenBatch, Answered])

RepairMessage = Wanted | Standing | GivenBatch | Answered


def encode(record: RepairMessage, body: bytes = b"") -> bytes:
    code, header = REPAIR_PROTOCOL.encode(record)
    return b"".join(encode_frame(code, header, body))


class MessageReader:
    """What comes over one connection, message by message."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._cutter = FrameCutter(LINK_FRAME_BYTES_MAX)
        self._frames: deque[tuple[bytes, int, int]] = deque()

    async def next(self) -> tuple[RepairMessage, bytes]:
        """The next message and its body.

        Raises:
            MessageError, FrameTooLargeError: it is none of this protocol, or the connection has ended.
            OSError, trio.BrokenResourceError: the connection broke.
        """
        while not self._frames:
            data = await self._stream.receive_some(RECEIVE_BYTES)
            if not data:
                raise MessageError("the connection ends early")
            buffer, frames = self._cutter.cut(bytes(data))
            self._frames.extend((buffer, start, end) for start, end in frames)
        buffer, start, end = self._frames.popleft()
        code, header, body = split_frame(memoryview(buffer), start, end)
        return cast(RepairMessage, REPAIR_PROTOCOL.decode(code, header)), bytes(body)
