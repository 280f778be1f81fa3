"""What the servers of a soak use, and whether it grows.

Looked at between two windows, when the clients have gone. A process that lives long is compared with itself:
what it used when it was young (after its first windows) with what it uses at last. Some growth is right: the
history in memory fills up to 64 MB, tables grow to their bound.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.soak.servers import SoakServer

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
YOUNG = 2
"""Samples of a process that are not compared: it is still filling up."""


@dataclass(frozen=True, slots=True)
class Usage:
    resident_mb: int
    files: int
    threads: int
    disk_mb: int
    znodes: int
    sessions: int
    watches: int


GROWTH_MAX = Usage(resident_mb=150, files=16, threads=4, disk_mb=1200, znodes=200, sessions=60, watches=50)
"""From the young process to the old."""
MOST = Usage(resident_mb=400, files=200, threads=32, disk_mb=1500, znodes=1000, sessions=300, watches=300)
"""At any time."""


def usage_of(server: SoakServer) -> Usage:
    assert server.process is not None
    process = Path(f"/proc/{server.process.pid}")
    figures = server.figures()
    return Usage(
        resident_mb=int((process / "statm").read_text().split()[1]) * PAGE_BYTES >> 20,
        files=len(list((process / "fd").iterdir())),
        threads=len(list((process / "task").iterdir())),
        disk_mb=sum(path.stat().st_size for path in server.data_directory.rglob("*") if path.is_file()) >> 20,
        znodes=figures.get("zk_znode_count", 0),
        sessions=figures.get("zk_global_sessions", 0),
        watches=figures.get("zk_watch_count", 0),
    )


def excesses(name: str, samples: Sequence[Usage]) -> list[str]:
    """Of one process, by time: each a sentence about what is beyond its bound, or has grown beyond it."""
    found = []
    for field in Usage.__slots__:
        values = [getattr(sample, field) for sample in samples]
        if max(values, default=0) > getattr(MOST, field):
            found.append(f"{name}: {field} came to {max(values)}, at most {getattr(MOST, field)} expected")
        grown = values[YOUNG:]
        if grown and grown[-1] - grown[0] > getattr(GROWTH_MAX, field):
            found.append(f"{name}: {field} has grown from {grown[0]} to {grown[-1]}")
    return found


class Watch:
    """The samples of all processes that have been seen."""

    def __init__(self) -> None:
        self.samples: dict[tuple[int, int], list[Usage]] = {}
        """By server and process."""

    def look(self, servers: Mapping[int, SoakServer]) -> dict[int, Usage]:
        found = {}
        for sid, server in servers.items():
            assert server.process is not None
            found[sid] = usage_of(server)
            self.samples.setdefault((sid, server.process.pid), []).append(found[sid])
        return found

    def excesses(self) -> list[str]:
        return [
            excess
            for (sid, pid), samples in self.samples.items()
            for excess in excesses(f"server {sid} (process {pid})", samples)
        ]
