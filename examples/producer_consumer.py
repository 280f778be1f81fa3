"""The producer-consumer queue of ZooKeeper's tutorial.

python examples/producer_consumer.py produce 100      puts 0 … 99
python examples/producer_consumer.py consume 100      takes so many, and waits for them if need be
"""

import os
import sys

import trio

import coord

HOSTS = os.environ.get("ZOOLOG_COORD", "127.0.0.1:2181")
PATH = "/tutorial/queue"


async def main(role: str, count: int) -> None:
    async with coord.connect(HOSTS) as zk:
        queue = coord.Queue(zk, PATH)
        for number in range(count):
            if role == "produce":
                await queue.put(b"%d" % number)
            else:
                print((await queue.get()).decode())


if len(sys.argv) != 3 or sys.argv[1] not in ("produce", "consume") or not sys.argv[2].isdigit():
    sys.exit(__doc__)
trio.run(main, sys.argv[1], int(sys.argv[2]))
