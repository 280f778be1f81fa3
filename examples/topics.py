import os

import trio

import pubsub


async def main() -> None:
    async with pubsub.connect(os.environ.get("ZOOLOG_COORD", "127.0.0.1:2181")) as bus:
        await bus.publish_many("orders", [b"first", b"second", b"third"])
        async with bus.subscribe("orders", "billing", from_="earliest") as messages:
            async for message in messages:
                print(message.sequence, message.data)
                await messages.consume(message)
                if message.data == b"third":
                    break


trio.run(main)
