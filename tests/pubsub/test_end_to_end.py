"""Publishing and subscribing through real hubs and the real client library, on fake ledgers and metadata."""

import pytest
import trio

import pubsub
from pubsub.client.bus import Bus
from pubsub.client.messages import Batch, Message
from pubsub.client.subscription import Subscription
from tests.pubsub.hubs import world


async def take(messages: Subscription, count: int) -> list[Message]:
    return [await messages.__anext__() for _ in range(count)]


async def take_batches(messages: Subscription, count: int) -> list[Batch]:
    """Batches until `count` messages are there."""
    found: list[Batch] = []
    async for batch in messages.batches():
        found.append(batch)
        count -= len(batch)
        if count <= 0:
            break
    return found


async def test_what_is_published_is_delivered_in_order() -> None:
    async with world() as made:
        await made.hub()
        async with made.bus() as bus, bus.subscribe("orders", "billing") as messages:
            receipt = await bus.publish("orders", b"first", key="k1")
            assert (receipt.first, receipt.last, receipt.duplicate) == (1, 1, False)
            receipt = await bus.publish_many("orders", [b"%d" % i for i in range(5000)])
            assert (receipt.first, receipt.last) == (2, 5001)
            got = await take(messages, 5001)
    assert [message.sequence for message in got] == list(range(1, 5002))
    assert (got[0].data, got[0].key) == (b"first", b"k1")
    assert [message.data for message in got[1:]] == [b"%d" % i for i in range(5000)]
    assert all(message.key is None for message in got[1:])


async def test_batches_are_columns_and_times_are_monotone() -> None:
    async with world() as made:
        await made.hub()
        async with made.bus() as bus, bus.subscribe("t", "s") as messages:
            await bus.publish_many("t", [b"a", b"b", b"c"], keys=["x", None, b"z"])
            await bus.publish_many("t", [b"d"])
            batches = await take_batches(messages, 4)
    assert [payload for batch in batches for payload in batch.payloads] == [b"a", b"b", b"c", b"d"]
    assert batches[0].keys == [b"x", None, b"z"]
    assert batches[-1].keys is None
    times = [batch.time_ms for batch in batches]
    assert times == sorted(times)


async def test_publishes_of_many_tasks_leave_together() -> None:
    """While one batch is in flight the others gather: far fewer batches than messages."""
    async with world() as made:
        hub = await made.hub()
        async with made.bus() as bus:
            await bus.publish("t", b"opens the channel")
            async with trio.open_nursery() as nursery:
                for number in range(200):
                    nursery.start_soon(bus.publish, "t", b"%d" % number)
        assert hub.service.batches < 20


async def test_each_publisher_call_gets_its_own_sequences() -> None:
    async with world() as made:
        await made.hub()
        async with made.bus() as bus, bus.subscribe("t", "s", from_="earliest") as messages:
            receipts = {}

            async def publish(number: int) -> None:
                receipts[number] = await bus.publish_many("t", [b"%d" % number] * (number + 1))

            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(publish, number)
            got = {message.sequence: message.data for message in await take(messages, 210)}
    for number, receipt in receipts.items():
        assert receipt.last - receipt.first == number
        assert all(got[at] == b"%d" % number for at in range(receipt.first, receipt.last + 1))


async def test_a_new_subscription_starts_after_what_was_published_before_it() -> None:
    async with world() as made:
        await made.hub()
        async with made.bus() as bus:
            await bus.publish_many("t", [b"old"] * 10)
            async with bus.subscribe("t", "s") as messages:
                await bus.publish("t", b"new")
                assert (await take(messages, 1))[0].data == b"new"


async def test_from_earliest_gets_everything_that_is_kept() -> None:
    async with world() as made:
        await made.hub()
        async with made.bus() as bus:
            await bus.publish_many("t", [b"%d" % i for i in range(10)])
            async with bus.subscribe("t", "s", from_="earliest") as messages:
                assert [m.data for m in await take(messages, 10)] == [b"%d" % i for i in range(10)]


async def test_consumed_messages_are_not_delivered_again_unconsumed_ones_are() -> None:
    async with world() as made:
        await made.hub()
        async with made.bus() as bus:
            async with bus.subscribe("t", "s") as messages:
                await bus.publish_many("t", [b"%d" % i for i in range(10)])
                got = await take(messages, 10)
                await messages.consume(got[6])
                await messages.consume(got[2])  # P2: never backwards
            async with bus.subscribe("t", "s") as messages:
                assert [message.sequence for message in await take(messages, 3)] == [8, 9, 10]


async def test_two_subscriptions_each_get_everything() -> None:
    async with world() as made:
        await made.hub()
        async with made.bus() as bus, bus.subscribe("t", "one") as one, bus.subscribe("t", "two") as two:
            await bus.publish_many("t", [b"%d" % i for i in range(100)])
            assert [m.data for m in await take(one, 100)] == [m.data for m in await take(two, 100)]


async def test_a_subscription_serves_one_connection_unless_forced() -> None:
    async with world() as made:
        await made.hub()
        async with made.bus() as bus, made.bus() as other, bus.subscribe("t", "s") as first:
            with pytest.raises(pubsub.SubscriptionBusyError):
                async with other.subscribe("t", "s"):
                    pass
            async with other.subscribe("t", "s", force=True) as second:
                with pytest.raises(pubsub.ForcedClosedError):
                    await first.__anext__()
                await bus.publish("t", b"m")
                assert (await take(second, 1))[0].data == b"m"


async def test_unsubscribe_then_subscribe_starts_fresh() -> None:
    async with world() as made:
        await made.hub()
        async with made.bus() as bus:
            async with bus.subscribe("t", "s") as messages:
                await bus.publish_many("t", [b"1", b"2"])
                await messages.consume((await take(messages, 2))[1])
                await messages.flush()
            await bus.unsubscribe("t", "s")
            with pytest.raises(pubsub.NotSubscribedError):
                await bus.unsubscribe("t", "s")
            with pytest.raises(pubsub.NotSubscribedError):
                async with bus.subscribe("t", "s", create=False):
                    pass
            async with bus.subscribe("t", "s", from_="earliest") as messages:
                assert [message.sequence for message in await take(messages, 2)] == [1, 2]


async def test_unsubscribing_ends_the_iteration_of_whoever_is_attached() -> None:
    async with world() as made:
        await made.hub()
        async with made.bus() as bus, bus.subscribe("t", "s") as messages:
            await bus.unsubscribe("t", "s")
            with pytest.raises(pubsub.NotSubscribedError):
                await messages.__anext__()


@pytest.mark.parametrize("window", [1, 2, 7, 100])
async def test_p5_no_window_deadlocks_and_order_holds_across_memory_and_ledgers(window: int) -> None:
    """A window smaller than a batch, and so little memory that all lagging reads go to the ledger."""
    async with world() as made:
        await made.hub(recent_bytes_max=1000)
        async with (
            made.bus() as bus,
            bus.subscribe("t", "s", window_messages=window, window_bytes=1 << 20) as messages,
        ):
            for start in range(0, 400, 10):
                await bus.publish_many("t", [b"%d" % i for i in range(start, start + 10)])
            got = await take(messages, 400)
        assert [message.data for message in got] == [b"%d" % i for i in range(400)]
        assert made.bookies.reads > 0


async def test_a_byte_window_bounds_what_is_outstanding() -> None:
    async with world() as made:
        hub = await made.hub()
        async with (
            made.bus() as bus,
            bus.subscribe("t", "s", window_messages=10_000, window_bytes=5000) as messages,
        ):
            for _ in range(50):
                await bus.publish("t", b"x" * 1000)
            (delivery,) = hub.service.holdings.topics[pubsub.parse_topic("t")].deliveries  # type: ignore[union-attr]
            assert delivery.next <= 7
            assert len(await take(messages, 50)) == 50


async def test_a_subscriber_that_keeps_up_causes_no_read() -> None:
    async with world() as made:
        await made.hub()
        async with made.bus() as bus, bus.subscribe("t", "s") as messages:
            for _ in range(20):
                await bus.publish_many("t", [b"m"] * 50)
                await take(messages, 50)
        assert made.bookies.reads == 0


async def test_facts_lists_and_deletion_of_topics() -> None:
    async with world() as made:
        hub = await made.hub()
        async with made.bus() as bus:
            await bus.create_topic("empty")
            with pytest.raises(pubsub.TopicExistsError):
                await bus.create_topic("empty")
            async with bus.subscribe("acme/eu/t", "s") as messages:
                await bus.publish_many("acme/eu/t", [b"m"] * 10)
                await messages.consume((await take(messages, 4))[3])
                await messages.flush()
                info = await bus.topic_info("acme/eu/t")
            assert (info.topic, info.owner, info.last_seq_id) == ("acme/eu/t", hub.address, 10)
            assert [(one.id, one.consumed, one.backlog) for one in info.subscriptions] == [("s", 4, 6)]
            assert [(one.first, one.last, one.copies) for one in info.ledgers] == [(1, None, 3)]
            assert await bus.list_topics() == ["acme/eu/t", "empty"]
            with pytest.raises(pubsub.SubscriptionsExistError):
                await bus.delete_topic("acme/eu/t")
            await bus.delete_topic("acme/eu/t", force=True)
            assert await bus.list_topics() == ["empty"]
            with pytest.raises(pubsub.UnknownTopicError):
                await bus.topic_info("acme/eu/t")
            assert await bus.publish("acme/eu/t", b"again") == (1, 1, False)


async def expect_error(bus: Bus, kind: type[Exception], topic: str, data: object) -> None:
    with pytest.raises(kind):
        await bus.publish(topic, data)  # type: ignore[arg-type]


async def test_bad_input_is_refused_before_anything_is_sent() -> None:
    async with world() as made:
        hub = await made.hub()
        async with made.bus() as bus:
            await expect_error(bus, pubsub.TopicNameError, "no spaces", b"m")
            await expect_error(bus, TypeError, "t", "text")
            await expect_error(bus, pubsub.MessageTooLargeError, "t", b"x" * (4 << 20))
            with pytest.raises(ValueError, match="one or more"):
                await bus.publish_many("t", [])
            with pytest.raises(pubsub.TopicNameError):
                async with bus.subscribe("t", "a/b"):
                    pass
        assert hub.service.batches == 0


async def test_a_large_message_travels_alone() -> None:
    async with world() as made:
        await made.hub()
        async with made.bus() as bus, bus.subscribe("t", "s") as messages:
            payloads = [b"a" * 3_000_000, b"b", b"c" * 3_000_000, b"d"]
            await bus.publish_many("t", payloads)
            assert [message.data for message in await take(messages, 4)] == payloads


async def test_cancelling_a_publish_leaves_later_ones_in_order() -> None:
    async with world() as made:
        hub = await made.hub()
        async with made.bus() as bus, bus.subscribe("t", "s") as messages:
            await bus.publish("t", b"0")
            hub.ledgers.is_held = True
            with trio.move_on_after(0) as scope:
                await bus.publish("t", b"1")
            assert scope.cancelled_caught
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bus.publish, "t", b"2")
                await trio.testing.wait_all_tasks_blocked(0.01)
                hub.ledgers.release()
            assert [message.data for message in await take(messages, 3)] == [b"0", b"1", b"2"]


async def test_no_hub_yet_is_waited_for() -> None:
    async with world() as made, made.bus() as bus, trio.open_nursery() as nursery:
        nursery.start_soon(bus.publish, "t", b"m")
        await trio.testing.wait_all_tasks_blocked(0.01)
        await made.hub()
