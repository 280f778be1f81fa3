"""One fault in one file of a stopped server: never wrong data, never a silent loss (the matrix of
`docs/damage.md`).
"""

from pathlib import Path

import pytest

from tests.coord.storage.damage import AT_REST, FILES, IN_USE, outcomes, page_with_tables

PAGE = Path(__file__).parents[3] / "docs" / "damage.md"


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
