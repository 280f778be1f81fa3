"""A topic this hub owns: publishing, confirmation in order, delivery. Synchronous; called from the tick.

    Publish -> judged (repeats) -> numbered -> hub header in front -> ledger
    ledger confirms, in order -> high watermark -> publisher answered -> pushed to subscribers that keep up

Nothing above the high watermark is ever delivered. Any failed append ends the ownership (`lose`): what came
behind it must not be stored while it was not (1.3), so everything unanswered is failed, in order, every
publisher channel is broken, and whoever acquires the topic next decides from the ledgers what is stored.
"""

from collections import deque
from struct import Struct
from typing import Final, Protocol

import trio

from coord.clock import Clock
from coord.rpc import Peer
from pubsub.core.batch import BatchHeader, decode_batch_header, encode_hub_header
from pubsub.core.dedup import DedupTable, Pending, Stored
from pubsub.core.errors import (
    InvalidRequestError,
    NotOwnerError,
    OutOfOrderError,
    OwnerBusyError,
    PubsubError,
    StalePublisherError,
)
from pubsub.core.index import EntryIndex
from pubsub.core.names import TopicName
from pubsub.core.record import TopicRecord
from pubsub.core.wire import Published
from pubsub.hub.delivery import Delivery, Subscription
from pubsub.hub.recent import RecentEntries
from pubsub.hub.seams import LedgerFencedError, LedgerReader, LedgerWriter

_COUNT_AT: Final = 32
_count = Struct("<I").unpack_from


class TopicEvents(Protocol):
    """Whom a topic tells."""

    def on_lost(self, topic: "Topic") -> None:
        """The hub serves the topic no longer."""

    def on_dirty(self, topic: "Topic") -> None:
        """Positions or producers have changed since they were last persisted."""

    def on_output(self) -> None:
        """Answers and deliveries were queued, perhaps outside a tick."""

    def on_roll_due(self, topic: "Topic") -> None:
        """The open ledger is full."""

    def start_reading(self, delivery: Delivery) -> None:
        """A subscriber needs what is not in memory."""


class PublisherChannel:
    """One publisher's ordered stream of batches on one connection, bound to this ownership of the topic."""

    __slots__ = ("expected", "is_broken", "number", "peer", "producer_id", "topic")

    def __init__(self, peer: Peer, number: int, topic: "Topic", producer_id: bytes) -> None:
        self.peer = peer
        self.number = number
        self.topic = topic
        self.producer_id = producer_id
        #: The producer number that must come next; None before the first batch.
        self.expected: int | None = None
        self.is_broken = False

    def fail(self, request_id: int, error: PubsubError) -> None:
        """Refuses one batch, and with it every later one of the channel."""
        self.is_broken = True
        self.peer.fail(request_id, error.code, str(error))


class PendingAppend:
    """A numbered batch on its way into the ledger."""

    __slots__ = ("batch", "channel", "entry_id", "first", "header", "request_id", "topic", "waiters")

    def __init__(
        self, topic: "Topic", channel: PublisherChannel, request_id: int, header: BatchHeader, batch: bytes
    ) -> None:
        self.topic = topic
        self.channel = channel
        self.request_id = request_id
        self.header = header
        self.batch = batch
        self.first = topic.last_pushed + 1
        self.entry_id = -1
        #: Repeats of this very batch that came while it was being written.
        self.waiters: list[tuple[PublisherChannel, int]] = []

    def on_appended(self, result: int | Exception) -> None:
        self.topic.on_appended(self, result)


class Topic:
    """One owned topic.

    Attributes:
        record, version: as last written.
        last_pushed: highest sequence given to a batch; high_watermark: highest confirmed.
        covered: the producers are persisted up to this sequence.
    """

    def __init__(
        self,
        name: TopicName,
        record: TopicRecord,
        version: int,
        ledger: LedgerWriter,
        recent: RecentEntries,
        dedup: DedupTable,
        append_time_ms: int,
        clock: Clock,
        events: TopicEvents,
        roll_bytes: int,
        dedup_replay_bytes_max: int,
    ) -> None:
        self.name = name
        self.record = record
        self.version = version
        self.ledger = ledger
        self.recent = recent
        self.dedup = dedup
        self.append_time_ms = append_time_ms
        self.last_pushed = self.high_watermark = self.covered = record.ranges[-1].first - 1
        self.subscriptions: dict[str, Subscription] = {}
        self.deliveries: set[Delivery] = set()
        self.channels: set[PublisherChannel] = set()
        self.readers: dict[int, LedgerReader] = {}
        self.is_lost = False
        self.lost_because = ""
        self.is_dirty = False
        self.dirty_bytes = 0
        self.opened_ms = clock.monotonic_ms()
        self.index = EntryIndex(self.last_pushed + 1)
        self.open_bytes = 0
        self._clock = clock
        self._events = events
        self._roll_bytes = roll_bytes
        self._dedup_replay_bytes_max = dedup_replay_bytes_max
        #: Changes of the record, one at a time.
        self.record_lock = trio.Lock()
        #: Subscriptions created and removed, one at a time.
        self.subscribe_lock = trio.Lock()
        self._in_flight: deque[PendingAppend] = deque()
        self._held: deque[PendingAppend] | None = None
        self._drained: trio.Event | None = None
        self._confirmed = trio.lowlevel.ParkingLot()

    @property
    def epoch(self) -> int:
        return self.record.epoch

    # -- publishing
    # ------------------------------------------------------------------------------------------------

    def publish(self, channel: PublisherChannel, request_id: int, batch: bytes) -> None:
        """Takes one batch of a channel; it is answered when it is stored, refused, or the topic is lost.

        Raises:
            PubsubError: refused at once; the caller answers, and breaks the channel.
        """
        if channel.is_broken:
            raise StalePublisherError("an earlier batch of this channel was refused; open it again")
        if self.is_lost:
            raise NotOwnerError("")
        header = decode_batch_header(batch)
        last = header.last_sequence
        if header.producer_id != channel.producer_id or header.sequence < 1:
            raise InvalidRequestError("the batch is another producer's, or its numbers do not begin at 1")
        if channel.expected is not None and header.sequence > channel.expected:
            raise OutOfOrderError(f"expected producer number {channel.expected}, got {header.sequence}")
        verdict = self.dedup.judge(header.producer_id, header.sequence, last)
        channel.expected = max(last + 1, channel.expected or 0)
        match verdict:
            case Stored(first):
                channel.peer.reply(request_id, Published(first, duplicate=True))
            case Pending():
                self._wait_for(header, channel, request_id)
            case _:
                self._push(PendingAppend(self, channel, request_id, header, batch))

    def _wait_for(self, header: BatchHeader, channel: PublisherChannel, request_id: int) -> None:
        """A repeat of a batch that is being written is answered with it (2.9, second line)."""
        for pending in (*self._in_flight, *(self._held or ())):
            known = pending.header
            if known.producer_id == header.producer_id and known.sequence == header.sequence:
                if known.count != header.count:
                    break
                pending.waiters.append((channel, request_id))
                return
        raise OutOfOrderError("the batch repeats a part of what is being stored, not a whole batch")

    def _push(self, pending: PendingAppend) -> None:
        self.last_pushed += pending.header.count
        self.dedup.push(pending.header.producer_id, pending.header.last_sequence, self._clock.monotonic_ms())
        if self._held is not None:
            self._held.append(pending)
        else:
            self._append(pending)

    def _append(self, pending: PendingAppend) -> None:
        count, batch = pending.header.count, pending.batch
        # Never before an earlier entry's, also when the clock is set back: searches by time rely on it (2.1).
        self.append_time_ms = max(self.append_time_ms, self._clock.wall_ms())
        header = encode_hub_header(self.epoch, pending.first, self.append_time_ms, count, len(batch))
        pending.batch = entry = header + batch
        pending.entry_id = len(self.index)
        self.index.add(count)
        self.open_bytes += len(entry)
        self._in_flight.append(pending)
        self.ledger.append_nowait(entry, pending.on_appended)
        if self.open_bytes >= self._roll_bytes > self.open_bytes - len(entry):
            self._events.on_roll_due(self)

    def on_appended(self, pending: PendingAppend, result: int | Exception) -> None:
        """The ledger's word on the oldest append in flight."""
        if self.is_lost:
            return
        if isinstance(result, LedgerFencedError):
            self.lose(NotOwnerError(""), f"fenced: {result}")
            return
        if isinstance(result, Exception):
            self.lose(OwnerBusyError(f"append failed: {result}"), f"append failed: {result}")
            return
        if self._in_flight[0] is not pending or result != pending.entry_id:
            # Numbers and entries no longer match: go on and messages are misfiled (1.2 calls it a fatal
            # error).
            self.lose(OwnerBusyError("ledger out of step"), f"entry {result}, expected {pending.entry_id}")
            return
        self._in_flight.popleft()
        header, entry, first = pending.header, pending.batch, pending.first
        end = first + header.count
        self.high_watermark = end - 1
        self.dedup.persist(header.producer_id, header.sequence, header.last_sequence, first)
        pending.channel.peer.reply(pending.request_id, Published(first, duplicate=False))
        for channel, request_id in pending.waiters:
            channel.peer.reply(request_id, Published(first, duplicate=True))
        self.recent.add(first, header.count, entry)
        for delivery in self.deliveries:
            delivery.on_confirmed(first, end, entry)
        if self._confirmed:
            self._confirmed.unpark_all()
        self._events.on_output()
        self._note_dirty(len(entry))
        if not self._in_flight and self._drained is not None:
            self._drained.set()

    def _note_dirty(self, byte_count: int) -> None:
        before = self.dirty_bytes
        self.dirty_bytes = before + byte_count
        if not self.is_dirty or self.dirty_bytes >= self._dedup_replay_bytes_max > before:
            self.is_dirty = True
            self._events.on_dirty(self)

    # -- rolling: the next ledger takes over only when all of the last one is confirmed (1.4)
    # ---------------------------

    async def hold(self) -> None:
        """Keeps new batches back and waits until the ledger has confirmed all it was given."""
        assert self._held is None, "the topic is being rolled already"
        self._held = deque()
        if self._in_flight:
            self._drained = trio.Event()
            await self._drained.wait()
            self._drained = None

    def go_on(self, ledger: LedgerWriter) -> None:
        """Goes on with a new ledger whose range is stored in the record (P13)."""
        self.ledger = ledger
        self.index = EntryIndex(self.high_watermark + 1)
        self.open_bytes = 0
        self.opened_ms = self._clock.monotonic_ms()
        self.release_held()

    def release_held(self) -> None:
        """Appends what was kept back."""
        held, self._held = self._held, None
        for pending in held or ():
            self._append(pending)

    # -- subscriptions
    # -------------------------------------------------------------------------------------------------

    def consume(self, subscription: Subscription, upto: int, ranges: list[tuple[int, int]]) -> None:
        """Acknowledges.

        Raises:
            InvalidRequestError: more than is stored, or an empty range.
        """
        cursor = subscription.cursor
        changed = upto > 0 and cursor.acknowledge_to(upto, self.high_watermark)
        for first, last in ranges:
            changed = cursor.acknowledge(first, last, self.high_watermark) or changed
        if changed:
            subscription.is_dirty = True
            if not self.is_dirty:
                self.is_dirty = True
                self._events.on_dirty(self)

    async def wait_confirmed(self, sequence: int) -> None:
        """Returns once everything up to `sequence` is confirmed, or the topic is lost."""
        while self.high_watermark < sequence and not self.is_lost:
            await self._confirmed.park()

    def attach(self, delivery: Delivery) -> None:
        delivery.subscription.delivery = delivery
        self.deliveries.add(delivery)

    def start_reading(self, delivery: Delivery) -> None:
        self._events.start_reading(delivery)

    @staticmethod
    def count_of(entry: bytes) -> int:
        """Messages in an entry whose header was checked when it was made."""
        return int(_count(entry, _COUNT_AT)[0])

    # -- the end
    # -------------------------------------------------------------------------------------------------------

    def lose(self, error: PubsubError, why: str) -> None:
        """Stops serving, at once and for good: publishers are refused in order, subscribers sent elsewhere.

        `why` is for the log. A new ownership is a new `Topic`.
        """
        if self.is_lost:
            return
        self.is_lost = True
        self.lost_because = why
        for pending in (*self._in_flight, *(self._held or ())):
            pending.channel.fail(pending.request_id, error)
            for channel, request_id in pending.waiters:
                channel.fail(request_id, error)
        self._in_flight.clear()
        self._held = None
        for channel in self.channels:
            channel.is_broken = True
        for delivery in list(self.deliveries):
            delivery.move()
        self.recent.clear()
        self.ledger.abandon()
        for reader in self.readers.values():
            reader.close()
        self.readers.clear()
        if self._drained is not None:
            self._drained.set()
        self._confirmed.unpark_all()
        self._events.on_output()
        self._events.on_lost(self)
