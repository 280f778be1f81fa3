"""Load generator for ZooKeeper's client protocol: a process of its own, so that it shares nothing with a
server.

    python -m bench.coord_load HOSTS read|write|mixed|create CONNECTIONS OUTSTANDING
        [--seconds S] [--size BYTES] [--nodes N]

Unit: completed requests per second, in a closed loop (each connection keeps OUTSTANDING requests under way),
by the generator of `zoolog bench coord` (`pubsub.command.load.coord`), its loop in C where there is a
compiler (`bench.closed_loop`). Of mixed ones 80 % are reads. A refused request or a lost connection ends the
run. Prints one JSON object.
"""

import argparse
import json
import struct
import sys

from bench.closed_loop import library, make_load
from pubsub.command.load.coord import ACL, ERROR_NODE_EXISTS, CoordLoad, buffer, run
from pubsub.command.load.coord import Connection as Client
from pubsub.command.load.latency import Latencies

__all__ = ["ACL", "Client", "buffer", "node_path", "prepare"]

NODE_COUNT = 1000
READ_RATIOS = {"read": 1.0, "mixed": 0.8, "write": 0.0}


def node_path(number: int) -> bytes:
    return b"/bench/node-%06d" % number


def prepare(client: Client, size: int, nodes: int) -> None:
    """Creates /bench and its nodes with values of `size` bytes; what is there already stays."""
    paths = [b"/bench"] + [node_path(number) for number in range(nodes)]
    for xid, path in enumerate(paths, 1):
        error = client.call(xid, 1, buffer(path) + buffer(b"x" * size) + ACL + struct.pack(">i", 0))
        if error not in (0, ERROR_NODE_EXISTS):
            raise SystemExit(f"create {path!r}: error {error}")
        if error and path != b"/bench":
            client.call(xid, 5, buffer(path) + buffer(b"x" * size) + struct.pack(">i", -1))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("hosts")
    parser.add_argument("kind", choices=["create", *READ_RATIOS])
    parser.add_argument("connections", type=int)
    parser.add_argument("outstanding", type=int)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--nodes", type=int, default=NODE_COUNT)
    options = parser.parse_args()
    spec = CoordLoad(
        options.hosts,
        read_ratio=READ_RATIOS.get(options.kind, 0.0),
        creates=options.kind == "create",
        clients=options.connections,
        outstanding=options.outstanding,
        seconds=options.seconds,
        warm_up_s=options.warm,
        size=options.size,
        nodes=options.nodes,
    )
    done = run(spec, lambda: None, lambda completed, errors: None, make_load)
    if done.errors:
        raise SystemExit(f"{done.errors} requests were refused or lost")
    latencies = Latencies(done.latencies)
    result = {
        "kind": options.kind,
        "connections": options.connections,
        "outstanding": options.outstanding,
        "size": options.size,
        "per_second": round(done.completed / done.seconds),
        "p50_ms": latencies.quantile_ms(0.5),
        "p99_ms": latencies.quantile_ms(0.99),
        "generator": "python" if library() is None else "c",
        "generator_cpu": round(done.generator_cpu, 2),
    }
    json.dump(result, sys.stdout)
    print()


if __name__ == "__main__":
    main()
