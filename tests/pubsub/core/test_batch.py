"""The columnar batch (DESIGN 6, spec 2.1): round trips, and no damage that is not seen."""

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsub.core import batch
from pubsub.core.batch import (
    BATCH_HEADER_BYTES,
    HUB_HEADER_BYTES,
    decode_batch_header,
    decode_columns,
    decode_hub_header,
    decode_index,
    encode_batch,
    encode_hub_header,
    split_entries,
)
from pubsub.core.errors import CorruptBatchError, MessageTooLargeError, UnsupportedBatchError

PRODUCER = bytes(range(16))

payload_lists = st.lists(st.binary(max_size=40), min_size=1, max_size=30)


@st.composite
def messages(draw: st.DrawFn) -> tuple[list[bytes], list[bytes | None] | None]:
    payloads = draw(payload_lists)
    size = len(payloads)
    keys = draw(st.none() | st.lists(st.none() | st.binary(max_size=20), min_size=size, max_size=size))
    return payloads, keys


def encode(payloads: list[bytes], **options: object) -> bytes:
    return b"".join(encode_batch(PRODUCER, 7, payloads, **options))  # type: ignore[arg-type]


@given(messages(), st.sampled_from([batch.CODEC_PLAIN, batch.CODEC_ZLIB]))
def test_what_is_encoded_is_decoded(
    content: tuple[list[bytes], list[bytes | None] | None], codec: int
) -> None:
    payloads, keys = content
    data = encode(payloads, keys=keys, codec=codec)
    header = decode_batch_header(data)
    assert (header.producer_id, header.sequence, header.count) == (PRODUCER, 7, len(payloads))
    assert header.last_sequence == 7 + len(payloads) - 1
    columns = decode_columns(data, header)
    assert columns.payloads == payloads
    assert columns.keys == keys


@given(payload_lists, st.data())
def test_index_columns_are_readable_without_the_body(payloads: list[bytes], data: st.DataObject) -> None:
    size = len(payloads)
    delays = data.draw(st.lists(st.integers(0, 2**60), min_size=size, max_size=size))
    flags = data.draw(st.lists(st.integers(0, 255), min_size=size, max_size=size))
    keys = [b"k%d" % i for i in range(size)]
    encoded = encode(payloads, keys=keys, deliver_at_ms=delays, flags=flags, codec=batch.CODEC_ZLIB)
    hashes, deliver_at, read_flags = decode_index(encoded, decode_batch_header(encoded))
    assert list(hashes) == [batch.key_hash(key) for key in keys]
    assert list(deliver_at) == delays
    assert list(read_flags) == flags


@given(messages(), st.data())
def test_every_bit_flip_is_refused(
    content: tuple[list[bytes], list[bytes | None] | None], data: st.DataObject
) -> None:
    payloads, keys = content
    damaged = bytearray(encode(payloads, keys=keys))
    bit = data.draw(st.integers(0, len(damaged) * 8 - 1))
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises((CorruptBatchError, UnsupportedBatchError)):
        decode_columns(bytes(damaged), decode_batch_header(bytes(damaged)))


@given(messages(), st.data())
def test_every_truncation_is_refused(
    content: tuple[list[bytes], list[bytes | None] | None], data: st.DataObject
) -> None:
    whole = encode(content[0], keys=content[1])
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(CorruptBatchError):
        decode_batch_header(whole[:cut])


@given(st.binary(max_size=200))
def test_noise_raises_nothing_but_its_own_errors(noise: bytes) -> None:
    for prefix in (b"", b"ZP\x01\x00", b"ZH\x01\x00"):
        with pytest.raises((CorruptBatchError, UnsupportedBatchError)):
            decode_batch_header(prefix + noise)
        with pytest.raises((CorruptBatchError, UnsupportedBatchError)):
            decode_hub_header(prefix + noise)


def forge(payloads: list[bytes], change: object, keys: list[bytes | None] | None = None) -> bytes:
    """A batch with a changed body and a checksum that fits."""
    data = bytearray(encode(payloads, keys=keys))
    change(data)  # type: ignore[operator]
    data[4:8] = google_crc32c.value(bytes(data[:4] + data[8:])).to_bytes(4, "little")
    return bytes(data)


def test_a_hostile_length_vector_is_refused_before_use() -> None:
    def lengthen(data: bytearray) -> None:
        data[BATCH_HEADER_BYTES : BATCH_HEADER_BYTES + 4] = (2**32 - 1).to_bytes(4, "little")

    data = forge([b"abc", b"de"], lengthen)
    with pytest.raises(CorruptBatchError, match="payload lengths sum"):
        decode_columns(data, decode_batch_header(data))


def test_a_hostile_key_length_is_refused_before_use() -> None:
    start = BATCH_HEADER_BYTES + 4 + 4

    def lengthen(data: bytearray) -> None:
        data[start : start + 2] = (60_000).to_bytes(2, "little")

    data = forge([b"abc"], lengthen, keys=[b"k"])
    with pytest.raises(CorruptBatchError, match="key lengths exceed"):
        decode_columns(data, decode_batch_header(data))


def test_a_body_that_unpacks_to_more_than_announced_is_refused() -> None:
    data = bytearray(encode([b"x" * 100_000], codec=batch.CODEC_ZLIB))
    data[48:52] = (1000).to_bytes(4, "little")
    data[4:8] = google_crc32c.value(bytes(data[:4] + data[8:])).to_bytes(4, "little")
    with pytest.raises(CorruptBatchError, match="unpacks to"):
        decode_columns(bytes(data), decode_batch_header(bytes(data)))


def test_a_message_over_the_limit_is_refused_by_the_encoder() -> None:
    with pytest.raises(MessageTooLargeError):
        encode([b"x" * (batch.MESSAGE_BYTES_MAX + 1)])
    with pytest.raises(MessageTooLargeError):
        encode([b"x" * batch.MESSAGE_BYTES_MAX, b"x" * batch.MESSAGE_BYTES_MAX])
    with pytest.raises(MessageTooLargeError):
        encode([b"x"], keys=[b"k" * (batch.KEY_BYTES_MAX + 1)])


@given(
    st.integers(0, 2**64 - 1),
    st.integers(1, 2**63),
    st.integers(0, 2**63),
    st.integers(1, 65_536),
    st.integers(0, 2**32 - 1),
)
def test_hub_header_round_trip(epoch: int, first: int, time_ms: int, count: int, length: int) -> None:
    data = encode_hub_header(epoch, first, time_ms, count, length)
    assert len(data) == HUB_HEADER_BYTES
    header = decode_hub_header(data)
    assert (header.epoch, header.first, header.append_time_ms) == (epoch, first, time_ms)
    assert (header.count, header.length, header.last) == (count, length, first + count - 1)


@given(st.integers(0, HUB_HEADER_BYTES * 8 - 1))
def test_every_bit_flip_in_a_hub_header_is_refused(bit: int) -> None:
    damaged = bytearray(encode_hub_header(3, 10, 1000, 5, 100))
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptBatchError):
        decode_hub_header(bytes(damaged))


def test_a_delivery_is_cut_into_its_entries() -> None:
    one, two = encode([b"a", b"b"]), encode([b"c"])
    data = encode_hub_header(1, 1, 5, 2, len(one)) + one + encode_hub_header(1, 3, 6, 1, len(two)) + two
    entries = split_entries(data)
    assert [(header.first, header.last) for header, _, _ in entries] == [(1, 2), (3, 3)]
    assert [data[start:end] for _, start, end in entries] == [one, two]
    with pytest.raises(CorruptBatchError):
        split_entries(data[:-1])
