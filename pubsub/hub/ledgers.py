"""The hub's ledgers over bookie's client; see `pubsub.hub.seams` for what each call promises.

Appends that the ledger cannot take yet wait here, in order: what may pile up is bounded by the requests a hub
admits from each connection, not by a refusal in the middle of a topic's stream.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, NoReturn

import bookie
import coord
from pubsub.hub.seams import (
    LedgerFacts,
    LedgerFencedError,
    LedgerGoneError,
    LedgerReader,
    LedgerStoreError,
    LedgerWriter,
    OnAppended,
    TooFewBookiesError,
)

PROPERTY_PREFIX: Final = "zoolog.pubsub."
WRITER_LIMITS: Final = bookie.WriterLimits(
    batch_bytes=1 << 20, outstanding_bytes=32 << 20, straggler_bytes=64 << 20
)


class HubLedgers:
    """`seams.Ledgers` on bookie's client."""

    def __init__(self, ledgers: bookie.Ledgers, ensemble: int, write_quorum: int, ack_quorum: int) -> None:
        self.copies_wanted = ensemble
        self._ledgers = ledgers
        self._ensemble = ensemble
        self._write_quorum = write_quorum
        self._ack_quorum = ack_quorum

    async def create(self, properties: dict[str, bytes]) -> LedgerWriter:
        try:
            writer = await self._ledgers.create_ledger(
                ensemble=self._ensemble,
                write_quorum=self._write_quorum,
                ack_quorum=self._ack_quorum,
                smaller=True,
                custom={PROPERTY_PREFIX + name: value for name, value in properties.items()},
                limits=WRITER_LIMITS,
            )
        except bookie.LedgerError as error:
            _translate(error)
        return _Writer(self._ledgers, writer)

    async def open_recovered(self, ledger_id: int) -> LedgerReader:
        try:
            return _Reader(await self._ledgers.open_ledger(ledger_id))
        except bookie.LedgerError as error:
            _translate(error)

    async def delete(self, ledger_id: int) -> None:
        try:
            await self._ledgers.delete(ledger_id)
        except bookie.LedgerError as error:
            _translate(error)

    async def listed(self) -> AsyncIterator[LedgerFacts]:
        try:
            async for ledger_id in self._ledgers.list():
                try:
                    metadata = await self._ledgers.metadata(ledger_id)
                except bookie.NoSuchLedgerError:
                    continue
                properties = {
                    name.removeprefix(PROPERTY_PREFIX): value
                    for name, value in metadata.custom.items()
                    if name.startswith(PROPERTY_PREFIX)
                }
                if "kind" in properties and metadata.created_ms is not None:
                    yield LedgerFacts(ledger_id, metadata.created_ms, properties)
        except bookie.LedgerError as error:
            _translate(error)

    async def bookies_available(self) -> int:
        return len(self._ledgers.writable_bookies)


class _Reader:
    def __init__(self, reader: bookie.LedgerReader) -> None:
        self.ledger_id = reader.ledger_id
        self._reader = reader
        #: An iterator that has asked for what comes next, where it stands, and where it ends: a subscriber
        #: that catches up goes on with it.
        self._ahead: tuple[int, int, AsyncIterator[bookie.Chunk]] | None = None

    @property
    def last_entry(self) -> int:
        return self._reader.last_entry_id

    async def read(self, first: int, last: int, bytes_max: int) -> list[bytes]:
        entries: list[bytes] = []
        size = 0
        ahead, self._ahead = self._ahead, None
        try:
            if bytes_max <= 1:
                chunks: AsyncIterator[bookie.Chunk] = self._reader.read_chunks(first, first)
            elif ahead is not None and ahead[:2] == (first, last):
                chunks = ahead[2]
            else:
                chunks = self._reader.read_chunks(first, last)
            async for chunk in chunks:
                entries += chunk.payloads
                size += sum(map(len, chunk.payloads))
                if size >= bytes_max:
                    break
        except bookie.LedgerError as error:
            _translate(error)
        if bytes_max > 1:
            self._ahead = (first + len(entries), last, chunks)
        return entries

    def close(self) -> None:
        """Nothing is held open."""


class _Writer:
    def __init__(self, ledgers: bookie.Ledgers, writer: bookie.LedgerWriter) -> None:
        self.ledger_id = writer.ledger_id
        self._ledgers = ledgers
        self._writer = writer
        self._reader: _Reader | None = None
        self._waiting: deque[tuple[bytes, OnAppended]] = deque()

    @property
    def copies(self) -> int:
        down = self._writer.statistics().down
        return self._writer.metadata.schedule.ensemble_size - len(down)

    def append_nowait(self, entry: bytes, on_appended: OnAppended) -> None:
        if self._waiting or not (self._writer.writable or self._writer.failure):
            self._waiting.append((entry, on_appended))
            return
        self._append(entry, on_appended)

    def _append(self, entry: bytes, on_appended: OnAppended) -> None:
        def on_done(result: int | bookie.LedgerError) -> None:
            on_appended(_translated(result) if isinstance(result, Exception) else result)
            self._append_waiting()

        try:
            self._writer.append_nowait(entry, on_done)
        except bookie.LedgerError as error:
            on_appended(_translated(error))

    def _append_waiting(self) -> None:
        while self._waiting and (self._writer.writable or self._writer.failure):
            self._append(*self._waiting.popleft())

    async def read(self, first: int, last: int, bytes_max: int) -> list[bytes]:
        reader = self._reader
        if reader is None or reader.last_entry < first:
            # Up to what bookies know to be confirmed: a subscriber that needs newer entries finds them in
            # memory.
            try:
                found = await self._ledgers.open_ledger(self.ledger_id, recover=False)
            except bookie.LedgerError as error:
                _translate(error)
            reader = self._reader = _Reader(found)
            if reader.last_entry < first:
                raise LedgerStoreError(f"ledger {self.ledger_id}: {first} is not known as confirmed yet")
        return await reader.read(first, min(last, reader.last_entry), bytes_max)

    async def close(self) -> None:
        try:
            await self._writer.close()
        except bookie.LedgerError as error:
            _translate(error)

    def abandon(self) -> None:
        error = bookie.ClientClosedError(f"ledger {self.ledger_id} was given up by its hub")
        self._writer.fail(error)
        while self._waiting:
            self._waiting.popleft()[1](_translated(error))


@asynccontextmanager
async def open_ledgers(
    zk: coord.Client, ensemble: int, write_quorum: int, ack_quorum: int
) -> AsyncIterator[HubLedgers]:
    """Ledgers on the hub's coordination client, for the length of the block."""
    async with bookie.open_ledgers(zk) as ledgers:
        yield HubLedgers(ledgers, ensemble, write_quorum, ack_quorum)


_TRANSLATIONS: Final[tuple[tuple[type[bookie.LedgerError], Callable[[str], LedgerStoreError]], ...]] = (
    (bookie.NoSuchLedgerError, LedgerGoneError),
    (bookie.LedgerFencedError, LedgerFencedError),
    (bookie.LedgerClosedError, LedgerFencedError),
    (bookie.NotEnoughBookiesError, TooFewBookiesError),
)


def _translated(error: Exception) -> LedgerStoreError:
    for kind, ours in _TRANSLATIONS:
        if isinstance(error, kind):
            return ours(str(error))
    return LedgerStoreError(f"{type(error).__name__}: {error}")


def _translate(error: Exception) -> NoReturn:
    raise _translated(error) from error
