"""The texts of quotas (spec 12): `count=N,bytes=M` and, with further keys, `count=N,bytes=M=;KEY=V;KEY=V`.

A quota on `/app` is in force while `/zookeeper/quota/app/zookeeper_limits` exists; its usage stands in
`zookeeper_stats` beside it. Both are ordinary nodes that clients write, so any bytes may stand there.
"""

from dataclasses import dataclass
from typing import Final

from coord.tree.path import QUOTA

LIMITS_NAME: Final = b"zookeeper_limits"
STATS_NAME: Final = b"zookeeper_stats"

_INT64_MAX: Final = (1 << 63) - 1
_DIGITS: Final = frozenset(b"0123456789")
_DIGITS_MAX: Final = 19


@dataclass(frozen=True, slots=True)
class Limits:
    """What a quota allows; -1 (or any negative) is no limit. Beyond a soft one there is only a warning."""

    count: int
    size: int
    count_hard: int
    size_hard: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a quota's subtree has, the node itself included; `rest` are further keys of the text."""

    count: int
    size: int
    rest: tuple[tuple[bytes, int], ...] = ()

    def text(self) -> bytes:
        """As it stands in the node."""
        text = b"count=%d,bytes=%d" % (self.count, self.size)
        return text + b"=" + b"".join(b";%b=%d" % pair for pair in self.rest) if self.rest else text

    def changed(self, count: int, size: int) -> "Usage":
        """The usage after a change; sums wrap at 64 bits, as they did when they were written."""
        return Usage(_wrap(self.count + count), _wrap(self.size + size), self.rest)


class Quota:
    """A quota in force, with its texts as they were last read.

    Attributes:
        path: the node it is about.
        limits_path: the node with its limits, which exists.
        stats_path: the node with its usage, which may not.
    """

    __slots__ = ("_limits", "_limits_data", "_stats_data", "_usage", "limits_path", "path", "stats_path")

    def __init__(self, path: bytes) -> None:
        self.path = path
        self.limits_path = b"%b%b/%b" % (QUOTA, path, LIMITS_NAME)
        self.stats_path = b"%b%b/%b" % (QUOTA, path, STATS_NAME)
        self._limits_data = self._stats_data = b""
        self._limits: Limits | None = None
        self._usage: Usage | None = None

    def limits(self, data: bytes) -> Limits | None:
        """What the data field of the limits node says; None where it cannot be read."""
        if data is not self._limits_data:
            self._limits_data, self._limits = data, parse_limits(data)
        return self._limits

    def usage(self, data: bytes) -> Usage | None:
        """What the data field of the stats node says; None where it cannot be read."""
        if data is not self._stats_data:
            self._stats_data, self._usage = data, parse_usage(data)
        return self._usage

    def note_usage(self, data: bytes, usage: Usage) -> None:
        """The data field that has just been made of `usage`."""
        self._stats_data, self._usage = data, usage


def limited_path(parent: bytes) -> bytes | None:
    """The path that a quota whose nodes are children of `parent` is about; None where there can be none.

    The root can have no quota.
    """
    return parent[len(QUOTA) :] if parent.startswith(QUOTA + b"/") else None


def parse_limits(data: bytes) -> Limits | None:
    pairs = _parse(data)
    if pairs is None:
        return None
    return Limits(
        pairs.get(b"count", -1),
        pairs.get(b"bytes", -1),
        pairs.get(b"countHardLimit", -1),
        pairs.get(b"byteHardLimit", -1),
    )


def parse_usage(data: bytes) -> Usage | None:
    pairs = _parse(data)
    if pairs is None:
        return None
    count, size = pairs.pop(b"count", -1), pairs.pop(b"bytes", -1)
    return Usage(count, size, tuple(sorted(pairs.items())))


def _parse(data: bytes) -> dict[bytes, int] | None:
    """The numbers of a text by their keys, from a data field; None where ZooKeeper cannot read it either."""
    if data.startswith(b"\xff"):
        return None  # null data
    pieces = data[4:].replace(b";", b",").split(b",")
    named = [piece for piece in pieces if piece]
    if named and not pieces[0]:
        return None
    pairs: dict[bytes, int] = {}
    for piece in named:
        name, *values = piece.rstrip(b"=").split(b"=")
        if not values:
            return None
        value = _parse_integer(values[0]) if values[0] else -1
        if value is None:
            return None
        pairs[name] = value
    return pairs


def _parse_integer(text: bytes) -> int | None:
    """A decimal number of 64 bits with an optional sign."""
    digits = text[1:] if text[:1] in (b"+", b"-") else text
    if not digits or not _DIGITS.issuperset(digits) or len(digits.lstrip(b"0")) > _DIGITS_MAX:
        return None
    value = -int(digits[-_DIGITS_MAX:]) if text.startswith(b"-") else int(digits[-_DIGITS_MAX:])
    return value if -_INT64_MAX - 1 <= value <= _INT64_MAX else None


def _wrap(value: int) -> int:
    return (value + _INT64_MAX + 1 & (1 << 64) - 1) - _INT64_MAX - 1
