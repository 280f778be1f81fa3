"""Publishing and subscribing through real hubs and the real client library, on fake ledgers and metadata."""

from tests.pubsub.hubs import world


async def test_what_is_published_is_delivered_in_order() -> None:
    async with world() as made:
        await made.hub()
        async with made.bus() as bus, bus.subscribe("orders", "billing") as messages:
            receipt = await bus.publish("orders", b"first", key="k1")
            assert (receipt.first, receipt.last, receipt.duplicate) == (1, 1, False)
            receipt = await bus.publish_many("orders", [b"%d" % i for i in range(5000)])
            assert (receipt.first, receipt.last) == (2, 5001)
            got = [await messages.__anext__() for _ in range(5001)]
    assert [message.sequence for message in got] == list(range(1, 5002))
    assert (got[0].data, got[0].key) == (b"first", b"k1")
    assert [message.data for message in got[1:]] == [b"%d" % i for i in range(5000)]
    assert all(message.key is None for message in got[1:])
