"""`python -m tests.sim --seeds N [--first S]` runs seeds; `--replay SEED` shows one, a line per event."""

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from tests.sim.defects import DEFECTS, introduced, patched
from tests.sim.servers.defects import SERVER_DEFECTS
from tests.sim.servers.world import run_servers
from tests.sim.tables import TABLES
from tests.sim.world import run_seed

MEASURED_MIN = 6
MEASURED_MAX = 100
LEGEND = """\
  columns: seconds, server, event, what; zxids are hexadecimal epoch:counter
    start/crash/wipe/pause/resume   a server's process; `start` shows the state it recovered
    up/down                         its end of the link to another server
    receive                         a message: (sender, message)
    epochs/append/cut               handed to its disk (durable later)
    execute                         a committed batch is executed
    propose                         clients' batch at a leader: (first zxid, requests)
    status                          role, leader, epoch, serving
    installed                       a snapshot replaced log and state
    confirmed                       a round of leadership was confirmed
    cut_link/block/unblock/jump/mend   faults
  with --servers
    dies/refuses/rot                the end of a process, a start that failed, a file whose bits flipped
    asks/gets/session               a client: (its number, xid, what)
    hears                           a message between servers that is not Zab's
    execute                         a request, where it is executed first: (zxid, session, xid, operation)
    log                             a line of a server's event log
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--replay", type=int, help="run this seed and print every event")
    parser.add_argument(
        "--servers", action="store_true", help="whole servers with clients, not the core alone"
    )
    names = sorted(DEFECTS.keys() | SERVER_DEFECTS.keys())
    parser.add_argument("--defect", choices=names, help="introduce a known defect, at its own level")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first failing seed")
    parser.add_argument("--tables", action="store_true", help="print the tables of docs/testing.md")
    parser.add_argument("--measure", action="store_true", help="how many runs find each known defect")
    arguments = parser.parse_args()
    if arguments.tables:
        print("\n".join(table() for table in TABLES.values()))
        return 0
    if arguments.measure:
        every = SERVER_DEFECTS if arguments.servers else DEFECTS
        return _measure([arguments.defect] if arguments.defect else sorted(every))
    run = _runs_of(arguments.defect, servers=arguments.servers)
    with _introduced(arguments.defect) as profile:
        if arguments.replay is not None:
            print(LEGEND)
            return _report(run(arguments.replay, _print_event, profile), arguments)
        return _run_many(arguments, partial(run, profile=profile))


def _runs_of(defect: str | None, *, servers: bool) -> Callable[..., Any]:
    """What runs a seed, of the core alone or of whole servers."""
    return run_servers if servers or defect in SERVER_DEFECTS else run_seed


def _introduced(defect: str | None) -> AbstractContextManager[Any]:
    return patched(SERVER_DEFECTS[defect]) if defect in SERVER_DEFECTS else introduced(defect)


def _run_many(arguments: argparse.Namespace, run: Callable[[int], Any]) -> int:
    began = time.process_time()
    simulated_ms = executed = epochs = faults = failed = 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        outcome = run(seed)
        simulated_ms += outcome.simulated_ms
        executed += outcome.executed
        epochs += outcome.epochs
        faults += outcome.faults
        if outcome.law is not None:
            failed += 1
            _report(outcome, arguments)
            if not arguments.keep_going:
                return 1
    took = time.process_time() - began
    what = "requests" if arguments.servers else "batches"
    print(
        f"{arguments.seeds} seeds from {arguments.first}, {failed} failed: {executed} {what} executed, "
        f"{epochs} epochs, {faults} faults, {simulated_ms / 1000:.0f} s simulated in {took:.1f} s "
        f"of one core ({simulated_ms / 1000 / took:.0f} times real time)"
    )
    return 1 if failed else 0


def _measure(names: list[str]) -> int:
    """What `tests.sim.defects` says of each; its laws come from a few runs more than it needs."""
    missed = 0
    for name in names:
        found: list[tuple[int, str]] = []
        run = _runs_of(name, servers=False)
        with _introduced(name) as profile:
            for seed in range(1, MEASURED_MAX + 1):
                law = run(seed, profile=profile).law
                found += [(seed, law)] if law is not None else []
                if found and seed >= max(MEASURED_MIN, found[0][0]):
                    break
        missed += not found
        laws = tuple(dict.fromkeys(law for _, law in found))
        print(f"{name}: {found[0][0] if found else 'not found'} {laws}", flush=True)
    return 1 if missed else 0


def _report(outcome: Any, arguments: argparse.Namespace) -> int:
    if outcome.law is None:
        print(f"seed {outcome.seed}: {outcome}")
        return 0
    extra = " --servers" if arguments.servers else ""
    extra += f" --defect {arguments.defect}" if arguments.defect else ""
    print(f"seed {outcome.seed} broke {outcome.text}")
    print(f"  replay: python -m tests.sim --replay {outcome.seed}{extra}", flush=True)
    return 1


def _print_event(now_us: int, kind: str, sid: int, what: Any) -> None:
    print(f"{now_us / 1e6:10.6f} {sid} {kind:9} {_show(what)}")


def _show(what: Any) -> str:
    if what is None:
        return ""
    if isinstance(what, bytes):
        return what[:5].hex()
    if isinstance(what, int) and what > 0xFFFFFFFF:
        return f"{what >> 32:x}:{what & 0xFFFFFFFF:x}"
    if isinstance(what, tuple) and not hasattr(what, "_fields"):
        return " ".join(_show(each) for each in what)
    fields = getattr(what, "__dataclass_fields__", None)
    if fields:
        inner = " ".join(f"{name}={_show(getattr(what, name))}" for name in fields)
        return f"{type(what).__name__}({inner})"
    return str(what)


if __name__ == "__main__":
    sys.exit(main())
