"""kill -9 at any moment, on the real disk, with the log's and the checkpoint's threads running."""

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coord.disk import RealDisk
from coord.storage import LmdbEnvironments, LogOptions, open_data_directory, open_state

CHILD = Path(__file__).with_name("crash_child.py")


@pytest.mark.crash
def test_nothing_acknowledged_is_lost_over_many_lives(tmp_path: Path, small_kind: Any, nodes_at: Any) -> None:
    source = random.Random(11)
    acknowledged = 0
    for life in range(8):
        child = subprocess.Popen(
            [sys.executable, str(CHILD), str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        for _ in range(source.randrange(1, 400)):
            acknowledged = int(child.stdout.readline())
        child.kill()
        rest = child.stdout.read().split("\n")
        child.stdout.close()
        child.wait()
        acknowledged = max(acknowledged, *(int(line) for line in rest[:-1]), 0)
        directory = open_data_directory(RealDisk(), str(tmp_path))
        found = open_state(
            directory, LmdbEnvironments(), small_kind, LogOptions(lambda: None), standalone=True
        )
        assert found.executed_zxid >= acknowledged, f"life {life}"
        assert found.state.nodes == nodes_at(found.executed_zxid)
        assert found.set_aside is None
        found.log.close()
        directory.close()
