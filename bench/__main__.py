"""Runs every benchmark in turn and says where the results went.

    python -m bench [NAME...] [--list]

One after the other, each as `python -m bench.NAME` would; together a few minutes. A benchmark is a module of
this directory that writes to bench/results/. Exit status 1 if one of them failed.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from tests.ending import end_in_order

HERE = Path(__file__).parent
RESULTS = HERE / "results"
#: Name → command lines; a file that is not named here is not run by itself.
RUNS: dict[str, list[list[str]]] = {
    "rpc_echo": [[]],
    "coord_speed": [[], ["--servers", "3"]],
    "coord_failover": [[]],
    "ledger_append": [[]],
    "pubsub_throughput": [[]],
    "pubsub_failover": [[]],
}
#: Parts of other benchmarks.
PARTS = {"__init__", "__main__", "closed_loop", "coord_load", "coord_peers", "coord_writers"}


def written_since(moment: float) -> list[Path]:
    """The results of a run that began at `moment`."""
    return sorted(path for path in RESULTS.glob("*.json") if path.stat().st_mtime >= moment)


def main() -> int:
    end_in_order()
    names = [name for name in RUNS if (HERE / f"{name}.py").exists()]
    # A new file takes part without being listed here.
    names += sorted({path.stem for path in HERE.glob("*.py")} - PARTS - set(RUNS))
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; default: all")
    parser.add_argument("--list", action="store_true", help="print the names")
    options = parser.parse_args()
    if options.list:
        print("\n".join(names))
        return 0
    unknown = set(options.names) - set(names)
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    failed: list[str] = []
    for name in options.names or names:
        for arguments in RUNS.get(name, [[]]):
            failed += run(name, arguments)
    if failed:
        print("failed: " + ", ".join(failed), file=sys.stderr)
    return 1 if failed else 0


def run(name: str, arguments: list[str]) -> list[str]:
    """Runs one benchmark; returns its command line if it failed."""
    line = " ".join([f"bench.{name}", *arguments])
    print(f"== {line}", flush=True)
    begun = time.time()  # noqa: TID251  (compared with the times of files)
    command = [sys.executable, "-m", f"bench.{name}", *arguments]
    # In a session of its own: Ctrl-C comes to it through us, and so once.
    status = wait(subprocess.Popen(command, cwd=HERE.parent, start_new_session=True))
    for path in written_since(begun):
        print(f"-> {path.relative_to(HERE.parent)}", flush=True)
    return [line] if status else []


def wait(process: subprocess.Popen[bytes]) -> int:
    """Its exit status. When we are interrupted it is told, and stops its servers before it ends."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise


if __name__ == "__main__":
    sys.exit(main())
