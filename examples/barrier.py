"""The barrier of ZooKeeper's tutorial: several parties begin together, work, and end together.

python examples/barrier.py [PARTIES]      all parties in one program, each with a session of its own
"""

import os
import random
import sys

import trio

import coord

HOSTS = os.environ.get("ZOOLOG_COORD", "127.0.0.1:2181")
PATH = "/tutorial/barrier"


async def work(number: int, parties: int) -> None:
    async with coord.connect(HOSTS) as zk:
        print(f"party {number} has come")
        async with coord.double_barrier(zk, PATH, parties, b"party %d" % number):
            print(f"party {number} has begun")
            await trio.sleep(random.uniform(0, 0.3))
            print(f"party {number} is done")
        print(f"party {number} leaves with the others")


async def main(parties: int) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(parties):
            nursery.start_soon(work, number, parties)


trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 3)
