"""Programs with a cluster of their own take it with them when a signal ends them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.coord_servers import ROOT, wait_for
from tests.pubsub.command.clusters import COMMAND, END_SECONDS_MAX

pytestmark = [pytest.mark.crash, pytest.mark.slow]
BENCH = [*COMMAND, "bench", "coord", "--local", "--servers", "1", "--duration", "60"]
MAIN_JOB = [sys.executable, "-m", "pubsub.mainjob", "--dir", "job"]


def servers_below(directory: Path) -> list[int]:
    """Process ids of servers whose command line names something below `directory`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith(os.fsencode(directory) + b"/") for word in words):
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize(
    ("command", "number", "status", "text"),
    [
        (BENCH, signal.SIGTERM, 1, "zoolog: ended by SIGTERM\n"),
        (BENCH, signal.SIGINT, 130, "\n"),
        (MAIN_JOB, signal.SIGTERM, 1, "main job failed: ended by SIGTERM; "),
        (MAIN_JOB, signal.SIGINT, 1, "main job failed: ended by SIGINT; "),
    ],
)
def test_no_server_outlives_the_program_that_started_it(
    tmp_path: Path, command: list[str], number: int, status: int, text: str
) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=output,
            cwd=tmp_path,
            env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        )
    try:
        wait_for(lambda: servers_below(tmp_path) != [], "the servers are started")
        process.send_signal(number)
        assert process.wait(END_SECONDS_MAX) == status, log.read_text()
        assert servers_below(tmp_path) == []
        assert "Traceback" not in log.read_text()
        assert text in log.read_text()
    finally:
        process.kill()
        process.wait()
        for pid in servers_below(tmp_path):
            os.kill(pid, signal.SIGKILL)
