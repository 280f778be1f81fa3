"""Acquiring a topic, the safety core (1.11, P12 to P14). Each step may be the last one this hub does:

    1  compare-and-set: this hub is owner, epoch + 1         after it, the old owner's metadata writes fail
    2  recover the open ledger                               after it, the old owner's appends fail
    3  read the cursor ledgers the record names, fenced      positions and producers as last persisted
    4  replay headers above what the producers cover         repeats are refused across the take-over
    5  write the positions to this hub's own cursor ledger   before the record names it
    6  create the next ledger                                an orphan if we stop here
    7  compare-and-set: the old range closed, the new open   only now is the topic owned and appended to

Losing either compare-and-set means that somebody else acquires: stop, and decide again from what is stored.
Whoever is asked next starts over at 1 and finds everything that was ever acknowledged.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

import trio
from outcome import Outcome, Value, acapture

from pubsub.core.batch import HubHeader, decode_batch_header, decode_hub_header
from pubsub.core.cursor import Cursor
from pubsub.core.dedup import DedupTable
from pubsub.core.names import TopicName
from pubsub.core.positions import CursorRow, Positions, ProducersRow, Row
from pubsub.core.record import LedgerRange, TopicRecord
from pubsub.core.subscription import SubscriptionRecord
from pubsub.hub.cursors import CursorLedger, CursorReader
from pubsub.hub.delivery import Subscription
from pubsub.hub.seams import KIND_TOPIC, LedgerReader, Ledgers, LedgerStoreError, LedgerWriter
from pubsub.metadata import ConflictError, TopicStore

REPLAY_READ_BYTES: Final = 4 << 20
DISCARD_DEADLINE_S: Final = 1.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Acquired:
    """All that a `Topic` is made of."""

    record: TopicRecord
    version: int
    ledger: LedgerWriter
    dedup: DedupTable
    append_time_ms: int
    subscriptions: dict[str, Subscription]


@dataclass(frozen=True, slots=True)
class _End:
    """Where the recovered chain ends."""

    record: TopicRecord
    append_time_ms: int


@dataclass(slots=True)
class Acquisition:
    """What acquiring needs from the hub.

    `on_step` is called with the number of each step that is done: tests stop a hub there.
    """

    store: TopicStore
    ledgers: Ledgers
    cursor_ledger: CursorLedger
    cursor_reader: CursorReader
    now_ms: Callable[[], int]
    wall_ms: Callable[[], int]
    on_step: Callable[[int], None] = lambda step: None

    async def acquire(self, name: TopicName, claimed: TopicRecord, version: int) -> Acquired:
        """Steps 2 to 7 for a record that this hub has claimed (step 1).

        Raises:
            ConflictError: another hub acquires the topic.
            LedgerStoreError: the bookies do not let us, now.
            RecordError, CorruptBatchError: what is stored is damaged.
        """
        self.on_step(1)
        # None of the four waits for another: recovery, positions, subscriptions, and the next ledger, which
        # depends on nothing that is found.
        recovered: list[Outcome[_End]] = []
        positions: list[Outcome[Positions]] = []
        records: list[Outcome[dict[str, SubscriptionRecord]]] = []
        created: list[Outcome[LedgerWriter]] = []
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_capture, recovered, self._recover, claimed)
                nursery.start_soon(_capture, positions, self._read_positions, claimed)
                nursery.start_soon(_capture, records, self.store.subscriptions, name)
                nursery.start_soon(_capture, created, self._create, name)
            ledger = created[0].unwrap()
            end, known = recovered[0].unwrap(), positions[0].unwrap()
            record = end.record
            cursors = _restore_cursors(record, records[0].unwrap(), known)
            dedup = await self._restore_dedup(record, known)
            self.on_step(4)
            rows = _initial_rows(record, cursors, dedup)
            cursor_ledger_id = await self.cursor_ledger.adopt(record.topic_id, rows)
            self.on_step(5)
        except BaseException:
            await self._discard(created)
            raise
        time_ms = end.append_time_ms
        opened = LedgerRange(ledger.ledger_id, record.next_first, first_time_ms=time_ms, copies=ledger.copies)
        record = record.opened(opened).with_cursors((cursor_ledger_id,))
        try:
            version = await self.store.write(name, record, version)
        except ConflictError:
            await self._discard(created)
            raise
        except BaseException:
            # Whether the record names the ledger is not known: it must stay.
            ledger.abandon()
            raise
        self.on_step(7)
        return Acquired(record, version, ledger, dedup, time_ms, cursors)

    async def _discard(self, created: list[Outcome[LedgerWriter]]) -> None:
        """Deletes the new ledger, which no record names; if that fails it is an orphan."""
        if not created or not isinstance(created[0], Value):
            return
        ledger = created[0].value
        ledger.abandon()
        with trio.move_on_after(DISCARD_DEADLINE_S, shield=True), suppress(LedgerStoreError):
            await self.ledgers.delete(ledger.ledger_id)

    async def _create(self, name: TopicName) -> LedgerWriter:
        # P1: the topic's name in the ledger's own metadata lets a scan find orphans.
        ledger = await self.ledgers.create({"kind": KIND_TOPIC, "topic": str(name).encode()})
        self.on_step(6)
        return ledger

    async def _recover(self, record: TopicRecord) -> _End:
        tail = record.last_range
        if tail is None:
            return _End(record, record.created_ms)
        if tail.last is not None:
            return _End(record, tail.last_time_ms)
        reader = await self.ledgers.open_recovered(tail.ledger_id)
        try:
            header = await _last_messages(reader)
        finally:
            reader.close()
        self.on_step(2)
        if header is None:
            return _End(record.closed(tail.first - 1, 0, tail.first_time_ms), tail.first_time_ms)
        # The size is only an estimate for listings; reading every entry for it would delay the take-over.
        byte_count = (reader.last_entry + 1) * header.length
        return _End(record.closed(header.last, byte_count, header.append_time_ms), header.append_time_ms)

    async def _read_positions(self, record: TopicRecord) -> Positions:
        merged = Positions()
        for ledger_id in record.cursors:
            if ledger_id == self.cursor_ledger.ledger_id:
                # Ours: given up after a failed append, and acquired again. Fencing ourselves would cost a
                # ledger.
                known = await self.cursor_ledger.read_back()
            else:
                known = await self.cursor_reader.read(ledger_id)
            found = known.topics.get(record.topic_id)
            if found is not None:
                rows: list[Row] = [
                    CursorRow(record.topic_id, found.epoch, one, number, c.mark, tuple(c.encode_ranges()))
                    for (one, number), c in found.cursors.items()
                ]
                producers = tuple(found.producers.values())
                rows.append(ProducersRow(record.topic_id, found.epoch, found.covered, producers))
                merged.replay(rows)
        self.on_step(3)
        return merged

    async def _restore_dedup(self, record: TopicRecord, positions: Positions) -> DedupTable:
        dedup = DedupTable()
        now_ms = self.now_ms()
        found = positions.topics.get(record.topic_id)
        covered = 0
        if found is not None:
            dedup.restore(list(found.producers.values()), now_ms)
            covered = found.covered
        for one in record.ranges:
            if one.last is None or one.last <= covered:
                continue
            reader = await self.ledgers.open_recovered(one.ledger_id)
            try:
                await _replay_headers(reader, covered, dedup, now_ms)
            finally:
                reader.close()
        return dedup


async def _capture(into: "list[Outcome[T]]", call: Callable[..., Awaitable[T]], *args: object) -> None:
    """Keeps the result or the error for later: an error of one must not cancel the others half-way."""
    into.append(await acapture(call, *args))


async def _last_messages(reader: LedgerReader) -> HubHeader | None:
    """The header of the last entry that holds messages; markers at the end are stepped over (T18)."""
    for entry_id in range(reader.last_entry, -1, -1):
        (entry,) = await reader.read(entry_id, entry_id, REPLAY_READ_BYTES)
        header = decode_hub_header(entry)
        if header.count:
            return header
    return None


async def _replay_headers(reader: LedgerReader, covered: int, dedup: DedupTable, now_ms: int) -> None:
    """Backwards to where the snapshot covers, then forwards into the table: a take-over reads no more than
    that.
    """
    entry_id = reader.last_entry
    start = entry_id + 1
    step = 1
    while start > 0:
        # Strides double, so the search costs few reads and overshoots by at most as much as is replayed.
        start = max(0, start - step)
        step *= 2
        (entry,) = await reader.read(start, start, 1)
        if decode_hub_header(entry).first <= covered + 1:
            break
    while start <= entry_id:
        for entry in await reader.read(start, entry_id, REPLAY_READ_BYTES):
            hub = decode_hub_header(entry)
            start += 1
            if hub.count and hub.last > covered:
                header = decode_batch_header(entry, len(entry) - hub.length)
                dedup.replay(header.producer_id, header.sequence, header.last_sequence, hub.first, now_ms)


def _restore_cursors(
    record: TopicRecord, records: dict[str, SubscriptionRecord], positions: Positions
) -> dict[str, Subscription]:
    found = positions.topics.get(record.topic_id)
    subscriptions = {}
    for name, subscription in records.items():
        cursor = Cursor(subscription.start)
        persisted = None if found is None else found.cursors.get((name, subscription.incarnation))
        if persisted is not None:
            cursor.merge(persisted)
        subscriptions[name] = Subscription(name, subscription, cursor, cursor.mark)
    return subscriptions


def _initial_rows(
    record: TopicRecord, subscriptions: dict[str, Subscription], dedup: DedupTable
) -> list[Row]:
    rows: list[Row] = [
        CursorRow(
            record.topic_id,
            record.epoch,
            one.name,
            one.record.incarnation,
            one.cursor.mark,
            tuple(one.cursor.encode_ranges()),
        )
        for one in subscriptions.values()
    ]
    dedup.take_changes()
    rows.append(ProducersRow(record.topic_id, record.epoch, record.sealed, tuple(dedup.rows())))
    return rows
