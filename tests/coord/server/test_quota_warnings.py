"""What operators are told of quotas (specification 12.5)."""

import io
from collections.abc import Iterator

import pytest

from coord import eventlog
from coord.server.quota_warnings import INTERVAL_MS, QUOTAS_MAX, QuotaWarnings
from coord.tree.context import QuotaExcess


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    eventlog.configure(stream=stream)
    yield stream
    eventlog.configure()


def excess(times: int = 1) -> QuotaExcess:
    return QuotaExcess("count", 6, 5, False, times)


def test_one_line_for_a_quota_in_a_while_and_all_are_counted(lines: io.StringIO) -> None:
    warnings = QuotaWarnings()
    for now in (0, 10, INTERVAL_MS - 1, INTERVAL_MS):
        warnings.note({b"/app/a": excess(2)}, now)
    warnings.note({b"/app/b": excess()}, 5)
    assert lines.getvalue().count("quota exceeded") == 3
    assert "path=/app/a what=count value=6 limit=5 refused=False" in lines.getvalue()
    assert warnings.exceeded == {"app": 9}


def test_what_was_noted_is_taken(lines: io.StringIO) -> None:
    excesses = {b"/app": excess()}
    QuotaWarnings().note(excesses, 0)
    assert excesses == {}


def test_namespaces_are_bounded(lines: io.StringIO) -> None:
    warnings = QuotaWarnings()
    for number in range(QUOTAS_MAX + 5):
        warnings.note({b"/n%d" % number: excess()}, 0)
    assert len(warnings.exceeded) == QUOTAS_MAX + 1
    assert warnings.exceeded["*"] == 5
