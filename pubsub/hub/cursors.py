"""The hub's cursor ledger: positions and producers of all its topics, one entry a second (DESIGN 6, P9).

`CursorLedger.run` writes what changed since the last entry, and now and then everything (a snapshot), so that
a take-over reads little. A topic's first rows are written before its record names this ledger (`adopt`), so
whoever fences the ledger finds every topic that names it.

Another hub that takes a topic over fences this ledger. The next write then fails, and even an idle owner
writes once a second while it has subscribers: so a deposed owner learns of it within a second, looks at its
records, gives up what is no longer its own, and goes on in a new ledger, which every remaining topic's record
is made to name.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import trio

from coord import eventlog
from pubsub.core.positions import (
    SNAPSHOT_EVERY_ENTRIES,
    CursorRow,
    Positions,
    ProducersRow,
    RemovedRow,
    Row,
    cut_rows,
    decode_positions,
    encode_positions,
)
from pubsub.hub.delivery import Subscription
from pubsub.hub.seams import (
    KIND_CURSORS,
    LedgerGoneError,
    LedgerReader,
    Ledgers,
    LedgerStoreError,
    LedgerWriter,
)
from pubsub.hub.topic import Topic

READ_BYTES: Final = 4 << 20
REOPEN_DELAY_S: Final = 0.2
POSITIONS_CACHED_MAX: Final = 16

log = eventlog.get("pubsub.hub")


class CursorLedger:
    """Writes the positions of the topics it is told of.

    Args:
        registration: of this hub, for readers of the ledger.
        on_replaced: called after the ledger was lost and a new one holds everything: verifies the ownership
            of each
            topic and makes its record name the new ledger.
    """

    def __init__(
        self,
        ledgers: Ledgers,
        registration: int,
        interval_ms: int,
        roll_entries: int,
        on_replaced: Callable[[], Awaitable[None]],
    ) -> None:
        self._ledgers = ledgers
        self._registration = registration
        self._interval_ms = interval_ms
        self._roll_entries = roll_entries
        self._on_replaced = on_replaced
        self._topics: dict[bytes, Topic] = {}
        self._dirty: set[Topic] = set()
        self._removed: list[RemovedRow] = []
        self._writer: LedgerWriter | None = None
        self._entries = 0
        self._snapshot_first: int | None = None
        self._snapshot_due = 0
        self._lock = trio.Lock()
        self._urgent = trio.Event()
        self._persisted = trio.Event()
        #: Writes that took their rows, and writes whose rows are stored.
        self._begun = self._ended = 0
        self.writes = 0

    @property
    def ledger_id(self) -> int | None:
        """The ledger that topic records should name; None before the first topic."""
        return None if self._writer is None else self._writer.ledger_id

    # -- told by topics
    # ----------------------------------------------------------------------------------------------

    def on_dirty(self, topic: Topic, *, urgent: bool) -> None:
        """The topic's positions have changed; `urgent` ones are not left for the next full second."""
        self._dirty.add(topic)
        if urgent:
            self._urgent.set()

    def forget(self, topic: Topic) -> None:
        """The topic is lost."""
        self._dirty.discard(topic)
        if self._topics.get(topic.record.topic_id) is topic:
            del self._topics[topic.record.topic_id]
        self._wake_flushers(0)

    def on_unsubscribed(self, topic: Topic, subscription: Subscription) -> None:
        self._removed.append(
            RemovedRow(topic.record.topic_id, topic.epoch, subscription.name, subscription.record.incarnation)
        )

    async def adopt(self, topic_id: bytes, rows: list[Row]) -> int:
        """Writes a topic's recovered positions before its record names this ledger; returns the ledger's id.

        Raises:
            LedgerStoreError: nothing was stored; the topic cannot be served.
        """
        async with self._lock:
            writer = self._writer or await self._open()
            await self._append(writer, rows)
            return writer.ledger_id

    async def read_back(self) -> Positions:
        """What this hub's own ledger says, for a topic that is acquired again.

        Raises:
            LedgerStoreError: it cannot be read now.
        """
        async with self._lock:
            if self._writer is None:
                return Positions()
            return await _replay(self._writer, self._entries - 1)

    def serve(self, topic: Topic) -> None:
        """From here on the topic's rows are in every snapshot."""
        self._topics[topic.record.topic_id] = topic

    async def flush(self, topic: Topic) -> None:
        """Returns once everything the topic has now is persisted, or the topic is lost."""
        # A write under way may have taken the topic's rows before the last change.
        wanted = self._begun + topic.is_dirty
        while self._ended < wanted and not topic.is_lost:
            self._urgent.set()
            await self._persisted.wait()

    # -- writing
    # -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            with trio.move_on_after(self._interval_ms / 1000):
                await self._urgent.wait()
            self._urgent = trio.Event()
            await self.write()

    async def write(self) -> None:
        """Writes what is due now: one entry, or a snapshot."""
        async with self._lock:
            self._begun += 1
            begun = self._begun
            writer = self._writer
            watched = any(topic.deliveries for topic in self._topics.values())
            try:
                if writer is not None and (self._dirty or self._removed or watched):
                    await self._write_due(writer)
                self._wake_flushers(begun)
                return
            except LedgerStoreError as error:
                assert writer is not None
                log.warning(
                    "cursor ledger lost, opening a new one", ledger=writer.ledger_id, error=str(error)
                )
                writer.abandon()
            await self._replace()
        await self._on_replaced()
        self._wake_flushers(begun)

    async def _write_due(self, writer: LedgerWriter) -> None:
        if self._entries >= self._snapshot_due:
            await self._write_snapshot(writer)
            if self._entries >= self._roll_entries:
                await self._replace()
                await writer.close()
                await self._on_replaced()
                await self._ledgers.delete(writer.ledger_id)
        else:
            topics, rows = self._take_dirty()
            try:
                await self._append(writer, rows)
            except LedgerStoreError:
                self._dirty.update(topic for topic, _ in topics)
                raise
            _mark_persisted(topics)

    def _wake_flushers(self, begun: int) -> None:
        self._ended = max(self._ended, begun)
        self._persisted.set()
        self._persisted = trio.Event()

    def _take_dirty(self) -> tuple[list[tuple[Topic, "_Written"]], list[Row]]:
        taken = []
        rows: list[Row] = list(self._removed)
        self._removed.clear()
        for topic in self._dirty:
            written, changed = _rows_of(topic, everything=False)
            taken.append((topic, written))
            rows += changed
        self._dirty.clear()
        return taken, rows

    async def _write_snapshot(self, writer: LedgerWriter) -> None:
        """All rows of all topics; readers begin here once the entry behind it says so."""
        first = self._entries
        taken = []
        rows: list[Row] = []
        for topic in self._topics.values():
            written, all_rows = _rows_of(topic, everything=True)
            taken.append((topic, written))
            rows += all_rows
        self._removed.clear()
        self._dirty.clear()
        try:
            for group in cut_rows(rows):
                await self._append(writer, group)
        except LedgerStoreError:
            self._dirty.update(self._topics.values())
            raise
        _mark_persisted(taken)
        self._snapshot_first = first
        self._snapshot_due = self._entries + SNAPSHOT_EVERY_ENTRIES

    async def _replace(self) -> None:
        """A new ledger with everything, tried until the bookies are there."""
        while True:
            try:
                writer = await self._open()
                await self._write_snapshot(writer)
                return
            except LedgerStoreError as error:
                log.warning("no new cursor ledger yet", error=str(error), do="check that bookies are up")
                if self._writer is not None:
                    self._writer.abandon()
                    self._writer = None
                await trio.sleep(REOPEN_DELAY_S)

    async def _open(self) -> LedgerWriter:
        self._writer = await self._ledgers.create(
            {"kind": KIND_CURSORS, "registration": str(self._registration).encode()}
        )
        self._entries = 0
        self._snapshot_first = None
        self._snapshot_due = SNAPSHOT_EVERY_ENTRIES
        return self._writer

    async def _append(self, writer: LedgerWriter, rows: Iterable[Row]) -> None:
        done = trio.Event()
        results: list[int | Exception] = []

        def on_appended(result: int | Exception) -> None:
            results.append(result)
            done.set()

        writer.append_nowait(encode_positions(rows, self._registration, self._snapshot_first), on_appended)
        await done.wait()
        if isinstance(results[0], Exception):
            raise LedgerStoreError(str(results[0])) from results[0]
        self._entries = results[0] + 1
        self.writes += 1

    async def close(self) -> None:
        """Writes what is due and seals the ledger, so the next owners need no recovery."""
        async with self._lock:
            writer, self._writer = self._writer, None
            if writer is None:
                return
            topics, rows = self._take_dirty()
            if rows:
                await self._append(writer, rows)
                _mark_persisted(topics)
            await writer.close()

    def abandon(self) -> None:
        """Lets go of the ledger without a write."""
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None


class _Written:
    """What a topic's rows said when they were made; becomes the persisted state once they are stored."""

    __slots__ = ("covered", "marks")

    def __init__(self, covered: int, marks: list[tuple[Subscription, int]]) -> None:
        self.covered = covered
        self.marks = marks


def _rows_of(topic: Topic, *, everything: bool) -> tuple[_Written, list[Row]]:
    """The topic's rows that are dirty, or all; it counts as clean from here on."""
    topic_id, epoch = topic.record.topic_id, topic.epoch
    rows: list[Row] = []
    marks = []
    for subscription in topic.subscriptions.values():
        if not (everything or subscription.is_dirty):
            continue
        cursor = subscription.cursor
        rows.append(
            CursorRow(
                topic_id,
                epoch,
                subscription.name,
                subscription.record.incarnation,
                cursor.mark,
                tuple(cursor.encode_ranges()),
            )
        )
        subscription.is_dirty = False
        marks.append((subscription, cursor.mark))
    changes = topic.dedup.take_changes()
    producers = topic.dedup.rows() if everything else changes
    if everything or producers:
        rows.append(ProducersRow(topic_id, epoch, topic.high_watermark, tuple(producers)))
    topic.is_dirty = False
    topic.dirty_bytes = 0
    return _Written(topic.high_watermark, marks), rows


def _mark_persisted(topics: Iterable[tuple[Topic, _Written]]) -> None:
    for topic, written in topics:
        topic.covered = max(topic.covered, written.covered)
        for subscription, mark in written.marks:
            subscription.persisted = max(subscription.persisted, mark)


class CursorReader:
    """Reads cursor ledgers of other hubs, after fencing them; each once for all topics."""

    def __init__(self, ledgers: Ledgers) -> None:
        self._ledgers = ledgers
        self._cache: dict[int, Positions] = {}
        self._locks: dict[int, trio.Lock] = {}

    async def read(self, ledger_id: int) -> Positions:
        """The latest positions in a cursor ledger; empty when the ledger is gone.

        Raises:
            LedgerStoreError: it cannot be read now.
            RecordError: it is damaged.
        """
        lock = self._locks.setdefault(ledger_id, trio.Lock())
        async with lock:
            if ledger_id not in self._cache:
                positions = await self._read(ledger_id)
                while len(self._cache) >= POSITIONS_CACHED_MAX:
                    del self._cache[next(iter(self._cache))]
                self._cache[ledger_id] = positions
        if lock.statistics().tasks_waiting == 0:
            self._locks.pop(ledger_id, None)
        return self._cache.get(ledger_id, Positions())

    async def _read(self, ledger_id: int) -> Positions:
        try:
            reader = await self._ledgers.open_recovered(ledger_id)
        except LedgerGoneError:
            log.warning("cursor ledger is gone, positions fall back to their start", ledger=ledger_id)
            return Positions()
        try:
            return await _replay(reader, reader.last_entry)
        finally:
            reader.close()


async def _replay(ledger: LedgerReader | LedgerWriter, last: int) -> Positions:
    """The positions in a cursor ledger that ends with entry `last`: from its latest snapshot on."""
    positions = Positions()
    if last < 0:
        return positions
    where = f"ledger {ledger.ledger_id} entry"
    (tail,) = await ledger.read(last, last, READ_BYTES)
    start = decode_positions(tail, f"{where} {last}").snapshot_first or 0
    while start <= last:
        for data in await ledger.read(start, last, READ_BYTES):
            positions.replay(decode_positions(data, f"{where} {start}").rows)
            start += 1
    return positions
