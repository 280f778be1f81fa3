"""What a command has written for an operator, who may throw away the original when it says that it is done:
after a power loss it is there whole, and before that whole or not at all (see `tests.recorded_files`).
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from coord.disk import RealDisk
from coord.server.state_files import read_state, write_state
from coord.storage import LmdbEnvironments
from pubsub.hub.registration import HubDirectory
from tests.coord.server.test_json_state import EPOCHS, varied_tree
from tests.pubsub.command.recorded_commands import HUB_SESSIONS
from tests.recorded_files import Recording, build_library, quick_syncs, record_process, run

MODULE = "tests.pubsub.command.recorded_commands"
RESULTS = {
    "import": "new/data/zoolog",
    "export": "new/apache/version-2",
    "to-json": "state.json",
    "secret": "secret",
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("library"))


def recorded(command: str, library: Path, root: Path) -> Recording:
    root.mkdir()
    if command in ("export", "to-json"):
        write_state(RealDisk(), varied_tree(), EPOCHS, str(root / "state"), str(root / "state"))
        (root / "state.json").write_text("of an earlier time")
    return record_process(library, root, ["-m", MODULE, command, str(root)])


def contents(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def checked(command: str, root: Path) -> Callable[[bytes, Path], None]:
    expected = contents(root / RESULTS[command])

    def check(noted: bytes, place: Path) -> None:
        result = place / RESULTS[command]
        if command == "to-json" and noted != b"done" and result.read_bytes() == b"of an earlier time":
            return
        if command == "import" and result.exists():
            tree, epochs = read_state(str(place / "new" / "data"), str(place / "log" / "new"))
            assert (tree.state_digest(), epochs) == (varied_tree().state_digest(), EPOCHS)
        elif noted == b"done" or (command != "secret" and result.exists()):
            assert contents(result) == expected

    return check


@pytest.mark.parametrize("command", RESULTS)
def test_what_a_command_has_written_survives_a_power_loss(
    command: str, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LmdbEnvironments, "probe", lambda self, path: None)
    root = tmp_path / command
    recording = recorded(command, library, root)
    with quick_syncs():
        run(recording, checked(command, root), tmp_path / "states", states_max=3, seed=1, share=0.15)


def test_a_hub_starts_whatever_a_power_loss_has_left_of_its_session(library: Path, tmp_path: Path) -> None:
    """It is kept for comfort, and not synced: without it the old session expires by itself."""
    found = set()

    def check(noted: bytes, place: Path) -> None:
        directory = HubDirectory(place / "hub")
        found.add(directory.read_session())
        directory.write_session(*HUB_SESSIONS[0])
        assert directory.read_session() == HUB_SESSIONS[0]
        directory.close()

    run(recorded("hub", library, tmp_path / "root"), check, tmp_path / "states", states_max=4, seed=1)
    assert found == {None, *HUB_SESSIONS}
