import os

import trio

import bookie


async def main() -> None:
    async with bookie.connect(os.environ.get("ZOOLOG_COORD", "127.0.0.1:2181")) as ledgers:
        async with ledgers.create(ensemble=3, write_quorum=3, ack_quorum=2) as ledger:
            await ledger.append(b"durable on two of three bookies when this returns")
            await ledger.append_many(b"entry %d" % number for number in range(1000))
        async with ledgers.open(ledger.ledger_id) as reader:
            async for entry in reader.read(first=998):
                print(entry.entry_id, entry.payload)


trio.run(main)
