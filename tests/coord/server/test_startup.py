"""Descriptors (a crowd of clients must leave some for log, checkpoint and peers), and directories."""

import os
import resource
from pathlib import Path

import pytest

from coord.reactor import CONNECTIONS_MAX
from coord.server import parse_config
from coord.server.startup import (
    FILES_RESERVED,
    check_directories,
    connections_max,
    connections_wanted,
    raise_file_limit,
)
from coord.storage import DataDirectoryError

Limits = tuple[int, int]


@pytest.mark.parametrize(
    ("soft", "expected"),
    [
        (1024, 1024 - FILES_RESERVED),
        (FILES_RESERVED - 1, 1),
        (1 << 20, CONNECTIONS_MAX),
        (resource.RLIM_INFINITY, CONNECTIONS_MAX),
    ],
)
def test_clients_get_what_the_server_itself_does_not_need(
    monkeypatch: pytest.MonkeyPatch, soft: int, expected: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, resource.RLIM_INFINITY))
    assert connections_max() == expected
    assert connections_max(FILES_RESERVED) == min(FILES_RESERVED, max(1, expected))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ((1024, 4096), [(4096, 4096)]),
        ((1024, resource.RLIM_INFINITY), [(CONNECTIONS_MAX + FILES_RESERVED, resource.RLIM_INFINITY)]),
        ((1 << 20, 1 << 20), []),
    ],
)
def test_the_soft_limit_is_raised_and_never_lowered(
    monkeypatch: pytest.MonkeyPatch, limits: Limits, expected: list[Limits]
) -> None:
    changes: list[Limits] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: changes.append(limits))
    raise_file_limit()
    assert changes == expected


def test_a_disk_that_is_not_mounted_is_no_empty_directory(tmp_path: Path) -> None:
    """`datadir.autocreate=false`."""
    pairs = {"dataDir": str(tmp_path), "dataLogDir": str(tmp_path / "gone")}
    check_directories(parse_config(pairs))
    with pytest.raises(DataDirectoryError, match=r"gone does not exist, and datadir\.autocreate is false"):
        check_directories(parse_config(pairs | {"datadir.autocreate": "false"}))


@pytest.mark.parametrize("key", ["dataDir", "dataLogDir"])
@pytest.mark.parametrize("below", ["", "a/b"])
def test_a_directory_that_is_a_file_or_below_one_is_named_with_its_key(
    tmp_path: Path, key: str, below: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    pairs = {"dataDir": str(tmp_path), key: str(file / below)}
    with pytest.raises(DataDirectoryError, match=f"^{key}: .*/file is not a directory"):
        check_directories(parse_config(pairs))


def test_a_directory_that_may_not_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DataDirectoryError, match=f"^dataDir: {tmp_path} cannot be written"):
        check_directories(parse_config({"dataDir": str(tmp_path / "new")}))


def test_max_cnxns_may_be_more_than_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = connections_wanted(parse_config({"dataDir": "/d", "maxCnxns": "30000"}))
    assert wanted == 30_000
    assert connections_wanted(parse_config({"dataDir": "/d"})) == CONNECTIONS_MAX
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1 << 20, 1 << 20))
    assert connections_max(wanted) == 30_000
