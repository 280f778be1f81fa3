"""Small files are replaced whole at every crash, and a damaged one is told from an old one."""

import random

import pytest

from coord.disk import (
    DamagedFileError,
    FaultyDisk,
    PowerLossError,
    SavedSession,
    SessionFile,
    read_checked,
    replace_checked,
)


@pytest.fixture
def disk() -> FaultyDisk:
    disk = FaultyDisk()
    disk.make_directory("/d")
    return disk


def test_reads_back_its_words(disk: FaultyDisk) -> None:
    assert read_checked(disk, "/d/f", "kind") is None
    replace_checked(disk, "/d/f", "kind", ("a", "b"))
    replace_checked(disk, "/d/f", "kind", ("c",))
    assert read_checked(disk, "/d/f", "kind") == ("c",)
    assert disk.list("/d") == ["f"]


def test_a_crash_at_any_step_leaves_the_old_or_the_new(disk: FaultyDisk) -> None:
    for seed in range(60):
        disk = FaultyDisk()
        disk.make_directory("/d")
        replace_checked(disk, "/d/f", "kind", ("old",))
        disk.power_off_after(seed % 7)
        acknowledged = True
        try:
            replace_checked(disk, "/d/f", "kind", ("new",))
        except PowerLossError:
            acknowledged = False
        disk.restart(random.Random(seed))
        assert read_checked(disk, "/d/f", "kind") in ((("new",),) if acknowledged else (("old",), ("new",)))
        replace_checked(disk, "/d/f", "kind", ("next",))
        assert read_checked(disk, "/d/f", "kind") == ("next",)


def test_every_bit_flip_and_truncation_is_found(disk: FaultyDisk) -> None:
    replace_checked(disk, "/d/f", "kind", ("word",))
    good = disk.content("/d/f")
    for bit in range(len(good) * 8):
        disk.flip_bit("/d/f", bit)
        with pytest.raises(DamagedFileError, match="/d/f"):
            read_checked(disk, "/d/f", "kind")
        disk.flip_bit("/d/f", bit)
    for length in range(len(good)):
        disk.replace_content("/d/f", good[:length])
        with pytest.raises(DamagedFileError):
            read_checked(disk, "/d/f", "kind")


def test_another_kind_is_refused_by_name(disk: FaultyDisk) -> None:
    replace_checked(disk, "/d/f", "epochs", ("1",))
    with pytest.raises(DamagedFileError, match="expected 'pointer 1', got 'epochs 1'"):
        read_checked(disk, "/d/f", "pointer")


@pytest.mark.parametrize("session_id", [1, 0x7FFF_FFFF_FFFF_FFFF, -1, -(1 << 63)])
def test_a_session_is_kept_for_the_next_start(disk: FaultyDisk, session_id: int) -> None:
    file = SessionFile(disk, "/d")
    assert file.load() is None
    file.save(SavedSession(session_id, bytes(range(16))))
    assert SessionFile(disk, "/d").load() == SavedSession(session_id, bytes(range(16)))
    file.forget()
    file.forget()
    assert file.load() is None


def test_a_damaged_session_file_counts_as_none(disk: FaultyDisk) -> None:
    SessionFile(disk, "/d").save(SavedSession(5, b"p"))
    disk.flip_bit("/d/session", 100)
    assert SessionFile(disk, "/d").load() is None
