"""Recovery from what a power loss may leave of real files, LMDB's among them (see `tests.recorded_files`).

LMDB writes the pages of a transaction, syncs them, and writes one of two meta pages synchronously; whatever
subset of sectors survives, a checkpoint is the last that was reported durable or the one that was being
written, whole. So it is with what environments are opened with: no flag that leaves out a sync.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.coord.storage.recorded_life import STARTS, load_checkpoint
from tests.recorded_files import (
    NOTE,
    Recording,
    build_library,
    outcomes_without,
    quick_syncs,
    record_process,
    run,
)

MODULE = "tests.coord.storage.recorded_life"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recording]:
    directory = tmp_path_factory.mktemp("recorded")
    library = build_library(directory)
    found = {}
    for what in STARTS:
        root = directory / what
        root.mkdir()
        found[what] = record_process(library, root, ["-m", MODULE, what, str(root)])
    return found


def test_lmdb_syncs_its_pages_and_writes_its_meta_page_synchronously(
    recordings: dict[str, Recording],
) -> None:
    """The order that everything else rests on."""
    dirty = False
    commits = 0
    for operation in recordings["checkpoints"].operations:
        if not operation.path.endswith("data.mdb"):
            continue
        if operation.kind == "W" and operation.b:
            assert not dirty
            assert operation.a // 4096 in (0, 1)
            assert operation.a // 512 == (operation.a + len(operation.data) - 1) // 512
            commits += 1
        elif operation.kind == "W":
            dirty = True
        elif operation.kind == "S":
            dirty = False
    assert commits > 8


@pytest.mark.parametrize(("what", "share", "count_min"), [("life", 0.2, 30), ("checkpoints", 0.3, 20)])
def test_a_power_loss_at_any_point_leaves_what_was_acknowledged(
    recordings: dict[str, Recording], tmp_path: Path, what: str, share: float, count_min: int
) -> None:
    with quick_syncs():
        count = run(recordings[what], STARTS[what], tmp_path, states_max=4, seed=1, share=share)
    assert count > count_min


def test_a_power_loss_while_an_environment_is_made_does_not_look_like_damage(
    recordings: dict[str, Recording], tmp_path: Path
) -> None:
    """LMDB does not sync the meta pages that it begins a file with."""
    recording = recordings["checkpoints"]
    first = next(number for number, one in enumerate(recording.operations) if one.kind == NOTE)
    made = replace(recording, operations=recording.operations[:first])
    with quick_syncs():
        assert run(made, load_checkpoint, tmp_path, states_max=12, seed=1) > 30


@pytest.mark.soak
@pytest.mark.parametrize("what", STARTS)
def test_many_more_files_after_a_power_loss(
    recordings: dict[str, Recording], tmp_path: Path, what: str
) -> None:
    with quick_syncs():
        assert run(recordings[what], STARTS[what], tmp_path, states_max=100, seed=2) > 1000


@pytest.mark.parametrize(
    ("what", "syncs"),
    [
        (
            "life",
            [("W", r"/txn\."), ("W", "/data.mdb$"), ("S", r"/checkpoint(\.new)?$"), ("S", "/log-[0-9a-f]*$")],
        ),
        ("checkpoints", [("S", "/data.mdb$"), ("W", "/data.mdb$"), ("S", r"/checkpoint(\.new)?$")]),
    ],
)
def test_a_forgotten_sync_is_found(
    recordings: dict[str, Recording], tmp_path: Path, what: str, syncs: list[tuple[str, str]]
) -> None:
    """Test the tester: without any one of the syncs some files break a promise."""
    assert outcomes_without(MODULE, what, recordings[what], syncs, tmp_path) <= {"found", "died"}
