"""What the faulty disk does beyond the conformance suite: it loses, tears, fails and rots exactly as told."""

import errno
import random

import pytest

from coord.disk import DiskFault, FaultyDisk, PowerLossError
from coord.disk.api import DiskFile

ALL = lambda _: True  # noqa: E731
NONE = lambda _: False  # noqa: E731


@pytest.fixture
def disk() -> FaultyDisk:
    disk = FaultyDisk()
    disk.make_directory("/d")
    return disk


def durable_file(disk: FaultyDisk, path: str = "/d/a") -> DiskFile:
    file = disk.open(path, create=True)
    disk.fsync_directory("/d")
    return file


def test_synced_bytes_survive_a_power_loss_and_unsynced_do_not(disk: FaultyDisk) -> None:
    file = durable_file(disk)
    file.pwrite_durable((b"synced",), 0)
    file.pwrite((b"lost",), 6)
    disk.restart(NONE)
    assert disk.content("/d/a") == b"synced"


def test_a_torn_write_keeps_any_of_its_sectors(disk: FaultyDisk) -> None:
    file = durable_file(disk)
    file.pwrite((b"x" * 100 + b"y" * 512 + b"z" * 512,), 412)
    assert disk.unsynced_sectors() == 3
    disk.restart(lambda index: index != 1)
    assert disk.content("/d/a") == bytes(412) + b"x" * 100 + bytes(512) + b"z" * 512


def test_an_unsynced_truncate_may_come_back(disk: FaultyDisk) -> None:
    file = durable_file(disk)
    file.pwrite_durable((b"abcdef",), 0)
    file.truncate(2)
    disk.restart(NONE)
    assert disk.content("/d/a") == b"abcdef"


def test_a_new_name_needs_its_directory_synced(disk: FaultyDisk) -> None:
    disk.open("/d/a", create=True).pwrite_durable((b"abc",), 0)
    disk.restart(ALL, names_kept=0)
    assert disk.list("/d") == []


def test_names_survive_as_a_prefix(disk: FaultyDisk) -> None:
    durable_file(disk, "/d/a")
    durable_file(disk, "/d/b").pwrite_durable((b"b",), 0)
    disk.rename("/d/b", "/d/a")
    disk.open("/d/c", create=True)
    disk.restart(ALL, names_kept=1)
    assert disk.list("/d") == ["a"]
    assert disk.content("/d/a") == b"b"


def test_an_unsynced_unlink_may_come_back(disk: FaultyDisk) -> None:
    durable_file(disk).pwrite_durable((b"abc",), 0)
    disk.unlink("/d/a")
    disk.restart(ALL, names_kept=0)
    assert disk.content("/d/a") == b"abc"


def test_after_a_failed_sync_a_later_success_proves_nothing(disk: FaultyDisk) -> None:
    file = durable_file(disk)
    disk.faults.append(DiskFault("fdatasync", errno.EIO))
    file.pwrite((b"abc",), 0)
    with pytest.raises(OSError) as caught:
        file.fdatasync()
    assert caught.value.errno == errno.EIO
    file.fdatasync()
    assert file.pread(3, 0) == b"abc"
    disk.restart(ALL)
    assert disk.content("/d/a") == b""


def test_a_full_disk_takes_what_fits_and_says_so(disk: FaultyDisk) -> None:
    disk.capacity_bytes = 10
    file = durable_file(disk)
    with pytest.raises(OSError) as caught:
        file.pwrite((b"x" * 16,), 0)
    assert caught.value.errno == errno.ENOSPC
    assert file.size() == 10
    with pytest.raises(OSError):
        file.allocate(0, 20)


def test_faults_choose_operation_path_and_moment(disk: FaultyDisk) -> None:
    first, second = durable_file(disk, "/d/first"), durable_file(disk, "/d/second")
    disk.faults.append(DiskFault("pread", errno.EIO, path_part="second", skip=1))
    first.pread(1, 0)
    second.pread(1, 0)
    with pytest.raises(OSError):
        second.pread(1, 0)
    second.pread(1, 0)


def test_a_misdirected_write_lands_elsewhere_in_silence(disk: FaultyDisk) -> None:
    file = durable_file(disk)
    disk.faults.append(DiskFault("pwrite", misdirect=512))
    file.pwrite((b"abc",), 0)
    assert file.pread(515, 0) == bytes(512) + b"abc"


def test_a_lost_write_is_no_error_and_changes_nothing(disk: FaultyDisk) -> None:
    file = durable_file(disk)
    before = disk.content("/d/a")
    disk.faults.append(DiskFault("pwrite", lost=True))
    file.pwrite_durable((b"xyz",), 0)
    assert disk.content("/d/a") == before
    file.pwrite_durable((b"xyz",), 0)
    assert disk.content("/d/a")[:3] == b"xyz"


def test_power_goes_off_at_a_chosen_change_and_stays_off(disk: FaultyDisk) -> None:
    file = durable_file(disk)
    disk.power_off_after(1)
    file.pwrite((b"a",), 0)
    with pytest.raises(PowerLossError):
        file.pwrite((b"b",), 1)
    with pytest.raises(PowerLossError):
        disk.exists("/d/a")
    disk.restart(ALL)
    assert disk.content("/d/a") == b"a"
    with pytest.raises(PowerLossError, match="before the power loss"):
        file.pread(1, 0)


def test_a_power_loss_releases_locks(disk: FaultyDisk) -> None:
    disk.lock("/d/lock")
    disk.restart(ALL)
    disk.lock("/d/lock")


def test_bits_rot_where_told(disk: FaultyDisk) -> None:
    durable_file(disk).pwrite_durable((b"\0\0",), 0)
    disk.flip_bit("/d/a", 9)
    assert disk.content("/d/a") == b"\0\2"


def test_the_same_seed_loses_the_same(disk: FaultyDisk) -> None:
    def lose(seed: int) -> bytes:
        disk = FaultyDisk()
        disk.make_directory("/d")
        file = durable_file(disk)
        file.pwrite((bytes(range(256)) * 40,), 0)
        disk.restart(random.Random(seed))
        return disk.content("/d/a")

    assert [lose(seed) for seed in range(8)] == [lose(seed) for seed in range(8)]
    assert len({lose(seed) for seed in range(8)}) > 1


def test_a_durable_write_does_not_sync_what_was_written_elsewhere() -> None:
    disk = FaultyDisk()
    file = disk.open("/f", create=True)
    disk.fsync_directory("/")
    file.pwrite((b"a" * 1536,), 0)
    file.pwrite_durable((b"b" * 512,), 512)
    file.pwrite((b"c" * 10,), 2048)
    disk.restart(lambda _: False)
    assert disk.content("/f") == bytes(512) + b"b" * 512


def test_what_a_durable_write_replaces_does_not_come_back() -> None:
    disk = FaultyDisk()
    file = disk.open("/f", create=True)
    disk.fsync_directory("/")
    file.pwrite((b"a" * 1536,), 0)
    file.pwrite_durable((b"b" * 512,), 512)
    disk.restart(lambda _: True)
    assert disk.content("/f") == b"a" * 512 + b"b" * 512 + b"a" * 512


def test_a_durable_write_makes_the_size_durable() -> None:
    disk = FaultyDisk()
    file = disk.open("/f", create=True)
    disk.fsync_directory("/")
    file.pwrite((b"a" * 2000,), 0)
    file.truncate(700)
    file.pwrite_durable((b"b",), 100)
    disk.restart(lambda _: False)
    assert disk.content("/f") == bytes(100) + b"b" + bytes(599)


def test_a_name_goes_with_its_directory_and_can_be_synced_there() -> None:
    disk = FaultyDisk()
    disk.make_directory("/old")
    disk.open("/old/f", create=True).close()
    disk.rename("/old", "/new")
    disk.fsync_directory("/new")
    disk.fsync_directory("/")
    disk.restart(lambda _: True, names_kept=0)
    assert disk.list("/new") == ["f"]


def test_a_name_that_goes_with_its_directory_is_still_not_durable() -> None:
    for names_kept, names in ((0, []), (1, ["f"])):
        disk = FaultyDisk()
        disk.make_directory("/old")
        disk.open("/old/f", create=True).close()
        disk.rename("/old", "/new")
        disk.fsync_directory("/")
        disk.restart(lambda _: True, names_kept=names_kept)
        assert disk.list("/new") == names


def test_what_is_in_a_directory_without_a_name_is_gone() -> None:
    disk = FaultyDisk()
    disk.faults.append(DiskFault("fsync_directory", errno.EIO, skip=1))
    with pytest.raises(OSError, match="Input/output"):
        disk.make_directory("/d")
    disk.open("/d/f", create=True).close()
    disk.fsync_directory("/d")
    disk.restart(ALL, names_kept=0)
    disk.make_directory("/d")
    assert disk.list("/d") == []
