"""What came back, as values that two servers must agree on.

Times are dropped. A session id becomes the number of the script's session. A zxid becomes the number of the
script's successful writes up to it, so that order counts and not how many numbers failed writes or sessions
have used. Names of children and owned paths are sorted, for their order is free (specification 6.7, 6.12).
"""

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from coord.protocol import opcodes
from coord.protocol.jute import DecodeError, Reader
from coord.protocol.records import read_multi_header, read_stat

_FOREIGN = re.compile("[\ufffd\U00010000-\U0010ffff]+")
WRITES = frozenset(
    {
        opcodes.CREATE,
        opcodes.DELETE,
        opcodes.SET_DATA,
        opcodes.SET_ACL,
        opcodes.CREATE2,
        opcodes.CREATE_CONTAINER,
        opcodes.CREATE_TTL,
        opcodes.MULTI,
        opcodes.CLOSE_SESSION,
    }
)


@dataclass(frozen=True, slots=True)
class Zxid:
    value: int


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that came back: in which step of the script, on whose connection."""

    step: int
    who: str
    what: Any

    def __str__(self) -> str:
        return f"step {self.step} {self.who}: {self.what}"


@dataclass
class Transcript:
    entries: list[Entry] = field(default_factory=list)
    sessions: dict[int, str] = field(default_factory=dict)
    writes: set[int] = field(default_factory=set)
    """zxids of successful writes."""

    def add(self, step: int, who: str, *what: Any) -> None:
        self.entries.append(Entry(step, who, what))

    def add_reply(self, step: int, who: str, op: int, frame: bytes) -> None:
        reader = Reader(frame)
        xid, zxid, err = reader.read_int(), reader.read_long(), reader.read_int()
        body = self.decode(op, err, reader)
        if err == 0 and op in WRITES and not (op == opcodes.MULTI and is_failure(body)):
            self.writes.add(zxid)
        self.add(step, who, "reply", op, xid, err, Zxid(zxid), body)

    def add_event(self, step: int, who: str, frame: bytes) -> None:
        reader = Reader(frame, 4)
        zxid, err = reader.read_long(), reader.read_int()
        kind, state, path = reader.read_int(), reader.read_int(), read_text(reader)
        self.add(step, who, "event", kind, state, path, err, Zxid(zxid), frame[reader.offset :].hex())

    def decode(self, op: int, err: int, reader: Reader) -> Any:
        """The body of a reply; what follows its record is kept, so that it cannot go unnoticed."""
        start = reader.offset
        try:
            body = self._record(op, reader) if err == 0 else None
        except DecodeError:
            return ("undecodable", reader.data[start:].hex())
        return (body, reader.data[reader.offset :].hex()) if reader.remaining else body

    def _record(self, op: int, reader: Reader) -> Any:
        match op:
            case opcodes.CREATE | opcodes.SYNC:
                return read_text(reader)
            case opcodes.CREATE2 | opcodes.CREATE_CONTAINER | opcodes.CREATE_TTL:
                return read_text(reader), self._stat(reader)
            case opcodes.EXISTS | opcodes.SET_DATA | opcodes.SET_ACL:
                return self._stat(reader)
            case opcodes.GET_DATA:
                return reader.read_buffer(), self._stat(reader)
            case opcodes.GET_ACL:
                return read_acl(reader), self._stat(reader)
            case opcodes.GET_CHILDREN | opcodes.GET_EPHEMERALS:
                return read_names(reader)
            case opcodes.GET_CHILDREN2:
                return read_names(reader), self._stat(reader)
            case opcodes.GET_ALL_CHILDREN_NUMBER | opcodes.ADD_WATCH:
                return reader.read_int()
            case opcodes.WHO_AM_I:
                return sorted((read_text(reader), read_text(reader)) for _ in range(reader.read_int()))
            case opcodes.SASL:
                return reader.read_buffer()
            case opcodes.MULTI | opcodes.MULTI_READ:
                return self._results(reader)
        return None

    def _results(self, reader: Reader) -> list[Any]:
        results: list[Any] = []
        while True:
            op, done, err = read_multi_header(reader)
            if done:
                return [*results, ("end", op, err)]
            body = reader.read_int() if op == -1 else self._record(op, reader)
            results.append((op, err, body))

    def _stat(self, reader: Reader) -> Any:
        stat = read_stat(reader)
        owner = self.sessions.get(stat.ephemeral_owner, hex(stat.ephemeral_owner))
        return {
            "czxid": Zxid(stat.czxid),
            "mzxid": Zxid(stat.mzxid),
            "pzxid": Zxid(stat.pzxid),
            "version": stat.version,
            "cversion": stat.cversion,
            "aversion": stat.aversion,
            "owner": owner,
            "length": stat.data_length,
            "children": stat.num_children,
            "times": stat.mtime >= stat.ctime if stat.version else stat.mtime == stat.ctime,
        }

    def normal(self) -> list[Entry]:
        """The entries with zxids as numbers of successful writes; those of no transaction (0, -1) stay."""
        writes = sorted(self.writes)

        def place(value: Any) -> Any:
            match value:
                case Zxid(zxid):
                    return f"w{bisect_right(writes, zxid)}" if zxid > 0 else zxid
                case list():
                    return [place(one) for one in value]
                case tuple():
                    return tuple(place(one) for one in value)
                case Mapping():
                    return {key: place(one) for key, one in value.items()}
            return value

        return [Entry(one.step, one.who, place(one.what)) for one in self.entries]


def read_text(reader: Reader) -> str | None:
    """A string; undecodable bytes and characters beyond the BMP, which Java writes differently (2.3), are
    shown as U+FFFD.
    """
    value = reader.read_text()
    return None if value is None else _FOREIGN.sub("\ufffd", value)


def is_failure(body: Any) -> bool:
    """Whether a multi's results say that it was rolled back; one that cannot be read counts as one."""
    return not isinstance(body, list) or any(result[0] == -1 for result in body[:-1])


def read_acl(reader: Reader) -> list[Any]:
    """An ACL list; entries with the same permissions side by side are sorted, for the ids that `auth` stands
    for have no order (11.3).
    """
    entries = [(reader.read_int(), read_text(reader), read_text(reader)) for _ in range(reader.read_int())]
    return [sorted(map(repr, group)) for _, group in groupby(entries, lambda entry: entry[0])]


def read_names(reader: Reader) -> list[str]:
    return sorted(str(read_text(reader)) for _ in range(reader.read_int()))
