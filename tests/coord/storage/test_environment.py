"""One suite over both environments, and what only LMDB can suffer."""

from pathlib import Path

import pytest

from coord.disk import FaultyDisk
from coord.storage import DiskEnvironments, EnvironmentFailedError, Environments, LmdbEnvironments
from coord.storage.environment import META, NODES


@pytest.fixture(params=["lmdb", "disk"])
def environments(request: pytest.FixtureRequest) -> Environments:
    return LmdbEnvironments() if request.param == "lmdb" else DiskEnvironments(FaultyDisk())


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "generation" / "checkpoint")


def key(number: int) -> bytes:
    return number.to_bytes(8, "big")


def test_a_commit_replaces_the_content_for_later_reads_only(environments: Environments, path: str) -> None:
    environment = environments.open(path)
    write = environment.write()
    write.put_many(NODES, [(key(2), b"two"), (key(1), b"one")])
    write.put_many(META, [(b"state", b"s")])
    before = environment.read()
    write.commit()
    after = environment.read()
    assert list(before.items(NODES)) == []
    assert list(after.items(NODES)) == [(key(1), b"one"), (key(2), b"two")]
    assert after.get(META, b"state") == b"s"
    assert after.get(META, b"other") is None
    before.close()
    after.close()
    environment.close()


def test_what_was_committed_is_there_when_opened_again(environments: Environments, path: str) -> None:
    environment = environments.open(path)
    write = environment.write()
    write.put_many(NODES, [(key(n), b"v%d" % n) for n in range(1000)])
    write.remove_many(NODES, [key(5), key(5000)])
    assert write.count(NODES) == 999
    write.commit()
    environment.close()
    environment = environments.open(path)
    read = environment.read()
    found = dict(read.items(NODES))
    read.close()
    environment.close()
    assert found == {key(n): b"v%d" % n for n in range(1000) if n != 5}
    assert environments.probe(path) is None


def test_an_abort_changes_nothing(environments: Environments, path: str) -> None:
    environment = environments.open(path)
    write = environment.write()
    write.put_many(NODES, [(key(1), b"one")])
    write.commit()
    write = environment.write()
    write.remove_many(NODES, [key(1)])
    assert write.count(NODES) == 0
    write.abort()
    read = environment.read()
    assert list(read.items(NODES)) == [(key(1), b"one")]
    read.close()
    environment.close()


def test_lmdb_that_is_no_lmdb_fails_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"no such thing" * 1000)
    with pytest.raises(EnvironmentFailedError, match=str(tmp_path)):
        LmdbEnvironments().open(str(tmp_path))


def test_probe_lets_another_process_find_out(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"no such thing" * 1000)
    problem = LmdbEnvironments().probe(str(tmp_path))
    assert problem is not None
    assert "ended with status" in problem


def test_a_damaged_file_of_the_disk_environment_is_found() -> None:
    disk = FaultyDisk()
    environment = DiskEnvironments(disk).open("/c")
    write = environment.write()
    write.put_many(NODES, [(key(1), b"one")])
    write.commit()
    disk.flip_bit("/c/tables", 77)
    with pytest.raises(EnvironmentFailedError, match="checksum"):
        DiskEnvironments(disk).open("/c")
