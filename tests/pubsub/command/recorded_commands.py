"""What commands write for an operator, in a process whose writes are recorded; noted when they are done."""

import sys
from pathlib import Path

from coord.apache import export_directory
from coord.disk import RealDisk
from coord.server.config.secret import write_ensemble_secret
from coord.server.state_files import write_state
from pubsub.command.main import run as zoolog
from pubsub.hub.registration import HubDirectory
from tests.coord.server.test_json_state import EPOCHS, varied_tree
from tests.recorded_files import note


def import_state(root: Path) -> None:
    """`zoolog coord import` and `from-json`, with two places that are not there yet."""
    write_state(RealDisk(), varied_tree(), EPOCHS, str(root / "new" / "data"), str(root / "log" / "new"))


def export_state(root: Path) -> None:
    export_directory(str(root / "state"), str(root / "new" / "apache"))


def state_to_json(root: Path) -> None:
    assert zoolog(["coord", "to-json", str(root / "state"), "--to", str(root / "state.json")]) == 0


def secret(root: Path) -> None:
    write_ensemble_secret(str(root / "secret"))


def hub_sessions(root: Path) -> None:
    directory = HubDirectory(root / "hub")
    for session in HUB_SESSIONS:
        directory.write_session(*session)


HUB_SESSIONS = ((1, b"one"), (-(1 << 62), b"two"), (3, b""))
COMMANDS = {
    "import": import_state,
    "export": export_state,
    "to-json": state_to_json,
    "secret": secret,
    "hub": hub_sessions,
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](Path(sys.argv[2]))
    note(b"done")
