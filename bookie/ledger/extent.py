"""The extent: a run of consecutive entries of one ledger, the same bytes on the wire, on disk and in answers.

    extent  = head | seal | lengths | digests | payloads                            all integers little-endian
    head    = "zlx1" | u8 seal kind | u8 0 | u16 0 | u64 ledger id | u64 first entry id | i64 LAC
              | u64 base length | u32 count | u32 payload bytes                           48 bytes
    seal    = CRC32C (u32), or HMAC-SHA256 (32 bytes), over head, lengths and digests     by seal kind 1 or 2
    lengths = count u32: the size of each payload        digests = count u32: CRC32C of each payload
    slice   = "zls1" | u32 entries skipped | u32 entries held | head | seal | lengths | digests
              | payloads of the entries held

Entry `first + k` has the extent's LAC and the cumulative length `base + lengths[0] + … + lengths[k]` (R-N4).
The LAC is always below the first id (R-N13). The payload digests are made once, by the writer; everybody else
verifies and copies them. Who cuts a CRC extent writes a new head. Who cuts an HMAC extent without its key
leaves head, seal and vectors as the writer made them and wraps them in a slice, so that the seal still holds;
a slice of a CRC extent does not occur and is refused.

Bytes of either form come from disks and peers: `Extent` checks sizes before it looks at anything else, the
seal where it can (a bookie has no HMAC key), and the payloads on request.
"""

import hmac
import struct
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate

import google_crc32c

ENTRY_BYTES_MAX = 4 * 1024 * 1024
"""Largest payload of one entry; checked before an entry id is assigned (R-N11)."""

EXTENT_ENTRIES_MAX = 65_536
"""Most entries in one extent."""

EXTENT_PAYLOAD_BYTES_MAX = ENTRY_BYTES_MAX
"""Most payload bytes in one extent."""

EXTENT_BYTES_MAX = EXTENT_PAYLOAD_BYTES_MAX + 8 * EXTENT_ENTRIES_MAX + 128
"""Largest encoded extent; a frame that carries one is this plus its message header."""

ID_MAX = 2**63 - 1
"""Ledger ids, entry ids and cumulative lengths are 63-bit."""

NO_ENTRY_ID = -1
"""The entry id "none": LAC of an empty ledger."""

_MAGIC = b"zlx1"
_SLICE_MAGIC = b"zls1"
_HEAD = struct.Struct("<4sBBHQQqQII")
_SLICE = struct.Struct("<4sII")
_CRC = struct.Struct("<I")
_BIG_ENDIAN = sys.byteorder == "big"
_crc32c: Callable[[bytes], int] = google_crc32c.value


class SealKind(IntEnum):
    """What closes head and vectors of an extent; fixed per ledger in its metadata."""

    CRC32C = 1
    HMAC_SHA256 = 2


_SEAL_BYTES = {SealKind.CRC32C: 4, SealKind.HMAC_SHA256: 32}


class ExtentError(ValueError):
    """Bytes that are not a valid extent: truncated, inconsistent, or failing a digest. Nothing was stored."""


@dataclass(frozen=True, slots=True)
class Sealer:
    """Makes and checks seals: CRC32C needs no key, HMAC-SHA256 uses the ledger's digest key."""

    kind: SealKind = SealKind.CRC32C
    key: bytes = b""

    def seal(self, head: bytes, lengths: bytes, digests: bytes) -> bytes:
        if self.kind is SealKind.CRC32C:
            return _CRC.pack(google_crc32c.extend(google_crc32c.extend(_crc32c(head), lengths), digests))
        mac = hmac.new(self.key, head, "sha256")
        mac.update(lengths)
        mac.update(digests)
        return mac.digest()


CRC_SEALER = Sealer()


@dataclass(frozen=True, slots=True)
class EncodedExtent:
    """An extent ready to be sent, with what its sender needs to know about it."""

    first_entry_id: int
    count: int
    payload_bytes: int
    data: bytes
    """The encoded extent; the same object goes to every bookie."""
    checksum: int
    """CRC32C of `data`, for the Add message (R-M3)."""

    @property
    def last_entry_id(self) -> int:
        return self.first_entry_id + self.count - 1


def encode_extent(
    ledger_id: int,
    first_entry_id: int,
    lac: int,
    base_length: int,
    payloads: Sequence[bytes],
    sealer: Sealer = CRC_SEALER,
    digests: "array[int] | None" = None,
) -> EncodedExtent:
    """Encode payloads as one extent; the payload bytes are copied once, into the result.

    Args:
        lac: the sender's LAC; lowered here to `first_entry_id - 1` where it is higher (R-N13).
        base_length: payload bytes of the ledger before the first entry.
        digests: CRC32C of each payload where they are known (a re-cut); computed otherwise.

    Raises:
        ExtentError: no entry, too many, or more payload bytes than an extent may hold.
    """
    count = len(payloads)
    lengths = array("I", map(len, payloads))
    payload_bytes = sum(lengths)
    if not 0 < count <= EXTENT_ENTRIES_MAX or payload_bytes > EXTENT_PAYLOAD_BYTES_MAX:
        raise ExtentError(f"{count} entries of {payload_bytes} bytes do not make one extent")
    if digests is None:
        digests = array("I", map(_crc32c, payloads))
    lac = min(lac, first_entry_id - 1)
    head = _HEAD.pack(
        _MAGIC, sealer.kind, 0, 0, ledger_id, first_entry_id, lac, base_length, count, payload_bytes
    )  # fmt: skip
    length_bytes = _to_bytes(lengths)
    digest_bytes = _to_bytes(digests)
    seal = sealer.seal(head, length_bytes, digest_bytes)
    data = b"".join((head, seal, length_bytes, digest_bytes, *payloads))
    return EncodedExtent(first_entry_id, count, payload_bytes, data, _crc32c(data))


class Extent:
    """A decoded extent (or slice): who, which ids, and views of the payloads; nothing is copied to look.

    After construction every size is consistent, ids and lengths are in range, LAC is below the first id, and
    the seal holds if it is a CRC. `verify_seal` checks an HMAC, `verify_payloads` the payload digests.

    Attributes:
        ledger_id, first_entry_id, count, lac: of the entries held here (a slice: of the slice).
        base_length: payload bytes of the ledger before `first_entry_id`.
        lengths, digests: of the entries held here.
        payload_bytes: of the entries held here.
        size: encoded bytes, so that extents run together can be walked.
    """

    __slots__ = (
        "_head_end", "_head_start", "_payload_start", "base_length", "buffer", "count", "digests",
        "first_entry_id", "kind", "lac", "ledger_id", "lengths", "offset", "payload_bytes", "size",
    )  # fmt: skip

    _head_start: int
    _head_end: int
    _payload_start: int

    def __init__(self, buffer: bytes | memoryview, offset: int = 0) -> None:
        """Decode the extent that begins at `offset` of `buffer`; bytes behind its end are not looked at.

        Raises:
            ExtentError: the bytes there are not an extent.
        """
        self.buffer = memoryview(buffer)
        self.offset = offset
        skip, take, start = 0, None, offset
        if bytes(self.buffer[offset : offset + 4]) == _SLICE_MAGIC:
            if len(self.buffer) < offset + _SLICE.size:
                raise ExtentError(f"slice at {offset} ends inside its head")
            _, skip, take = _SLICE.unpack_from(self.buffer, offset)
            start = offset + _SLICE.size
        self._decode_head(start)
        if take is not None:
            self._narrow(skip, take)
        self.size = self._payload_start + self.payload_bytes - offset
        if len(self.buffer) < offset + self.size:
            raise ExtentError(
                f"extent at {offset}: {self.size} bytes expected, {len(self.buffer) - offset} there"
            )

    @property
    def last_entry_id(self) -> int:
        return self.first_entry_id + self.count - 1

    @property
    def end_length(self) -> int:
        """Cumulative payload bytes of the ledger including this extent's last entry."""
        return self.base_length + self.payload_bytes

    @property
    def data(self) -> memoryview:
        """The encoded bytes."""
        return self.buffer[self.offset : self.offset + self.size]

    @property
    def is_slice(self) -> bool:
        return self._head_start != self.offset

    @property
    def payload_offset(self) -> int:
        """Where the payloads begin, counted from the beginning of the extent."""
        return self._payload_start - self.offset

    def length_at(self, entry_id: int) -> int:
        """Cumulative payload bytes of the ledger up to and including `entry_id`."""
        return self.base_length + sum(self.lengths[: entry_id - self.first_entry_id + 1])

    def payloads(self) -> list[bytes]:
        """The payloads as bytes, unverified; see `verify_payloads`."""
        data = bytes(self.buffer[self._payload_start : self._payload_start + self.payload_bytes])
        ends = list(accumulate(self.lengths))
        return [data[end - length : end] for end, length in zip(ends, self.lengths, strict=True)]

    def verified_payloads(self) -> list[bytes]:
        """The payloads up to the first that does not match its digest (5.5: truncate before it)."""
        payloads = self.payloads()
        digests = array("I", map(_crc32c, payloads))
        if digests == self.digests:
            return payloads
        bad = next(k for k in range(self.count) if digests[k] != self.digests[k])
        return payloads[:bad]

    def verify_payloads(self) -> None:
        """Check every payload against its digest.

        Raises:
            ExtentError: one does not match; names the entry.
        """
        good = len(self.verified_payloads())
        if good < self.count:
            raise ExtentError(
                f"ledger {self.ledger_id} entry {self.first_entry_id + good}: payload digest differs"
            )

    def verify_seal(self, sealer: Sealer) -> None:
        """Check kind and seal, which an HMAC extent needs before any of it is believed.

        Raises:
            ExtentError: another kind than the ledger's, or the seal does not hold.
        """
        if self.kind is not sealer.kind:
            raise ExtentError(
                f"ledger {self.ledger_id}: seal kind {self.kind.name}, expected {sealer.kind.name}"
            )
        if self.kind is SealKind.CRC32C:
            return  # checked by the constructor
        head_end, vectors = self._head_start + _HEAD.size, self._head_end
        count = _HEAD.unpack_from(self.buffer, self._head_start)[8]
        middle = vectors + 4 * count
        seal = sealer.seal(
            bytes(self.buffer[self._head_start : head_end]),
            bytes(self.buffer[vectors:middle]),
            bytes(self.buffer[middle : middle + 4 * count]),
        )
        if not hmac.compare_digest(seal, bytes(self.buffer[head_end:vectors])):
            raise ExtentError(f"ledger {self.ledger_id} entry {self.first_entry_id}: HMAC differs")

    def cut(self, first_entry_id: int, last_entry_id: int) -> bytes:
        """These entries alone, as an extent of their own; the whole extent comes back as it is.

        A CRC extent gets a new head after its payloads were verified; an HMAC extent becomes a slice.

        Raises:
            ExtentError: a payload to be kept does not match its digest.
        """
        assert self.first_entry_id <= first_entry_id <= last_entry_id <= self.last_entry_id
        if first_entry_id == self.first_entry_id and last_entry_id == self.last_entry_id:
            return bytes(self.data)
        if self.kind is SealKind.CRC32C:
            return self.rewrite(first_entry_id, last_entry_id, self.lac, CRC_SEALER).data
        low, high = first_entry_id - self.first_entry_id, last_entry_id + 1 - self.first_entry_id
        begin = self._payload_start + sum(self.lengths[:low])
        end = begin + sum(self.lengths[low:high])
        whole_first: int = _HEAD.unpack_from(self.buffer, self._head_start)[5]
        whole_count: int = _HEAD.unpack_from(self.buffer, self._head_start)[8]
        return b"".join(
            (
                _SLICE.pack(_SLICE_MAGIC, first_entry_id - whole_first, high - low),
                self.buffer[self._head_start : self._head_end + 8 * whole_count],
                self.buffer[begin:end],
            )
        )

    def rewrite(self, first_entry_id: int, last_entry_id: int, lac: int, sealer: Sealer) -> EncodedExtent:
        """These entries with another LAC, for who holds the ledger's key: recovery writes LAC0 (R-F8).

        Payloads, digests and cumulative lengths stay those of the writer (R-N5).

        Raises:
            ExtentError: a payload to be kept does not match its digest.
        """
        low, high = first_entry_id - self.first_entry_id, last_entry_id + 1 - self.first_entry_id
        payloads = self.verified_payloads()
        if len(payloads) < high:
            bad = self.first_entry_id + len(payloads)
            raise ExtentError(f"ledger {self.ledger_id} entry {bad}: payload digest differs")
        base_length = self.base_length + sum(self.lengths[:low])
        return encode_extent(
            self.ledger_id,
            first_entry_id,
            lac,
            base_length,
            payloads[low:high],
            sealer,
            self.digests[low:high],
        )

    def _decode_head(self, start: int) -> None:
        if len(self.buffer) < start + _HEAD.size:
            raise ExtentError(f"extent at {start} ends inside its head")
        magic, kind, zero, zeros, ledger_id, first, lac, base, count, payload_bytes = _HEAD.unpack_from(
            self.buffer, start
        )
        if magic != _MAGIC or zero or zeros or kind not in (1, 2):
            raise ExtentError(f"no extent at {start}: {bytes(self.buffer[start : start + 8]).hex()}")
        if not 0 < count <= EXTENT_ENTRIES_MAX or payload_bytes > EXTENT_PAYLOAD_BYTES_MAX:
            raise ExtentError(f"extent at {start}: {count} entries of {payload_bytes} bytes")
        if ledger_id > ID_MAX or first + count > ID_MAX or base + payload_bytes > ID_MAX:
            raise ExtentError(
                f"extent at {start}: ledger {ledger_id}, entry {first}, length {base} out of range"
            )
        if not NO_ENTRY_ID <= lac < first:
            raise ExtentError(f"ledger {ledger_id} entry {first}: LAC {lac} is not below it")
        self.kind = SealKind(kind)
        vectors = start + _HEAD.size + _SEAL_BYTES[self.kind]
        middle = vectors + 4 * count
        end = middle + 4 * count
        if len(self.buffer) < end:
            raise ExtentError(f"ledger {ledger_id} entry {first}: ends inside its vectors")
        length_bytes, digest_bytes = self.buffer[vectors:middle], self.buffer[middle:end]
        if self.kind is SealKind.CRC32C:
            seal = CRC_SEALER.seal(
                bytes(self.buffer[start : start + _HEAD.size]), bytes(length_bytes), bytes(digest_bytes)
            )
            if seal != self.buffer[start + _HEAD.size : vectors]:
                raise ExtentError(f"ledger {ledger_id} entry {first}: CRC of head and vectors differs")
        self.lengths = _from_bytes(length_bytes)
        self.digests = _from_bytes(digest_bytes)
        if sum(self.lengths) != payload_bytes:
            raise ExtentError(f"ledger {ledger_id} entry {first}: lengths do not add up to {payload_bytes}")
        self.ledger_id: int = ledger_id
        self.first_entry_id: int = first
        self.lac: int = lac
        self.base_length: int = base
        self.count: int = count
        self.payload_bytes: int = payload_bytes
        self._head_start = start
        self._head_end = vectors
        self._payload_start = end

    def _narrow(self, skip: int, take: int) -> None:
        if self.kind is SealKind.CRC32C or not 0 < take <= self.count - skip:
            raise ExtentError(
                f"ledger {self.ledger_id}: slice of {take} after {skip} of {self.count} entries"
            )
        self.base_length += sum(self.lengths[:skip])
        self.first_entry_id += skip
        self.count = take
        self.lengths = self.lengths[skip : skip + take]
        self.digests = self.digests[skip : skip + take]
        self.payload_bytes = sum(self.lengths)


def iterate_extents(body: bytes | memoryview) -> Iterator[Extent]:
    """The extents run together in `body`, as an answer to a read carries them.

    Raises:
        ExtentError: at the first place that is not an extent; those before it were yielded.
    """
    view = memoryview(body)
    offset = 0
    while offset < len(view):
        extent = Extent(view, offset)
        yield extent
        offset += extent.size


def _to_bytes(vector: "array[int]") -> bytes:
    if _BIG_ENDIAN:
        vector = vector[:]
        vector.byteswap()
    return vector.tobytes()


def _from_bytes(data: memoryview) -> "array[int]":
    vector = array("I")
    vector.frombytes(data)
    if _BIG_ENDIAN:
        vector.byteswap()
    return vector
