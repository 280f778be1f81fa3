"""What a hub answers: the Handler behind its port. Hot messages are served at once, others by a task."""

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Final

import trio

import coord
from coord import eventlog
from coord.clock import Clock
from coord.rpc import Peer
from pubsub.core.batch import BATCH_BYTES_MAX
from pubsub.core.credit import CreditWindow
from pubsub.core.cursor import Cursor
from pubsub.core.errors import (
    ForcedClosedError,
    InvalidRequestError,
    NotOwnerError,
    NotSubscribedError,
    PubsubError,
    ServiceDownError,
    StalePublisherError,
    StorageUnavailableError,
    SubscriptionBusyError,
    SubscriptionsExistError,
)
from pubsub.core.names import check_subscription, parse_topic
from pubsub.core.subscription import SubscriptionRecord
from pubsub.core.wire import (
    CHANNELS_MAX,
    FROM_EARLIEST,
    MODE_ATTACH,
    MODE_CREATE,
    PROTOCOL_VERSION,
    Consume,
    Credit,
    DeleteTopic,
    Deposed,
    Detach,
    Done,
    Flush,
    Flushed,
    Hello,
    HelloReply,
    Locate,
    Located,
    OpenPublisher,
    Publish,
    PublisherOpened,
    Subscribe,
    Subscribed,
    TopicInfo,
    TopicInfoReply,
    Unsubscribe,
)
from pubsub.hub.delivery import Delivery, Subscription
from pubsub.hub.ownership import Holdings
from pubsub.hub.seams import LedgerStoreError
from pubsub.hub.topic import PublisherChannel, Topic
from pubsub.metadata import ConflictError

log = eventlog.get("pubsub.hub")

UNKNOWN_EPOCH: Final = 1 << 63
"""Higher than any: whatever we hold may be deposed."""
TASKS_MAX: Final = 10_000
"""Requests that wait for ownership, metadata or storage; more are refused."""


class _Client:
    """One connection's channels."""

    __slots__ = ("deliveries", "publishers")

    def __init__(self) -> None:
        self.publishers: dict[int, PublisherChannel] = {}
        self.deliveries: dict[int, Delivery] = {}

    def on_delivery_closed(self, delivery: Delivery) -> None:
        if self.deliveries.get(delivery.channel) is delivery:
            del self.deliveries[delivery.channel]


class HubService:
    """Answers clients. `holdings` is None while the hub has no session: it refuses what needs ownership."""

    def __init__(
        self,
        address: Callable[[], str],
        nursery: trio.Nursery,
        flush: Callable[[], None],
        clock: Clock,
        chance: Random,
    ) -> None:
        self.holdings: Holdings | None = None
        self.batches = 0
        self.published_bytes = 0
        self._address = address
        self._nursery = nursery
        self._flush = flush
        self._clock = clock
        self._chance = chance
        self._tasks = 0

    # -- coord.rpc.Handler
    # -------------------------------------------------------------------------------------------

    def on_connected(self, peer: Peer) -> None:
        peer.data = _Client()

    def on_disconnected(self, peer: Peer, reason: str) -> None:
        client: _Client = peer.data
        for channel in client.publishers.values():
            channel.is_broken = True
            channel.topic.channels.discard(channel)
        for delivery in list(client.deliveries.values()):
            delivery.close()

    def on_tick_end(self) -> None:
        pass

    def on_one_way(self, peer: Peer, message: Any, body: memoryview) -> None:
        client: _Client = peer.data
        match message:
            case Consume(channel, upto, ranges):
                delivery = client.deliveries.get(channel)
                if delivery is not None:
                    self._consume(delivery, upto, ranges)
            case Credit(channel, messages, byte_count):
                delivery = client.deliveries.get(channel)
                if delivery is not None:
                    delivery.window.grant(messages, byte_count)
                    delivery.pump()
            case Deposed(topic, epoch):
                self._start(self._look_at_record, topic, epoch)

    def on_request(self, peer: Peer, request_id: int, message: Any, body: memoryview) -> None:
        match message:
            case Publish(number):
                self._publish(peer, request_id, number, body)
            case Hello():
                self._hello(peer, request_id, message)
            case Detach(number):
                delivery = peer.data.deliveries.get(number)
                if delivery is not None:
                    delivery.close()
                peer.reply(request_id, Done())
            case OpenPublisher():
                self._serve(peer, request_id, self._open_publisher, message)
            case Subscribe():
                self._serve(peer, request_id, self._subscribe, message)
            case Locate():
                self._serve(peer, request_id, self._locate, message)
            case Flush():
                self._serve(peer, request_id, self._flush_cursor, message)
            case Unsubscribe():
                self._serve(peer, request_id, self._unsubscribe, message)
            case TopicInfo():
                self._serve(peer, request_id, self._topic_info, message)
            case DeleteTopic():
                self._serve(peer, request_id, self._delete_topic, message)
            case _:
                error = InvalidRequestError(f"{type(message).__name__} is no request of a client")
                peer.fail(request_id, error.code, str(error))

    # -- served at once
    # ----------------------------------------------------------------------------------------------

    def _publish(self, peer: Peer, request_id: int, number: int, body: memoryview) -> None:
        channel: PublisherChannel | None = peer.data.publishers.get(number)
        if channel is None:
            error: PubsubError = StalePublisherError(f"publisher channel {number} is not open")
            peer.fail(request_id, error.code, str(error))
            return
        self.batches += 1
        self.published_bytes += len(body)
        try:
            channel.topic.publish(channel, request_id, bytes(body))
        except PubsubError as refusal:
            channel.fail(request_id, refusal)

    def _hello(self, peer: Peer, request_id: int, message: Hello) -> None:
        if message.version != PROTOCOL_VERSION:
            error = InvalidRequestError(
                f"protocol version {message.version}, this hub has {PROTOCOL_VERSION}"
            )
            peer.fail(request_id, error.code, str(error))
            return
        registration = 0 if self.holdings is None else self.holdings.me.registration
        peer.reply(request_id, HelloReply(PROTOCOL_VERSION, self._address(), registration, BATCH_BYTES_MAX))

    def _consume(self, delivery: Delivery, upto: int, ranges: list[tuple[int, int]]) -> None:
        try:
            delivery.topic.consume(delivery.subscription, upto, ranges)
        except PubsubError as error:
            delivery.close(error)

    # -- served by a task
    # --------------------------------------------------------------------------------------------

    def _serve(
        self, peer: Peer, request_id: int, serve: Callable[[Peer, Any], Awaitable[Any]], message: Any
    ) -> None:
        if self._tasks >= TASKS_MAX:
            error = ServiceDownError(f"{TASKS_MAX} requests are waiting already")
            peer.fail(request_id, error.code, str(error))
            return
        self._start(self._serve_one, peer, request_id, serve, message)

    def _start(self, call: Callable[..., Awaitable[None]], *args: Any) -> None:
        self._tasks += 1

        async def run() -> None:
            try:
                await call(*args)
            finally:
                self._tasks -= 1

        self._nursery.start_soon(run)

    async def _serve_one(
        self, peer: Peer, request_id: int, serve: Callable[[Peer, Any], Awaitable[Any]], message: Any
    ) -> None:
        error: PubsubError
        after: Callable[[], None] | None = None
        try:
            answer = await serve(peer, message)
            if isinstance(answer, tuple):
                answer, after = answer
            peer.reply(request_id, answer)
            if after is not None:
                after()
            self._flush()
            return
        except PubsubError as refusal:
            error = refusal
        except ConflictError as refusal:
            error = NotOwnerError("")
            log.info("request failed, the topic has moved", request=type(message).__name__, why=str(refusal))
            if getattr(message, "topic", ""):
                await self._look_at_record(message.topic, UNKNOWN_EPOCH)
        except LedgerStoreError as refusal:
            error = StorageUnavailableError(str(refusal))
        except coord.CoordError as refusal:
            error = ServiceDownError(f"coordination service: {refusal}")
        except Exception as refusal:  # the boundary: one client's request must not end the hub for all others
            error = ServiceDownError(f"the hub failed: {refusal}")
            log.error(
                "request failed unexpectedly",
                do="report this",
                request=type(message).__name__,
                trace=refusal,
            )
        peer.fail(request_id, error.code, str(error))
        self._flush()

    async def _held(self, topic: str, *, create: bool, suspect: str = "") -> Topic:
        name = parse_topic(topic)
        if self.holdings is None:
            raise ServiceDownError("this hub has no session with the coordination service")
        return await self.holdings.hold(name, create=create, suspect=suspect)

    async def _locate(self, peer: Peer, message: Locate) -> Located:
        try:
            topic = await self._held(message.topic, create=message.create, suspect=message.suspect)
        except NotOwnerError as error:
            address, _, epoch = str(error).partition(" ")
            if not address:
                raise
            return Located(address, int(epoch))
        return Located(self._address(), topic.epoch)

    async def _open_publisher(self, peer: Peer, message: OpenPublisher) -> PublisherOpened:
        client: _Client = peer.data
        if len(message.producer_id) != 16 or not message.producer_id:
            raise InvalidRequestError(f"a producer id has 16 bytes, got {len(message.producer_id)}")
        topic = await self._held(message.topic, create=message.create)
        if peer.data is None:
            raise StalePublisherError("the connection is gone")
        old = client.publishers.pop(message.channel, None)
        if old is not None:
            old.is_broken = True
            old.topic.channels.discard(old)
        if len(client.publishers) >= CHANNELS_MAX:
            raise InvalidRequestError(f"{CHANNELS_MAX} publisher channels are open on this connection")
        channel = PublisherChannel(peer, message.channel, topic, message.producer_id)
        client.publishers[message.channel] = channel
        topic.channels.add(channel)
        return PublisherOpened(topic.epoch, topic.dedup.last_persisted(message.producer_id))

    async def _subscribe(self, peer: Peer, message: Subscribe) -> tuple[Subscribed, Callable[[], None]]:
        check_subscription(message.subscription)
        topic = await self._held(message.topic, create=message.mode != MODE_ATTACH)
        subscription = await self._subscription(topic, message)
        # From here on nothing waits: two attaches of one subscription cannot interleave.
        client: _Client | None = peer.data
        if client is None or topic.is_lost:
            raise NotOwnerError("")
        current = subscription.delivery
        if current is not None and not (message.force or current.token == message.token):
            raise SubscriptionBusyError(f"{message.subscription} of {topic.name} is being served elsewhere")
        if current is not None:
            same = current.token == message.token
            current.close(
                None if same else ForcedClosedError("another connection took the subscription over")
            )
        if message.channel in client.deliveries or len(client.deliveries) >= CHANNELS_MAX:
            raise InvalidRequestError(f"delivery channel {message.channel} is taken, or there are too many")
        if message.consumed:
            topic.consume(subscription, min(message.consumed, topic.high_watermark), [])
        mark = subscription.cursor.mark
        first = max(mark + 1, min(message.resume, topic.high_watermark + 1), topic.record.log_start)
        window = CreditWindow()
        window.grant(message.messages, message.bytes)
        delivery = Delivery(
            peer,
            message.channel,
            topic,
            subscription,
            window,
            first,
            message.token,
            client.on_delivery_closed,
        )
        client.deliveries[message.channel] = delivery
        topic.attach(delivery)
        # The answer is written before the first message (1.5).
        return Subscribed(topic.epoch, mark, first), delivery.pump

    async def _subscription(self, topic: Topic, message: Subscribe) -> Subscription:
        """The subscription, created if the mode says so (1.5)."""
        name = message.subscription
        async with topic.subscribe_lock:
            known = topic.subscriptions.get(name)
            if known is not None:
                if message.mode == MODE_CREATE:
                    raise SubscriptionBusyError(f"subscription {name} of {topic.name} exists")
                return known
            if message.mode == MODE_ATTACH:
                raise NotSubscribedError(f"{topic.name} has no subscription {name}")
            # Last pushed, not last confirmed: what was published before the subscription is never for it. But
            # only once it is confirmed: numbers that a take-over cuts off are given to other messages.
            earliest = message.position == FROM_EARLIEST
            start = topic.record.log_start - 1 if earliest else topic.last_pushed
            await topic.wait_confirmed(start)
            if topic.is_lost:
                raise NotOwnerError("")
            record = SubscriptionRecord(self._chance.getrandbits(62), start, self._clock.wall_ms())
            assert self.holdings is not None
            await self.holdings.store.add_subscription(topic.name, topic.epoch, name, record)
            made = topic.subscriptions[name] = Subscription(name, record, Cursor(start), start)
            return made

    async def _flush_cursor(self, peer: Peer, message: Flush) -> Flushed:
        delivery = peer.data.deliveries.get(message.channel)
        if delivery is None or self.holdings is None:
            raise NotOwnerError("")
        mark = delivery.subscription.cursor.mark
        await self.holdings.cursor_ledger.flush(delivery.topic)
        if delivery.topic.is_lost:
            raise NotOwnerError("")
        return Flushed(mark)

    async def _unsubscribe(self, peer: Peer, message: Unsubscribe) -> Done:
        topic = await self._held(message.topic, create=False)
        async with topic.subscribe_lock:
            subscription = topic.subscriptions.get(message.subscription)
            if subscription is None:
                raise NotSubscribedError(f"{topic.name} has no subscription {message.subscription}")
            assert self.holdings is not None
            await self.holdings.store.remove_subscription(topic.name, topic.epoch, message.subscription)
            del topic.subscriptions[message.subscription]
            self.holdings.cursor_ledger.on_unsubscribed(topic, subscription)
        if subscription.delivery is not None:
            subscription.delivery.close(NotSubscribedError("the subscription was removed"))
        return Done()

    async def _topic_info(self, peer: Peer, message: TopicInfo) -> TopicInfoReply:
        topic = await self._held(message.topic, create=False)
        ledgers = []
        for one in topic.record.ranges:
            last = -1 if one.last is None else one.last
            size, copies = one.bytes, one.copies
            if one.last is None:
                size, copies = topic.open_bytes, topic.ledger.copies
            ledgers.append((one.ledger_id, one.first, last, size, copies))
        return TopicInfoReply(
            self._address(),
            topic.epoch,
            topic.high_watermark,
            topic.record.log_start,
            ledgers,
            [(one.name, one.cursor.mark) for one in topic.subscriptions.values()],
            len(topic.dedup),
        )

    async def _delete_topic(self, peer: Peer, message: DeleteTopic) -> Done:
        topic = await self._held(message.topic, create=False)
        if topic.subscriptions and not message.force:
            names = ", ".join(sorted(topic.subscriptions)[:5])
            raise SubscriptionsExistError(f"{topic.name} has subscriptions: {names}")
        assert self.holdings is not None
        await self.holdings.delete(topic)
        return Done()

    async def _look_at_record(self, topic: str, epoch: int) -> None:
        """Perhaps somebody took the topic over: believe the record, not whoever says so."""
        holdings = self.holdings
        try:
            held = None if holdings is None else holdings.topics.get(parse_topic(topic))
            if held is not None and held.epoch < epoch and holdings is not None:
                await holdings.verify(held)
        except (PubsubError, coord.CoordError) as error:
            log.info("record of a lost topic cannot be read", topic=topic, error=str(error))
