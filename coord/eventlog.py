"""Structured logging: one line per event, saying what happened and, where somebody should act, what to do.

    log = eventlog.get("coord.server")
    log.warning("disk nearly full", do="free space or move dataLogDir", free_bytes=n, path=path)

    2026-01-31T10:20:30.123Z WARNING coord.server disk nearly full free_bytes=1024 path=/data do="free space
    ..."

Values with spaces, quotes, equals signs or control characters are quoted as JSON strings, so a line is always
one line. Exceptions are shown as `Type: text`; `trace=error` adds the frames it passed. A log that cannot be
written loses lines (counted in `dropped_lines`), never the server.
"""

import json
import sys
import traceback
from datetime import UTC, datetime
from typing import TextIO

from coord.clock import SYSTEM_CLOCK, Clock

DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40

LEVELS = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR}

LINE_CHARACTERS_MAX = 8192
TRACE_FRAMES_MAX = 12

_NEEDS_QUOTES = frozenset(" \"'=\\")


class _Output:
    """Where lines go; one per process, changed by `configure`."""

    __slots__ = ("clock", "dropped_lines", "level", "stream")

    def __init__(self) -> None:
        self.stream: TextIO | None = None
        self.level = INFO
        self.clock: Clock = SYSTEM_CLOCK
        self.dropped_lines = 0


_output = _Output()


def configure(*, stream: TextIO | None = None, level: int | str = INFO, clock: Clock = SYSTEM_CLOCK) -> None:
    """Set where lines of this process go.

    Args:
        stream: None for standard error, as it is at the time of each line.
        level: the least level that is written, or its name in `LEVELS`.
        clock: for the time stamps.

    Raises:
        ValueError: no level has that name.
    """
    if isinstance(level, str):
        if level.lower() not in LEVELS:
            raise ValueError(f"expected a log level of {', '.join(LEVELS)}, got {level!r}")
        level = LEVELS[level.lower()]
    _output.stream, _output.level, _output.clock = stream, level, clock


def dropped_lines() -> int:
    """Lines that could not be written since the process began."""
    return _output.dropped_lines


def get(name: str) -> "EventLog":
    """The log of one part of the program, by its package name."""
    return EventLog(name)


class EventLog:
    """Writes lines under one name.

    Every method takes what happened as a constant text, what to do about it, and the facts as fields.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def debug(self, event: str, *, do: str = "", **fields: object) -> None:
        if _output.level <= DEBUG:
            _write("DEBUG", self.name, event, do, fields)

    def info(self, event: str, *, do: str = "", **fields: object) -> None:
        if _output.level <= INFO:
            _write("INFO", self.name, event, do, fields)

    def warning(self, event: str, *, do: str = "", **fields: object) -> None:
        if _output.level <= WARNING:
            _write("WARNING", self.name, event, do, fields)

    def error(self, event: str, *, do: str = "", **fields: object) -> None:
        if _output.level <= ERROR:
            _write("ERROR", self.name, event, do, fields)


def _write(level: str, name: str, event: str, do: str, fields: dict[str, object]) -> None:
    moment = datetime.fromtimestamp(_output.clock.wall_ms() / 1000, UTC)
    words = [moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z", level, name]
    words.append(event if event.isprintable() else _quoted(event))
    for key, value in fields.items():
        text = _trace(value) if key == "trace" and isinstance(value, BaseException) else _text(value)
        words.append(f"{key}={_quoted(text)}")
    if do:
        words.append(f"do={_quoted(do)}")
    line = " ".join(words)
    if len(line) > LINE_CHARACTERS_MAX:
        line = line[: LINE_CHARACTERS_MAX - 3] + "..."
    stream = sys.stderr if _output.stream is None else _output.stream
    try:
        stream.write(line + "\n")
        stream.flush()
    except (OSError, ValueError):  # a full disk, a closed pipe or file: serving goes before reporting
        _output.dropped_lines += 1


def _text(value: object) -> str:
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):  # an address
        host, port = value
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return str(value)


def _trace(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-TRACE_FRAMES_MAX:]
    return " > ".join(f"{frame.filename}:{frame.lineno}:{frame.name}" for frame in frames)


def _quoted(text: str) -> str:
    if not text.isprintable():
        return json.dumps(text)
    if text and _NEEDS_QUOTES.isdisjoint(text):
        return text
    return json.dumps(text, ensure_ascii=False)
