"""Reading entries: chunks fetched one ahead of the reader, from the replicas of each fragment."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import trio

from bookie.client.links import BookieLinks, expect
from bookie.client.store import MetadataStore
from bookie.ledger.errors import (
    IncorrectParameterError,
    LedgerError,
    NoSuchEntryError,
    NoSuchLedgerError,
    ReadError,
)
from bookie.ledger.extent import NO_ENTRY_ID, Sealer
from bookie.ledger.metadata import LedgerMetadata
from bookie.ledger.reader import Chunk, ChunkRead, LacRead, replica_order
from bookie.ledger.wire import Code, LacReply, Read, ReadLac, ReadReply
from coord import rpc
from coord.clock import Clock

CHUNK_BYTES = 1024 * 1024
"""Asked for at once; the first entry comes whatever its size."""


LAC_MS_MAX = 5_000
"""Silence after which a bookie's LAC counts as unknown."""


class Entry(NamedTuple):
    """One entry of a ledger."""

    entry_id: int
    payload: bytes


@dataclass(slots=True)
class ReadCounters:
    """What reads of one client went through."""

    chunks: int = 0
    speculative: int = 0
    failed_replicas: int = 0


class Fetcher:
    """What all reads of one client share."""

    def __init__(self, *, links: BookieLinks, store: MetadataStore, clock: Clock, sticky: int) -> None:
        self.links = links
        self.store = store
        self.now_ms = clock.monotonic_ms
        self.sticky = sticky
        self.counters = ReadCounters()

    def fetch(
        self, ledger_id: int, metadata: LedgerMetadata, sealer: Sealer, first: int, last: int
    ) -> "Fetch":
        """Start reading from `first`, up to `last` at most; the fragment may end it earlier."""
        fragment, fragment_end = metadata.fragment_of(first)
        schedule = metadata.schedule
        last = schedule.run_end(first, min(last, fragment_end))
        replicas = replica_order(schedule, fragment, first, self.sticky, self.links.suspects())
        core = ChunkRead(ledger_id, first, last, replicas, sealer, max_bytes=CHUNK_BYTES)
        return Fetch(self, ledger_id, core)

    async def lac(self, ledger_id: int, metadata: LedgerMetadata) -> int:
        """The LAC of a ledger that is not closed, by coverage of its last ensemble (5.6).

        Raises:
            LedgerError: too few bookies answered.
        """
        core, news = LacRead(ledger_id, metadata), trio.Event()

        def on_answer(place: int, reply: rpc.Reply | None, code: int) -> None:
            code = expect(reply, code, LacReply)
            if reply is not None and code == Code.OK:
                core.receive(place, reply.message.lac)
            else:
                core.receive_error(place, code)
            if core.result is not None or core.failure is not None:
                news.set()

        if core.result is None:
            for place, member in enumerate(core.members):
                self.links.request(member, ReadLac(ledger_id), on_answer=partial(on_answer, place))
            with trio.move_on_after(LAC_MS_MAX / 1000):
                await news.wait()
        if core.result is None and core.failure is None:
            core.time_out()
        if core.result is None:
            assert core.failure is not None
            raise core.failure
        return core.result


class Fetch:
    """One chunk on its way; it proceeds by itself, and speculates while somebody waits for it."""

    def __init__(self, fetcher: Fetcher, ledger_id: int, core: ChunkRead) -> None:
        self._fetcher = fetcher
        self._ledger_id = ledger_id
        self._core = core
        self._done = trio.Event()
        core.start(fetcher.now_ms())
        self._send()

    @property
    def lac(self) -> int:
        """Highest LAC that answers mentioned."""
        return self._core.lac

    async def wait(self) -> Chunk:
        """The chunk, at least one entry.

        Raises:
            LedgerError: no replica gave a valid answer (5.4).
        """
        core, fetcher = self._core, self._fetcher
        while not core.done:
            with trio.move_on_after(max(core.deadline_ms - fetcher.now_ms(), 1) / 1000):
                await self._done.wait()
            core.tick(fetcher.now_ms())
            self._send()
        counters = fetcher.counters
        counters.chunks += 1
        counters.speculative += core.speculated
        counters.failed_replicas += len(core.suspects)
        for member in core.suspects:
            fetcher.links.suspect(member)
        if core.failure is not None:
            raise core.failure
        assert core.result is not None
        return core.result

    def _send(self) -> None:
        for send in self._core.take_sends():
            message = Read(self._ledger_id, send.first, send.last, 0, send.max_bytes)
            on_answer = partial(self._on_read, send.request_id)
            self._fetcher.links.request(send.member, message, on_answer=on_answer)

    def _on_read(self, request_id: int, reply: rpc.Reply | None, code: int) -> None:
        core, now_ms = self._core, self._fetcher.now_ms()
        code = expect(reply, code, ReadReply)
        if reply is not None and code == Code.OK:
            core.receive(request_id, reply.message, reply.body, now_ms)
        else:
            core.receive_error(request_id, code, now_ms)
        if core.done:
            self._done.set()
        else:
            self._send()


class LedgerReader:
    """The reading end of a ledger.

    Attributes:
        ledger_id: of this ledger.
        metadata: its record as last read; replaced when reading finds that replicas have moved.
        last_entry_id: the last entry that may be read: a closed ledger's end, else the LAC as of opening.
    """

    def __init__(
        self,
        ledger_id: int,
        metadata: LedgerMetadata,
        last_entry_id: int,
        *,
        fetcher: Fetcher,
        sealer: Sealer,
    ) -> None:
        """Made by `Ledgers.open`."""
        self.ledger_id = ledger_id
        self.metadata = metadata
        self.last_entry_id = last_entry_id
        self._fetcher = fetcher
        self._sealer = sealer

    @property
    def closed(self) -> bool:
        """Whether the ledger is closed, so that `last_entry_id` is final."""
        return self.metadata.closed

    @property
    def length(self) -> int | None:
        """Payload bytes of a closed ledger."""
        return self.metadata.length

    def read(self, first: int = 0, last: int | None = None) -> "Entries":
        """Iterate over entries first..last in order, `last` defaulting to the last entry.

        Raises:
            IncorrectParameterError: first > last, or negative. ReadError: `last` lies beyond the last entry.
            NoSuchEntryError: (iterating) every replica denies an entry: its data is lost.
            LedgerError: (iterating) no replica could be read.
        """
        return Entries(self.read_chunks(first, last))

    def read_chunks(self, first: int = 0, last: int | None = None) -> "Chunks":
        """As `read`, many entries at a time: for those who can take them so."""
        is_all = last is None
        if last is None:
            last = self.last_entry_id
        if not 0 <= first <= last + is_all:  # everything from the end on is nothing, which is no mistake
            raise IncorrectParameterError(f"ledger {self.ledger_id}: entries {first} to {last}")
        if last > self.last_entry_id:
            raise ReadError(
                f"ledger {self.ledger_id}: entry {last} lies beyond the last, {self.last_entry_id}"
            )
        return Chunks(self._fetcher, self.ledger_id, self._metadata, self._sealer, first, last)

    async def read_last(self) -> Entry:
        """The last entry.

        Raises:
            NoSuchEntryError: the ledger is empty.
        """
        if self.last_entry_id == NO_ENTRY_ID:
            raise NoSuchEntryError(f"ledger {self.ledger_id} is empty")
        chunk = await self._fetcher.fetch(
            self.ledger_id, self.metadata, self._sealer, self.last_entry_id, self.last_entry_id
        ).wait()
        return Entry(chunk.first_entry_id, chunk.payloads[0])

    def _metadata(self, fresh: LedgerMetadata | None) -> LedgerMetadata:
        if fresh is not None:
            self.metadata = fresh
        return self.metadata


class Chunks:
    """An async iterator over chunks of a range; the next is on its way while the caller works on one.

    It may be left at any point: what was asked for then is dropped when it comes. Replicas move: where nobody
    has an entry, the record is read again, once per entry, before the failure is reported (5.8).
    """

    def __init__(
        self,
        fetcher: Fetcher,
        ledger_id: int,
        metadata: Callable[[LedgerMetadata | None], LedgerMetadata],
        sealer: Sealer,
        first: int,
        last: int,
    ) -> None:
        """Made by `LedgerReader.read_chunks`.

        Args:
            metadata: gives the record to use; called with a fresher one when there is one.
        """
        self._fetcher = fetcher
        self._ledger_id = ledger_id
        self._metadata = metadata
        self._sealer = sealer
        self._next = first
        self._last = last
        self._refreshed = NO_ENTRY_ID
        self._fetch = self._start() if first <= last else None

    def __aiter__(self) -> "Chunks":
        return self

    async def __anext__(self) -> Chunk:
        while True:
            if self._fetch is None:
                raise StopAsyncIteration
            try:
                chunk = await self._fetch.wait()
            except LedgerError as error:
                if self._refreshed == self._next:
                    if isinstance(error, NoSuchLedgerError):  # of the bookies; the record is there
                        raise NoSuchEntryError(str(error)) from error
                    raise
            else:
                self._next = chunk.next_entry_id
                self._fetch = self._start() if self._next <= self._last else None
                return chunk
            self._refreshed = self._next
            fresh, _ = await self._fetcher.store.read(self._ledger_id)
            self._metadata(fresh)
            self._fetch = self._start()

    async def aclose(self) -> None:
        """Forget what is on its way; leaving the loop is enough, this is for `contextlib.aclosing`."""
        self._fetch = None

    def _start(self) -> Fetch:
        record = self._metadata(None)
        return self._fetcher.fetch(self._ledger_id, record, self._sealer, self._next, self._last)


class Entries:
    """An async iterator over single entries, out of chunks; may be left at any point."""

    def __init__(self, chunks: AsyncIterator[Chunk]) -> None:
        self._chunks = chunks
        self._entry_id = 0
        self._payloads: Iterator[bytes] = iter(())

    def __aiter__(self) -> "Entries":
        return self

    async def __anext__(self) -> Entry:
        for payload in self._payloads:
            entry_id = self._entry_id
            self._entry_id = entry_id + 1
            return Entry(entry_id, payload)
        chunk = await anext(self._chunks)
        self._payloads = iter(chunk.payloads)
        self._entry_id = chunk.first_entry_id + 1
        return Entry(chunk.first_entry_id, next(self._payloads))
