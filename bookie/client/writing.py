"""The handle of a ledger's writer: `bookie.ledger.writer.Writer` with links, a clock and people waiting.

All decisions are the core's. This shell carries its `Ready` out: adds go to the links, a record to the
metadata store (one task at a time), confirmations to whoever appended. Nothing here makes a task, an event or
a future per entry: `append_nowait` takes a callback, `append_many` waits for its last entry only.

Cancelling a task that waits for an append does not cancel the append (R-N15): its entries keep their ids and
may well be stored.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import outcome
import trio

from bookie.client.links import BookieLinks, expect
from bookie.client.reading import Fetcher, LedgerReader
from bookie.client.store import Conflict, MetadataStore
from bookie.ledger.errors import (
    ClientClosedError,
    LedgerClosedError,
    LedgerError,
    MetadataError,
    MetadataStoreError,
    NoSuchLedgerError,
    TooManyRequestsError,
)
from bookie.ledger.extent import Sealer
from bookie.ledger.metadata import LedgerMetadata, Member
from bookie.ledger.pipeline import Send
from bookie.ledger.wire import Add, AddReply, Code, LacReply, WriteLac
from bookie.ledger.writer import Store, Writer
from coord import eventlog, rpc
from coord.clock import Clock

PIECE_ENTRIES = 4096
"""`append_many` hands entries over in pieces of this many."""

log = eventlog.get("bookie.client")

OnDone = Callable[[int | LedgerError], None]
"""Called once: the last entry id of the append, or its error. It must not raise."""


@dataclass(frozen=True, slots=True)
class WriterStatistics:
    """A writer at this moment."""

    last_add_pushed: int
    last_add_confirmed: int
    length: int
    outstanding_entries: int
    outstanding_bytes: int
    fragments: int
    under_replicated_batches: int
    down: tuple[str, ...]
    """Bookies that failed and could not be replaced."""


class LedgerWriter:
    """The writing end of a ledger that this client created.

    Use it as a context manager, or call `close`. Leaving the block closes the ledger at its last entry; when
    the block is left by an exception, only what was confirmed by then is kept for sure.

    Attributes:
        ledger_id: of this ledger, unique in the cluster for ever.
    """

    def __init__(
        self,
        core: Writer,
        *,
        links: BookieLinks,
        store: MetadataStore,
        nursery: trio.Nursery,
        clock: Clock,
        master_key: bytes,
        fetcher: Fetcher,
        sealer: Sealer,
        on_end: Callable[["LedgerWriter"], None],
    ) -> None:
        """Made by `Ledgers.create`."""
        self.ledger_id = core.ledger_id
        self._core = core
        self._links = links
        self._store = store
        self._nursery = nursery
        self._now_ms = clock.monotonic_ms
        self._master_key = master_key
        self._fetcher = fetcher
        self._sealer = sealer
        self._on_end = on_end
        self._room = trio.lowlevel.ParkingLot()
        self._ended = trio.Event()
        self._lac_seen = -1
        self._pumping = False
        self._pump_again = False

    @property
    def metadata(self) -> LedgerMetadata:
        """The record as last known to be stored."""
        return self._core.metadata

    @property
    def last_add_confirmed(self) -> int:
        return self._core.lac

    @property
    def length(self) -> int:
        """Payload bytes up to the last confirmed entry."""
        return self._core.length

    @property
    def failure(self) -> LedgerError | None:
        """Why this writer can append no more."""
        return self._core.failure

    @property
    def writable(self) -> bool:
        """Whether `append_nowait` would be accepted."""
        return self._core.writable and self._core.failure is None

    def reader(self) -> LedgerReader:
        """A reader of what is acknowledged as of now; asks nobody for the LAC, and fences nobody."""
        core = self._core
        return LedgerReader(
            self.ledger_id, core.metadata, core.lac, fetcher=self._fetcher, sealer=self._sealer
        )

    def statistics(self) -> WriterStatistics:
        core = self._core
        return WriterStatistics(
            core.last_add_pushed,
            core.lac,
            core.length,
            core.outstanding_entries,
            core.outstanding_bytes,
            len(core.metadata.fragments),
            core.under_replicated,
            tuple(member.bookie_id for member in core.down),
        )

    async def append(self, payload: bytes) -> int:
        """Append one entry.

        Returns:
            Its entry id, once it and all before it are durable on an ack quorum.

        Raises:
            IncorrectParameterError: not bytes, or too big; nothing happened.
            LedgerFencedError: somebody recovers the ledger; unknown outcome.
            LedgerClosedError: the handle was closed.
            NotEnoughBookiesError: no ack quorum within reach; unknown outcome.
        """
        await self._wait_room()
        waiter = _Waiter()
        self._core.append((payload,), waiter.done)
        self._pump()
        return await waiter.wait()

    async def append_many(self, payloads: Iterable[bytes]) -> range:
        """Append entries in order, pipelined and in batches; errors as for `append`.

        Where it fails some of the entries, a prefix, may have been stored.

        Returns:
            Their entry ids, once all are durable on an ack quorum.
        """
        waiter, last, count = _Waiter(), -1, 0
        iterator = iter(payloads)
        piece = list(islice(iterator, PIECE_ENTRIES))
        while piece:
            await self._wait_room()
            following = list(islice(iterator, PIECE_ENTRIES))
            last = self._core.append(piece, _ignore if following else waiter.done)
            self._pump()
            count += len(piece)
            piece = following
        if count:
            await waiter.wait()
        else:
            await trio.lowlevel.checkpoint()
        return range(last - count + 1, last + 1)

    def append_nowait(self, payload: bytes, on_done: OnDone) -> int:
        """Append one entry without waiting.

        Returns:
            The entry id it got; it is durable once `on_done` was called with it.

        Raises:
            TooManyRequestsError: the bounds are reached; nothing happened. See `wait_writable`.
            LedgerError: as for `append`; nothing happened.
        """
        return self.append_many_nowait((payload,), on_done)

    def append_many_nowait(self, payloads: Sequence[bytes], on_done: OnDone) -> int:
        """Append entries without waiting; `on_done` gets the last id once all are durable.

        Returns:
            The last entry id; the entries got consecutive ones. Errors as for `append_nowait`.
        """
        core = self._core
        if not core.writable and core.failure is None:
            raise TooManyRequestsError(
                f"ledger {self.ledger_id}: {core.outstanding_entries} entries are pending"
            )
        last = core.append(payloads, on_done)
        if core.pipe_is_free:
            self._pump()
        return last

    async def wait_writable(self) -> None:
        """Wait until `append_nowait` would be accepted; returns at once on a failed handle."""
        await trio.lowlevel.checkpoint()
        await self._wait_room()

    async def close(self) -> None:
        """Close the ledger at its last entry, after everything pending is durable.

        May be called again, and by several tasks; all get the same result.

        Raises:
            LedgerError: the ledger could not be closed there: why the handle ended.
        """
        self._core.close()
        self._pump()
        await self._ended.wait()
        if self._core.failure is not None:
            raise self._core.failure

    async def abandon(self) -> None:
        """Give up: what is not confirmed fails with unknown outcome, the ledger is closed at the LAC.

        Raises nothing: where closing is not ours to do (fenced, deleted) recovery will do it.
        """
        self._core.abandon()
        self._pump()
        await self._ended.wait()

    def fail(self, error: LedgerError) -> None:
        """End the handle without touching the ledger."""
        self._core.fail(error)
        self._pump()

    async def __aenter__(self) -> "LedgerWriter":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if error is None:
            await self.close()
            return
        with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_AFTER_ERROR_S):
            await self.abandon()

    # --- called by the client

    def tick(self, now_ms: int) -> None:
        """A few times a second."""
        core = self._core
        lac = core.lac
        if core.resting and lac <= core.advertised_lac:
            return
        core.tick(now_ms)
        if lac > core.advertised_lac and lac == self._lac_seen and core.idle:
            self._write_lac()  # idle since the last tick, and nobody can see its last entries yet (4.8)
        self._lac_seen = lac
        self._pump()

    def bookies_changed(self) -> None:
        """Registrations changed: spares may be there."""
        self._core.spares_changed(self._now_ms())
        self._pump()

    def bookie_returned(self, member: Member) -> None:
        """A link to this member stands."""
        self._core.bookie_returned(member, self._now_ms())
        self._pump()

    # --- inside

    async def _wait_room(self) -> None:
        while not self._core.writable and self._core.failure is None and not self._ended.is_set():
            await self._room.park()

    def _pump(self) -> None:
        """Carry out what the core owes, until it owes nothing."""
        self._pump_again = True
        if self._pumping:
            return  # a callback appended or closed: the loop below goes round again
        self._pumping = True
        core, now_ms = self._core, self._now_ms()
        while self._pump_again:
            self._pump_again = False
            ready = core.take_ready(now_ms)
            for send in ready.sends:
                self._send(send)
            for member in ready.hung:
                self._links.reset(member, "no answer in time")
            if ready.store is not None:
                self._nursery.start_soon(self._write_metadata, ready.store)
            for last, on_done in ready.confirmed:
                on_done(last)
            if ready.failed:
                error = core.failure or LedgerClosedError(f"ledger {self.ledger_id} was given up")
                for on_done in ready.failed:
                    on_done(error)
        self._pumping = False
        if self._room and (core.writable or core.failure is not None):
            self._room.unpark_all()
        if (core.closed or core.failure is not None) and not self._ended.is_set():
            self._end()

    def _end(self) -> None:
        self._ended.set()
        self._room.unpark_all()
        self._on_end(self)
        if self._core.failure is not None:
            log.info("ledger writer ended", ledger=self.ledger_id, reason=self._core.failure)

    def _send(self, send: Send) -> None:
        extent = send.extent
        self._links.request(
            send.member,
            Add(self.ledger_id, 0, self._master_key, extent.checksum),
            extent.data,
            on_answer=partial(self._on_add, send.request_id, send.member),
        )

    def _on_add(self, request_id: int, member: Member, reply: rpc.Reply | None, code: int) -> None:
        code = expect(reply, code, AddReply)
        if reply is not None and code == Code.OK:
            self._core.receive(request_id, reply.message.runs, self._now_ms())
        else:
            self._links.suspect(member)
            self._core.receive_error(request_id, code, self._now_ms())
        self._pump()

    def _write_lac(self) -> None:
        lac = self._core.take_explicit_lac()
        if lac is None:
            return
        message = WriteLac(self.ledger_id, self._master_key, lac)
        for member in self._core.live_members(lac):
            self._links.request(member, message, on_answer=_ignore_lac)

    async def _write_metadata(self, store: Store) -> None:
        core = self._core
        try:
            result = await self._store.write(self.ledger_id, store.metadata, store.version)
        except NoSuchLedgerError:
            core.vanished()
        except (MetadataStoreError, MetadataError) as error:
            core.store_failed(error)
        except trio.Cancelled:
            core.fail(ClientClosedError("the client was closed"))
            self._pump()
            raise
        else:
            if isinstance(result, Conflict):
                core.conflicted(result.metadata, result.version, self._now_ms())
            else:
                core.stored(result.version, self._now_ms())
        self._pump()


CLOSE_AFTER_ERROR_S = 5.0
"""How long leaving a block by an exception may take for closing the ledger; recovery does it otherwise."""


class _Waiter:
    """One task waiting for one append; no event, and no harm when the task is cancelled."""

    __slots__ = ("_result", "_task")

    def __init__(self) -> None:
        self._result: int | LedgerError | None = None
        self._task: trio.lowlevel.Task | None = None

    def done(self, result: int | LedgerError) -> None:
        self._result = result
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task, outcome.Value(None))

    async def wait(self) -> int:
        if self._result is None:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        else:
            await trio.lowlevel.checkpoint()
        assert self._result is not None
        if isinstance(self._result, LedgerError):
            raise self._result
        return self._result

    def _abort(self, _: Any) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


def _ignore(_: int | LedgerError) -> None:
    """A piece before the last: the last one fails if this one does."""


def _ignore_lac(reply: rpc.Reply | None, code: int) -> None:
    expect(reply, code, LacReply)  # best effort (4.8): the next entry carries it anyway
