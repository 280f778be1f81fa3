"""What ZooKeeper promises of plain reads: every session sees a prefix of one total order that only grows.

The order is that of zxids. A reply's header names the last zxid that the server had executed, and a node's
Stat the zxid of its last change, so the law needs no search:

* the zxid of replies never falls in a session, over reconnections too (no read goes back in time);
* a read answered at zxid z shows the last of all writes to its node up to z (a prefix, without gaps); with
  the first law this gives each session its own writes;
* one zxid is one write: everybody who sees it sees the same data and version, and versions grow with zxids.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seen:
    """A node as one reply showed it: of a read, or of a setData that succeeded."""

    zxid: int
    """Of the reply's header."""
    path: str
    mzxid: int
    version: int
    data: bytes


def inconsistencies(sessions: Mapping[str, Sequence[Seen]]) -> list[str]:
    """The breaches, each a sentence. Every sequence is a session's replies in their order."""
    found: list[str] = []
    everything = [seen for replies in sessions.values() for seen in replies]
    writes = writes_by_path(everything, found)
    for name, replies in sessions.items():
        last = 0
        for seen in replies:
            if seen.zxid < last:
                found.append(f"{name}: a reply at zxid {seen.zxid:#x} after one at {last:#x}: {seen}")
            last = max(last, seen.zxid)
            if seen.mzxid > seen.zxid:
                found.append(f"{name}: shows the future: {seen}")
                continue
            zxids = writes[seen.path]
            newest = zxids[bisect_right(zxids, seen.zxid) - 1]
            if newest != seen.mzxid:
                found.append(f"{name}: misses the write of zxid {newest:#x}: {seen}")
    return found


def writes_by_path(everything: Iterable[Seen], found: list[str]) -> dict[str, list[int]]:
    """The zxids of the writes that anybody saw, in order; what does not agree goes to `found`."""
    known: dict[tuple[str, int], Seen] = {}
    for seen in everything:
        first = known.setdefault((seen.path, seen.mzxid), seen)
        if (first.version, first.data) != (seen.version, seen.data):
            found.append(f"one zxid, two writes: {first} and {seen}")
    writes: dict[str, list[int]] = {}
    versions: dict[str, int] = {}
    for path, zxid in sorted(known):
        writes.setdefault(path, []).append(zxid)
        version = known[path, zxid].version
        if version <= versions.get(path, -1):
            found.append(f"{path}: version {version} at zxid {zxid:#x} after version {versions[path]}")
        versions[path] = version
    return writes
