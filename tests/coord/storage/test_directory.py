"""The data directory: locked, its promises kept; what is foreign or not whole is refused with the reason."""

import random

import pytest

from coord.disk import DiskLockedError, FaultyDisk, PowerLossError, read_checked, replace_checked
from coord.storage import DataDirectory, DataDirectoryError, Epochs, ForeignDataError, open_data_directory


def opened(disk: FaultyDisk, log_dir: str | None = None, seed: int = 1) -> DataDirectory:
    source = random.Random(seed)
    return open_data_directory(disk, "/data", log_dir, new_id=lambda: source.randbytes(8))


def touch(disk: FaultyDisk, path: str) -> None:
    disk.make_directory(path.rpartition("/")[0])
    disk.open(path, create=True).pwrite_durable((b"x",), 0)
    disk.fsync_directory(path.rpartition("/")[0])


def test_a_new_directory_gets_a_generation_and_keeps_it(disk: FaultyDisk) -> None:
    first = opened(disk)
    assert first.epochs == Epochs(0, 0)
    first.close()
    again = opened(disk, seed=2)
    assert again.generation == first.generation
    assert disk.exists(again.log_path())


def test_a_second_server_on_the_same_directory_is_refused(disk: FaultyDisk) -> None:
    first = opened(disk, "/logs")
    with pytest.raises(DiskLockedError):
        opened(disk, "/logs")
    with pytest.raises(DiskLockedError):
        open_data_directory(disk, "/other", "/logs")
    first.close()
    opened(disk, "/logs").close()


def test_epochs_are_kept_and_never_go_down(disk: FaultyDisk) -> None:
    """Spec 20.2."""
    directory = opened(disk)
    directory.save_epochs(Epochs(3, 2))
    for lower in (Epochs(2, 2), Epochs(3, 1), Epochs(3, 4)):
        with pytest.raises(ValueError, match="expected epochs from"):
            directory.save_epochs(lower)
    directory.close()
    assert opened(disk).epochs == Epochs(3, 2)


def test_epochs_saved_survive_a_power_loss_and_a_crash_keeps_old_or_new() -> None:
    for step in range(12):
        disk = FaultyDisk()
        directory = opened(disk)
        directory.save_epochs(Epochs(1, 1))
        disk.power_off_after(step)
        saved = True
        try:
            directory.save_epochs(Epochs(2, 1))
        except PowerLossError:
            saved = False
        disk.restart(random.Random(step))
        found = opened(disk).epochs
        assert found == Epochs(2, 1) if saved else found in (Epochs(1, 1), Epochs(2, 1))


def test_a_crash_at_any_step_of_the_first_start_leaves_something_that_starts() -> None:
    for step in range(60):
        disk = FaultyDisk()
        disk.power_off_after(step)
        try:
            opened(disk, "/logs")
        except PowerLossError:
            pass
        disk.restart(random.Random(step))
        opened(disk, "/logs", seed=2).close()
        opened(disk, "/logs", seed=3).close()


def test_damaged_or_missing_epochs_are_never_guessed(disk: FaultyDisk) -> None:
    opened(disk).close()
    disk.flip_bit("/data/zoolog/epochs", 130)
    with pytest.raises(DataDirectoryError, match="epochs"):
        opened(disk)
    disk.unlink("/data/zoolog/epochs")
    with pytest.raises(DataDirectoryError, match="what was promised to peers is lost"):
        opened(disk)


def test_state_without_its_pointer_is_refused(disk: FaultyDisk) -> None:
    directory = opened(disk)
    touch(disk, directory.log_path() + "/txn.0000000000000001")
    directory.close()
    disk.unlink("/data/zoolog/current")
    with pytest.raises(DataDirectoryError, match="current, which names the valid one, is missing"):
        opened(disk)


def test_another_log_directory_than_before_is_refused(disk: FaultyDisk) -> None:
    opened(disk, "/logs").close()
    with pytest.raises(DataDirectoryError, match="was dataLogDir changed"):
        opened(disk, "/elsewhere")


@pytest.mark.parametrize("place", ["/data", "/logs"])
def test_apaches_data_without_ours_is_refused_with_the_way_out(disk: FaultyDisk, place: str) -> None:
    touch(disk, place + "/version-2/log.1")
    with pytest.raises(ForeignDataError, match="zoolog coord import"):
        opened(disk, "/logs")
    assert disk.list(place) == ["version-2"]


def test_apaches_data_beside_ours_is_left_alone(disk: FaultyDisk) -> None:
    opened(disk).close()
    touch(disk, "/data/version-2/log.1")
    opened(disk).close()
    assert disk.exists("/data/version-2/log.1")


def test_switching_generations_removes_the_others_afterwards(disk: FaultyDisk) -> None:
    directory = opened(disk)
    old = directory.generation
    new = directory.new_generation()
    assert directory.generation == old
    directory.switch(new)
    directory.close()
    again = opened(disk)
    assert again.generation == new
    assert disk.list("/data/zoolog") == ["current", "epochs", f"generation-{new}", f"log-{new}"]
    assert old != new


def test_the_feature_level_is_kept_over_restarts_and_switches(disk: FaultyDisk) -> None:
    """And earlier releases, which expect a word or two in `current`, refuse it before they touch anything."""
    directory = opened(disk)
    assert directory.level == 1
    generation = directory.generation
    directory.raise_level(2)
    assert read_checked(disk, "/data/zoolog/current", "zoolog-generation") == (generation, generation, "2")
    directory.close()
    directory = opened(disk, seed=2)
    assert (directory.level, directory.generation, directory.log_generation) == (2, generation, generation)
    following = directory.new_generation()
    directory.switch(following)
    directory.close()
    directory = opened(disk, seed=3)
    assert (directory.level, directory.generation) == (2, following)


@pytest.mark.parametrize("level", ["x", "", "-1", "1234567"])
def test_a_level_that_is_none_is_damage(disk: FaultyDisk, level: str) -> None:
    directory = opened(disk)
    words = (directory.generation, directory.log_generation, level)
    replace_checked(disk, "/data/zoolog/current", "zoolog-generation", words)
    directory.close()
    with pytest.raises(DataDirectoryError, match="feature level"):
        opened(disk)


def test_a_generation_that_never_became_current_is_removed(disk: FaultyDisk) -> None:
    directory = opened(disk)
    unfinished = directory.new_generation()
    directory.close()
    again = opened(disk, seed=2)
    assert again.generation == directory.generation
    assert not disk.exists(again.log_path(unfinished))
