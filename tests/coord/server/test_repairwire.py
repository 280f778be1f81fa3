"""What servers say to each other about missing batches: read exactly, and refused where it is not right."""

from collections.abc import Sequence

import pytest
from google_crc32c import value as crc32c

from coord.framing import FrameTooLargeError
from coord.message import MessageError
from coord.protocol.jute import DecodeError
from coord.server.giving import checked
from coord.server.repairing import take
from coord.server.repairwire import Answered, GivenBatch, MessageReader, Standing, Wanted, encode
from coord.zab import Sid, make_zxid
from coord.zab.repair import SPANS_MAX, PeerStanding, Remains, Repair

FIRST = make_zxid(1, 1)
PAYLOAD = b"no batch of the tree's"


class Bytes:
    """A connection that brings these bytes, in pieces of three."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def send_all(self, data: bytes) -> None:
        raise AssertionError

    async def receive_some(self, max_bytes: int) -> bytes:
        piece, self._data = self._data[:3], self._data[3:]
        return piece


async def test_messages_come_as_they_were_sent() -> None:
    said = [
        (Wanted([(1, 2), (5, 9)]), b""),
        (Standing(3, True, False), b""),
        (GivenBatch(1, 2, 3, 4), b"a batch"),
        (Answered([0, 1]), b""),
    ]
    reader = MessageReader(Bytes(b"".join(encode(record, body) for record, body in said)))
    assert [await reader.next() for _ in said] == said
    with pytest.raises(MessageError, match="ends early"):
        await reader.next()


@pytest.mark.parametrize("garbage", [b"\0\0\0\x02ab", b"\0\0\0\x06\0\x63\0\0\0\0", b"\xff" * 20])
async def test_what_is_no_message_is_refused(garbage: bytes) -> None:
    with pytest.raises((MessageError, FrameTooLargeError)):
        await MessageReader(Bytes(garbage)).next()


@pytest.mark.parametrize(
    "spans", [[(5, 9), (1, 2)], [(1, 6), (5, 9)], [(n, n) for n in range(SPANS_MAX + 1)]]
)
def test_a_question_out_of_order_or_too_long_is_refused(spans: Sequence[tuple[int, int]]) -> None:
    with pytest.raises(MessageError, match="spans"):
        checked(Wanted(list(spans)))


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (GivenBatch(0, FIRST, FIRST, crc32c(PAYLOAD) ^ 1), MessageError),
        (GivenBatch(FIRST, FIRST, FIRST, crc32c(PAYLOAD)), MessageError),
        (GivenBatch(0, FIRST, make_zxid(2, 1), crc32c(PAYLOAD)), MessageError),
        (GivenBatch(0, FIRST, FIRST, crc32c(PAYLOAD)), DecodeError),
    ],
)
def test_a_batch_that_is_not_what_it_says_is_not_taken(head: GivenBatch, error: type[Exception]) -> None:
    repair = Repair(Remains(0, {}, FIRST, 0, 0, 0, 1), frozenset({Sid(1)}))
    with pytest.raises(error):
        take(repair, 1, PeerStanding(1, is_whole=True), head, PAYLOAD)
    assert repair.received_bytes == 0
