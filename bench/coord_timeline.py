"""How does throughput go on while servers fail? The time line of the ZooKeeper performance page.

    python -m bench.coord_timeline [--servers N] [--clients C] [--rate R] [--calm S] [--down S] [--no-apache]

Unit: requests completed in each quarter of a second, 30 % of them writes of 1 KB, by clients that have one
request under way each, send R a second all together (0: as many as are answered) and go to the next server as
soon as their connection ends. 7 servers, as on the page ("Reliability in the Presence of Errors"); the five
failures are kill -9, and what failed is started again --down seconds later:

    1 a follower    2 another follower    3 the leader    4 two followers at once    5 the leader again

Apache ZooKeeper (Debian's package, else Maven's jars) and we are measured in turn on the same disk; about a
minute and a half each. Shapes are to be compared (how deep, how long), and totals with care: the clients are
one Python process on the same machine, and seven servers share it. So the rate is bounded: what is started
again must not starve. The result goes to bench/results/coord_timeline.json, with the command, the figure to
bench/results/coord_timeline.svg.
"""

import argparse
import json
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import TypedDict

from bench.coord_load import Client, prepare
from bench.coord_peers import find_apache
from bench.coord_writers import Writer, longest_gap_ms, stop
from tests.coord_servers import CoordServer, CoordServers
from tests.ending import end_in_order

RESULTS = Path(__file__).parent / "results"
WRITE_SHARE = 0.3
INTERVAL_SECONDS = 0.25
WARM_SECONDS = 5.0
FAILURES = ("a follower", "another follower", "the leader", "two followers", "the leader")
LANES = {"zoolog": "#0a6", "apache": "#c40"}
WIDTH, LANE_HEIGHT, MARGIN = 900, 190, 50


class Event(TypedDict):
    """A failure, or the return of what had failed; seconds since the begin of the line."""

    at_s: float
    what: str


class Line(TypedDict):
    per_interval: list[int]
    events: list[Event]
    longest_gap_ms: list[float]
    """For each failure: the longest time in which nobody's request was completed."""


class Course:
    """One ensemble under load, from failure to failure."""

    def __init__(
        self, servers: CoordServers, writers: list[Writer], calm_seconds: float, down_seconds: float
    ) -> None:
        self.servers = servers
        self.writers = writers
        self.calm_seconds = calm_seconds
        self.down_seconds = down_seconds
        self.events: list[Event] = []
        self.failed_at: list[float] = []
        self.begun = time.perf_counter()
        self._last_victim = 0

    def run(self) -> Line:
        for what in FAILURES:
            time.sleep(self.calm_seconds)
            victims = self._victims(what)
            self.failed_at.append(time.perf_counter())
            self._note(f"{what} killed")
            for victim in victims:
                victim.kill()
            time.sleep(self.down_seconds)
            self._note("started again")
            for victim in victims:
                victim.start()
        time.sleep(self.calm_seconds)
        return self._line(time.perf_counter())

    def _victims(self, what: str) -> list[CoordServer]:
        if what == "the leader":
            return [self.servers.leader()]
        followers = [each for each in self.servers.followers() if each.sid != self._last_victim]
        chosen = followers[: 2 if what.startswith("two") else 1]
        self._last_victim = chosen[0].sid
        return chosen

    def _note(self, what: str) -> None:
        self.events.append({"at_s": round(time.perf_counter() - self.begun, 2), "what": what})

    def _line(self, end: float) -> Line:
        counts = [0] * int((end - self.begun) / INTERVAL_SECONDS)
        for writer in self.writers:
            for moment in writer.done:
                index = int((moment - self.begun) / INTERVAL_SECONDS)
                if moment >= self.begun and index < len(counts):
                    counts[index] += 1
        gaps = [longest_gap_ms(self.writers, at, at + self.down_seconds) for at in self.failed_at]
        return {"per_interval": counts, "events": self.events, "longest_gap_ms": gaps}


def measure(kind: type[CoordServers], options: argparse.Namespace) -> Line:
    with (
        tempfile.TemporaryDirectory(prefix="coord-timeline-") as directory,
        kind(Path(directory), options.servers, tick_ms=2000) as servers,
    ):
        ports = [server.port for server in servers.servers]
        setup = Client("127.0.0.1", ports[0])
        prepare(setup, 1024, options.clients)
        setup.socket.close()
        interval = options.clients / options.rate if options.rate else 0.0
        writers = [
            Writer(number, ports, 1024, read_share=1 - WRITE_SHARE, interval_seconds=interval)
            for number in range(options.clients)
        ]
        for writer in writers:
            writer.start()
        try:
            time.sleep(WARM_SECONDS)
            return Course(servers, writers, options.calm, options.down).run()
        finally:
            stop(writers)


def figure(lines: dict[str, Line], names: dict[str, str]) -> str:
    """An SVG: a lane for each side with its own scale, a mark for each event; `names` are their titles."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH + 2 * MARGIN}" '
        f'height="{len(lines) * (LANE_HEIGHT + MARGIN) + MARGIN}" font-family="sans-serif" font-size="11">'
    ]
    for number, (side, line) in enumerate(lines.items()):
        parts += _lane(names[side], LANES[side], line, MARGIN + number * (LANE_HEIGHT + MARGIN))
    return "\n".join([*parts, "</svg>", ""])


def _lane(name: str, colour: str, line: Line, top: int) -> list[str]:
    counts = line["per_interval"]
    highest = max([*counts, 1])
    step = WIDTH / max(1, len(counts))
    seconds = len(counts) * INTERVAL_SECONDS
    bottom = top + LANE_HEIGHT
    points = " ".join(
        f"{MARGIN + (index + 0.5) * step:.1f},{bottom - count / highest * LANE_HEIGHT:.1f}"
        for index, count in enumerate(counts)
    )
    parts = [
        f'<text x="{MARGIN}" y="{top - 22}" font-weight="bold">{name}: requests a second, '
        f"{round(highest / INTERVAL_SECONDS):,} at the top</text>",
        f'<path d="M{MARGIN},{top}V{bottom}H{MARGIN + WIDTH}" fill="none" stroke="#888"/>',
    ]
    for event in line["events"]:
        x = MARGIN + event["at_s"] / seconds * WIDTH
        parts.append(f'<path d="M{x:.1f},{top}V{bottom}" stroke="#bbb" stroke-dasharray="3"/>')
        if event["what"].endswith("killed"):
            parts.append(f'<text x="{x:.1f}" y="{top - 6}">{event["what"]}</text>')
    for second in range(0, int(seconds) + 1, 5):
        parts.append(f'<text x="{MARGIN + second / seconds * WIDTH:.1f}" y="{bottom + 14}">{second} s</text>')
    parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
    return parts


def main() -> None:
    end_in_order()
    parser = argparse.ArgumentParser()
    parser.add_argument("--servers", type=int, default=7)
    parser.add_argument("--clients", type=int, default=21)
    parser.add_argument("--rate", type=float, default=1500, help="requests a second; 0: no bound")
    parser.add_argument("--calm", type=float, default=8, help="seconds before a failure")
    parser.add_argument("--down", type=float, default=6, help="seconds until what failed is started again")
    parser.add_argument("--no-apache", action="store_true")
    options = parser.parse_args()
    kinds: dict[str, type[CoordServers]] = {"zoolog": CoordServers}
    names = {"zoolog": "zoolog"}
    apache = None if options.no_apache else find_apache()
    if apache is not None:
        names["apache"], kinds["apache"] = apache
    lines: dict[str, Line] = {}
    for side, kind in kinds.items():
        line = lines[side] = measure(kind, options)
        rate = round(sum(line["per_interval"]) / len(line["per_interval"]) / INTERVAL_SECONDS)
        print(f"{side}: {rate:,} requests a second over all", flush=True)
        for what, gap_ms in zip(FAILURES, line["longest_gap_ms"], strict=True):
            print(f"  {what} killed: nothing completed for {gap_ms} ms", flush=True)
    RESULTS.mkdir(exist_ok=True)
    command = shlex.join(["python", "-m", "bench.coord_timeline", *sys.argv[1:]])
    report = {
        "command": command,
        "names": names,
        "interval_s": INTERVAL_SECONDS,
        "write_share": WRITE_SHARE,
        **vars(options),
        **lines,
    }
    (RESULTS / "coord_timeline.json").write_text(json.dumps(report, indent=1) + "\n")
    (RESULTS / "coord_timeline.svg").write_text(figure(lines, names))


if __name__ == "__main__":
    main()
