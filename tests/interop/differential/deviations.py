"""What may differ from Apache ZooKeeper: the `[decision]`s of the specification that a script can meet.

Each is a question to the two entries at the first place where the transcripts part; True means: on purpose.
Everything else is a defect.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from coord.protocol import opcodes
from tests.interop.differential.transcript import Entry

Allowed = Callable[[Entry, Entry], bool]


def errors_of(theirs: Entry, ours: Entry, op: int) -> tuple[int, int] | None:
    """The two error codes where both are replies to `op`."""
    a, b = theirs.what, ours.what
    if a[0] == b[0] == "reply" and a[1] == b[1] == op:
        return a[3], b[3]
    return None


def add_watch_without_path(theirs: Entry, ours: Entry) -> bool:
    return errors_of(theirs, ours, opcodes.ADD_WATCH) == (0, opcodes.MARSHALLING_ERROR)


def acl_with_null_id(theirs: Entry, ours: Entry) -> bool:
    if errors_of(theirs, ours, opcodes.MULTI) == (opcodes.MARSHALLING_ERROR, 0):
        return any(result[1] == opcodes.INVALID_ACL for result in ours.what[5])
    return any(
        errors_of(theirs, ours, op) == (opcodes.MARSHALLING_ERROR, opcodes.INVALID_ACL)
        for op in (
            opcodes.CREATE,
            opcodes.CREATE2,
            opcodes.CREATE_CONTAINER,
            opcodes.CREATE_TTL,
            opcodes.SET_ACL,
        )
    )


def body_of_a_refused_multi_read(theirs: Entry, ours: Entry) -> bool:
    return theirs.what[:5] == ours.what[:5] and errors_of(theirs, ours, opcodes.MULTI_READ) == (
        opcodes.MARSHALLING_ERROR,
        opcodes.MARSHALLING_ERROR,
    )


def delete_container_of_a_client(theirs: Entry, ours: Entry) -> bool:
    return errors_of(theirs, ours, opcodes.DELETE_CONTAINER) == (opcodes.NO_NODE, opcodes.UNIMPLEMENTED) or (
        theirs.who,
        theirs.what,
        ours.what,
    ) == ("stranger", ("answered after that",), ("closed after that",))


DEVIATIONS: dict[str, Allowed] = {
    "2.2 addWatch with a null path is a MarshallingError": add_watch_without_path,
    "5.1 no body follows an error, of a multiRead neither": body_of_a_refused_multi_read,
    "11.3 an ACL entry with a null id is an InvalidACL": acl_with_null_id,
    "6.5 deleteContainer from clients is refused": delete_container_of_a_client,
}


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where the transcripts part without permission."""

    step: int
    theirs: tuple[Entry, ...]
    ours: tuple[Entry, ...]

    def __str__(self) -> str:
        lines = difflib.unified_diff(
            [str(one) for one in self.theirs],
            [str(one) for one in self.ours],
            "Apache ZooKeeper",
            "zoolog",
            lineterm="",
            n=2,
        )
        return "\n".join(lines)


def compare(theirs: Sequence[Entry], ours: Sequence[Entry]) -> tuple[Difference | None, set[str]]:
    """The first difference that the table does not allow, and the deviations that were met."""
    met: set[str] = set()
    by_step: dict[int, tuple[list[Entry], list[Entry]]] = {}
    for side, entries in enumerate((theirs, ours)):
        for entry in entries:
            by_step.setdefault(entry.step, ([], []))[side].append(entry)
    for step, (a, b) in by_step.items():
        if free(a) == free(b):
            continue
        if len(a) != len(b):
            return Difference(step, tuple(a), tuple(b)), met
        for one, other in zip(free(a), free(b), strict=True):
            if one == other:
                continue
            names = [name for name, allowed in DEVIATIONS.items() if allowed(one, other)]
            if not names:
                return Difference(step, tuple(a), tuple(b)), met
            met.update(names)
    return None, met


def free(entries: Sequence[Entry]) -> list[Any]:
    """The entries in an order that both servers have: a session's own ephemerals go in any order (4.6)."""
    closes = any(entry.what[:2] == ("reply", opcodes.CLOSE_SESSION) for entry in entries)
    if not closes:
        return list(entries)
    events = [entry for entry in entries if entry.what[0] == "event"]
    others = [entry for entry in entries if entry.what[0] != "event"]
    return [*others, *sorted(events, key=str)]
