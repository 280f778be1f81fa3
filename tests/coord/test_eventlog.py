"""One event, one line, whatever is in it."""

import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord import eventlog


class StoppedClock:
    def monotonic_ms(self) -> int:
        return 0

    def wall_ms(self) -> int:
        return 1_769_854_830_123


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    written = io.StringIO()
    eventlog.configure(stream=written, clock=StoppedClock())
    yield written
    eventlog.configure()


log = eventlog.get("coord.test")


def test_a_line_says_when_where_what_and_what_to_do(stream: io.StringIO) -> None:
    log.warning("disk nearly full", do="free some space", free_bytes=1024, path="/data")
    assert stream.getvalue() == (
        "2026-01-31T10:20:30.123Z WARNING coord.test disk nearly full "
        'free_bytes=1024 path=/data do="free some space"\n'
    )


def test_errors_and_addresses_are_readable(stream: io.StringIO) -> None:
    log.error("lost", peer=("::1", 2181), other=("10.0.0.1", 9), error=OSError("no route"))
    assert 'peer=[::1]:2181 other=10.0.0.1:9 error="OSError: no route"' in stream.getvalue()


def test_a_trace_names_the_frames_an_error_passed(stream: io.StringIO) -> None:
    try:
        raise ValueError("bad")
    except ValueError as error:
        log.error("failed", trace=error)
    assert ":test_a_trace_names_the_frames_an_error_passed" in stream.getvalue()


def test_levels_below_the_configured_one_are_not_written() -> None:
    written = io.StringIO()
    eventlog.configure(stream=written, level="error")
    log.debug("1")
    log.info("2")
    log.warning("3")
    log.error("4")
    eventlog.configure()
    assert written.getvalue().count("\n") == 1


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a log level of debug, info, warning, error, got 'loud'"):
        eventlog.configure(level="loud")


@given(st.text(), st.text())
def test_every_event_is_one_line(event: str, value: str) -> None:
    written = io.StringIO()
    eventlog.configure(stream=written, clock=StoppedClock())
    log.info(event, value=value)
    eventlog.configure()
    assert len(written.getvalue().splitlines()) == 1


def test_lines_are_bounded(stream: io.StringIO) -> None:
    log.info("large", value="x" * 100_000)
    assert len(stream.getvalue()) == eventlog.LINE_CHARACTERS_MAX + 1


def test_a_log_that_cannot_be_written_loses_lines_and_counts_them() -> None:
    closed = io.StringIO()
    closed.close()
    eventlog.configure(stream=closed)
    before = eventlog.dropped_lines()
    log.error("nobody reads this")
    eventlog.configure()
    assert eventlog.dropped_lines() == before + 1
