"""A bookie's start from what a power loss may leave of real files, those of its LMDB index among them, and of
an index that is being rebuilt (see `tests.recorded_files`).
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bookie.storage.recorded_life import start
from tests.recorded_files import (
    ROOT,
    Recording,
    build_library,
    outcomes_without,
    quick_syncs,
    record_process,
    run,
)

MODULE = "tests.bookie.storage.recorded_life"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recording]:
    directory = tmp_path_factory.mktemp("recorded")
    library = build_library(directory)
    found = {}
    for what in ("life", "rebuild"):
        root = directory / what
        root.mkdir()
        if what == "rebuild":
            subprocess.run([sys.executable, "-m", MODULE, "prepare", str(root)], cwd=ROOT, check=True)
        found[what] = record_process(library, root, ["-m", MODULE, what, str(root)])
    return found


@pytest.mark.parametrize(("what", "share"), [("life", 0.08), ("rebuild", 0.15)])
def test_a_power_loss_at_any_point_leaves_what_was_acknowledged(
    recordings: dict[str, Recording], tmp_path: Path, what: str, share: float
) -> None:
    with quick_syncs():
        assert run(recordings[what], start, tmp_path, states_max=4, seed=1, share=share) > 15


@pytest.mark.soak
@pytest.mark.parametrize("what", ["life", "rebuild"])
def test_many_more_files_after_a_power_loss(
    recordings: dict[str, Recording], tmp_path: Path, what: str
) -> None:
    with quick_syncs():
        assert run(recordings[what], start, tmp_path, states_max=100, seed=2) > 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "syncs"),
    [
        ("life", [("S", "/index/data.mdb$"), ("W", "/index/data.mdb$"), ("S", "/index$")]),
        ("rebuild", [("S", r"/index\.building/data.mdb$"), ("S", r"/index(\.building)?$"), ("S", "^$")]),
    ],
)
def test_a_forgotten_sync_is_found(
    recordings: dict[str, Recording], tmp_path: Path, what: str, syncs: list[tuple[str, str]]
) -> None:
    """Test the tester: without any one of the syncs some files break a promise."""
    assert outcomes_without(MODULE, what, recordings[what], syncs, tmp_path) <= {"found", "died"}
