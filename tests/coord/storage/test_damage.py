"""One fault in one file of a stopped server: never wrong data, never a silent loss (the matrix of
`docs/damage.md`).
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.coord.storage.damage import AT_REST, FILES, IN_USE, outcomes, page_with_tables

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "damage.md"


def test_the_page_says_what_happens() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == page_with_tables(page), "run: python -m tests.coord.storage.damage docs/damage.md"


@pytest.mark.parametrize("kind", AT_REST)
def test_a_member_never_refuses_for_what_its_peers_can_give_back(kind: str) -> None:
    """Log and checkpoint; promises (`current`, `epochs`) are nobody else's."""
    for file in FILES:
        if not file.startswith("`"):
            assert "refuses to start" not in outcomes(file, kind, standalone=False), file


@pytest.mark.parametrize("kind", [*AT_REST, "short read", "EIO on read"])
def test_promises_are_never_rebuilt(kind: str) -> None:
    """20.2: who forgets them may vote twice."""
    for standalone in (False, True):
        assert outcomes("`epochs`", kind, standalone=standalone) == ["refuses to start"]


@pytest.mark.parametrize("kind", IN_USE[2:])
def test_a_log_that_cannot_be_written_is_not_gone_on_with(kind: str) -> None:
    for file in ("transaction log, newest segment", "`epochs`"):
        assert set(outcomes(file, kind, standalone=False)) <= {"refuses to start", "stops"}


@pytest.mark.slow
def test_a_damaged_file_of_lmdbs_is_never_believed(tmp_path: Path) -> None:
    """It checks nothing itself, and may end the process; the next start lets another process look first."""
    command = [sys.executable, "-m", "tests.coord.storage.lmdb_damage_child", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    counts = json.loads(result.stdout)
    assert counts.keys() <= {"right", "older", "none", "damaged", "died", "died again"}
    assert counts["died again"] == 0
    assert counts["damaged"] > 50
    assert sum(counts.values()) > 300
