"""How long does no write complete when a server of three goes?

    python -m bench.coord_failover [--only FAILURE]... [--rounds N] [--clients C] [--tick MS]

Unit: milliseconds without a completed write, over all clients, from the moment of the failure on, under load
(1 KB setData, fsync on, each client one write at a time, reconnecting to the next server as soon as its
connection ends; default settings). The server is started again before the next round.

    kill       kill -9 of the leader: connections break. Bar: median 200, p99 500
    hand-over  SIGTERM of the leader. Bar: median 50
    follower   kill -9 of a follower, as the others' clients see it. Bar: median 50, also of the longest that
               one of them alone waits, and none loses its server
    stop       SIGSTOP of the leader: it says nothing, and is missed after syncLimit (4) ticks. Reported
    stop-phi   the same with `detector.peers=phi`. Reported

Of 20 rounds the p99 is the longest. Beside the gaps stands the time until all servers serve again. The result
goes to bench/results/coord_failover.json.
"""

import argparse
import json
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.coord_load import Client, prepare
from bench.coord_writers import Writer, longest_gap_ms, stop, wait_resumed
from tests.coord_servers import CoordServer, CoordServers
from tests.ending import end_in_order

RESULTS = Path(__file__).parent / "results"
SETTLE_SECONDS = 1.5
WATCH_SECONDS = 1.0
RESUME_SECONDS_MAX = 40.0
SILENT_ROUNDS = 3
"""A silent leader takes long to find out."""


@dataclass
class Trial:
    """The servers under load, and what was measured."""

    servers: CoordServers
    writers: list[Writer]
    gaps_ms: list[float] = field(default_factory=list)
    rejoin_ms: list[float] = field(default_factory=list)
    lost: int = 0
    """Connections to living servers that broke although only a follower died."""
    slowest_ms: list[float] = field(default_factory=list)
    """The longest that one client of a living server waited then, for whatever reason."""
    calm_ms: list[float] = field(default_factory=list)
    """The same in the second before."""

    def note_gap(self, writers: list[Writer], since: float) -> None:
        end = wait_resumed(writers, WATCH_SECONDS, RESUME_SECONDS_MAX)
        self.gaps_ms.append(longest_gap_ms(writers, since, end))

    def start_again(self, server: CoordServer) -> None:
        begun = time.perf_counter()
        server.start()
        self.servers.wait_serving()
        self.rejoin_ms.append(round((time.perf_counter() - begun) * 1000, 1))


def kill_leader(trial: Trial) -> None:
    leader = trial.servers.leader()
    since = time.perf_counter()
    leader.kill()
    trial.note_gap(trial.writers, since)
    trial.start_again(leader)


def stop_leader(trial: Trial) -> None:
    leader = trial.servers.leader()
    assert leader.process is not None
    since = time.perf_counter()
    os.kill(leader.process.pid, signal.SIGSTOP)
    try:
        trial.note_gap(trial.writers, since)
    finally:
        os.kill(leader.process.pid, signal.SIGCONT)
    begun = time.perf_counter()
    trial.servers.wait_serving()
    trial.rejoin_ms.append(round((time.perf_counter() - begun) * 1000, 1))


def hand_over(trial: Trial) -> None:
    leader = trial.servers.leader()
    since = time.perf_counter()
    leader.stop()
    trial.note_gap(trial.writers, since)
    trial.start_again(leader)


def kill_follower(trial: Trial) -> None:
    follower = trial.servers.followers()[0]
    others = [writer for writer in trial.writers if writer.port != follower.port]
    since = time.perf_counter()
    follower.kill()
    trial.note_gap(others, since)
    end = time.perf_counter()
    trial.slowest_ms.append(max(longest_gap_ms([writer], since, end) for writer in others))
    trial.calm_ms.append(max(longest_gap_ms([writer], since - WATCH_SECONDS, since) for writer in others))
    trial.lost += sum(1 for writer in others for moment in writer.lost if moment > since)
    trial.start_again(follower)


@dataclass(frozen=True)
class Failure:
    act: Callable[[Trial], None]
    median_ms: float | None = None
    p99_ms: float | None = None
    extra: str = ""
    rounds_max: int = 1000


FAILURES = {
    "kill": Failure(kill_leader, 200, 500),
    "hand-over": Failure(hand_over, 50),
    "follower": Failure(kill_follower, 50),
    "stop": Failure(stop_leader, rounds_max=SILENT_ROUNDS),
    "stop-phi": Failure(stop_leader, extra="detector.peers=phi", rounds_max=SILENT_ROUNDS),
}


def measure(name: str, failure: Failure, options: argparse.Namespace) -> dict[str, object]:
    """All rounds of one failure on fresh servers."""
    with (
        tempfile.TemporaryDirectory(prefix="coord-failover-") as directory,
        CoordServers(Path(directory), 3, tick_ms=options.tick, extra=failure.extra) as servers,
    ):
        ports = [server.port for server in servers.servers]
        setup = Client("127.0.0.1", ports[0])
        prepare(setup, 1024, options.clients)
        setup.socket.close()
        trial = Trial(servers, [Writer(number, ports, 1024) for number in range(options.clients)])
        for writer in trial.writers:
            writer.start()
        for _ in range(min(options.rounds, failure.rounds_max)):
            for writer in trial.writers:
                writer.goes_home = True
            wait_resumed(trial.writers, SETTLE_SECONDS, RESUME_SECONDS_MAX)
            failure.act(trial)
            print(f"{name}: no write completed for {trial.gaps_ms[-1]} ms", flush=True)
        stop(trial.writers)
    return judge(name, failure, trial)


def judge(name: str, failure: Failure, trial: Trial) -> dict[str, object]:
    gaps = sorted(trial.gaps_ms)
    median = statistics.median(gaps)
    p99 = gaps[min(len(gaps) - 1, int(len(gaps) * 0.99))]
    verdicts = [f"{name}: median {median} ms{against(median, failure.median_ms)}"]
    verdicts.append(f"p99 {p99} ms{against(p99, failure.p99_ms)}")
    if name == "follower":
        verdicts.append(f"{trial.lost} clients of the others lost their server")
        slowest, calm = statistics.median(trial.slowest_ms), statistics.median(trial.calm_ms)
        verdicts.append(
            f"one client waited {slowest} ms{against(slowest, failure.median_ms)} in the median round"
        )
        verdicts.append(f"{calm} ms in the second before")
    print(", ".join(verdicts), flush=True)
    return {
        "gaps_ms": trial.gaps_ms,
        "median_ms": median,
        "p99_ms": p99,
        "bar_median_ms": failure.median_ms,
        "bar_p99_ms": failure.p99_ms,
        "rejoin_ms": trial.rejoin_ms,
        "lost": trial.lost,
        "slowest_client_ms": trial.slowest_ms,
        "slowest_client_before_ms": trial.calm_ms,
    }


def against(value: float, bar: float | None) -> str:
    return "" if bar is None else f" (bar {bar}{'' if value <= bar else ', MISSED'})"


def main() -> None:
    end_in_order()
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=sorted(FAILURES), action="append")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--tick", type=int, default=2000)
    options = parser.parse_args()
    path = RESULTS / "coord_failover.json"
    report = json.loads(path.read_text()) if options.only and path.exists() else {}
    for name, failure in FAILURES.items():
        if not options.only or name in options.only:
            report[name] = measure(name, failure, options)
    report |= {"clients": options.clients, "tick": options.tick}
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
