"""The single writer of a ledger: ids, batches, acknowledgements in order, ensemble changes, the end.

    append -> an id at once, the payload waits in the queue
    queue  -> a batch "when the pipe is free": the first append of an idle writer leaves at once; what arrives
              while it is in flight leaves together; a full batch does not wait, up to BATCHES_IN_FLIGHT_MAX
    batch  -> `Pipeline`; confirmed in order, then the tokens of its appends come out in `Ready.confirmed`

The metadata record is changed only through `Ready.store`, one compare-and-set at a time; the shell answers
each with exactly one of `stored`, `conflicted` (another version is there), `vanished` (no such node) or
`store_failed`. An answer that was lost is resolved by the shell reading the record again and reporting
`conflicted`; a record that already shows our change is recognised as success (R-M6), one that forbids it
ends the writer (R-M7).

After `failure` is set nothing is confirmed any more and no metadata is touched. What was not acknowledged
then has an unknown outcome: recovery may find it.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal

from bookie.ledger.errors import (
    IncorrectParameterError,
    LedgerClosedError,
    LedgerError,
    LedgerFencedError,
    MetadataConflictError,
    NoSuchLedgerError,
    code_name,
)
from bookie.ledger.extent import (
    CRC_SEALER,
    ENTRY_BYTES_MAX,
    EXTENT_ENTRIES_MAX,
    EXTENT_PAYLOAD_BYTES_MAX,
    ID_MAX,
    NO_ENTRY_ID,
    Sealer,
    encode_extent,
)
from bookie.ledger.metadata import LedgerMetadata, LedgerState, Member
from bookie.ledger.pipeline import Pipeline, Placement, Send
from bookie.ledger.wire import Code

BATCHES_IN_FLIGHT_MAX = 8
"""Full batches sent and not confirmed."""

FATAL_CODES = frozenset((int(Code.FENCED), int(Code.UNAUTHORIZED)))
"""Answers after which a writer must not go on."""

Token = Any
"""What an append is known by to its caller; handed back, never looked at."""


@dataclass(frozen=True, slots=True)
class WriterLimits:
    """Bounds and times of one writer."""

    batch_entries: int = 4096
    batch_bytes: int = 256 * 1024
    """A batch with this many payload bytes (or entries) is full and leaves without waiting."""
    outstanding_entries: int = 100_000
    outstanding_bytes: int = 16 * 1024 * 1024
    """Appended and not confirmed; `Writer.writable` turns false at either."""
    straggler_bytes: int = 32 * 1024 * 1024
    """Sent to the slowest bookie and not answered; no new batch leaves above it."""
    request_timeout_ms: int = 5_000
    quorum_grace_ms: int = 3_000
    """How long an ack quorum may be out of reach before the writer gives up."""

    def __post_init__(self) -> None:
        if (
            not 0 < self.batch_entries <= EXTENT_ENTRIES_MAX
            or not 0 < self.batch_bytes <= EXTENT_PAYLOAD_BYTES_MAX
        ):
            raise IncorrectParameterError(
                f"batches of {self.batch_entries} entries, {self.batch_bytes} bytes"
            )


DEFAULT_WRITER_LIMITS = WriterLimits()


@dataclass(frozen=True, slots=True)
class Store:
    """Write this record if the stored one still has this version."""

    metadata: LedgerMetadata
    version: int


@dataclass(slots=True)
class Ready:
    """What a writer owes; nothing here has to wait for anything else here."""

    sends: list[Send] = field(default_factory=list)
    hung: list[Member] = field(default_factory=list)
    """Bookies that did not answer in time: their connections are not worth keeping."""
    store: Store | None = None
    confirmed: list[tuple[int, Token]] = field(default_factory=list)
    """(last entry id, token) of appends that are durable on an ack quorum, in id order."""
    failed: list[Token] = field(default_factory=list)
    """Appends that failed with `Writer.failure`, in id order: unknown outcome."""


class Writer:
    """The writing end of one ledger.

    Attributes:
        metadata, version: the record as last known to be stored.
        last_add_pushed: highest id given out. lac: highest id acknowledged.
        failure: why the writer ended, or None. closed: the ledger is closed in the store, by us.
    """

    def __init__(
        self,
        ledger_id: int,
        metadata: LedgerMetadata,
        version: int,
        placement: Placement,
        *,
        limits: WriterLimits = DEFAULT_WRITER_LIMITS,
        sealer: Sealer = CRC_SEALER,
    ) -> None:
        assert metadata.state is LedgerState.OPEN
        assert metadata.last_fragment.first_entry_id == 0
        self.ledger_id = ledger_id
        self.metadata = metadata
        self.version = version
        self.limits = limits
        self.failure: LedgerError | None = None
        self.closed = False
        self.last_add_pushed = NO_ENTRY_ID
        self.advertised_lac = NO_ENTRY_ID
        self._sealer = sealer
        self._pipeline = Pipeline(
            metadata.schedule,
            metadata.last_fragment.ensemble,
            NO_ENTRY_ID,
            0,
            placement,
            fatal_codes=FATAL_CODES,
            request_timeout_ms=limits.request_timeout_ms,
            quorum_grace_ms=limits.quorum_grace_ms,
        )
        self._queue: list[bytes] = []
        self._queue_head = 0
        self._queued_bytes = 0
        self._sent_length = 0
        self._waiting: deque[tuple[int, Token]] = deque()
        self._confirmed: list[tuple[int, Token]] = []
        self._storing: Literal["change", "close"] | None = None
        self._store: Store | None = None
        self._proposed = metadata
        self._closing = False

    @property
    def lac(self) -> int:
        return self._pipeline.lac

    @property
    def length(self) -> int:
        """Payload bytes of the ledger up to the LAC."""
        return self._pipeline.lac_length

    @property
    def outstanding_entries(self) -> int:
        return self.last_add_pushed - self._pipeline.lac

    @property
    def outstanding_bytes(self) -> int:
        return self._queued_bytes + self._pipeline.pending_bytes

    @property
    def writable(self) -> bool:
        """Whether an append stays within the bounds; appending regardless is possible, once."""
        return (
            self.outstanding_entries < self.limits.outstanding_entries
            and self.outstanding_bytes < self.limits.outstanding_bytes
        )

    @property
    def idle(self) -> bool:
        """Nothing is waiting for a confirmation."""
        return not self._pipeline.pending and self._queue_head == len(self._queue)

    @property
    def resting(self) -> bool:
        """Nothing pending, wanted or wrong: time passes without anything to do."""
        return self.idle and not (
            self._closing or self._waiting or self._pipeline.down or self._pipeline.change
        )

    @property
    def pipe_is_free(self) -> bool:
        """Whether a batch might leave now; without it an append need not call `take_ready`."""
        return not self._pipeline.pending or self._full

    @property
    def changing_ensemble(self) -> bool:
        return self._pipeline.change is not None

    @property
    def down(self) -> list[Member]:
        """Bookies of the ensemble that failed and could not be replaced."""
        return [self._pipeline.ensemble[index] for index in self._pipeline.down]

    @property
    def under_replicated(self) -> int:
        """Batches confirmed while a bookie of their write set was down."""
        return self._pipeline.under_replicated

    def append(self, payloads: Sequence[bytes], token: Token) -> int:
        """Queue payloads under the next ids; `token` comes back when the last of them is confirmed or failed.

        Returns:
            The last id given out.

        Raises:
            IncorrectParameterError: none, not bytes, or one is too big; nothing was queued (R-N11).
            LedgerError: the writer failed or is closed; nothing was queued.
        """
        if self.failure is not None:
            raise self.failure
        if self._closing:
            raise LedgerClosedError(f"ledger {self.ledger_id} is closed for appends")
        if not payloads or set(map(type, payloads)) != {bytes}:
            raise IncorrectParameterError("expected one or more entries of type bytes")
        if max(map(len, payloads)) > ENTRY_BYTES_MAX:
            raise IncorrectParameterError(f"an entry has at most {ENTRY_BYTES_MAX} bytes")
        if self.last_add_pushed + len(payloads) >= ID_MAX:
            raise IncorrectParameterError("entry ids are used up")
        self.last_add_pushed += len(payloads)
        self._queue.extend(payloads)
        self._queued_bytes += sum(map(len, payloads))
        self._waiting.append((self.last_add_pushed, token))
        return self.last_add_pushed

    def receive(self, request_id: int, runs: Sequence[tuple[int, int, int]], now_ms: int) -> None:
        """A bookie answered an add by runs (first, last, code)."""
        self._pipeline.receive(request_id, runs, now_ms)

    def receive_error(self, request_id: int, code: int, now_ms: int) -> None:
        """An add was refused, or its outcome is unknown."""
        self._pipeline.receive_error(request_id, code, now_ms)

    def tick(self, now_ms: int) -> None:
        """Look at times; call a few times a second."""
        if self.failure is None:
            self._pipeline.tick(now_ms)

    def bookie_returned(self, member: Member, now_ms: int) -> None:
        self._pipeline.bookie_returned(member, now_ms)

    def spares_changed(self, now_ms: int) -> None:
        self._pipeline.spares_changed(now_ms)

    def close(self) -> None:
        """No more appends; the ledger is closed at the last entry once everything is confirmed."""
        self._closing = True

    def abandon(self) -> None:
        """No more appends; what is not confirmed fails (unknown outcome), the ledger is closed at the LAC."""
        if self.failure is None and not self.closed:
            self._take_confirmed()
            self._closing = True
            self._queue, self._queue_head, self._queued_bytes = [], 0, 0
            self._pipeline.abandon()

    def fail(self, error: LedgerError) -> None:
        """End the writer without touching the ledger; `error` is what its appends raise."""
        if self.failure is None and not self.closed:
            self._take_confirmed()
            self.failure = error

    def take_ready(self, now_ms: int) -> Ready:
        """Everything owed since the last call; call after any input, once for many."""
        pipeline = self._pipeline
        if self.failure is None:
            self._take_confirmed()
            self._form_batches(now_ms)
            if pipeline.failure is not None:
                self._take_confirmed()
                self.failure = pipeline.failure
        ready = Ready(confirmed=self._confirmed)
        self._confirmed = []
        if self.failure is None:
            self._owe_store()
            ready.sends, pipeline.sends = pipeline.sends, []
            ready.store, self._store = self._store, None
        ready.hung, pipeline.hung = pipeline.hung, []
        if self.failure is not None or (self._closing and self._storing == "close"):
            ready.failed = [token for _, token in self._waiting]
            self._waiting.clear()
        return ready

    def take_explicit_lac(self) -> int | None:
        """The LAC worth writing to the bookies on its own: nothing on its way carries it (4.8)."""
        if self.failure is not None or self.closed or not self.idle or self.lac <= self.advertised_lac:
            return None
        self.advertised_lac = self.lac
        return self.lac

    def live_members(self, entry_id: int) -> list[Member]:
        """Members of the entry's write set that are not down."""
        down = self._pipeline.down
        return [
            self._pipeline.ensemble[i] for i in self.metadata.schedule.write_set(entry_id) if i not in down
        ]

    def stored(self, version: int, now_ms: int) -> None:
        """The record of the last `Ready.store` is in the store, with this version."""
        storing, self._storing = self._storing, None
        if self.failure is not None:
            return
        self.metadata, self.version = self._proposed, version
        if storing == "close":
            self.closed = True
        elif self._pipeline.change is not None:
            self._pipeline.install(now_ms)

    def conflicted(self, metadata: LedgerMetadata, version: int, now_ms: int) -> None:
        """The record was not (or not knowingly) written by us; this is what the store has."""
        proposed = self._proposed
        if self.failure is not None:
            self._storing = None
        elif metadata.token != proposed.token:
            self.fail(
                MetadataConflictError(f"ledger {self.ledger_id} was replaced by another of the same id")
            )
        elif metadata.last_entry_id is not None:
            if (metadata.last_entry_id, metadata.length) == (proposed.last_entry_id, proposed.length):
                self._proposed = metadata
                self.stored(version, now_ms)
            else:
                self.fail(
                    LedgerClosedError(
                        f"ledger {self.ledger_id} was closed at {metadata.last_entry_id} by recovery"
                    )
                )
        elif metadata.state is LedgerState.IN_RECOVERY:
            self.fail(LedgerFencedError(f"ledger {self.ledger_id} is being recovered by another client"))
        elif self._storing == "change" and metadata.last_fragment == proposed.last_fragment:
            self._proposed = metadata  # our answer was lost, the change was not (R-M6)
            self.stored(version, now_ms)
        elif metadata.last_fragment == self.metadata.last_fragment:
            # Somebody repaired an older fragment: apply ours to what is there now (12.6).
            self.metadata, self.version, self._storing = metadata, version, None
        else:
            self.fail(
                MetadataConflictError(f"ledger {self.ledger_id}: the last fragment was changed by another")
            )

    def vanished(self) -> None:
        """The ledger was deleted."""
        self.fail(NoSuchLedgerError(f"ledger {self.ledger_id} was deleted"))

    def store_failed(self, error: LedgerError) -> None:
        """The metadata store did not answer for longer than anybody wants to wait."""
        self.fail(error)

    def describe_down(self) -> str:
        """The bookies that are down and why, for people."""
        ensemble = self._pipeline.ensemble
        return ", ".join(f"{ensemble[i].bookie_id} ({code_name(c)})" for i, c in self._pipeline.down.items())

    def _take_confirmed(self) -> None:
        self._pipeline.confirm()
        lac, waiting = self._pipeline.lac, self._waiting
        while waiting and waiting[0][0] <= lac:
            self._confirmed.append(waiting.popleft())

    def _form_batches(self, now_ms: int) -> None:
        """Cut the queue into batches while the pipe is free (module docstring)."""
        pipeline, limits = self._pipeline, self.limits
        while self._queue_head < len(self._queue) and pipeline.change is None and pipeline.failure is None:
            in_flight = len(pipeline.pending)
            if in_flight and not (self._full and in_flight < BATCHES_IN_FLIGHT_MAX):
                break
            if pipeline.unanswered_bytes >= limits.straggler_bytes:
                break
            self._form_batch(now_ms)

    @property
    def _full(self) -> bool:
        """Whether the queue fills a batch."""
        return (
            self._queued_bytes >= self.limits.batch_bytes
            or len(self._queue) - self._queue_head >= self.limits.batch_entries
        )

    def _form_batch(self, now_ms: int) -> None:
        limits, head = self.limits, self._queue_head
        first = self.last_add_pushed - (len(self._queue) - head) + 1
        end = head + self.metadata.schedule.run_end(first, first + limits.batch_entries - 1) - first + 1
        payloads = self._queue[head:end]
        size = sum(map(len, payloads))
        if size > limits.batch_bytes and len(payloads) > 1:
            fitting = 0
            for total in accumulate(map(len, payloads)):
                if total > limits.batch_bytes:
                    break
                fitting += 1
            payloads = payloads[: max(fitting, 1)]
            size = sum(map(len, payloads))
        extent = encode_extent(self.ledger_id, first, self.lac, self._sent_length, payloads, self._sealer)
        self.advertised_lac = self.lac
        self._sent_length += size
        self._queued_bytes -= size
        self._queue_head += len(payloads)
        if 2 * self._queue_head >= len(self._queue):
            del self._queue[: self._queue_head]
            self._queue_head = 0
        self._pipeline.submit(extent, self._sent_length, now_ms)

    def _owe_store(self) -> None:
        if self._storing is not None or self.closed:
            return
        change = self._pipeline.change
        if change is not None:
            self._storing = "change"
            self._proposed = self.metadata.with_ensemble(change.start, change.ensemble)
        elif self._closing and self.idle:
            self._storing = "close"
            self._proposed = self.metadata.closed_at(self.lac, self.length)
        else:
            return
        self._store = Store(self._proposed, self.version)
