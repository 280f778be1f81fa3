"""How many requests a second does a coordination server answer, and Apache ZooKeeper beside it?

    python -m bench.coord_speed [--servers 1|3] [--rounds N] [--seconds S] [--only NAME] [--no-apache]

Unit: requests per second, values of 1 KB (creates: 100 bytes), fsync on, one load generator process
(`bench.coord_load`) that shares the machine with the servers; for one client with one outstanding write, the
latency. Apache (Debian's package) runs on the same disk, in turn with ours: each round measures every
workload on both, the other one idle; each side's best round counts, so that what else this machine does
hurts both alike. The bars stand in `WORKLOADS`, as our share of Apache's figure (rates: at least; latencies:
at most). The result goes to bench/results/coord_speed-SERVERS.json.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from bench.coord_peers import ApacheServers, apache_is_installed
from tests.coord_servers import CoordServers
from tests.ending import end_in_order

RESULTS = Path(__file__).parent / "results"
Result = dict[str, float | int | str]


@dataclass(frozen=True)
class Workload:
    """Arguments of the load generator, and the bar for each figure as a share of Apache's."""

    arguments: tuple[str, ...]
    bars: dict[str, float] = field(default_factory=dict)


def rate(kind: str, connections: int, outstanding: int, bar: float, size: int = 1024) -> Workload:
    arguments = (kind, str(connections), str(outstanding), "--size", str(size))
    return Workload(arguments, {"per_second": bar})


LATENCY = Workload(("write", "1", "1"), {"p50_ms": 1.0, "p99_ms": 0.5})
WORKLOADS = {
    1: {
        "reads 20x100": rate("read", 20, 100, 4.0),
        "writes 20x100": rate("write", 20, 100, 3.0),
        "reads 50x1": rate("read", 50, 1, 1.3),
        "writes 50x1": rate("write", 50, 1, 1.3),
        "writes 1x1": LATENCY,
    },
    3: {
        "reads 21x100": rate("read", 21, 100, 5.0),
        "writes 21x100": rate("write", 21, 100, 5.0),
        "mixed 21x100": rate("mixed", 21, 100, 4.0),
        "writes 51x1": rate("write", 51, 1, 1.5),
        "creates 21x100": rate("create", 21, 100, 3.0, size=100),
        "writes 1x1": LATENCY,
    },
}


def measure(servers: CoordServers, workload: Workload, seconds: float) -> Result:
    """One workload on running servers."""
    command = [sys.executable, "-m", "bench.coord_load", servers.hosts, *workload.arguments]
    command += ["--seconds", str(seconds), "--warm", "1"]
    result: Result = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return result


def compare(options: argparse.Namespace) -> dict[str, dict[str, Result]]:
    """Side -> workload -> best result of all rounds, with all rounds' rates beside it."""
    kinds: dict[str, type[CoordServers]] = {"zoolog": CoordServers}
    if apache_is_installed() and not options.no_apache:
        kinds = {"apache": ApacheServers} | kinds
    rounds: dict[str, dict[str, list[Result]]] = {side: {} for side in kinds}
    with contextlib.ExitStack() as stack:
        running: dict[str, CoordServers] = {}
        for side, kind in kinds.items():
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix=f"coord-speed-{side}-"))
            running[side] = stack.enter_context(kind(Path(directory), options.servers, tick_ms=2000))
        for _ in range(options.rounds):
            for name, workload in WORKLOADS[options.servers].items():
                if options.only in name:
                    for side, servers in running.items():
                        result = measure(servers, workload, options.seconds)
                        rounds[side].setdefault(name, []).append(result)
    return {
        side: {name: best_of(results) for name, results in workloads.items()}
        for side, workloads in rounds.items()
    }


def best_of(results: list[Result]) -> Result:
    best = max(results, key=lambda result: float(result["per_second"]))
    return best | {"rounds": str([result["per_second"] for result in results])}


def judge(ours: Result, peer: Result, bars: dict[str, float]) -> str:
    """Adds our share of Apache's figures to `ours`; a line about each bar."""
    verdicts = []
    for figure, bar in bars.items():
        share = float(ours[figure]) / max(1e-9, float(peer[figure]))
        met = share >= bar if figure == "per_second" else share <= bar
        ours[f"ratio {figure}"], ours[f"bar {figure}"] = round(share, 2), bar
        verdicts.append(f"{figure} {share:.2f} of {peer[figure]:,} (bar {bar}{'' if met else ', MISSED'})")
    return "; ".join(verdicts)


def main() -> None:
    end_in_order()
    parser = argparse.ArgumentParser()
    parser.add_argument("--servers", type=int, choices=sorted(WORKLOADS), default=1)
    parser.add_argument("--rounds", type=int, default=3, help="the first one warms Apache's compiler")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", default="", help="a part of the workloads' names")
    parser.add_argument("--no-apache", action="store_true")
    options = parser.parse_args()
    report = compare(options)
    for name, ours in report["zoolog"].items():
        line = f"{name:15} {ours['per_second']:>9,}/s  p50 {ours['p50_ms']} ms  p99 {ours['p99_ms']} ms"
        if "apache" in report:
            line += "  " + judge(ours, report["apache"][name], WORKLOADS[options.servers][name].bars)
        print(line, flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"coord_speed-{options.servers}.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
