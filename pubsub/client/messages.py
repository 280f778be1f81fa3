"""What a subscriber gets and a publisher is told: batches decoded when looked at, messages made when iterated
over.
"""

from collections.abc import Iterator
from itertools import repeat
from typing import NamedTuple

from pubsub.core.batch import HUB_HEADER_BYTES, Columns, HubHeader, decode_batch_header, decode_columns


class Receipt(NamedTuple):
    """Messages that are stored durably.

    Attributes:
        first, last: sequences of the first and the last of them in the topic, 0 when no longer known (a
        repeat of a
            batch that was stored long ago). Between them there may be messages of other publishers.
        duplicate: some were stored by an earlier try whose answer was lost; they are stored once.
    """

    first: int
    last: int
    duplicate: bool = False


class Message(NamedTuple):
    """One message.

    Attributes:
        sequence: its number in the topic, from 1 on without holes; a redelivery has the same.
        time_ms: when the topic's hub appended it, in ms since 1970.
    """

    sequence: int
    data: bytes
    key: bytes | None
    time_ms: int


class Batch:
    """Messages as columns, as they were published together. Decoded and checked at the first look.

    Attributes:
        first: sequence of `payloads[0]`; the others follow without holes.
    """

    __slots__ = ("_columns", "_data", "_skip", "_start", "count", "first", "time_ms")

    def __init__(self, header: HubHeader, data: bytes, start: int, skip: int) -> None:
        """The first `skip` messages are not for this subscription."""
        self.first = header.first + skip
        self.count = header.count - skip
        self.time_ms = header.append_time_ms
        self._data = data
        self._start = start
        self._skip = skip
        self._columns: Columns | None = None
        # The bytes behind this batch belong to others: the header announces where it ends.
        if start + header.length != len(data):
            self._data, self._start = data[start : start + header.length], 0

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"<Batch {self.first}..{self.last}>"

    @property
    def last(self) -> int:
        """Sequence of the last message."""
        return self.first + self.count - 1

    @property
    def payloads(self) -> list[bytes]:
        """The messages' data.

        Raises:
            CorruptBatchError: the batch is damaged.
            UnsupportedBatchError: it was packed by a codec this version does not have.
        """
        return self._decode().payloads

    @property
    def keys(self) -> list[bytes | None] | None:
        """Their keys; None when no message of the batch has one. Raises as `payloads`."""
        return self._decode().keys

    def messages(self) -> Iterator[Message]:
        """One object for each message, made as it is taken. Raises as `payloads`, at once."""
        columns = self._decode()
        sequences = range(self.first, self.first + self.count)
        rows = zip(sequences, columns.payloads, columns.keys or repeat(None), repeat(self.time_ms))
        # tuple.__new__ through map stays in C, at half the time of calling Message; and an object that is let
        # go before the next is made costs no round of the garbage collector.
        return map(tuple.__new__, repeat(Message), rows)

    def _decode(self) -> Columns:
        columns = self._columns
        if columns is None:
            header = decode_batch_header(self._data, self._start)
            columns = decode_columns(self._data, header, self._start)
            if self._skip:
                keys = None if columns.keys is None else columns.keys[self._skip :]
                columns = Columns(columns.payloads[self._skip :], keys)
            self._columns = columns
            self._data = b""
        return columns


def entry_bytes(header: HubHeader) -> int:
    """What an entry costs of a delivery window, the same on both sides."""
    return HUB_HEADER_BYTES + header.length
