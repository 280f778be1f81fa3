"""Which entry of a ledger holds a sequence: entries are batches, so entry ids and sequences drift apart
(2.1).

The owner keeps an `EntryIndex` of the ledger it writes and appends it as a marker when it closes the ledger.
Of any other ledger a `EntrySearch` finds the entry with log2 n reads of entry headers.

    marker body := entries u32 | count of messages u32, one for each entry          little-endian
"""

from array import array
from bisect import bisect_right
from struct import Struct
from sys import byteorder

from pubsub.core.batch import HUB_HEADER_BYTES, KIND_INDEX, encode_hub_header
from pubsub.core.errors import CorruptBatchError

_U32 = Struct("<I")


class EntryIndex:
    """First sequence of each entry of one ledger, in order. Entry k of the ledger is the k-th added."""

    __slots__ = ("_end", "_firsts")

    def __init__(self, first: int) -> None:
        """`first` is the sequence the ledger begins with."""
        self._firsts = array("Q")
        self._end = first

    def __len__(self) -> int:
        return len(self._firsts)

    @property
    def end(self) -> int:
        """The sequence behind the last entry."""
        return self._end

    def add(self, count: int) -> None:
        """One more entry, of `count` messages."""
        self._firsts.append(self._end)
        self._end += count

    def entry_of(self, sequence: int) -> int:
        """The entry that holds `sequence`; the number of entries when it is not there yet."""
        if sequence >= self._end:
            return len(self._firsts)
        assert sequence >= self._firsts[0], f"sequence {sequence} is before {self._firsts[0]}"
        return bisect_right(self._firsts, sequence) - 1

    def encode_marker(self, epoch: int, append_time_ms: int) -> bytes:
        """The marker entry that ends a cleanly closed ledger; it has no sequence (T18)."""
        ends = self._firsts[1:] + array("Q", [self._end])
        counts = array("I", [end - start for start, end in zip(self._firsts, ends, strict=True)])
        if byteorder == "big":
            counts.byteswap()
        body = _U32.pack(len(counts)) + counts.tobytes()
        return encode_hub_header(epoch, self._end, append_time_ms, 0, len(body), KIND_INDEX) + body


def decode_marker(entry: bytes, first: int) -> EntryIndex:
    """The index in a marker entry (its hub header checked) of a ledger that begins with `first`.

    Raises:
        CorruptBatchError: the count does not match the size.
    """
    body = entry[HUB_HEADER_BYTES:]
    if len(body) < 4 or len(body) != 4 + 4 * _U32.unpack_from(body)[0]:
        raise CorruptBatchError(f"index marker of {len(body)} bytes: its count does not match")
    counts = array("I")
    counts.frombytes(body[4:])
    if byteorder == "big":
        counts.byteswap()
    index = EntryIndex(first)
    for count in counts:
        index.add(count)
    return index


class EntrySearch:
    """Binary search for the entry that holds a sequence, one header a step.

    Ask `probe`, read that entry's hub header, report it with `found`, until `probe` is None; `result` is the
    entry.
    """

    __slots__ = ("_high", "_low", "_sequence")

    def __init__(self, sequence: int, last_entry: int) -> None:
        """The ledger has entries 0 to `last_entry`, and entry 0 begins at or below `sequence`."""
        self._sequence = sequence
        self._low = 0
        self._high = last_entry

    @property
    def probe(self) -> int | None:
        """The entry to look at next."""
        return None if self._low >= self._high else (self._low + self._high + 1) // 2

    def found(self, entry: int, first: int) -> None:
        """Entry `entry` begins with sequence `first` (a marker: with the one behind the last)."""
        if first <= self._sequence:
            self._low = entry
        else:
            self._high = entry - 1

    @property
    def result(self) -> int:
        return self._low
