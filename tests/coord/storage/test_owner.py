"""A data directory is one member's: its promises are not believed of another."""

import pytest

from coord.disk import DamagedFileError, FaultyDisk
from coord.storage import (
    DataDirectory,
    DataDirectoryError,
    Owner,
    bind_directory,
    open_data_directory,
    read_owner,
)

ONE = Owner(1, "my zoo/1")


def bound(disk: FaultyDisk, owner: Owner, data_dir: str = "/data") -> None:
    directory: DataDirectory = open_data_directory(disk, data_dir)
    try:
        bind_directory(directory, owner)
    finally:
        directory.close()


def test_a_member_takes_a_directory_without_an_owner_and_keeps_it(disk: FaultyDisk) -> None:
    """New, of a standalone server, or of a release that wrote no owner down."""
    assert read_owner(disk, "/data/zoolog") is None
    bound(disk, ONE)
    assert read_owner(disk, "/data/zoolog") == ONE
    bound(disk, ONE)


@pytest.mark.parametrize("other", [Owner(2, ONE.ensemble), Owner(1, "zoolog")])
def test_another_member_is_refused_by_name(disk: FaultyDisk, other: Owner) -> None:
    bound(disk, ONE)
    with pytest.raises(DataDirectoryError) as refused:
        bound(disk, other)
    for text in ("/data/zoolog/owner", str(ONE), str(other), "correct dataDir or the id, or remove the file"):
        assert text in str(refused.value)
    disk.unlink("/data/zoolog/owner")
    bound(disk, other)


def test_of_two_directories_that_were_exchanged_neither_is_used(disk: FaultyDisk) -> None:
    two = Owner(2, ONE.ensemble)
    bound(disk, ONE, "/a")
    bound(disk, two, "/b")
    for owner, data_dir in ((ONE, "/b"), (two, "/a")):
        with pytest.raises(DataDirectoryError, match="the directory is that of server"):
            bound(disk, owner, data_dir)


def test_a_damaged_owner_is_nobody(disk: FaultyDisk) -> None:
    bound(disk, ONE)
    disk.flip_bit("/data/zoolog/owner", 100)
    with pytest.raises(DamagedFileError):
        read_owner(disk, "/data/zoolog")
    with pytest.raises(DataDirectoryError, match="if it is that of server 1 of ensemble 'my zoo/1'"):
        bound(disk, ONE)
