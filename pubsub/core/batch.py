"""The columnar batch: a publisher sends it, a ledger holds it, a subscriber receives it, byte for byte the
same.

All integers little-endian. An entry of a topic's ledger is

    entry     := hub header (40 bytes) | batch                    kind 0, messages
               | hub header (40 bytes) | marker body              kind 1, an index of the ledger, no messages
    hub       := magic "ZH" | version u8 = 1 | kind u8 | bytes after this header u32 | topic epoch u64
               | first sequence u64 | append time ms u64 | count u32 | CRC32C of these 36 bytes u32
    batch     := magic "ZP" | version u8 = 1 | codec u8
               | CRC32C of these 4 bytes and of all that follows u32
               | producer id, 16 bytes | producer sequence of the first message u64 | producer epoch u32
               | count u32 | columns u32 | stored body bytes u32 | plain body bytes u32
               | reserved u32 = 0 | index columns | body
    columns   := [bit 0: key hash u32 each] [bit 1: deliver-at ms u64 each] [bit 2: flags u8 each]
    body      := payload length u32 each | [bit 0: key length + 1 as u16 each, 0 = no key] | keys | payloads

Index columns are never compressed; the body may be (codec 1, zlib). Codecs from 128 on are foreign formats
whose body only their own clients understand. The hub adds its header in front and never looks behind the
index columns. Work is per batch, in C: `array`, `join`, slices; the loops over
messages here are the only ones between two users.
"""

import zlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from struct import Struct
from sys import byteorder
from typing import Final

import google_crc32c

from pubsub.core.errors import CorruptBatchError, MessageTooLargeError, UnsupportedBatchError

KIND_MESSAGES: Final = 0
KIND_INDEX: Final = 1

CODEC_PLAIN: Final = 0
CODEC_ZLIB: Final = 1

COLUMN_KEY_HASHES: Final = 1
COLUMN_DELIVER_AT: Final = 2
COLUMN_FLAGS: Final = 4
_COLUMNS_KNOWN: Final = COLUMN_KEY_HASHES | COLUMN_DELIVER_AT | COLUMN_FLAGS

BATCH_MESSAGES_MAX: Final = 65_536
ENTRY_BYTES_MAX: Final = 4 << 20
"""What a ledger takes as one entry."""
BATCH_BYTES_MAX: Final = ENTRY_BYTES_MAX - 64
"""Bytes of one batch, its header included, before its body is packed."""
MESSAGE_BYTES_MAX: Final = ENTRY_BYTES_MAX - (128 << 10)
KEY_BYTES_MAX: Final = 65_534

_HUB = Struct("<2sBBIQQQII")
_HUB_CHECKED = Struct("<2sBBIQQQI")
_BATCH = Struct("<2sBBI16sQIIIIII")
_BATCH_TAIL = Struct("<16sQIIIIII")
_BATCH_HEAD = Struct("<2sBB")
_U32 = Struct("<I")
HUB_HEADER_BYTES: Final = _HUB.size
BATCH_HEADER_BYTES: Final = _BATCH.size
_CRC_START: Final = _BATCH_HEAD.size
_CRC_END: Final = _CRC_START + _U32.size
_HUB_MAGIC: Final = b"ZH"
_BATCH_MAGIC: Final = b"ZP"


@dataclass(frozen=True, slots=True)
class HubHeader:
    """What the owner wrote in front of a batch.

    Attributes:
        length: bytes behind this header that belong to the entry.
        epoch: of the topic when the batch was appended.
        first: sequence of the first message; message i has first + i.
        append_time_ms: never lower than an earlier batch's (2.1).
    """

    kind: int
    length: int
    epoch: int
    first: int
    append_time_ms: int
    count: int

    @property
    def last(self) -> int:
        """Sequence of the last message; first - 1 for a marker."""
        return self.first + self.count - 1


@dataclass(frozen=True, slots=True)
class BatchHeader:
    """What the publisher wrote; sizes have been checked against the bytes."""

    codec: int
    producer_id: bytes
    sequence: int
    producer_epoch: int
    count: int
    columns: int
    stored_bytes: int
    plain_bytes: int

    @property
    def last_sequence(self) -> int:
        """The producer's own number of the last message."""
        return self.sequence + self.count - 1

    @property
    def index_bytes(self) -> int:
        return index_bytes(self.columns, self.count)


def index_bytes(columns: int, count: int) -> int:
    """Size of the index columns."""
    width = (columns & 1) * 4 + (columns >> 1 & 1) * 8 + (columns >> 2 & 1)
    return width * count


def encode_hub_header(
    epoch: int, first: int, append_time_ms: int, count: int, length: int, kind: int = KIND_MESSAGES
) -> bytes:
    """The 40 bytes in front of an entry."""
    checked = _HUB_CHECKED.pack(_HUB_MAGIC, 1, kind, length, epoch, first, append_time_ms, count)
    return checked + _U32.pack(google_crc32c.value(checked))


def decode_hub_header(data: bytes | memoryview, start: int = 0) -> HubHeader:
    """Read and check the header at `start`; the bytes behind it are not looked at, and may be missing.

    Raises:
        CorruptBatchError: too short, wrong magic or checksum, or a count that its kind cannot have.
        UnsupportedBatchError: a newer version or kind.
    """
    if len(data) - start < HUB_HEADER_BYTES:
        raise CorruptBatchError(f"expected a hub header of {HUB_HEADER_BYTES} bytes, got {len(data) - start}")
    magic, version, kind, length, epoch, first, time_ms, count, crc = _HUB.unpack_from(data, start)
    if magic != _HUB_MAGIC:
        raise CorruptBatchError(f"expected a hub header, got {magic!r} at byte {start}")
    if google_crc32c.value(bytes(data[start : start + HUB_HEADER_BYTES - 4])) != crc:
        raise CorruptBatchError(f"hub header at byte {start}: checksum does not match")
    if version != 1 or kind > KIND_INDEX:
        raise UnsupportedBatchError(
            f"hub header of version {version}, kind {kind}: this program reads 1, 0 and 1"
        )
    if (kind == KIND_MESSAGES) != (count > 0) or count > BATCH_MESSAGES_MAX:
        raise CorruptBatchError(f"hub header at byte {start}: {count} messages in an entry of kind {kind}")
    return HubHeader(kind, length, epoch, first, time_ms, count)


def split_entries(data: bytes | memoryview) -> list[tuple[HubHeader, int, int]]:
    """Cut run-together entries, as a delivery carries them, into (header, start, end of its batch).

    `start` is where the batch begins, behind the hub header.

    Raises:
        CorruptBatchError, UnsupportedBatchError: see `decode_hub_header`; also when an entry is cut short.
    """
    entries = []
    position = 0
    while position < len(data):
        header = decode_hub_header(data, position)
        start = position + HUB_HEADER_BYTES
        position = start + header.length
        if position > len(data):
            raise CorruptBatchError(
                f"entry at {start}: {header.length} bytes announced, {len(data) - start} there"
            )
        entries.append((header, start, position))
    return entries


def encode_batch(
    producer_id: bytes,
    sequence: int,
    payloads: Sequence[bytes],
    *,
    producer_epoch: int = 0,
    keys: Sequence[bytes | None] | None = None,
    deliver_at_ms: Sequence[int] | None = None,
    flags: Sequence[int] | None = None,
    codec: int = CODEC_PLAIN,
) -> tuple[bytes, bytes]:
    """Encode messages as one batch, in two parts to be sent run together.

    Args:
        producer_id: 16 bytes, the same over all batches and retries of one publisher.
        sequence: the publisher's number of the first message; the others follow by one.
        payloads: at least one, at most BATCH_MESSAGES_MAX, each at most MESSAGE_BYTES_MAX bytes.
        keys: one for each payload, None where a message has none.
        deliver_at_ms: wall clock before which a message is not to be delivered, 0 for at once.

    Raises:
        MessageTooLargeError: a message, a key or the whole exceeds its limit.
    """
    count = len(payloads)
    assert 0 < count <= BATCH_MESSAGES_MAX, f"{count} messages in a batch"
    lengths = array("I", map(len, payloads))
    columns = 0
    index: list[bytes] = []
    key_parts: list[bytes] = []
    if keys is not None:
        columns |= COLUMN_KEY_HASHES
        key_parts = _encode_keys(keys, count)
        index.append(_little(array("I", map(key_hash, keys))))
    if deliver_at_ms is not None:
        columns |= COLUMN_DELIVER_AT
        index.append(_little(array("Q", deliver_at_ms)))
    if flags is not None:
        columns |= COLUMN_FLAGS
        index.append(bytes(flags))
    plain_bytes = 4 * count + sum(map(len, key_parts)) + sum(lengths)
    total_bytes = BATCH_HEADER_BYTES + index_bytes(columns, count) + plain_bytes
    if total_bytes > BATCH_BYTES_MAX or max(lengths) > MESSAGE_BYTES_MAX:
        raise MessageTooLargeError(
            f"expected messages of at most {MESSAGE_BYTES_MAX} bytes and batches of {BATCH_BYTES_MAX}, "
            f"got {max(lengths)} and {total_bytes}"
        )
    body: Iterable[bytes] = (_little(lengths), *key_parts, *payloads)
    stored_bytes = plain_bytes
    if codec == CODEC_ZLIB:
        packed = zlib.compress(b"".join(body), 1)
        body, stored_bytes = (packed,), len(packed)
    elif codec != CODEC_PLAIN:
        raise UnsupportedBatchError(f"codec {codec} is not one this program packs")
    tail = _BATCH_TAIL.pack(
        producer_id, sequence, producer_epoch, count, columns, stored_bytes, plain_bytes, 0
    )
    rest = b"".join((tail, *index, *body))
    head = _BATCH_HEAD.pack(_BATCH_MAGIC, 1, codec)
    return head + _U32.pack(google_crc32c.extend(google_crc32c.value(head), rest)), rest


def key_hash(key: bytes | None) -> int:
    """Hash of a key in the index column: CRC32C; 0 stands for no key as well."""
    return 0 if key is None else google_crc32c.value(key)


def decode_batch_header(data: bytes, start: int = 0, end: int | None = None) -> BatchHeader:
    """Read a publisher's header and check checksum and sizes; what only a subscriber needs is not looked at.

    Args:
        data: holds exactly one batch between `start` and `end`.

    Raises:
        CorruptBatchError: too short, wrong magic, checksum, count or sizes.
        UnsupportedBatchError: a newer version, or columns this program does not know.
    """
    end = len(data) if end is None else end
    if end - start < BATCH_HEADER_BYTES:
        raise CorruptBatchError(f"expected a batch header of {BATCH_HEADER_BYTES} bytes, got {end - start}")
    magic, version, codec, crc, producer, sequence, epoch, count, columns, stored, plain, reserved = (
        _BATCH.unpack_from(data, start)
    )
    if magic != _BATCH_MAGIC:
        raise CorruptBatchError(f"expected a batch, got {magic!r}")
    if version != 1 or columns & ~_COLUMNS_KNOWN or reserved:
        raise UnsupportedBatchError(
            f"batch of version {version} with columns {columns:#x}: this program reads 1, 7"
        )
    head_crc = google_crc32c.value(data[start : start + _CRC_START])
    if google_crc32c.extend(head_crc, data[start + _CRC_END : end]) != crc:
        raise CorruptBatchError("batch: checksum does not match")
    if not 0 < count <= BATCH_MESSAGES_MAX:
        raise CorruptBatchError(f"batch of {count} messages: expected 1 to {BATCH_MESSAGES_MAX}")
    if sequence + count > 1 << 63:
        raise CorruptBatchError(f"batch with producer sequence {sequence}")
    expected = BATCH_HEADER_BYTES + index_bytes(columns, count) + stored
    if expected != end - start or plain > BATCH_BYTES_MAX or (codec == CODEC_PLAIN and plain != stored):
        raise CorruptBatchError(
            f"batch: header announces {expected} bytes ({plain} plain), got {end - start}"
        )
    return BatchHeader(codec, producer, sequence, epoch, count, columns, stored, plain)


@dataclass(frozen=True, slots=True)
class Columns:
    """The messages of one batch as columns; `keys` is None when no message of the batch has one."""

    payloads: list[bytes]
    keys: list[bytes | None] | None


def decode_columns(data: bytes, header: BatchHeader, start: int = 0) -> Columns:
    """The payloads and keys of a batch whose header has been checked.

    Raises:
        CorruptBatchError: the vectors contradict the sizes.
        UnsupportedBatchError: packed by a codec this program does not have.
    """
    body_start = start + BATCH_HEADER_BYTES + header.index_bytes
    body, position = data, body_start
    if header.codec == CODEC_ZLIB:
        body, position = (
            _unpack_zlib(data[body_start : body_start + header.stored_bytes], header.plain_bytes),
            0,
        )
    elif header.codec != CODEC_PLAIN:
        raise UnsupportedBatchError(f"codec {header.codec} is not one this program unpacks")
    end = position + header.plain_bytes
    count = header.count
    has_keys = bool(header.columns & COLUMN_KEY_HASHES)
    if header.plain_bytes < count * (6 if has_keys else 4):
        raise CorruptBatchError(f"body of {header.plain_bytes} bytes is too short for {count} messages")
    lengths = _vector("I", body, position, count)
    position += 4 * count
    keys: list[bytes | None] | None = None
    if has_keys:
        key_lengths = _vector("H", body, position, count)
        position += 2 * count
        keys, position = _decode_keys(body, position, end, key_lengths)
    if position + sum(lengths) != end:
        raise CorruptBatchError(f"payload lengths sum to {sum(lengths)}, {end - position} bytes are there")
    payloads = [body[a:b] for a, b in pairwise(accumulate(lengths, initial=position))]
    return Columns(payloads, keys)


def decode_index(data: bytes, header: BatchHeader, start: int = 0) -> "tuple[array[int], array[int], bytes]":
    """The index columns (key hashes, deliver-at, flags) of a checked batch; a missing one is empty."""
    position = start + BATCH_HEADER_BYTES
    hashes, deliver_at = array("I"), array("Q")
    if header.columns & COLUMN_KEY_HASHES:
        hashes = _vector("I", data, position, header.count)
        position += 4 * header.count
    if header.columns & COLUMN_DELIVER_AT:
        deliver_at = _vector("Q", data, position, header.count)
        position += 8 * header.count
    flags = data[position : position + header.count] if header.columns & COLUMN_FLAGS else b""
    return hashes, deliver_at, flags


def _encode_keys(keys: Sequence[bytes | None], count: int) -> list[bytes]:
    assert len(keys) == count, f"{len(keys)} keys for {count} messages"
    present = [key for key in keys if key is not None]
    if present and max(map(len, present)) > KEY_BYTES_MAX:
        raise MessageTooLargeError(
            f"expected keys of at most {KEY_BYTES_MAX} bytes, got one of {max(map(len, present))}"
        )
    return [_little(array("H", [0 if key is None else len(key) + 1 for key in keys])), *present]


def _decode_keys(
    body: bytes, position: int, end: int, lengths: "array[int]"
) -> tuple[list[bytes | None], int]:
    keys: list[bytes | None] = []
    for length in lengths:
        if length == 0:
            keys.append(None)
            continue
        keys.append(body[position : position + length - 1])
        position += length - 1
    if position > end:
        raise CorruptBatchError(f"key lengths exceed the body by {position - end} bytes")
    return keys, position


def _unpack_zlib(packed: bytes, plain_bytes: int) -> bytes:
    """Unpacks at most what the header announced, so that a small batch cannot become a large one."""
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(packed, plain_bytes + 1)
    except zlib.error as error:
        raise CorruptBatchError(f"body does not unpack: {error}") from error
    if len(plain) != plain_bytes or not unpacker.eof:
        raise CorruptBatchError(f"body unpacks to {len(plain)} bytes or more, {plain_bytes} were announced")
    return plain


def _vector(typecode: str, data: bytes, position: int, count: int) -> "array[int]":
    vector: array[int] = array(typecode)
    vector.frombytes(data[position : position + count * vector.itemsize])
    if byteorder == "big":
        vector.byteswap()
    return vector


def _little(vector: "array[int]") -> bytes:
    if byteorder == "big":
        vector.byteswap()
    return vector.tobytes()
