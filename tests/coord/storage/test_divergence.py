"""What is known of a wrong state outlives restarts, and goes with the state."""

import os
import random

import pytest

from coord.disk import DiskFault, FaultyDisk, PowerLossError
from coord.storage import (
    DataDirectory,
    Divergence,
    forget_divergence,
    note_divergence,
    open_data_directory,
    read_divergence,
)
from coord.storage.divergence import DIVERGED_FILE

FOUND = Divergence(0x100000007, 0x00FF, 0xFFFF_FFFF_FFFF_FFFF)


def opened(disk: FaultyDisk) -> DataDirectory:
    return open_data_directory(disk, "/data")


def test_a_divergence_is_known_after_a_restart(disk: FaultyDisk) -> None:
    directory = opened(disk)
    assert read_divergence(directory) is None
    note_divergence(directory, FOUND)
    directory.close()
    again = opened(disk)
    assert read_divergence(again) == FOUND
    forget_divergence(again)
    assert read_divergence(again) is None
    forget_divergence(again)


def test_it_says_nothing_of_another_generation(disk: FaultyDisk) -> None:
    directory = opened(disk)
    note_divergence(directory, FOUND)
    directory.switch(directory.new_generation())
    directory.close()
    again = opened(disk)
    assert read_divergence(again) is None
    assert not disk.exists(os.path.join(again.root, DIVERGED_FILE))


def test_a_log_that_is_lost_makes_its_checkpoint_no_better(disk: FaultyDisk) -> None:
    directory = opened(disk)
    note_divergence(directory, FOUND)
    directory.lose_history(keep_checkpoint=True)
    directory.close()
    assert read_divergence(opened(disk)) == FOUND


@pytest.mark.parametrize("content", [b"", b"zoolog-diverged 1 a b c d 00000000\n", b"\0" * 90])
def test_a_damaged_file_is_taken_for_a_divergence(disk: FaultyDisk, content: bytes) -> None:
    directory = opened(disk)
    note_divergence(directory, FOUND)
    disk.replace_content(os.path.join(directory.root, DIVERGED_FILE), content)
    assert read_divergence(directory) == Divergence()
    disk.faults.append(DiskFault("pread", 5))
    with pytest.raises(OSError):
        read_divergence(directory)


def test_a_power_loss_leaves_it_noted_or_not(disk: FaultyDisk) -> None:
    outcomes = set()
    for step in range(8):
        disk = FaultyDisk()
        directory = opened(disk)
        disk.power_off_after(step)
        try:
            note_divergence(directory, FOUND)
            noted = True
        except PowerLossError:
            noted = False
        disk.restart(random.Random(step))
        found = read_divergence(opened(disk))
        assert found in (FOUND, None)
        assert found == FOUND or not noted
        outcomes.add(noted)
    assert outcomes == {True, False}
