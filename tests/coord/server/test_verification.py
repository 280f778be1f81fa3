"""`verify_directory` finds every kind of damage, with file and offset, and nothing where there is none."""

from pathlib import Path

import pytest

from coord.disk import DiskLockedError
from coord.inspection import Finding, json_to_state, verify_directory
from coord.log.format import FRAME_HEADER_BYTES
from tests.coord.server.operated import operated
from tests.coord.server.test_json_state import EPOCHS, encode_state, varied_tree
from tests.coord.server.wire_client import CREATE, Wire, create


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    """A checkpoint with a log behind it."""
    json_to_state("".join(encode_state(varied_tree(), EPOCHS)), str(tmp_path))
    async with operated(tmp_path) as port, await Wire.session(port) as wire:
        for number in range(10):
            await wire.call(number, CREATE, create(b"/n%d" % number, b"x" * 300))
    return tmp_path


def damage(directory: Path) -> list[Finding]:
    return [one for one in verify_directory(str(directory)) if one.kind == "damage"]


def only(directory: Path, pattern: str) -> Path:
    (found,) = (directory / "zoolog").glob(pattern)
    return found


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


async def test_sound_files_have_nothing_but_good_news(directory: Path) -> None:
    found = list(verify_directory(str(directory)))
    assert {one.kind for one in found} == {"ok"}
    assert [Path(one.path).name.partition(".")[0] for one in found] == (
        ["current", "epochs", "checkpoint", "txn"]
    )
    assert "zxid 0x" in found[2].text


async def test_a_bit_in_the_log_is_found_with_its_offset(directory: Path) -> None:
    segment = only(directory, "log-*/txn.*")
    offset = segment.read_bytes().index(b"/n3")
    flip(segment, offset)
    (found,) = damage(directory)[:1]
    assert found.path == str(segment)
    assert found.offset is not None
    assert 0 < offset - found.offset < 4096


def end_of_records(data: bytes) -> int:
    """Where those of the last group end: behind them are zeros, its seal, and zeros written ahead."""
    return len(data.rstrip(b"\0")[:-FRAME_HEADER_BYTES].rstrip(b"\0"))


async def test_a_torn_end_is_no_damage(directory: Path) -> None:
    segment = only(directory, "log-*/txn.*")
    data = segment.read_bytes()
    segment.write_bytes(data[: end_of_records(data) - 3])
    found = [one for one in verify_directory(str(directory)) if one.path == str(segment)]
    assert [one.kind for one in found] == ["note", "ok"]
    assert "will be cut" in found[0].text


async def test_a_bad_end_that_was_written_in_full_is_damage(directory: Path) -> None:
    segment = only(directory, "log-*/txn.*")
    flip(segment, end_of_records(segment.read_bytes()) - 3)
    assert [one.path for one in damage(directory)] == [str(segment)]


async def test_a_bit_in_the_checkpoint_is_found(directory: Path) -> None:
    data = only(directory, "generation-*/checkpoint/data.mdb")
    flip(data, data.read_bytes().index(b"/container"))
    assert damage(directory)[0].path.endswith("checkpoint")


@pytest.mark.parametrize("name", ["current", "epochs"])
async def test_small_files_are_checked(directory: Path, name: str) -> None:
    flip(directory / "zoolog" / name, 20)
    assert damage(directory)[0].path.endswith(name)


async def test_a_log_that_does_not_lead_on_from_the_checkpoint_is_damage(directory: Path) -> None:
    data = only(directory, "generation-*/checkpoint")
    for file in data.iterdir():
        file.unlink()
    data.rmdir()
    (found,) = damage(directory)
    assert "the log begins after" in found.text


async def test_a_running_server_is_left_alone(tmp_path: Path) -> None:
    async with operated(tmp_path):
        with pytest.raises(DiskLockedError):
            list(verify_directory(str(tmp_path)))


def test_a_directory_without_a_state_is_damage(tmp_path: Path) -> None:
    (found,) = damage(tmp_path)
    assert "there is no state" in found.text
