"""How many requests a second does a coordination server answer, and Apache ZooKeeper beside it?

    python -m bench.coord_speed [--servers 1|3] [--rounds N] [--seconds S] [--only NAME]
        [--no-apache]

Unit: requests per second, 1 KB values, fsync on, one load generator process (`bench.coord_load`) that shares
the machine with the servers. Workloads: 20 connections x 100 outstanding and 50 x 1, reads and writes, on
one server; 21 x 100 writes on three. Apache (Debian's package) runs on the same disk, in turn with ours:
each round measures every workload on both, the other one idle; each side's best round counts, so that what
else this machine does hurts both alike. Bars: 3 times its reads and 2 times its writes at 20 x 100, no fewer
at 50 x 1, 3 times its writes on three servers. The result goes to bench/results/coord_speed-SERVERS.json.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.coord_peers import ApacheServers, apache_is_installed
from tests.coord_servers import CoordServers

RESULTS = Path(__file__).parent / "results"
WORKLOADS = {
    1: {
        "reads 20x100": (["read", "20", "100"], 3.0),
        "writes 20x100": (["write", "20", "100"], 2.0),
        "reads 50x1": (["read", "50", "1"], 1.0),
        "writes 50x1": (["write", "50", "1"], 1.0),
    },
    3: {"writes 21x100": (["write", "21", "100"], 3.0)},
}
Result = dict[str, float | int | str]


def measure(servers: CoordServers, arguments: list[str], seconds: float) -> Result:
    """One workload on running servers."""
    command = [sys.executable, "-m", "bench.coord_load", servers.hosts, *arguments]
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
            for name, (arguments, _) in WORKLOADS[options.servers].items():
                if options.only in name:
                    for side, servers in running.items():
                        result = measure(servers, arguments, options.seconds)
                        rounds[side].setdefault(name, []).append(result)
    return {
        side: {name: best_of(results) for name, results in workloads.items()}
        for side, workloads in rounds.items()
    }


def best_of(results: list[Result]) -> Result:
    best = max(results, key=lambda result: float(result["per_second"]))
    return best | {"rounds": str([result["per_second"] for result in results])}


def main() -> None:
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
            bar = WORKLOADS[options.servers][name][1]
            peer = report["apache"][name]
            ratio = float(ours["per_second"]) / max(1.0, float(peer["per_second"]))
            ours["ratio"], ours["bar"] = round(ratio, 2), bar
            verdict = f"bar {bar}" if ratio >= bar else f"bar {bar}, MISSED"
            line += f"  apache {peer['per_second']:>9,}/s  ratio {ratio:.2f} ({verdict})"
        print(line)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"coord_speed-{options.servers}.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
