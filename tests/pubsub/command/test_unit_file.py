"""The systemd unit starts a command that exists, and knows its exit statuses."""

import configparser
import shlex
from pathlib import Path

import pytest

from pubsub.command.main import run

UNIT = Path(__file__).resolve().parents[3] / "docs/systemd/zoolog-coord.service"


@pytest.fixture(scope="module")
def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return parser


def test_the_command_is_one_of_ours_and_a_bad_configuration_is_not_retried(
    unit: configparser.ConfigParser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program, *arguments = shlex.split(unit["Service"]["ExecStart"])
    assert Path(program).name == "zoolog"
    missing = str(tmp_path / "zoo.cfg")
    status = run([missing if argument.endswith("zoo.cfg") else argument for argument in arguments])
    assert status == 2
    assert missing in capsys.readouterr().err
    assert unit["Service"]["RestartPreventExitStatus"] == str(status)
    assert unit["Service"]["Restart"] == "on-failure"
