"""The client: ledgers created, opened, followed, listed and deleted.

async with bookie.connect("127.0.0.1:2181") as ledgers:
    async with ledgers.create(ensemble=3, write_quorum=3, ack_quorum=2) as ledger:
        entry_id = await ledger.append(b"...")          # durable on an ack quorum when it returns
        await ledger.append_many(chunks)                # pipelined
    async with ledgers.open(ledger_id) as ledger:       # fences and recovers an unclosed one
        async for entry in ledger.read(): ...
    async with ledgers.tail(ledger_id) as entries: ...  # follows a live writer without fencing
"""

import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

import coord
from bookie.client.bookies import Bookies, follow_or_report
from bookie.client.links import BookieLinks
from bookie.client.reading import Fetcher, LedgerReader, ReadCounters
from bookie.client.recovering import Recoverer
from bookie.client.store import Coord, MetadataStore
from bookie.client.tailing import LedgerTail
from bookie.client.writing import LedgerWriter
from bookie.ledger.distribution import Schedule
from bookie.ledger.errors import ClientClosedError, IncorrectParameterError, UnauthorizedError
from bookie.ledger.extent import NO_ENTRY_ID, Sealer, SealKind
from bookie.ledger.keys import master_key, sealer_of
from bookie.ledger.metadata import Fragment, LedgerMetadata, LedgerState, Member, check_quorums
from bookie.ledger.recovery import DEFAULT_RECOVERY_LIMITS, RecoveryLimits
from bookie.ledger.writer import DEFAULT_WRITER_LIMITS, Writer, WriterLimits
from coord.clock import SYSTEM_CLOCK, Clock
from coord.nursery import open_private_nursery

TICK_S = 0.1
"""How often writers look at times; also how soon an idle writer's last entries become visible to readers."""

BOOKIES_WAIT_S = 5.0
"""How long `create` waits for enough bookies to be registered."""

WANTED = "zoolog.wanted"
"""Custom metadata of a ledger that got a smaller ensemble than asked for: "ensemble/write quorum", text."""


class Ledgers:
    """Ledgers of one cluster. Made by `connect` or `open_ledgers`; all methods may be used by many tasks."""

    def __init__(
        self, zk: Coord, nursery: trio.Nursery, *, clock: Clock, rng: random.Random, limits: RecoveryLimits
    ) -> None:
        self._zk = zk
        self._nursery = nursery
        self._clock = clock
        self._store = MetadataStore(zk, rng, clock)
        self._bookies = Bookies(zk, rng)
        self._links = BookieLinks(nursery, clock, self._bookies.resolve, self._on_connected)
        # Parked requests on links of their own: a bookie stops reading where too many requests are open.
        self._tail_links = BookieLinks(nursery, clock, self._bookies.resolve, lambda member: None)
        self._bookies.links = self._links
        self._bookies.listen(self._on_bookies_changed)
        self._fetcher = Fetcher(
            links=self._links, store=self._store, clock=clock, sticky=rng.randrange(1 << 16)
        )
        self._recoverer = Recoverer(
            links=self._links, store=self._store, placement=self._bookies, clock=clock, limits=limits
        )
        self._writers: set[LedgerWriter] = set()
        self._closed = False

    @property
    def writable_bookies(self) -> list[Member]:
        """Bookies registered for writing, by id."""
        return [member for _, member in sorted(self._bookies.writable.items())]

    @property
    def read_counters(self) -> ReadCounters:
        return self._fetcher.counters

    def on_bookies_changed(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each change of the registered bookies, for as long as the client lives."""
        self._bookies.listen(listener)

    @asynccontextmanager
    async def create(self, **options: Any) -> AsyncIterator[LedgerWriter]:
        """A new ledger, closed when the block is left. Options and errors as for `create_ledger`."""
        async with await self.create_ledger(**options) as writer:
            yield writer

    async def create_ledger(
        self,
        *,
        ensemble: int = 3,
        write_quorum: int | None = None,
        ack_quorum: int = 2,
        stripe_unit: int = 1,
        smaller: bool = False,
        password: bytes = b"",
        seal: SealKind = SealKind.CRC32C,
        custom: Mapping[str, bytes] | None = None,
        limits: WriterLimits = DEFAULT_WRITER_LIMITS,
    ) -> LedgerWriter:
        """Create a ledger and return its writer; the caller closes it.

        Args:
            ensemble: bookies a fragment is spread over.
            write_quorum: copies of each entry; by default one on every bookie of the ensemble.
            ack_quorum: copies that are durable before an append returns.
            stripe_unit: consecutive entries on the same bookies, where ensemble and write quorum differ.
            smaller: with fewer bookies registered take the ensemble that can be had, never less than the ack
                quorum; the record then says so under WANTED.
            custom: stored with the ledger, never interpreted.

        Raises:
            IncorrectParameterError: quorums that make no sense. Nothing was written.
            NotEnoughBookiesError: too few bookies are registered. Nothing was written.
            MetadataStoreError: the coordination service stays away. The ledger may exist, empty, unlisted.
        """
        self._check_open()
        if write_quorum is None:
            write_quorum = ensemble
        schedule = Schedule(ensemble, write_quorum, ack_quorum, stripe_unit)
        check_quorums(schedule)
        await self._bookies.wait_known()
        await self._bookies.wait_writable(ack_quorum if smaller else ensemble, BOOKIES_WAIT_S)
        extra = dict(custom or {})
        available = len(self._bookies.writable)
        if smaller and ack_quorum <= available < ensemble:
            extra[WANTED] = b"%d/%d" % (ensemble, write_quorum)
            schedule = Schedule(available, min(write_quorum, available), ack_quorum, stripe_unit)
        metadata = LedgerMetadata(
            schedule=schedule,
            state=LedgerState.OPEN,
            fragments=(Fragment(0, self._bookies.choose(schedule.ensemble_size)),),
            token=self._store.new_token(),
            seal=seal,
            password=password,
            created_ms=self._clock.wall_ms(),
            custom=extra,
        )
        ledger_id, version = await self._store.create(metadata)
        self._check_open()
        core = Writer(
            ledger_id, metadata, version, self._bookies, limits=limits, sealer=sealer_of(seal, password)
        )
        writer = LedgerWriter(
            core,
            links=self._links,
            store=self._store,
            nursery=self._nursery,
            clock=self._clock,
            master_key=master_key(password),
            fetcher=self._fetcher,
            sealer=sealer_of(seal, password),
            on_end=self._writers.discard,
        )
        self._writers.add(writer)
        return writer

    @asynccontextmanager
    async def open(
        self, ledger_id: int, *, password: bytes | None = None, recover: bool = True
    ) -> AsyncIterator[LedgerReader]:
        """A ledger for reading, for the length of the block; see `open_ledger`."""
        yield await self.open_ledger(ledger_id, password=password, recover=recover)

    async def open_ledger(
        self, ledger_id: int, *, password: bytes | None = None, recover: bool = True
    ) -> LedgerReader:
        """Open a ledger for reading.

        Args:
            password: checked against the ledger's; None skips the check (administration).
            recover: a ledger that is not closed is fenced and closed first, so that its end is final. Without
                it the ledger is read up to its LAC as of now, its writer undisturbed.

        Raises:
            NoSuchLedgerError, UnauthorizedError, MetadataError.
            LedgerRecoveryError: too few bookies answered; the ledger stays in recovery.
        """
        metadata, version, sealer = await self._read_checked(ledger_id, password)
        if not metadata.closed and recover:
            key = master_key(metadata.password)
            metadata, _ = await self._recoverer.recover(ledger_id, metadata, version, key, sealer)
        last = metadata.last_entry_id
        if last is None:
            last = await self._fetcher.lac(ledger_id, metadata)
        return LedgerReader(ledger_id, metadata, last, fetcher=self._fetcher, sealer=sealer)

    @asynccontextmanager
    async def tail(
        self, ledger_id: int, first: int = 0, *, password: bytes | None = None
    ) -> AsyncIterator[LedgerTail]:
        """Entries from `first` on as they are acknowledged, without fencing; ends when the ledger is closed.

        Raises:
            NoSuchLedgerError, UnauthorizedError, MetadataError.
        """
        if first < 0:
            raise IncorrectParameterError(f"entry id {first} is negative")
        metadata, _, sealer = await self._read_checked(ledger_id, password)
        tail = LedgerTail(
            ledger_id,
            metadata,
            first,
            zk=self._zk,
            fetcher=self._fetcher,
            links=self._tail_links,
            store=self._store,
            sealer=sealer,
            clock=self._clock,
        )
        async with open_private_nursery() as nursery:
            nursery.start_soon(tail.follow_metadata)
            try:
                yield tail
            finally:
                tail.stop()

    async def read(self, ledger_id: int, *, password: bytes | None = None) -> LedgerReader:
        """Open without recovery: what is acknowledged as of now."""
        return await self.open_ledger(ledger_id, password=password, recover=False)

    async def metadata(self, ledger_id: int) -> LedgerMetadata:
        """The ledger's record.

        Raises:
            NoSuchLedgerError, MetadataError.
        """
        self._check_open()
        return (await self._store.read(ledger_id))[0]

    async def last_add_confirmed(self, ledger_id: int) -> int:
        """The LAC as of now, NO_ENTRY_ID when nothing is acknowledged; final for a closed ledger."""
        metadata = await self.metadata(ledger_id)
        return await self._fetcher.lac(ledger_id, metadata)

    async def list(self) -> AsyncIterator[int]:
        """The ids of all ledgers, ascending."""
        self._check_open()
        async for ledger_id in self._store.ledger_ids():
            yield ledger_id

    async def delete(self, ledger_id: int) -> None:
        """Delete a ledger, open or closed; one that is not there counts as deleted. Bookies free it later."""
        self._check_open()
        await self._store.delete(ledger_id)

    async def _read_checked(
        self, ledger_id: int, password: bytes | None
    ) -> tuple[LedgerMetadata, int, Sealer]:
        self._check_open()
        await self._bookies.wait_known()
        metadata, version = await self._store.read(ledger_id)
        if password is not None and password != metadata.password:
            raise UnauthorizedError(f"ledger {ledger_id}: wrong password")
        return metadata, version, sealer_of(metadata.seal, metadata.password)

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosedError("the client was closed")

    # --- upkeep

    async def _keep(self) -> None:
        """Follow registrations and let time pass for the writers."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow_or_report, self._bookies)
            while True:
                await trio.sleep(TICK_S)
                now_ms = self._clock.monotonic_ms()
                for writer in list(self._writers):
                    writer.tick(now_ms)

    def _close(self) -> None:
        self._closed = True
        for writer in list(self._writers):
            writer.fail(ClientClosedError("the client was closed"))

    def _on_bookies_changed(self) -> None:
        for writer in list(self._writers):
            writer.bookies_changed()

    def _on_connected(self, member: Member) -> None:
        for writer in list(self._writers):
            writer.bookie_returned(member)


@asynccontextmanager
async def open_ledgers(
    zk: Coord,
    *,
    clock: Clock = SYSTEM_CLOCK,
    rng: random.Random | None = None,
    recovery_limits: RecoveryLimits = DEFAULT_RECOVERY_LIMITS,
) -> AsyncIterator[Ledgers]:
    """Ledgers on a coordination client that exists, for the length of the block.

    On leaving, writers that are still open fail with ClientClosedError; their ledgers stay open.
    """
    async with open_private_nursery() as nursery:
        ledgers = Ledgers(zk, nursery, clock=clock, rng=rng or random.Random(), limits=recovery_limits)
        nursery.start_soon(ledgers._keep)
        try:
            yield ledgers
        finally:
            ledgers._close()


@asynccontextmanager
async def connect(hosts: str, *, session_timeout_ms: int = 10_000) -> AsyncIterator[Ledgers]:
    """Ledgers of the cluster whose coordination service is at `hosts` ("host:port,host:port/chroot").

    Errors out of the coordination client are those of `coord.connect`.
    """
    async with coord.connect(hosts, session_timeout_ms=session_timeout_ms) as zk, open_ledgers(zk) as ledgers:
        yield ledgers


__all__ = ["NO_ENTRY_ID", "WANTED", "Ledgers", "connect", "open_ledgers"]
