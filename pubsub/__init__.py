"""Topics with durable subscriptions on replicated ledgers.

    async with pubsub.connect("127.0.0.1:2181") as bus:
        receipt = await bus.publish("orders", b"...", key="c42")        # durable when it returns
        await bus.publish_many("orders", [b"...", b"..."])              # batched and pipelined
        async with bus.subscribe("orders", "billing", from_="earliest") as messages:
            async for message in messages:                              # message.data .key .sequence .time_ms
                await messages.consume(message)                         # cumulative
        async with bus.subscribe("orders", "audit") as messages:
            async for batch in messages.batches():                      # columns: batch.payloads, batch.keys
                await messages.consume(batch)
        await bus.unsubscribe("orders", "billing")
        await bus.create_topic("orders"); await bus.list_topics(); await bus.topic_info("orders")
        await bus.delete_topic("orders", force=True)

A hub is run by `pubsub.hub.serve(HubConfig(directory=..., coord=...), task_status=...)`.
"""

from pubsub.client.bus import Bus, connect
from pubsub.client.messages import Batch, Message, Receipt
from pubsub.client.subscription import Subscription
from pubsub.client.topics import TopicInfo
from pubsub.core.errors import (
    CorruptBatchError,
    ForcedClosedError,
    InvalidRequestError,
    MessageTooLargeError,
    NotSubscribedError,
    OutOfOrderError,
    PubsubError,
    RecordError,
    SubscriptionBusyError,
    SubscriptionsExistError,
    TopicExistsError,
    TopicNameError,
    UnknownTopicError,
    UnsupportedBatchError,
)
from pubsub.core.names import HUBS_PATH, check_subscription, parse_topic

__all__ = [
    "HUBS_PATH",
    "Batch",
    "Bus",
    "CorruptBatchError",
    "ForcedClosedError",
    "InvalidRequestError",
    "Message",
    "MessageTooLargeError",
    "NotSubscribedError",
    "OutOfOrderError",
    "PubsubError",
    "Receipt",
    "RecordError",
    "Subscription",
    "SubscriptionBusyError",
    "SubscriptionsExistError",
    "TopicExistsError",
    "TopicInfo",
    "TopicNameError",
    "UnknownTopicError",
    "UnsupportedBatchError",
    "check_subscription",
    "connect",
    "parse_topic",
]
