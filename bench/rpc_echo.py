"""What a request costs on one RPC link, with nothing behind it: a server process that echoes, and this
client.

    python -m bench.rpc_echo [--seconds S] [--size BYTES] [--outstanding N]

Units: requests per second with N outstanding (through callbacks, and through N tasks that call), and
microseconds of one request's round trip with one outstanding. Prints one JSON object. Bars: 60 000 requests/s
at 100 outstanding of 100 bytes, 150 us for one at a time.
"""

import argparse
import gc
import json
import subprocess
import sys
import time
from dataclasses import dataclass

import trio

from coord import rpc
from coord.message import Protocol, message
from coord.metrics import Summary
from coord.reactor import Reactor
from coord.rpc import Link, Peer, Reply, RpcError, RpcService
from tests.ending import end_in_order


@message(1)
@dataclass(frozen=True, slots=True)
class Echo:
    """What goes there and comes back."""

    number: int
    key: bytes


PROTOCOL = Protocol("echo", [Echo])
ECHO = Echo(1, b"0123456789")


class EchoServer:
    """Answers at once."""

    def on_connected(self, peer: Peer) -> None:
        pass

    def on_request(self, peer: Peer, request_id: int, message: Echo, body: memoryview) -> None:
        peer.reply(request_id, message, body)

    def on_one_way(self, peer: Peer, message: Echo, body: memoryview) -> None:
        pass

    def on_disconnected(self, peer: Peer, reason: str) -> None:
        pass

    def on_tick_end(self) -> None:
        pass


async def serve() -> None:
    reactor = Reactor()
    _, port = reactor.listen("127.0.0.1", 0, RpcService(PROTOCOL, EchoServer()))
    print(port, flush=True)
    await reactor.run()


async def pipelined(link: Link, body: bytes, outstanding: int, seconds: float) -> float:
    """Requests per second where each reply's callback makes the next request."""
    done = 0
    until = time.perf_counter() + seconds

    def on_reply(reply: Reply | RpcError) -> None:
        nonlocal done
        assert isinstance(reply, Reply)
        done += 1
        if time.perf_counter() < until:
            link.request(ECHO, body, on_reply=on_reply)

    for _ in range(outstanding):
        link.request(ECHO, body, on_reply=on_reply)
    await trio.sleep(seconds + 0.2)
    return done / seconds


async def called(link: Link, body: bytes, outstanding: int, seconds: float) -> float:
    """Requests per second of as many tasks that wait for each reply."""
    done = 0

    async def caller() -> None:
        nonlocal done
        while True:
            await link.call(ECHO, body)
            done += 1

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(outstanding):
                nursery.start_soon(caller)
    return done / seconds


async def round_trips(link: Link, body: bytes, seconds: float) -> Summary:
    """Microseconds of one call at a time."""
    took_us = Summary()
    until = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < until:
        await link.call(ECHO, body)
        took_us.record(int((time.perf_counter() - begun) * 1e6))
    return took_us


async def measure(port: int, size: int, outstanding: int, seconds: float) -> dict[str, float]:
    body = bytes(max(0, size - 20))
    async with rpc.connect("127.0.0.1", port, PROTOCOL, inflight_max=2 * outstanding) as link:
        by_callbacks = await pipelined(link, body, outstanding, seconds)
        by_tasks = await called(link, body, outstanding, seconds)
        took_us = await round_trips(link, body, seconds)
    p50_us, p99_us, p999_us = took_us.quantiles()
    return {
        "size_bytes": size,
        "outstanding": outstanding,
        "callback_requests_per_s": round(by_callbacks),
        "call_requests_per_s": round(by_tasks),
        "round_trip_us_p50": p50_us,
        "round_trip_us_p99": p99_us,
        "round_trip_us_p999": p999_us,
    }


def main() -> None:
    end_in_order()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--size", type=int, default=100, help="bytes of a request on the wire, about")
    parser.add_argument("--outstanding", type=int, default=100)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    gc.freeze()
    gc.disable()
    if options.serve:
        trio.run(serve)
        return
    command = [sys.executable, "-m", "bench.rpc_echo", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        try:
            port = int(server.stdout.readline())
            figures = trio.run(measure, port, options.size, options.outstanding, options.seconds)
        finally:
            server.terminate()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
