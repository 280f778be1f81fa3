"""`pubsub.connect`: publishing and subscribing for one application, over one link for each hub it needs."""

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random, SystemRandom
from typing import Any, Final, Literal

import trio

import coord
from coord.clock import SYSTEM_CLOCK, Clock
from coord.nursery import open_private_nursery
from pubsub.client.hubs import Hubs
from pubsub.client.messages import Receipt
from pubsub.client.publisher import PIECE_MESSAGES, Chunk, TopicPublisher
from pubsub.client.subscription import WINDOW_BYTES, WINDOW_MESSAGES, Subscription
from pubsub.client.topics import TopicInfo, topic_info
from pubsub.core import wire
from pubsub.core.batch import KEY_BYTES_MAX, MESSAGE_BYTES_MAX
from pubsub.core.errors import MessageTooLargeError, PubsubError
from pubsub.core.names import check_subscription, parse_topic
from pubsub.metadata import create_topic, list_topics

CLOSE_DEADLINE_S: Final = 5.0
"""Leaving the block waits so long for what was published with `publish_soon` and is not stored yet."""
RETRY_DELAY_S: Final = 0.02


class Bus:
    """Topics for one application; made by `connect`. All methods may be used by many tasks.

    Redirects, take-overs and lost connections never reach the caller: a call goes on until it has succeeded,
    was refused for good, or its cancel scope ends it.
    """

    def __init__(
        self, zk: coord.Client, hosts: str, nursery: trio.Nursery, clock: Clock, chance: Random
    ) -> None:
        self._zk = zk
        self._nursery = nursery
        self._clock = clock
        self._chance = chance
        self._hubs = Hubs(zk, hosts, nursery, chance)
        self._publishers: dict[str, TopicPublisher] = {}

    # -- publishing
    # --------------------------------------------------------------------------------------------------

    async def publish(self, topic: str, data: bytes, *, key: str | bytes | None = None) -> Receipt:
        """Publishes one message; it is durable when this returns. The topic is created if need be.

        Cancelled, the message may still be stored.

        Raises:
            TopicNameError: not a topic's name.
            MessageTooLargeError: data or key exceed their limits; nothing was sent.
        """
        chunk = await self._put(topic, (data,), None if key is None else (key,))
        return await chunk.wait()

    async def publish_many(
        self, topic: str, payloads: Sequence[bytes], *, keys: Sequence[str | bytes | None] | None = None
    ) -> Receipt:
        """Publishes messages in order, in batches and pipelined; all are durable when this returns.

        Cancelled or failed, a prefix of them may be stored. Raises as `publish`; ValueError for an empty
        list.
        """
        if not payloads:
            raise ValueError("expected one or more messages")
        chunks = []
        for start in range(0, len(payloads), PIECE_MESSAGES):
            piece_keys = None if keys is None else keys[start : start + PIECE_MESSAGES]
            chunks.append(await self._put(topic, payloads[start : start + PIECE_MESSAGES], piece_keys))
        receipts = [await chunk.wait() for chunk in chunks]
        duplicate = any(receipt.duplicate for receipt in receipts)
        return Receipt(receipts[0].first, receipts[-1].last, duplicate)

    async def publish_soon(
        self, topic: str, payloads: Sequence[bytes], *, keys: Sequence[str | bytes | None] | None = None
    ) -> Chunk:
        """Hands messages over, in order with all others of this bus, waiting only for buffer space.

        At most PIECE_MESSAGES messages at once. `await result.wait()` gives the receipt; leaving the bus
        waits for what is not stored yet. Raises as `publish`.
        """
        if not 0 < len(payloads) <= PIECE_MESSAGES:
            raise ValueError(f"expected 1 to {PIECE_MESSAGES} messages, got {len(payloads)}")
        return await self._put(topic, payloads, keys)

    async def _put(
        self, topic: str, payloads: Sequence[bytes], keys: Sequence[str | bytes | None] | None
    ) -> Chunk:
        publisher = self._publishers.get(topic) or self._new_publisher(topic)
        if set(map(type, payloads)) != {bytes}:
            raise TypeError("expected messages of type bytes")
        if max(map(len, payloads)) > MESSAGE_BYTES_MAX:
            raise MessageTooLargeError(
                f"expected messages of at most {MESSAGE_BYTES_MAX} bytes, got {max(map(len, payloads))}"
            )
        encoded = None if keys is None else _encode_keys(keys, len(payloads))
        await publisher.wait_room()
        chunk = Chunk(payloads, encoded)
        publisher.put(chunk)
        return chunk

    def _new_publisher(self, topic: str) -> TopicPublisher:
        name = str(parse_topic(topic))
        publisher = self._publishers.get(name)
        if publisher is None:
            # Random, so two buses never share numbers; the same over all retries of this one.
            publisher = self._publishers[name] = TopicPublisher(name, self._hubs, secrets.token_bytes(16))
            self._nursery.start_soon(publisher.run)
        self._publishers[topic] = publisher
        return publisher

    # -- subscribing
    # -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def subscribe(
        self,
        topic: str,
        subscription: str,
        *,
        from_: Literal["latest", "earliest"] = "latest",
        create: bool = True,
        force: bool = False,
        window_messages: int = WINDOW_MESSAGES,
        window_bytes: int = WINDOW_BYTES,
    ) -> AsyncIterator[Subscription]:
        """Attaches to a durable subscription for the length of the block; leaving keeps the subscription.

        Args:
            from_: where a subscription that is created now begins: behind the last message, or with the
                oldest kept.
            create: create topic and subscription if they do not exist.
            force: take it over from whoever is attached.
            window_messages, window_bytes: received and not yet taken by the application, at most about this.

        Raises:
            TopicNameError, UnknownTopicError, NotSubscribedError, SubscriptionBusyError
        """
        if from_ not in ("latest", "earliest") or window_messages < 1 or window_bytes < 1:
            raise ValueError(f"from_={from_!r}, window {window_messages} messages, {window_bytes} bytes")
        made = Subscription(
            self._hubs,
            str(parse_topic(topic)),
            check_subscription(subscription),
            earliest=from_ == "earliest",
            create=create,
            force=force,
            window_messages=window_messages,
            window_bytes=window_bytes,
            chance=self._chance,
        )
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await made.run()

        self._nursery.start_soon(run)
        try:
            await made.wait_attached()
            yield made
        finally:
            await made.detach()
            scope.cancel()

    async def unsubscribe(self, topic: str, subscription: str) -> None:
        """Removes a subscription; what it has not consumed is not kept for it any longer.

        Raises:
            UnknownTopicError, NotSubscribedError
        """
        await self._ask(topic, wire.Unsubscribe(str(parse_topic(topic)), check_subscription(subscription)))

    # -- topics
    # ------------------------------------------------------------------------------------------------------

    async def create_topic(self, topic: str, properties: Mapping[str, str] | None = None) -> None:
        """Creates a topic. Publishing or subscribing does so as well.

        Raises:
            TopicExistsError
        """
        name = parse_topic(topic)
        await create_topic(
            self._zk, name, secrets.token_bytes(16), self._clock.wall_ms(), dict(properties or {})
        )

    async def list_topics(self) -> list[str]:
        """The names of all topics, sorted."""
        return await list_topics(self._zk)

    async def topic_info(self, topic: str) -> TopicInfo:
        """Facts of a topic, from the hub that serves it.

        Raises:
            UnknownTopicError
        """
        name = str(parse_topic(topic))
        return topic_info(name, await self._ask(topic, wire.TopicInfo(name)))

    async def delete_topic(self, topic: str, *, force: bool = False) -> None:
        """Deletes a topic with all its messages; with `force` also one that has subscriptions.

        Raises:
            UnknownTopicError, SubscriptionsExistError
        """
        await self._ask(topic, wire.DeleteTopic(str(parse_topic(topic)), force))

    async def _ask(self, topic: str, message: object) -> Any:
        """One request to the topic's owner, wherever it is by then."""
        name = str(parse_topic(topic))
        while True:
            link = await self._hubs.locate(name, create=False)
            try:
                return await link.call(message)
            except PubsubError as error:
                if not error.retry:
                    raise
            await trio.sleep(RETRY_DELAY_S)

    async def _close(self) -> None:
        with trio.move_on_after(CLOSE_DEADLINE_S, shield=True):
            for publisher in set(self._publishers.values()):
                await publisher.drain()


def _encode_keys(keys: Sequence[str | bytes | None], count: int) -> list[bytes | None]:
    if len(keys) != count:
        raise ValueError(f"expected {count} keys, one for each message, got {len(keys)}")
    encoded = [key.encode() if isinstance(key, str) else key for key in keys]
    longest = max((len(key) for key in encoded if key is not None), default=0)
    if longest > KEY_BYTES_MAX:
        raise MessageTooLargeError(f"expected keys of at most {KEY_BYTES_MAX} bytes, got one of {longest}")
    return encoded


@asynccontextmanager
async def connect(
    hosts: str, *, session_timeout_ms: int = 10_000, clock: Clock = SYSTEM_CLOCK, chance: Random | None = None
) -> AsyncIterator[Bus]:
    """Topics of the cluster whose coordination service is at `hosts` ("host:port,host:port/chroot").

    An exception of the block comes out as it is. Without one, leaving waits up to CLOSE_DEADLINE_S for
    messages that were handed to `publish_soon` and are not stored yet.

    Raises:
        coord.HostsError, coord.NotConnectedError: see `coord.connect`.
    """
    async with (
        coord.connect(hosts, session_timeout_ms=session_timeout_ms) as zk,
        open_private_nursery() as nursery,
    ):
        bus = Bus(zk, hosts, nursery, clock, chance or SystemRandom())
        try:
            yield bus
            await bus._close()
        finally:
            bus._hubs.close()
