"""`zoolog inspect --verify`, `zoolog coord to-json`, `zoolog coord from-json`."""

import json
from pathlib import Path

import pytest

from coord.inspection import json_to_state
from pubsub.command.main import run
from tests.coord.server.test_json_state import EPOCHS, encode_state, varied_tree


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    json_to_state("".join(encode_state(varied_tree(), EPOCHS)), str(tmp_path / "data"))
    return tmp_path / "data"


def test_a_state_goes_to_json_and_into_another_directory(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, other = tmp_path / "state.json", tmp_path / "other"
    assert run(["coord", "to-json", str(directory), "--to", str(file)]) == 0
    assert file.stat().st_mode & 0o077 == 0, "it holds passwords of sessions"
    assert run(["coord", "from-json", str(file), "--to", str(other), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == varied_tree().state_digest()
    assert run(["coord", "to-json", str(other)]) == 0
    assert capsys.readouterr().out == file.read_text()
    assert run(["coord", "from-json", str(file), "--to", str(other)]) == 1
    assert "has a state already" in capsys.readouterr().err


def test_verify_says_what_is_damaged_and_exits_with_1(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", "--verify", str(directory)]) == 0
    assert "damage" not in capsys.readouterr().out
    epochs = directory / "zoolog" / "epochs"
    epochs.write_text(epochs.read_text().replace("7", "8"))
    assert run(["inspect", "--verify", str(directory)]) == 1
    assert f"damage: {epochs} at 0: " in capsys.readouterr().out
    assert run(["inspect", "--verify", str(directory), "--json"]) == 1
    kinds = {one["kind"] for one in json.loads(capsys.readouterr().out)}
    assert kinds == {"ok", "note", "damage"} or kinds == {"ok", "damage"}


def test_inspect_needs_something_to_look_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect"]) == 2
    assert "--verify DIR" in capsys.readouterr().err
