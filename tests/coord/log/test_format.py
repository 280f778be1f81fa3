"""The bytes of segments and frames: both directions, bad ones raise or are None, never more."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord.disk import FaultyDisk
from coord.log import LogDamagedError, inspect_segment, open_log
from coord.log.format import (
    HEADER_BLOCK_BYTES,
    SegmentHeader,
    decode_frame_header,
    decode_lengths,
    decode_segment_header,
    encode_frame,
    encode_segment_header,
    has_zero_sector,
    segment_name,
    segment_number,
)

U64 = st.integers(0, (1 << 64) - 1)
U32 = st.integers(0, (1 << 32) - 1)
HEADERS = st.builds(
    SegmentHeader,
    file_id=st.binary(min_size=16, max_size=16),
    number=U64,
    follows_segment=U64,
    follows_offset=U64,
    group=U64,
    previous=U32,
    tag=st.binary(max_size=64),
)


@given(HEADERS)
def test_segment_headers_survive_both_directions(header: SegmentHeader) -> None:
    block = encode_segment_header(header)
    assert len(block) == HEADER_BLOCK_BYTES
    assert decode_segment_header(block, "f") == header


@given(HEADERS, st.integers(0, HEADER_BLOCK_BYTES * 8 - 1))
def test_every_flipped_segment_header_is_refused(header: SegmentHeader, bit: int) -> None:
    block = bytearray(encode_segment_header(header))
    block[bit // 8] ^= 1 << bit % 8
    with pytest.raises(LogDamagedError):
        decode_segment_header(bytes(block), "f")


@given(
    st.binary(min_size=16, max_size=16),
    U64,
    U64,
    U32,
    st.lists(st.binary(max_size=50), max_size=20),
    st.booleans(),
)
def test_frames_survive_both_directions(
    file_id: bytes, position: int, group: int, previous: int, records: list[bytes], halved: bool
) -> None:
    parts = [half for r in records for half in (r[: len(r) // 2], r[len(r) // 2 :])] if halved else records
    frame, header_crc = encode_frame(file_id, position, group, previous, [len(r) for r in records], parts)
    data = b"".join(frame)
    assert len(data) % 512 == 0
    header = decode_frame_header(data, 0, file_id, position)
    assert header is not None
    assert (header.group, header.previous, header.header_crc) == (group, previous, header_crc)
    payload = data[32 : 32 + header.payload_length]
    lengths = decode_lengths(payload, header.records)
    assert lengths is not None
    assert list(lengths) == [len(r) for r in records]
    assert payload[4 * len(records) :] == b"".join(records)
    assert decode_frame_header(data, 0, file_id, position ^ 512) is None
    assert decode_frame_header(data, 0, bytes(16) if file_id != bytes(16) else b"1" * 16, position) is None
    assert decode_frame_header(data[:31], 0, file_id, position) is None


@given(st.lists(st.tuples(st.sampled_from((0, 1)), st.integers(0, 1100)), min_size=1, max_size=12))
def test_a_header_says_whether_a_sector_of_zeros_belongs_there(runs: list[tuple[int, int]]) -> None:
    """However the bytes are spread over records and sectors."""
    parts = [bytes([value]) * length for value, length in runs]
    for given_parts in (parts, [b"".join(parts)]):
        for sealed in (True, False):
            frame, _ = encode_frame(
                bytes(16), 512, 1, 0, list(map(len, given_parts)), given_parts, sealed=sealed
            )
            data = b"".join(frame)
            header = decode_frame_header(data, 0, bytes(16), 512)
            assert header is not None
            zeros = any(not any(data[at : at + 512]) for at in range(0, len(data), 512))
            assert has_zero_sector(data) == zeros
            assert header.has_zero_sector == (sealed and zeros)


def test_lengths_that_do_not_fill_the_payload_are_refused() -> None:
    assert decode_lengths(b"\x01\0\0\0x", 1) is not None
    assert decode_lengths(b"\x02\0\0\0x", 1) is None
    assert decode_lengths(b"\x01\0\0\0x", 2) is None


@pytest.mark.parametrize(
    "name", ["txn", "txn.1", "txn.000000000000000g", "other.0000000000000001", "txn.0000000000000001.new"]
)
def test_other_names_are_not_segments(name: str) -> None:
    assert segment_number("txn", name) is None
    assert segment_number("txn", segment_name("txn", 255)) == 255


def log_of(disk: FaultyDisk) -> str:
    ids = iter([bytes(range(16))] * 9)
    log = open_log(disk, "/log", "txn", tag=b"gen", new_file_id=lambda: next(ids))
    log.write_group([3, 5], [b"one", b"three"])
    log.write_group([4], [b"last"])
    log.close()
    return "/log/" + disk.list("/log")[0]


def test_inspect_shows_header_records_and_what_is_wrong() -> None:
    disk = FaultyDisk()
    path = log_of(disk)
    rows = list(inspect_segment(disk, path))
    assert [row.kind for row in rows] == ["segment", "record", "record", "record"]
    assert rows[0].facts["tag"] == "gen"
    assert [row.payload for row in rows[1:]] == [b"one", b"three", b"last"]
    content = disk.content(path)
    disk.replace_content(path, content + bytes(1024))
    assert [row.kind for row in inspect_segment(disk, path)][-1] == "zeros"
    disk.flip_bit(path, 8 * (len(content) - 476))
    assert [row.kind for row in inspect_segment(disk, path)] == ["segment", "record", "record", "full"]
    disk.replace_content(path, content[:-1])
    disk.flip_bit(path, 8 * (len(content) - 476))
    assert [row.kind for row in inspect_segment(disk, path)] == ["segment", "record", "record", "torn"]
    disk.replace_content(path, content)
    disk.flip_bit(path, 8 * 555)
    rows = list(inspect_segment(disk, path))
    assert [row.kind for row in rows] == ["segment", "damage"]
    assert rows[1].facts["sealed"] == "2 records in 16 bytes"
    disk.flip_bit(path, 8 * 20)
    assert [row.kind for row in inspect_segment(disk, path)] == ["damage"]


def test_the_worked_example_of_the_formats_page_is_what_is_written() -> None:
    text = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
    block = text.split("<!-- segment example -->")[1].split("```")[1]
    expected: dict[int, bytes] = {}
    for line in block.strip().splitlines():
        match = re.match(r"([0-9a-f]{4})  ((?:[0-9a-f]{2} ?)+)", line)
        assert match is not None, line
        expected[int(match[1], 16)] = bytes.fromhex(match[2])
    disk = FaultyDisk()
    content = disk.content(log_of(disk))
    for offset, data in expected.items():
        assert content[offset : offset + len(data)] == data, f"at {offset:04x}"
    shown = bytearray(len(content))
    for offset, data in expected.items():
        shown[offset : offset + len(data)] = data
    assert bytes(shown) == content  # what is not shown is zero


def test_fail_stop_ends_the_process_with_its_own_status() -> None:
    program = "from coord.log import fail_stop; fail_stop(OSError(5, 'Input/output error'), '/log')"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 70
    assert "the disk failed" in result.stderr
