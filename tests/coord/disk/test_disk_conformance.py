"""One suite over the real disk, with its cache and past it, and the faulty one: what the logs rely on holds
on all.
"""

import errno
import fcntl
import itertools
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from coord.disk import Disk, DiskFile, DiskLockedError, FaultyDisk, RealDisk


class DirectDisk(RealDisk):
    """All files bypass the cache."""

    def open(self, path: str, *, writable: bool = True, create: bool = False) -> DiskFile:
        file = super().open(path, writable=writable, create=create)
        file.bypass_cache()
        return file


KINDS: dict[str, Callable[[], Disk]] = {"real": RealDisk, "direct": DirectDisk, "faulty": FaultyDisk}


@pytest.fixture(params=list(KINDS))
def disk(request: pytest.FixtureRequest) -> Disk:
    return KINDS[request.param]()


@pytest.fixture
def directory(disk: Disk, tmp_path: Path) -> str:
    disk.make_directory(str(tmp_path))
    return str(tmp_path)


def raises_errno(number: int, call: Callable[[], object]) -> None:
    with pytest.raises(OSError) as caught:
        call()
    assert caught.value.errno == number


def write(disk: Disk, path: str, data: bytes) -> None:
    file = disk.open(path, create=True)
    file.pwrite_durable((data,), 0)
    file.close()


def test_reads_back_what_was_written_in_parts(disk: Disk, directory: str) -> None:
    file = disk.open(directory + "/a", create=True)
    file.pwrite([b"one", b"", b"two"], 0)
    file.pwrite_durable((b"three",), 6)
    assert file.pread(11, 0) == b"onetwothree"
    assert file.pread(3, 3) == b"two"
    assert file.size() == 11


def test_a_read_past_the_end_is_short(disk: Disk, directory: str) -> None:
    write(disk, directory + "/a", b"abc")
    file = disk.open(directory + "/a", writable=False)
    assert file.pread(10, 1) == b"bc"
    assert file.pread(10, 3) == b""


def test_a_write_past_the_end_leaves_zeros_between(disk: Disk, directory: str) -> None:
    file = disk.open(directory + "/a", create=True)
    file.pwrite((b"x",), 3)
    assert file.pread(4, 0) == b"\0\0\0x"


def test_many_parts_are_one_write(disk: Disk, directory: str) -> None:
    file = disk.open(directory + "/a", create=True)
    file.pwrite_durable([b"%04d" % number for number in range(3000)], 0)
    assert file.pread(8, 4 * 2998) == b"29982999"


@pytest.mark.parametrize("sectors", [1, 7, 2049, 5000])
def test_whole_sectors_and_parts_of_some_are_written_alike(sectors: int, disk: Disk, directory: str) -> None:
    data = random.Random(sectors).randbytes(512 * sectors)
    cuts = [0, 1, 100, 511, len(data)]
    file = disk.open(directory + "/a", create=True)
    file.pwrite_durable((bytes(4096),), 0)
    file.pwrite_durable([data[start:end] for start, end in itertools.pairwise(cuts)], 4096)
    file.pwrite_durable((b"odd",), 4096 + len(data))
    file.pwrite((b"cached",), 0)
    expected = b"cached".ljust(4096, b"\0") + data + b"odd"
    assert file.pread(len(expected) + 1, 0) == expected
    file.close()
    assert disk.open(directory + "/a", writable=False).pread(len(expected) + 1, 0) == expected


def test_what_cannot_be_written_past_the_cache_is_written_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[int] = []
    its_own = os.pwritev

    def pwritev(fd: int, parts: Sequence[bytes], offset: int, flags: int) -> int:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            refused.append(fd)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return its_own(fd, parts, offset, flags)

    monkeypatch.setattr(os, "pwritev", pwritev)
    file = DirectDisk().open(str(tmp_path / "a"), create=True)
    file.pwrite_durable((b"a" * 512,), 0)
    file.pwrite_durable((b"b" * 512,), 512)
    assert file.pread(1024, 0) == b"a" * 512 + b"b" * 512
    assert len(refused) <= 1  # asked once; never by a file system that has no such files


def test_truncate_cuts_and_extends_with_zeros(disk: Disk, directory: str) -> None:
    file = disk.open(directory + "/a", create=True)
    file.pwrite((b"abcdef",), 0)
    file.truncate(2)
    assert file.size() == 2
    file.truncate(4)
    assert file.pread(9, 0) == b"ab\0\0"


def test_allocate_grows_and_reads_as_zeros(disk: Disk, directory: str) -> None:
    file = disk.open(directory + "/a", create=True)
    file.pwrite((b"ab",), 0)
    file.allocate(0, 8)
    assert file.pread(9, 0) == b"ab" + bytes(6)
    file.allocate(0, 4)
    assert file.size() == 8


def test_open_names_what_is_wrong(disk: Disk, directory: str) -> None:
    raises_errno(errno.ENOENT, lambda: disk.open(directory + "/none"))
    write(disk, directory + "/a", b"")
    raises_errno(errno.EEXIST, lambda: disk.open(directory + "/a", create=True))
    raises_errno(errno.ENOENT, lambda: disk.open(directory + "/no/a", create=True))


def test_a_file_opened_for_reading_refuses_writes(disk: Disk, directory: str) -> None:
    write(disk, directory + "/a", b"abc")
    file = disk.open(directory + "/a", writable=False)
    raises_errno(errno.EBADF, lambda: file.pwrite((b"x",), 0))


def test_a_closed_file_refuses_everything(disk: Disk, directory: str) -> None:
    file = disk.open(directory + "/a", create=True)
    file.close()
    file.close()
    raises_errno(errno.EBADF, lambda: file.pread(1, 0))


def test_lists_names_sorted_and_only_its_own(disk: Disk, directory: str) -> None:
    disk.make_directory(directory + "/d/e")
    for name in ("b", "a", "d/c"):
        write(disk, f"{directory}/{name}", b"")
    assert disk.list(directory) == ["a", "b", "d"]
    assert disk.list(directory + "/d") == ["c", "e"]
    raises_errno(errno.ENOENT, lambda: disk.list(directory + "/none"))


def test_make_directory_is_idempotent_but_not_over_a_file(disk: Disk, directory: str) -> None:
    disk.make_directory(directory + "/x/y")
    disk.make_directory(directory + "/x/y")
    assert disk.exists(directory + "/x/y")
    write(disk, directory + "/f", b"")
    with pytest.raises(OSError):
        disk.make_directory(directory + "/f")


def test_rename_replaces_and_moves_directories_whole(disk: Disk, directory: str) -> None:
    write(disk, directory + "/a", b"new")
    write(disk, directory + "/b", b"old")
    disk.rename(directory + "/a", directory + "/b")
    assert disk.list(directory) == ["b"]
    assert disk.open(directory + "/b").pread(9, 0) == b"new"
    disk.make_directory(directory + "/d")
    write(disk, directory + "/d/f", b"f")
    disk.rename(directory + "/d", directory + "/e")
    assert disk.list(directory + "/e") == ["f"]
    raises_errno(errno.ENOENT, lambda: disk.rename(directory + "/no", directory + "/x"))


def test_an_unlinked_file_can_still_be_read_by_who_has_it_open(disk: Disk, directory: str) -> None:
    write(disk, directory + "/a", b"abc")
    file = disk.open(directory + "/a")
    disk.unlink(directory + "/a")
    assert not disk.exists(directory + "/a")
    assert file.pread(3, 0) == b"abc"
    raises_errno(errno.ENOENT, lambda: disk.unlink(directory + "/a"))


def test_remove_tree_removes_all_and_forgives_nothing_there(disk: Disk, directory: str) -> None:
    disk.make_directory(directory + "/d/e")
    write(disk, directory + "/d/e/f", b"")
    write(disk, directory + "/dd", b"")
    disk.remove_tree(directory + "/d")
    disk.remove_tree(directory + "/d")
    assert disk.list(directory) == ["dd"]


def test_a_lock_is_exclusive_until_released(disk: Disk, directory: str) -> None:
    lock = disk.lock(directory + "/lock")
    with pytest.raises(DiskLockedError, match="another server"):
        disk.lock(directory + "/lock")
    lock.release()
    disk.lock(directory + "/lock").release()


def test_tells_free_bytes(disk: Disk, directory: str) -> None:
    assert disk.free_bytes(directory) > 0


def test_a_directory_may_be_named_by_one_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    RealDisk().make_directory("data")
    RealDisk().make_directory("logs/deep")
    assert (tmp_path / "data").is_dir()
    assert (tmp_path / "logs" / "deep").is_dir()
