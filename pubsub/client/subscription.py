"""A durable subscription as the application sees it: an async iterator of messages, or of batches.

    async with bus.subscribe("orders", "billing") as messages:
        async for message in messages:
            await messages.consume(message)

The network runs beside the application's loop: batches are pushed into a queue, bounded by the credit window,
and taken out here. A redirect, a lost connection or a take-over never shows: the subscription is attached
again where its topic is served, continues behind the last message it received, and tells the new owner its
consumed position.

Iterating is a checkpoint for each batch and at least every CHECKPOINT_MESSAGES messages, not for each
message: that is what makes it fast.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import Final, Self

import trio

from coord import eventlog
from pubsub.client.hubs import HubLink, Hubs
from pubsub.client.messages import Batch, Message, entry_bytes
from pubsub.core.batch import split_entries
from pubsub.core.credit import CreditRefill
from pubsub.core.errors import CorruptBatchError, PubsubError, UnsupportedBatchError
from pubsub.core.wire import (
    FROM_EARLIEST,
    FROM_LATEST,
    MODE_ATTACH,
    MODE_CREATE_OR_ATTACH,
    Consume,
    Credit,
    Deliver,
    Detach,
    Flush,
    Subscribe,
    Subscribed,
)

WINDOW_MESSAGES: Final = 200_000
WINDOW_BYTES: Final = 16 << 20
CONSUME_INTERVAL_S: Final = 0.1
"""Consumed positions leave together, at the latest after this."""
CHECKPOINT_MESSAGES: Final = 100
DETACH_DEADLINE_S: Final = 1.0
REATTACH_DELAY_S: Final = 0.005

log = eventlog.get("pubsub.client")


class Subscription:
    """Made by `Bus.subscribe`; an async iterator of `Message`."""

    def __init__(
        self,
        hubs: Hubs,
        topic: str,
        name: str,
        *,
        earliest: bool,
        create: bool,
        force: bool,
        window_messages: int,
        window_bytes: int,
        chance: Random,
    ) -> None:
        self.topic = topic
        self.name = name
        self.reattached = 0
        self._hubs = hubs
        self._position = FROM_EARLIEST if earliest else FROM_LATEST
        self._mode = MODE_CREATE_OR_ATTACH if create else MODE_ATTACH
        self._force = force
        self._token = chance.getrandbits(62)
        self._refill = CreditRefill(window_messages, window_bytes)
        self._link: HubLink | None = None
        self._channel = 0
        self._broken = trio.Event()
        self._attached = trio.Event()
        self._error: PubsubError | None = None
        #: Received, not taken: (batch, messages and bytes of credit it returns when taken).
        self._queue: deque[tuple[Batch | None, int, int]] = deque()
        self._news = trio.Event()
        self._received = 0
        self._consumed = 0
        self._consumed_sent = 0
        self._consume_due = trio.Event()
        self._messages: Iterator[Message] = iter(())
        #: Messages of the present batch up to the next checkpoint, and behind it.
        self._until_checkpoint = 0
        self._remaining = 0

    # -- messages
    # ----------------------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """The next message. Cancelled, it loses none.

        Raises:
            ForcedClosedError: another connection has taken the subscription over.
            NotSubscribedError: the subscription was removed.
            CorruptBatchError, UnsupportedBatchError: the next batch is damaged or too new.
        """
        if self._until_checkpoint:
            self._until_checkpoint -= 1
            return next(self._messages)
        return await self._next_message()

    async def _next_message(self) -> Message:
        if self._remaining:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            batch = await self._take()
            self._messages = batch.messages()
            self._remaining = batch.count
        run = min(CHECKPOINT_MESSAGES, self._remaining)
        self._remaining -= run
        self._until_checkpoint = run - 1
        return next(self._messages)

    def batches(self) -> "Batches":
        """The messages as batches. Errors and cancellation as for single messages; do not mix the two."""
        return Batches(self._take)

    async def _take(self) -> Batch:
        while True:
            await trio.lowlevel.checkpoint()
            while not self._queue:
                if self._error is not None:
                    raise self._error
                self._news = trio.Event()
                await self._news.wait()
            batch, messages, byte_count = self._queue.popleft()
            self._refill.taken(messages, byte_count)
            grant = self._refill.take_grant()
            if grant is not None and self._link is not None:
                self._link.send(Credit(self._channel, *grant))
            if batch is not None:
                return batch

    async def consume(self, upto: Message | Batch | int) -> None:
        """Everything up to this message (or the last of this batch, or this sequence) is done with.

        Cumulative, grouped, and never backwards; leaves within CONSUME_INTERVAL_S. After a crash of hub or
        application, what was consumed in the last second or so may be delivered again. See `flush`.
        """
        sequence = upto if isinstance(upto, int) else upto.last if isinstance(upto, Batch) else upto.sequence
        if sequence > self._consumed:
            self._consumed = sequence
            if not self._consume_due.is_set():
                self._consume_due.set()

    async def flush(self) -> None:
        """Returns once everything consumed is persisted: it will not be delivered again, whatever crashes.

        Raises:
            PubsubError: the subscription has ended.
        """
        while True:
            await self._attached.wait()
            link = self._link
            if self._error is not None:
                raise self._error
            if link is None:
                continue
            self._send_consumed(link)
            try:
                await link.call(Flush(self._channel))
                return
            except PubsubError as error:
                if not error.retry:
                    raise
                await trio.sleep(REATTACH_DELAY_S)

    # -- the bus's side
    # ----------------------------------------------------------------------------------------------

    async def wait_attached(self) -> None:
        """Returns once the subscription is attached for the first time.

        Raises:
            PubsubError: it cannot be: no such topic or subscription, or somebody else has it.
        """
        await self._attached.wait()
        if self._error is not None:
            raise self._error

    async def run(self) -> None:
        """Keeps the subscription attached until it ends or is cancelled."""
        while self._error is None:
            try:
                link = await self._attach()
            except PubsubError as error:
                if error.retry:
                    log.debug("subscription not attached", topic=self.topic, why=str(error))
                    await trio.sleep(REATTACH_DELAY_S)
                    continue
                self.on_closed(error)
                return
            if link is None:
                continue
            self._attached.set()
            try:
                await self._report_consumed(link)
            finally:
                self._link = None
            if self._error is None:
                self._attached = trio.Event()
                self.reattached += 1

    async def _attach(self) -> HubLink | None:
        link = await self._hubs.locate(self.topic, create=self._mode != MODE_ATTACH)
        channel = link.new_channel()
        self._broken = trio.Event()
        self._channel = channel
        refill = self._refill
        # Deliveries may be read together with the answer, so the channel is known before.
        link.deliveries[channel] = self
        waiting_messages = sum(item[1] for item in self._queue)
        waiting_bytes = sum(item[2] for item in self._queue)
        refill.reset()
        try:
            reply: Subscribed = await link.call(
                Subscribe(
                    channel,
                    self.topic,
                    self.name,
                    self._mode,
                    self._position,
                    self._force,
                    refill.window_messages - waiting_messages,
                    refill.window_bytes - waiting_bytes,
                    self._token,
                    self._received + 1 if self._received else 0,
                    self._consumed,
                )
            )
        except BaseException:
            link.deliveries.pop(channel, None)
            raise
        if self._broken.is_set() or link.is_closed:
            return None
        self._link = link
        self._consumed_sent = self._consumed
        self._received = max(self._received, reply.next - 1)
        # Created or attached: from here on only attached again, and never by force.
        self._mode = MODE_ATTACH
        self._force = False
        return link

    async def _report_consumed(self, link: HubLink) -> None:
        """Sends consumed positions in groups until the channel breaks."""
        while not self._broken.is_set():
            if self._consumed == self._consumed_sent:
                self._consume_due = trio.Event()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_first_of, self._broken, nursery.cancel_scope)
                    nursery.start_soon(_first_of, self._consume_due, nursery.cancel_scope)
            with trio.move_on_after(CONSUME_INTERVAL_S):
                await self._broken.wait()
            if not self._broken.is_set():
                self._send_consumed(link)

    def _send_consumed(self, link: HubLink) -> None:
        if self._consumed > self._consumed_sent:
            self._consumed_sent = self._consumed
            link.send(Consume(self._channel, self._consumed, []))

    async def detach(self) -> None:
        """Has what was consumed persisted, and tells the hub that nothing more is wanted."""
        link = self._link
        if link is None:
            return
        self._send_consumed(link)
        link.deliveries.pop(self._channel, None)
        with trio.move_on_after(DETACH_DEADLINE_S, shield=True):
            try:
                if self._consumed:
                    await link.call(Flush(self._channel))
                await link.call(Detach(self._channel))
            except PubsubError as error:
                log.debug("subscription not detached", topic=self.topic, why=str(error))

    # -- hubs.DeliveryEnd
    # --------------------------------------------------------------------------------------------

    def on_deliver(self, message: Deliver, body: memoryview) -> None:
        if message.channel != self._channel:
            return
        data = bytes(body)
        try:
            for header, start, _ in split_entries(data):
                first = max(message.first, header.first, self._received + 1)
                credit = (header.count, entry_bytes(header))
                skip = first - header.first
                batch = Batch(header, data, start, skip) if skip < header.count else None
                self._queue.append((batch, *credit))
                self._received = max(self._received, header.last)
        except (CorruptBatchError, UnsupportedBatchError) as error:
            self.on_closed(error)
            return
        self._news.set()

    def on_moved(self) -> None:
        self._link = None
        self._broken.set()

    def on_closed(self, error: PubsubError) -> None:
        self._error = error
        self._link = None
        self._broken.set()
        self._attached.set()
        self._news.set()


class Batches:
    """Async iterator of batches. Not a generator, so that a loop may be left without closing it."""

    def __init__(self, take: Callable[[], Awaitable[Batch]]) -> None:
        self._take = take

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        return await self._take()


async def _first_of(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
