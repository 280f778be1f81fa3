"""The long answers of four-letter words (specification 16.4, 16.9), piece by piece: whoever prints one takes
pieces for as long as a tick allows, and what they name may have changed by the next. Pure.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from coord.server.words import ConnectionLine, hexadecimal

W = TypeVar("W")

Buckets = Sequence[tuple[int, Iterable[int]]]
"""(when, in milliseconds of the wall clock; session ids), in order of time."""


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """Who is alive, as far as this server knows.

    Attributes:
        buckets: on the server that expires sessions; None on others.
        local_buckets: of sessions that are known here only; None where there are no such.
        timeouts: (id, timeout) of all global sessions.
    """

    buckets: Buckets | None
    local_buckets: Buckets | None
    timeouts: Iterable[tuple[int, int]]


def format_connections(lines: Iterable[ConnectionLine]) -> Iterator[str]:
    """`cons`."""
    for line in lines:
        yield line.text(long=True)
    yield "\n"


def format_dump(
    sessions: SessionFacts,
    ephemerals: Mapping[int, Mapping[int, bytes]],
    connections: Buckets,
    address: Callable[[int], tuple[str, int]],
    date: Callable[[int], str],
) -> Iterator[str]:
    """`dump`.

    Args:
        ephemerals: session → its paths by node number.
        connections: buckets of places in a list of connections.
        address: address and session id of the connection at a place.
        date: a moment as text.
    """
    yield "SessionTracker dump:\n"
    if sessions.local_buckets is not None:
        yield from _format_buckets("Local Session Sets", sessions.local_buckets, date)
    if sessions.buckets is None:
        timeouts = sorted(sessions.timeouts)
        yield f"Global Sessions({len(timeouts)}):\n"
        for session_id, timeout_ms in timeouts:
            yield f"{hexadecimal(session_id)}\t{timeout_ms}ms\n"
    else:
        title = "Session Sets" if sessions.local_buckets is None else "Global Session Sets"
        yield from _format_buckets(title, sessions.buckets, date)
    owners = list(ephemerals)
    yield f"ephemeral nodes dump:\nSessions with Ephemerals ({len(owners)}):\n"
    for owner in owners:
        paths = list(ephemerals.get(owner, {}).values())
        if paths:
            yield f"{hexadecimal(owner)}:\n"
            for path in paths:
                yield f"\t{path.decode('utf-8', 'replace')}\n"
    count = sum(len(list(members)) for _, members in connections)
    yield f"Connections dump:\nConnections Sets ({len(connections)})/({count}):\n"
    for when, members in connections:
        places = list(members)
        yield f"{len(places)} expire at {date(when)}:\n"
        for place in places:
            name, session_id = address(place)
            yield f"\tip: {name} sessionId: {hexadecimal(session_id)}\n"


def _format_buckets(title: str, buckets: Buckets, date: Callable[[int], str]) -> Iterator[str]:
    sets = [(when, sorted(members)) for when, members in buckets]
    yield f"{title} ({len(sets)})/({sum(len(members) for _, members in sets)}):\n"
    for when, members in sets:
        yield f"{len(members)} expire at {date(when)}:\n"
        for session_id in members:
            yield f"\t{hexadecimal(session_id)}\n"


def format_watch_summary(paths: Mapping[bytes, Mapping[W, int]]) -> Iterator[str]:
    """`wchs`: of the data table, as all of them."""
    watchers: set[W] = set()
    total = 0
    for watching in list(paths.values()):
        total += len(watching)
        watchers.update(watching)
        yield ""
    yield f"{len(watchers)} connections watching {len(paths)} paths\nTotal watches:{total}\n"


def format_watches_by_connection(
    paths: Mapping[bytes, Mapping[W, int]], session_of: Callable[[W], int]
) -> Iterator[str]:
    """`wchc`."""
    by_connection: dict[W, list[bytes]] = {}
    for path, watching in list(paths.items()):
        for watcher in watching:
            by_connection.setdefault(watcher, []).append(path)
        yield ""
    for watcher, watched in by_connection.items():
        yield f"{hexadecimal(session_of(watcher))}\n"
        for path in watched:
            yield f"\t{path.decode('utf-8', 'replace')}\n"
    yield "\n"


def format_watches_by_path(
    paths: Mapping[bytes, Mapping[W, int]], session_of: Callable[[W], int]
) -> Iterator[str]:
    """`wchp`."""
    for path, watching in list(paths.items()):
        if watching:
            yield f"{path.decode('utf-8', 'replace')}\n"
            for watcher in list(watching):
                yield f"\t{hexadecimal(session_of(watcher))}\n"
    yield "\n"
