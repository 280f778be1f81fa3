"""Following a ledger that is being written, without fencing it (5.7, 5.8).

Two things are followed at once. The record, by a watch: new fragments, and the end when it is closed. And the
LAC, by parked requests at enough bookies of the last ensemble that no ack quorum can confirm an entry without
one of them hearing of it. Entries up to the LAC are then read as by any reader; nothing above it is ever
shown, and of a closed ledger nothing above its last entry.
"""

from functools import partial

import trio

from bookie.client.links import BookieLinks, expect
from bookie.client.reading import Chunks, Entries, Fetcher
from bookie.client.store import Coord, MetadataStore
from bookie.ledger.errors import LedgerError, NoSuchLedgerError
from bookie.ledger.extent import Sealer
from bookie.ledger.layout import ledger_path
from bookie.ledger.metadata import LedgerMetadata, Member
from bookie.ledger.reader import Chunk, poll_targets
from bookie.ledger.wire import Code, ReadReply, Tail
from coord import rpc
from coord.clock import Clock
from coord.errors import ConnectionLossError, CoordError, NoNodeError, NotConnectedError

POLL_MS = 10_000
"""How long a bookie may keep a request for news parked."""

POLL_GRACE_MS = 5_000
"""Silence beyond POLL_MS after which a bookie counts as hanging."""

RETRY_S = 0.25
"""Pause after a bookie, or the coordination service, failed."""


class LedgerTail:
    """Iterates over the entries of a ledger; it ends when the ledger is closed and all were given.

    Attributes:
        metadata: the record as last seen.
        last_add_confirmed: highest entry known to be acknowledged; never goes back.
    """

    def __init__(
        self,
        ledger_id: int,
        metadata: LedgerMetadata,
        first: int,
        *,
        zk: Coord,
        fetcher: Fetcher,
        links: BookieLinks,
        store: MetadataStore,
        sealer: Sealer,
        clock: Clock,
    ) -> None:
        """Made by `Ledgers.tail`."""
        self.ledger_id = ledger_id
        self.metadata = metadata
        self.last_add_confirmed = metadata.lac_floor
        self._first = first
        self._zk = zk
        self._fetcher = fetcher
        self._links = links
        self._store = store
        self._sealer = sealer
        self._now_ms = clock.monotonic_ms
        self._news = trio.Event()
        self._failure: LedgerError | None = None
        self._polls: dict[Member, int] = {}
        """Member -> when its parked request counts as lost."""
        self._paused: dict[Member, int] = {}
        """Member that failed -> when it may be asked again."""
        self._turn = 0
        self._stopped = False

    def __aiter__(self) -> Entries:
        return Entries(self.chunks())

    def chunks(self) -> "TailChunks":
        """As iterating, many entries at a time.

        Raises:
            NoSuchLedgerError: (iterating) the ledger was deleted.
            LedgerError: (iterating) an acknowledged entry could not be read.
        """
        return TailChunks(self, self._first)

    def read_known(self, first: int) -> Chunks:
        """The entries from `first` to what is known to be acknowledged."""
        return Chunks(self._fetcher, self.ledger_id, self._use, self._sealer, first, self.last_add_confirmed)

    async def follow_metadata(self) -> None:
        """Keep the record fresh; runs beside the iteration until the ledger is closed."""
        path = ledger_path(self.ledger_id)
        while not self.metadata.closed and self._failure is None:
            try:
                async with self._zk.watch(path) as events:
                    async for _ in events:
                        fresh, _ = await self._store.read(self.ledger_id, fresh=False)
                        if self._use(fresh).closed:
                            return
            except (NoNodeError, NoSuchLedgerError):
                self._fail(NoSuchLedgerError(f"ledger {self.ledger_id} was deleted"))
            except (ConnectionLossError, NotConnectedError):
                await trio.sleep(RETRY_S)
            except LedgerError as error:
                self._fail(error)
            except CoordError as error:
                self._fail(NoSuchLedgerError(f"ledger {self.ledger_id} cannot be followed: {error}"))

    def stop(self) -> None:
        """Ask for no more news."""
        self._stopped = True

    def _use(self, fresh: LedgerMetadata | None) -> LedgerMetadata:
        if fresh is not None and (fresh.closed or not self.metadata.closed):
            self.metadata = fresh
            if fresh.last_entry_id is not None:
                self.last_add_confirmed = fresh.last_entry_id
            self._raise_lac(fresh.lac_floor)
            self._news.set()
        return self.metadata

    def _raise_lac(self, lac: int) -> None:
        if lac > self.last_add_confirmed and not self.metadata.closed:
            self.last_add_confirmed = lac
            self._news.set()

    def _fail(self, error: LedgerError) -> None:
        self._failure = error
        self._news.set()

    async def wait_news(self) -> None:
        """Wait until the LAC moved, the record changed, or something failed."""
        if self._failure is not None:
            raise self._failure
        if not self._news.is_set():
            self._poll()
            with trio.move_on_after(RETRY_S if self._paused else POLL_MS / 1000):
                await self._news.wait()
        self._news = trio.Event()
        if self._failure is not None:
            raise self._failure

    def _poll(self) -> None:
        """Have a request parked at each bookie that has to be listened to."""
        now_ms = self._now_ms()
        for member, lost_ms in list(self._polls.items()):
            if lost_ms <= now_ms:
                self._links.reset(member, "no answer in time")
        self._paused = {member: until for member, until in self._paused.items() if until > now_ms}
        for member in poll_targets(self.metadata, self._turn):
            if member not in self._polls and member not in self._paused:
                self._polls[member] = now_ms + POLL_MS + POLL_GRACE_MS
                message = Tail(self.ledger_id, self.last_add_confirmed, POLL_MS, self.last_add_confirmed + 1)
                self._links.request(member, message, on_answer=partial(self._on_answer, member))

    def _on_answer(self, member: Member, reply: rpc.Reply | None, code: int) -> None:
        del self._polls[member]
        code = expect(reply, code, ReadReply)
        if reply is not None and code == Code.OK:
            # Whoever says it: a LAC that was ever written down is a true lower bound (1.5, R-F8).
            self._raise_lac(reply.message.lac)
        else:
            self._turn += 1
            self._paused[member] = self._now_ms() + int(RETRY_S * 1000)
            self._news.set()  # whoever waits for the answer now waits for the end of the pause
        if not self._stopped:
            self._poll()


class TailChunks:
    """An async iterator over the chunks of a tail."""

    def __init__(self, tail: LedgerTail, first: int) -> None:
        self._tail = tail
        self._next = first
        self._chunks: Chunks | None = None

    def __aiter__(self) -> "TailChunks":
        return self

    async def __anext__(self) -> Chunk:
        tail = self._tail
        while True:
            if self._chunks is not None:
                try:
                    chunk = await anext(self._chunks)
                except StopAsyncIteration:
                    self._chunks = None
                    continue
                self._next = chunk.next_entry_id
                return chunk
            if self._next <= tail.last_add_confirmed:
                self._chunks = tail.read_known(self._next)
            elif tail.metadata.closed:
                raise StopAsyncIteration
            else:
                await tail.wait_news()
