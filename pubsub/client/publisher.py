"""The way of messages to one topic's hub: batches formed when the pipe is free, retried until they are
stored.

    publish -> chunk in the queue -> batch (bytes and number fixed) -> in flight -> answered, in order ->
    receipts

The first message of an idle publisher leaves at once; what arrives while it is in flight leaves together; a
full batch does not wait, up to BATCHES_IN_FLIGHT_MAX. A batch keeps its bytes and its producer numbers for
ever: after a redirect, a lost connection or a take-over everything unanswered is sent again in order on a new
channel, and the hub stores each once (2.9). Nobody but the caller's cancel scope ends that.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Final

import trio

from coord import eventlog, rpc
from pubsub.client.hubs import HubLink, Hubs, translate
from pubsub.client.messages import Receipt
from pubsub.core.batch import encode_batch
from pubsub.core.errors import PubsubError
from pubsub.core.wire import OpenPublisher, Publish, Published

BATCH_BYTES: Final = 512 << 10
"""A batch with this many bytes of messages is full."""
BATCH_MESSAGES: Final = 16_384
BATCHES_IN_FLIGHT_MAX: Final = 16
QUEUE_BYTES_MAX: Final = 8 << 20
"""Bytes of messages that wait to be sent; publishing waits above it."""
PIECE_MESSAGES: Final = 65_536
"""`publish_many` hands over pieces of at most this many."""
REOPEN_DELAY_S: Final = 0.005

log = eventlog.get("pubsub.client")


class Chunk:
    """Messages handed over together, and who waits for them."""

    __slots__ = ("done", "ends", "error", "keys", "payloads", "receipt", "taken", "unanswered")

    def __init__(self, payloads: Sequence[bytes], keys: Sequence[bytes | None] | None) -> None:
        self.payloads = payloads
        self.keys = keys
        sizes = map(len, payloads)
        if keys is not None:
            sizes = map(int.__add__, sizes, (0 if key is None else len(key) for key in keys))
        #: Running sum of sizes: where a batch is full is one bisection.
        self.ends = list(accumulate(sizes))
        self.taken = 0
        self.unanswered = len(payloads)
        self.receipt: Receipt | None = None
        self.error: PubsubError | None = None
        self.done = trio.Event()

    @property
    def bytes(self) -> int:
        return self.ends[-1]

    def on_stored(self, count: int, first: int, duplicate: bool) -> None:
        """Messages of this chunk are stored from sequence `first` on (0: not known)."""
        last = first + count - 1 if first else 0
        known = self.receipt
        if known is None:
            self.receipt = Receipt(first, last, duplicate)
        else:
            self.receipt = Receipt(known.first, last, known.duplicate or duplicate)
        self._answered(count)

    def on_failed(self, count: int, error: PubsubError) -> None:
        self.error = error
        self._answered(count)

    def _answered(self, count: int) -> None:
        self.unanswered -= count
        if not self.unanswered:
            self.done.set()

    async def wait(self) -> Receipt:
        """Waits until all is answered.

        Raises:
            PubsubError: some messages were refused for good.
        """
        await self.done.wait()
        if self.error is not None:
            raise self.error
        assert self.receipt is not None
        return self.receipt


class _Batch:
    """Bytes that stay the same over all tries."""

    __slots__ = ("answer", "count", "parts", "shares")

    def __init__(self, parts: tuple[bytes, bytes], count: int, shares: list[tuple[Chunk, int]]) -> None:
        self.parts = parts
        self.count = count
        #: Whose messages these are: (chunk, how many), in order.
        self.shares = shares
        self.answer: Published | PubsubError | None = None


class TopicPublisher:
    """All publishing of one bus to one topic."""

    def __init__(self, topic: str, hubs: Hubs, producer_id: bytes) -> None:
        self.topic = topic
        self._hubs = hubs
        self._producer_id = producer_id
        self._next_number = 1
        self._queue: deque[Chunk] = deque()
        self._queue_bytes = 0
        self._in_flight: deque[_Batch] = deque()
        self._link: HubLink | None = None
        self._channel = 0
        self._attempt = 0
        self._broken = trio.Event()
        self._room = trio.lowlevel.ParkingLot()
        self._work = trio.Event()
        self._failure: PubsubError | None = None

    # -- the caller's side
    # -------------------------------------------------------------------------------------------

    async def wait_room(self) -> None:
        """Waits until more may be queued."""
        while self._queue_bytes >= QUEUE_BYTES_MAX:
            await self._room.park()

    def put(self, chunk: Chunk) -> None:
        """Queues messages, and sends what may leave."""
        self._queue.append(chunk)
        self._queue_bytes += chunk.bytes
        if self._link is not None:
            self._send_due(self._link)
        else:
            self._work.set()

    async def drain(self) -> None:
        """Waits until everything is answered."""
        while self._queue or self._in_flight:
            chunk = self._queue[-1] if self._queue else self._in_flight[-1].shares[-1][0]
            await chunk.done.wait()

    # -- the way to the hub
    # ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keeps a channel open while there is something to send; until cancelled."""
        while True:
            while not (self._queue or self._in_flight):
                self._work = trio.Event()
                await self._work.wait()
            try:
                link = await self._hubs.locate(self.topic, create=True)
                channel = link.new_channel()
                self._broken = trio.Event()
                await link.call(OpenPublisher(channel, self.topic, self._producer_id))
            except PubsubError as error:
                if not error.retry:
                    self._refuse_all(error)
                else:
                    log.debug("publisher not opened", topic=self.topic, why=str(error))
                    await trio.sleep(REOPEN_DELAY_S)
                continue
            if link.is_closed:
                continue
            self._channel = channel
            self._attempt += 1
            link.on_lost.add(self._broken.set)
            try:
                for batch in self._in_flight:
                    self._send(link, batch)
                self._link = link
                self._send_due(link)
                await self._broken.wait()
            finally:
                self._link = None
                link.on_lost.discard(self._broken.set)

    def _send_due(self, link: HubLink) -> None:
        while (
            self._queue
            and len(self._in_flight) < BATCHES_IN_FLIGHT_MAX
            and (not self._in_flight or self._queue_bytes >= BATCH_BYTES)
            and link.link.is_writable
        ):
            batch = self._form_batch()
            self._in_flight.append(batch)
            self._send(link, batch)
        if self._room and self._queue_bytes < QUEUE_BYTES_MAX:
            self._room.unpark_all()

    def _send(self, link: HubLink, batch: _Batch) -> None:
        if batch.answer is not None:
            return
        try:
            on_reply = partial(self._on_reply, batch, self._attempt)
            link.link.request(Publish(self._channel), *batch.parts, on_reply=on_reply)
        except rpc.RpcError:
            # Full or closed: the batch stays in flight and is sent again on the next channel.
            self._broken.set()

    def _form_batch(self) -> _Batch:
        """Takes the oldest messages of the queue, up to a full batch."""
        payloads: list[bytes] = []
        keys: list[bytes | None] = []
        has_keys = False
        shares = []
        room_bytes, room_count = BATCH_BYTES, BATCH_MESSAGES
        while self._queue and room_count:
            chunk = self._queue[0]
            start, ends = chunk.taken, chunk.ends
            before = ends[start - 1] if start else 0
            stop = min(bisect_right(ends, before + room_bytes, start), start + room_count)
            if stop == start:
                if payloads:
                    break
                stop = start + 1
            taken = chunk.payloads[start:stop]
            if chunk.keys is not None and not has_keys:
                has_keys = True
                keys = [None] * len(payloads)
            payloads += taken
            if has_keys:
                keys += chunk.keys[start:stop] if chunk.keys is not None else [None] * len(taken)
            size = ends[stop - 1] - before
            self._queue_bytes -= size
            room_bytes -= size
            room_count -= len(taken)
            shares.append((chunk, len(taken)))
            chunk.taken = stop
            if stop < len(ends):
                break
            self._queue.popleft()
        parts = encode_batch(self._producer_id, self._next_number, payloads, keys=keys if has_keys else None)
        self._next_number += len(payloads)
        return _Batch(parts, len(payloads), shares)

    def _on_reply(self, batch: _Batch, attempt: int, answer: rpc.Reply | rpc.RpcError) -> None:
        if batch.answer is not None:
            return
        if isinstance(answer, rpc.Reply):
            batch.answer = answer.message
        else:
            error = translate(answer)
            if attempt == self._attempt:
                self._link = None
                self._broken.set()
            if error.retry:
                return
            batch.answer = error
        self._settle()
        if self._link is not None:
            self._send_due(self._link)

    def _settle(self) -> None:
        """Answers whoever waits for the oldest batches, in order."""
        while self._in_flight and (answer := self._in_flight[0].answer) is not None:
            batch = self._in_flight.popleft()
            if isinstance(answer, PubsubError):
                for chunk, count in batch.shares:
                    chunk.on_failed(count, answer)
                continue
            first = answer.first
            for chunk, count in batch.shares:
                chunk.on_stored(count, first, answer.duplicate)
                first += count if first else 0

    def _refuse_all(self, error: PubsubError) -> None:
        """The topic cannot be published to: what waits for it is told so."""
        for batch in self._in_flight:
            batch.answer = batch.answer or error
        self._settle()
        while self._queue:
            chunk = self._queue.popleft()
            chunk.on_failed(len(chunk.payloads) - chunk.taken, error)
        self._queue_bytes = 0
        self._room.unpark_all()
