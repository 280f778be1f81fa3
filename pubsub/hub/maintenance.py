"""What an owner does besides serving: rolls full or reduced ledgers, deletes consumed ones, forgets idle
producers.
"""

from typing import Final

import trio

from coord import eventlog
from coord.clock import Clock
from pubsub.core.batch import ENTRY_BYTES_MAX
from pubsub.core.errors import OwnerBusyError
from pubsub.core.record import LedgerRange, TopicRecord
from pubsub.core.retention import deletable_ranges
from pubsub.hub.ownership import Holdings
from pubsub.hub.seams import KIND_TOPIC, LedgerStoreError, LedgerWriter
from pubsub.hub.topic import Topic
from pubsub.metadata import ConflictError

ROLLS_AT_ONCE_MAX: Final = 8

log = eventlog.get("pubsub.hub")


class Maintenance:
    """The upkeep of all topics of one hub."""

    def __init__(self, holdings: Holdings, clock: Clock, interval_ms: int) -> None:
        self._holdings = holdings
        self._clock = clock
        self._interval_ms = interval_ms
        self._rolling: set[Topic] = set()
        self._has_ended = False
        self._rolled = trio.lowlevel.ParkingLot()
        self._slots = trio.CapacityLimiter(ROLLS_AT_ONCE_MAX)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(self._interval_ms / 1000)
            await self.pass_once()

    async def pass_once(self) -> None:
        """Looks at every topic once."""
        full_possible = False
        try:
            full_possible = (
                await self._holdings.ledgers.bookies_available() >= self._holdings.ledgers.copies_wanted
            )
        except LedgerStoreError as error:
            log.info("bookies cannot be counted", error=str(error))
        for topic in list(self._holdings.topics.values()):
            topic.dedup.forget_idle(self._clock.monotonic_ms())
            if self.is_roll_due(topic, full_possible):
                await self.roll(topic)
            await self.trim(topic)

    def is_roll_due(self, topic: Topic, full_possible: bool) -> bool:
        age_ms = self._clock.monotonic_ms() - topic.opened_ms
        reduced = topic.ledger.copies < self._holdings.ledgers.copies_wanted
        return self._holdings.config.roll.due(
            topic.open_bytes, len(topic.index), age_ms, reduced=reduced, full_possible=full_possible
        )

    async def roll(self, topic: Topic) -> None:
        """Goes on in a new ledger. Publishes are kept back meanwhile, none fails unless the roll does.

        The new ledger exists before publishes are kept back; then: all confirmed, index appended, old ledger
        sealed, record changed, publishes go on. From the sealing on, a failure gives the topic up.
        """
        if topic in self._rolling or topic.is_lost or self._has_ended:
            return
        self._rolling.add(topic)
        try:
            async with self._slots:
                if not self._has_ended:
                    await self._roll(topic)
        finally:
            self._rolling.discard(topic)
            self._rolled.unpark_all()

    async def end(self) -> None:
        """No roll begins any more; returns when those under way are over. For a hub that releases its topics:
        both keep publishes back.
        """
        self._has_ended = True
        while self._rolling:
            await self._rolled.park()

    async def _roll(self, topic: Topic) -> None:
        holdings = self._holdings
        try:
            following = await holdings.ledgers.create({"kind": KIND_TOPIC, "topic": str(topic.name).encode()})
        except LedgerStoreError as error:
            log.warning("topic's ledger is not rolled", topic=str(topic.name), error=str(error))
            return
        old = topic.ledger
        await topic.hold()
        try:
            if topic.is_lost:
                following.abandon()
                return
            await _append_index(topic, old)
            await old.close()
            last, byte_count, time_ms = topic.high_watermark, topic.open_bytes, topic.append_time_ms
            opened = LedgerRange(
                following.ledger_id, last + 1, first_time_ms=time_ms, copies=following.copies
            )

            def change(record: TopicRecord) -> TopicRecord:
                return record.closed(last, byte_count, time_ms).opened(opened)

            await holdings.change_record(topic, change)
        except (LedgerStoreError, ConflictError) as error:
            following.abandon()
            topic.lose(OwnerBusyError(f"roll failed: {error}"), f"roll failed: {error}")
            return
        topic.go_on(following)
        log.info("topic rolled", topic=str(topic.name), ledger=following.ledger_id, copies=following.copies)

    async def trim(self, topic: Topic) -> None:
        """Deletes closed ledgers that every persisted position has passed: first out of the record, then for
        good.
        """
        if topic.is_lost or topic in self._rolling:
            return
        marks = [one.persisted for one in topic.subscriptions.values()]
        count = deletable_ranges(topic.record, marks, topic.covered, self._clock.wall_ms())
        holdings = self._holdings
        try:
            if count:
                await holdings.change_record(topic, lambda record: record.trimmed(count))
            deleting = frozenset(topic.record.deleting)
            if not deleting:
                return
            for ledger_id in deleting:
                reader = topic.readers.pop(ledger_id, None)
                if reader is not None:
                    reader.close()
                await holdings.ledgers.delete(ledger_id)
            await holdings.change_record(topic, lambda record: record.forgotten(deleting))
        except ConflictError:
            return
        except LedgerStoreError as error:
            log.info("ledgers are not deleted yet", topic=str(topic.name), error=str(error))


async def _append_index(topic: Topic, ledger: LedgerWriter) -> None:
    """Ends a ledger with the index of its entries, unless it would not fit: then a search finds them."""
    if not len(topic.index) or topic.is_lost:
        return
    marker = topic.index.encode_marker(topic.epoch, topic.append_time_ms)
    if len(marker) > ENTRY_BYTES_MAX:
        return
    done = trio.Event()
    results: list[int | Exception] = []

    def on_appended(result: int | Exception) -> None:
        results.append(result)
        done.set()

    ledger.append_nowait(marker, on_appended)
    await done.wait()
    if isinstance(results[0], Exception):
        raise LedgerStoreError(f"index marker not stored: {results[0]}") from results[0]
