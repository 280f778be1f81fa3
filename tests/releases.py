"""Earlier releases of this repository, taken from its own history, to be run beside the one at hand.

There are no tags yet, so the release before is a commit: `PREVIOUS`, the last one before servers repaired
their logs from each other's and compared their states. `ZOOLOG_UPGRADE_FROM=COMMIT` names another one.
"""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.coord_servers import ROOT

PREVIOUS = os.environ.get("ZOOLOG_UPGRADE_FROM", "ab35948988692e86db8f701e5632a52f6c4afef5")
PACKAGES = ("coord", "bookie", "pubsub")


def unpack_previous(directory: Path) -> Path:
    """The root of the earlier release, below `directory`; processes that start in it run its code.

    Skips the test where the history is not there.
    """
    command = ["git", "-C", str(ROOT), "archive", PREVIOUS, "--", *PACKAGES]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("the release before is taken from the history, which needs git")
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        pytest.skip(f"the release before ({PREVIOUS[:9]}) is not in the history here: {reason}")
    root = directory / "previous"
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(root)
    for package in PACKAGES:
        assert origin(package, root) == root / package / "__init__.py"
        assert origin(package, ROOT) == ROOT / package / "__init__.py"
    return root


def origin(package: str, root: Path) -> Path:
    """Which file a process that starts in `root` takes the package from."""
    script = f"import importlib.util as u; print(u.find_spec({package!r}).origin)"
    # As servers are started: -m looks in the working directory first, and so does -c.
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    return Path(done.stdout.strip())
