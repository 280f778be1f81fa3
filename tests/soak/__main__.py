"""Keeps an ensemble under load and random faults for a long time, and checks all that its clients are told.

    python -m tests.soak [--minutes N] [--seed S] [--window SECONDS] [--without FAULT]... [--keep DIRECTORY]

Three participants and an observer, real processes; clients with registers, counters, multis and locks, and
some that only keep their sessions. The run is a row of windows: in each the clients begin with new objects,
faults follow each other (`tests/soak/faults.py`), and at its end the histories go through the checkers and
are forgotten; the servers, the clients that stay, and what the servers have stored go on. Between two windows
the servers are asked what they use.

One line a window. At the end a summary, and exit status 1 if anything was wrong; then the directory with the
servers' logs and data is kept. The same seed gives the same faults in the same order (with the same abilities
of the machine: network namespaces, a C compiler, mounting a small disk).
"""

import argparse
import contextlib
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.coord_raw import insist
from tests.coord_servers import ServerFailedError
from tests.ending import end_in_order
from tests.histories.checker import UndecidedError, violations
from tests.histories.recording import History, LiveSession
from tests.histories.running import clients
from tests.histories.sessions import inconsistencies
from tests.histories.workers import MODELS
from tests.soak.faults import Faults
from tests.soak.residents import HOME, Residents
from tests.soak.servers import SoakServers, soak_servers
from tests.soak.usage import Usage, Watch

TICK_MS = 200
SESSION_TIMEOUT_MS = 4000
STOP_SECONDS = 6.0
PAUSE_SECONDS = 0.03
"""Between two steps of a client: the machine is to have time for the servers."""
RESIDENTS = 8
BAD_LINES, FULL_DISK_LINES = ("Traceback", " ERROR "), ("disk full", "disk nearly full", "DiskFullError")
"""In a server's log, and what is said of a disk that a fault has filled."""
LINES_MAX = 20


@dataclass
class Findings:
    """What was wrong, and how much was looked at."""

    wrong: list[str] = field(default_factory=list)
    undecided: int = 0
    """Windows whose history was too hard for the checker."""
    windows: int = 0
    operations: int = 0
    answers: int = 0
    lost_sessions: int = 0
    """Of clients that had been silent for longer than their timeout."""


class Soak:
    def __init__(self, servers: SoakServers, options: argparse.Namespace) -> None:
        self.servers = servers
        self.options = options
        self.found = Findings()
        self.watch = Watch()
        self.faults = Faults(servers, random.Random(options.seed), STOP_SECONDS, frozenset(options.without))
        self.residents = Residents(servers, RESIDENTS, SESSION_TIMEOUT_MS, options.seed)
        self.keeper = LiveSession(
            "keeper",
            [server.port for server in servers.servers],
            History(),
            SESSION_TIMEOUT_MS,
            random.Random(options.seed),
            via=servers.via,
        )
        """Makes and removes the roots of the windows."""
        self._log_ends = dict.fromkeys(servers.by_sid, 0)

    def run(self) -> None:
        begun = time.monotonic()
        self._insist_create(HOME)
        self.residents.start()
        try:
            while time.monotonic() < begun + 60 * self.options.minutes and not self.found.wrong:
                self._window(begun)
        finally:
            self.residents.stop()
        self._judge_residents()
        self.found.wrong += self.watch.excesses()

    def _window(self, begun: float) -> None:
        number = self.found.windows = self.found.windows + 1
        root = f"/window-{number}"
        self._insist_create(root)
        history = History()
        done: list[str] = []
        end = time.monotonic() + self.options.window
        try:
            with clients(
                self.servers,
                history,
                SESSION_TIMEOUT_MS,
                self.servers.via if self.servers.net is not None else None,
                root=root,
                pause_seconds=PAUSE_SECONDS,
            ):
                while time.monotonic() < end and not history.errors:
                    done.append("?")
                    done[-1] = self.faults.one(history)
        except (ServerFailedError, AssertionError) as error:
            self.found.wrong.append(f"window {number}, {' '.join(done)}: {error or repr(error)}")
        self._judge(number, history)
        if not self.found.wrong:
            insist(lambda: self._remove(root))
            self._tell(begun, number, history, done, self.watch.look(self.servers.by_sid))

    def _judge(self, number: int, history: History) -> None:
        found = self.found
        wrong = [*history.errors, *inconsistencies(history.seen)]
        try:
            wrong += violations(MODELS, history.operations)
        except UndecidedError:
            found.undecided += 1
        for sid, server in self.servers.by_sid.items():
            with open(server.log_path, errors="replace") as log:
                log.seek(self._log_ends[sid])
                wrong += [f"server {sid}: {line.rstrip()}" for line in log if _is_bad(line)]
                self._log_ends[sid] = log.tell()
        found.wrong += [f"window {number}: {what}" for what in wrong[:LINES_MAX]]
        found.operations += sum(map(len, history.operations.values()))
        found.answers += history.answered
        found.lost_sessions += len(history.lost_sessions)
        self._judge_residents()

    def _judge_residents(self) -> None:
        errors = self.residents.history.errors
        self.found.wrong += errors
        errors.clear()

    def _insist_create(self, path: str) -> None:
        insist(lambda: self.keeper.create(path, b""))

    def _remove(self, path: str) -> None:
        """With all below it; the ephemeral nodes of clients that have gone may go by themselves meanwhile."""
        for name in self.keeper.children(path):
            self._remove(f"{path}/{name}")
        self.keeper.delete(path)

    def _tell(
        self, begun: float, number: int, history: History, done: list[str], used: dict[int, Usage]
    ) -> None:
        minutes = (time.monotonic() - begun) / 60
        uses = " ".join(
            f"{sid}:{u.resident_mb}MB/{u.files}f/{u.threads}t/{u.disk_mb}MB" for sid, u in used.items()
        )
        any_of = used[1]
        print(
            f"[{minutes:6.1f} min] window {number}: {' '.join(done)}; {history.answered} answers, "
            f"{any_of.znodes} znodes, {any_of.sessions} sessions; {uses}",
            flush=True,
        )


def _is_bad(line: str) -> bool:
    return any(bad in line for bad in BAD_LINES) and not any(full in line for full in FULL_DISK_LINES)


def summary(soak: Soak, minutes: float) -> str:
    found = soak.found
    faults: Counter[str] = soak.faults.done
    lines = [
        f"seed {soak.options.seed}: {minutes:.1f} minutes, {found.windows} windows, "
        f"{found.operations} operations checked, {found.answers} answers, {sum(faults.values())} faults",
        "faults: " + ", ".join(f"{name} {count}" for name, count in sorted(faults.items())),
        f"sessions that ended as they may: {found.lost_sessions} of those that come and go, "
        f"{len(soak.residents.history.lost_sessions)} of those that stay; "
        f"windows that the checker could not decide: {found.undecided}",
    ]
    for key in Usage.__slots__:
        most = max((getattr(u, key) for used in soak.watch.samples.values() for u in used), default=0)
        oldest = max(soak.watch.samples.values(), key=len, default=[])
        course = (
            f", of the oldest process {getattr(oldest[0], key)} to {getattr(oldest[-1], key)}"
            if oldest
            else ""
        )
        lines.append(f"{key}: at most {most}{course}")
    lines += [f"WRONG: {what}" for what in found.wrong]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--window", type=float, default=30, metavar="SECONDS")
    parser.add_argument("--without", action="append", default=[], metavar="FAULT")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="work here, and leave it behind")
    options = parser.parse_args()
    end_in_order()
    directory = options.keep or Path(tempfile.mkdtemp(prefix="zoolog-soak-"))
    directory.mkdir(parents=True, exist_ok=True)
    print(f"seed {options.seed}, in {directory}", flush=True)
    begun = time.monotonic()
    with soak_servers(directory, TICK_MS, frozenset(options.without)) as servers:
        soak = Soak(servers, options)
        try:
            soak.run()
        except KeyboardInterrupt:
            print("interrupted")
        print(summary(soak, (time.monotonic() - begun) / 60), flush=True)
    if soak.found.wrong:
        print(
            f"kept: {directory}\n"
            f"again: python -m tests.soak --minutes {options.minutes} --seed {options.seed}"
        )
        return 1
    if options.keep is None:
        with contextlib.suppress(OSError):
            shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
