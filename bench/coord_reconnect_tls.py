"""How soon are 1000 TLS clients served again after the leader's death, and does the next leader keep its
followers?

    python -m bench.coord_reconnect_tls [--clients N] [--rounds N]

Units: milliseconds from kill -9 of the leader until a client holds its session again (median, and the last
of all), over all clients, each with a certificate of its own authority and an ephemeral node; and how many
epochs began in that time: one means that the leader elected first has kept its followers through all the
handshakes. Three servers and two processes of clients (`coord.connect`) share the machine; half of the time
goes into the clients' side of the handshakes. The result goes to bench/results/coord_reconnect_tls.json.
"""

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

import trio

import coord
from bench.coord_load import Client
from coord.tls import client_context
from tests.coord.certificates import Authority
from tests.coord_servers import CoordServer, CoordServers, ask, free_ports
from tests.ending import end_in_order

RESULTS = Path(__file__).parent / "results"
PROCESSES = 2
SESSION_TIMEOUT_MS = 30_000
WAIT_S = 60.0
CONNECTING_AT_ONCE = 50


async def hold(hosts: str, certificate: str, authority: str, count: int) -> None:
    """One process of clients: prints a line when all are connected, and the moment at which each is served
    again after its connection has ended.
    """
    context = client_context(authority, certificate_path=certificate)
    connecting = trio.CapacityLimiter(CONNECTING_AT_ONCE)
    connected = 0
    all_connected, all_back = trio.Event(), trio.Event()
    back: list[float] = []

    async def client(number: int) -> None:
        nonlocal connected
        async with contextlib.AsyncExitStack() as stack:
            async with connecting:
                opening = coord.connect(hosts, session_timeout_ms=SESSION_TIMEOUT_MS, ssl_context=context)
                zk = await stack.enter_async_context(opening)
            await zk.create(f"/c-{os.getpid()}-{number}", ephemeral=True)
            states = stack.enter_context(zk.states())
            connected += 1
            if connected == count:
                all_connected.set()
            was_away = False
            async for state in states:
                if state is coord.State.CONNECTED and was_away:
                    break
                was_away = was_away or state is not coord.State.CONNECTED
            back.append(time.time())  # noqa: TID251  (compared with another process's)
            if len(back) == count:
                all_back.set()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(client, number)
        await all_connected.wait()
        print("connected", flush=True)
        with trio.move_on_after(WAIT_S):
            await all_back.wait()
        print(json.dumps(back), flush=True)
        nursery.cancel_scope.cancel()


def epoch(server: CoordServer) -> int:
    """Of a transaction made just now: a session that begins and ends."""
    Client("127.0.0.1", server.port).close()
    found = re.search(r"Zxid: 0x([0-9a-f]+)", ask(server.port, "srvr"))
    assert found is not None
    return int(found[1], 16) >> 32


def start_clients(hosts: str, directory: Path, count: int) -> list[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "bench.coord_reconnect_tls", "--hold", hosts, "--directory"]
    return [
        subprocess.Popen(
            [*command, str(directory), "--clients", str(count // PROCESSES)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]


def line_of(process: subprocess.Popen[str]) -> str:
    output: IO[str] | None = process.stdout
    assert output is not None
    return output.readline()


def measure(servers: CoordServers, hosts: str, directory: Path, count: int) -> dict[str, object]:
    """One death of a leader."""
    processes = start_clients(hosts, directory, count)
    try:
        for process in processes:
            if line_of(process).strip() != "connected":
                raise SystemExit("the clients cannot connect")
        leader: CoordServer = servers.leader()
        before = epoch(leader)
        killed = time.time()  # noqa: TID251  (compared with another process's)
        leader.kill()
        back = [moment for process in processes for moment in json.loads(line_of(process) or "[]")]
        after = epoch(servers.leader())
    finally:
        for process in processes:
            process.kill()
            process.wait()
    leader.start()
    servers.wait_serving()
    waits = sorted((moment - killed) * 1000 for moment in back)
    return {
        "back": len(waits),
        "median_ms": round(statistics.median(waits)) if waits else None,
        "last_ms": round(waits[-1]) if waits else None,
        "epochs": after - before,
    }


def main() -> None:
    end_in_order()
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hold", help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hold:
        directory = Path(options.directory)
        certificate, authority = (directory / "certificate", directory / "authority")
        paths = certificate.read_text(), authority.read_text()
        trio.run(hold, options.hold, *paths, options.clients)
        return
    with tempfile.TemporaryDirectory(prefix="coord-reconnect-") as name:
        directory = Path(name)
        authority_made = Authority(directory)
        (directory / "certificate").write_text(str(authority_made.issue("client")))
        (directory / "authority").write_text(str(authority_made.path))
        secure_ports = free_ports(3)
        extra = (
            f"ssl.keyStore.location={authority_made.issue('server')}\n"
            f"ssl.trustStore.location={authority_made.path}\nsecureClientPortAddress=127.0.0.1"
        )
        servers = CoordServers(directory / "servers", 3, tick_ms=2000, extra=extra)
        for server, port in zip(servers.servers, secure_ports, strict=True):
            with server.config_path.open("a") as file:
                file.write(f"\nsecureClientPort={port}\n")
        hosts = ",".join(f"localhost:{port}" for port in secure_ports)
        with servers:
            rounds = [measure(servers, hosts, directory, options.clients) for _ in range(options.rounds)]
    report = {
        "command": " ".join(["python -m bench.coord_reconnect_tls", *sys.argv[1:]]),
        "clients": options.clients,
        "processors": os.cpu_count(),
        "rounds": rounds,
    }
    print(json.dumps(report, indent=1))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "coord_reconnect_tls.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
