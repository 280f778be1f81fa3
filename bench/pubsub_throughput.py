"""How many messages a second go from one publisher to one subscriber, each a process, through one hub?

    python -m bench.pubsub_throughput [--message-bytes 100] [--seconds 5] [--bookies 3] [--hubs 1]
    [--one-by-one] [--apache-coord]

Unit: messages per second from the first delivered to the last, both sides running at once, all servers on
    this machine; E = Qw = bookies, Qa = 2, fsync on. The publisher hands over lists (`publish_many`), the
    subscriber takes batches and looks at every payload; with --one-by-one it iterates over message objects
    instead. Latency is from handing a list over to its receipt. Bar: 250 000 messages/s at 100 bytes. The
    result goes to bench/results/pubsub_throughput.json.
"""

import argparse
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trio

import pubsub
from bench.coord_peers import ApacheServers
from tests.bookie.bookie_servers import BookieServers
from tests.coord_servers import CoordServers
from tests.ending import end_in_order
from tests.pubsub.hub_servers import HubServers

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).resolve().parent.parent
PIECE = 10_000
CALLS = 8
BAR_MESSAGES_PER_S = 250_000
TOPIC = "bench"
ROLE_SECONDS_MAX = 120


async def publish(options: argparse.Namespace) -> dict[str, Any]:
    """The publisher's process."""
    payloads = [os.urandom(options.message_bytes) for _ in range(PIECE)]
    published = 0
    times_ms: list[float] = []
    async with pubsub.connect(options.coord) as bus:
        begun = time.perf_counter()
        until = begun + options.seconds
        cpu = time.process_time()

        async def keep_publishing() -> None:
            nonlocal published
            while (started := time.perf_counter()) < until:
                await bus.publish_many(TOPIC, payloads)
                times_ms.append((time.perf_counter() - started) * 1e3)
                published += PIECE

        async with trio.open_nursery() as nursery:
            for _ in range(CALLS):
                nursery.start_soon(keep_publishing)
        took = time.perf_counter() - begun
        info = await bus.topic_info(TOPIC)
    cuts = statistics.quantiles(times_ms, n=100)
    return {
        "published": published,
        "last_seq_id": info.last_seq_id,
        "published_per_s": round(published / took),
        "publish_many_p50_ms": round(cuts[49], 1),
        "publish_many_p99_ms": round(cuts[98], 1),
        "publisher_cpu_s_per_s": round((time.process_time() - cpu) / took, 2),
    }


async def subscribe(options: argparse.Namespace) -> dict[str, Any]:
    """The subscriber's process: counts until a message is `end`, which the runner publishes last."""
    received = 0
    total = 0
    first_at = last_at = cpu = 0.0
    expected = 1
    async with (
        pubsub.connect(options.coord) as bus,
        bus.subscribe(TOPIC, "bench", from_="earliest") as messages,
    ):
        sys.stdout.write("attached\n")
        sys.stdout.flush()
        if options.one_by_one:
            async for message in messages:
                if not received:
                    first_at, cpu = time.perf_counter(), time.process_time()
                if message.data == b"end":
                    break
                received += 1
                total += len(message.data)
                if message.sequence % 1000 == 0:
                    await messages.consume(message)
            last_at = time.perf_counter()
        else:
            async for batch in messages.batches():
                payloads = batch.payloads
                if not received:
                    first_at, cpu = time.perf_counter(), time.process_time()
                if batch.first != expected:
                    raise AssertionError(f"expected message {expected}, got {batch.first}")
                expected = batch.last + 1
                if payloads[-1] == b"end":
                    break
                received += len(payloads)
                total += sum(map(len, payloads))
                last_at = time.perf_counter()
                await messages.consume(batch)
    took = last_at - first_at
    return {
        "received": received,
        "received_bytes": total,
        "messages_per_s": round(received / took),
        "mb_per_s": round(total / took / 1e6, 1),
        "subscriber_cpu_s_per_s": round((time.process_time() - cpu) / took, 2),
    }


async def publish_end(hosts: str) -> None:
    async with pubsub.connect(hosts) as bus:
        await bus.publish(TOPIC, b"end")


def spawn(role: str, hosts: str, options: argparse.Namespace) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "bench.pubsub_throughput", "--role", role, "--coord", hosts]
    command += ["--message-bytes", str(options.message_bytes), "--seconds", str(options.seconds)]
    if options.one_by_one:
        command.append("--one-by-one")
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def read_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], ROLE_SECONDS_MAX)
    line = process.stdout.readline() if readable else ""
    if not line:
        raise RuntimeError("a process of the benchmark ended without a result")
    return line


def measure(options: argparse.Namespace) -> dict[str, Any]:
    kind = ApacheServers if options.apache_coord else CoordServers
    with (
        tempfile.TemporaryDirectory(prefix="pubsub-throughput-") as directory,
        kind(Path(directory) / "coord", 1, tick_ms=2000) as coord_servers,
        BookieServers(Path(directory), coord_servers.hosts, options.bookies) as bookies,
        HubServers(Path(directory), coord_servers.hosts, options.hubs) as hubs,
    ):
        hosts = coord_servers.hosts
        roles = []
        try:
            subscriber = spawn("subscriber", hosts, options)
            roles.append(subscriber)
            read_line(subscriber)
            servers = [*hubs.servers, *bookies.servers]
            before = [server.cpu_seconds() for server in servers]
            publisher = spawn("publisher", hosts, options)
            roles.append(publisher)
            result = json.loads(read_line(publisher))
            used = [server.cpu_seconds() - cpu for server, cpu in zip(servers, before, strict=True)]
            trio.run(publish_end, hosts)
            result |= json.loads(read_line(subscriber))
        finally:
            for process in roles:
                process.kill()
                process.wait()
        result["server_cpu_s_per_s"] = [round(one / options.seconds, 2) for one in used]
        result["server_resident_mb"] = [round(server.resident_bytes() / 1e6) for server in servers]
    if result["received"] != result["published"]:
        raise AssertionError(f"published {result['published']}, received {result['received']}")
    return result


def main() -> None:
    end_in_order()
    parser = argparse.ArgumentParser()
    parser.add_argument("--message-bytes", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--bookies", type=int, default=3)
    parser.add_argument("--hubs", type=int, default=1)
    parser.add_argument("--one-by-one", action="store_true", help="iterate over messages, not batches")
    parser.add_argument("--apache-coord", action="store_true", help="metadata in Debian's ZooKeeper")
    parser.add_argument("--role", choices=("publisher", "subscriber"), help=argparse.SUPPRESS)
    parser.add_argument("--coord", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        role = publish if options.role == "publisher" else subscribe
        print(json.dumps(trio.run(role, options)), flush=True)
        return
    report = {
        "command": "python -m bench.pubsub_throughput " + " ".join(sys.argv[1:]),
        "message_bytes": options.message_bytes,
        "bookies": options.bookies,
        "hubs": options.hubs,
        "processors": os.cpu_count(),
        "bars": {"messages_per_s": BAR_MESSAGES_PER_S},
        **measure(options),
    }
    print(json.dumps(report, indent=1))
    RESULTS.mkdir(exist_ok=True)
    name = "pubsub_throughput_one_by_one.json" if options.one_by_one else "pubsub_throughput.json"
    (RESULTS / name).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
