"""How many requests a second does a coordination server answer, and Apache ZooKeeper beside it?

    python -m bench.coord_speed [--servers 1|3] [--seconds S] [--only NAME] [--no-apache]

Unit: requests per second, 1 KB values, fsync on, one load generator process (`bench.coord_load`) that shares
the machine with the servers. Workloads: 20 connections x 100 outstanding and 50 x 1, reads and writes, on
one server; 21 x 100 writes on three. Apache (Debian's package) runs first, on the same disk, in the same
way. Bars: 3 times its reads and 2 times its writes at 20 x 100, no fewer at 50 x 1, 3 times its writes on
three servers. The result goes to bench/results/coord_speed-SERVERS.json.
"""

import argparse
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


def measure(
    kind: type[CoordServers], count: int, seconds: float, only: str, warm: float
) -> dict[str, Result]:
    """All workloads on one fresh server or ensemble."""
    results: dict[str, Result] = {}
    with (
        tempfile.TemporaryDirectory(prefix="coord-speed-") as directory,
        kind(Path(directory), count, tick_ms=2000) as servers,
    ):
        for name, (arguments, _) in WORKLOADS[count].items():
            if only in name:
                command = [sys.executable, "-m", "bench.coord_load", servers.hosts, *arguments]
                command += ["--seconds", str(seconds), "--warm", str(warm)]
                done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
                results[name] = json.loads(done.stdout)
    return results


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--servers", type=int, choices=sorted(WORKLOADS), default=1)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", default="", help="a part of the workloads' names")
    parser.add_argument("--no-apache", action="store_true")
    options = parser.parse_args()
    report: dict[str, dict[str, Result]] = {}
    if apache_is_installed() and not options.no_apache:
        report["apache"] = measure(ApacheServers, options.servers, options.seconds, options.only, 3.0)
    report["zoolog"] = measure(CoordServers, options.servers, options.seconds, options.only, 1.0)
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
