"""A process that appends to a new ledger and prints what it was told is durable, until it is killed."""

import sys

import trio

import bookie


async def main(hosts: str) -> None:
    async with bookie.connect(hosts) as ledgers:
        ledger = await ledgers.create_ledger()
        print(ledger.ledger_id, flush=True)
        while True:
            ids = await ledger.append_many([b"%d" % k for k in range(100)])
            print(ids[-1], flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
