"""Recovery: fix for ever where a ledger ends, while its writer may be dead, slow, or very much alive (6).

    DECLARE  compare-and-set OPEN -> IN_RECOVERY; from here the writer can change no ensemble and not close
    FENCE    every bookie of the last ensemble fences the ledger, then testifies which ids it holds (R-N8),
             until no ack quorum can exist outside those that answered. LAC0 = the highest LAC heard, at least
             what precedes the last fragment (R-F1)
    COPY     from LAC0 + 1 up: an entry that some bookie holds is read from there (fencing again, R-F2) and
             written back to an ack quorum with LAC0 in its head (R-F8); the first entry that enough bookies
             deny ends the ledger (6.1 per entry). Reads go by the record as of DECLARE, write-backs to the
             recoverer's own ensemble, which may change in memory
    LENGTH   nothing was copied: read the last entry for its cumulative length (R-F6)
    CLOSE    compare-and-set IN_RECOVERY -> CLOSED with end, length and our ensembles; if another recoverer
             closed it first, its result is the result

Everything can be repeated by anybody at any time; until CLOSE is stored a failure leaves the ledger in
recovery. As in `Writer`, the shell answers each `store` with `stored`, `conflicted`, `vanished` or
`store_failed`, and each request with one `receive_…`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from bookie.ledger.errors import (
    BAD_ANSWER,
    DIGEST_MISMATCH,
    TIMEOUT,
    UNREACHABLE,
    LedgerError,
    LedgerRecoveryError,
    MetadataConflictError,
    NoSuchLedgerError,
    UnauthorizedError,
    code_name,
    error_of,
)
from bookie.ledger.extent import CRC_SEALER, NO_ENTRY_ID, Extent, ExtentError, Sealer, iterate_extents
from bookie.ledger.metadata import Fragment, LedgerMetadata, LedgerState, Member
from bookie.ledger.pipeline import Pipeline, Placement, Send
from bookie.ledger.wire import Code, FenceReply, ReadReply, Stop
from bookie.ledger.witness import Witness
from bookie.ledger.writer import Store

_FATAL_CODES = frozenset((int(Code.UNAUTHORIZED),))


class Phase(Enum):
    """Where a recovery is; see the module docstring."""

    DECLARE = "declare"
    FENCE = "fence"
    COPY = "copy"
    LENGTH = "length"
    CLOSE = "close"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class RecoveryLimits:
    """Bounds and times of one recovery."""

    read_bytes: int = 1024 * 1024
    """Asked for in one recovery read."""
    write_back_bytes: int = 8 * 1024 * 1024
    """Read and not yet written back; no further read above it."""
    request_timeout_ms: int = 5_000
    quorum_grace_ms: int = 3_000


DEFAULT_RECOVERY_LIMITS = RecoveryLimits()


@dataclass(frozen=True, slots=True)
class FenceSend:
    """Ask a bookie to fence and to testify about ids above `floor`."""

    request_id: int
    member: Member
    floor: int


@dataclass(frozen=True, slots=True)
class ReadSend:
    """Read first..last from a bookie, fencing where `fence` is set."""

    request_id: int
    member: Member
    first: int
    last: int
    max_bytes: int
    fence: bool


@dataclass(slots=True)
class RecoveryReady:
    """What a recovery owes; nothing here waits for anything else here."""

    fences: list[FenceSend] = field(default_factory=list)
    reads: list[ReadSend] = field(default_factory=list)
    sends: list[Send] = field(default_factory=list)
    """Write-backs: recovery adds, high priority."""
    hung: list[Member] = field(default_factory=list)
    store: Store | None = None


class Recovery:
    """One attempt to recover one ledger.

    Attributes:
        metadata, version: the newest record known; CLOSED once `phase` is DONE.
        failure: why the attempt ended without a result.
        recovered: entries written back.
    """

    def __init__(
        self,
        ledger_id: int,
        metadata: LedgerMetadata,
        version: int,
        placement: Placement,
        *,
        sealer: Sealer = CRC_SEALER,
        limits: RecoveryLimits = DEFAULT_RECOVERY_LIMITS,
    ) -> None:
        self.ledger_id = ledger_id
        self.metadata = metadata
        self.version = version
        self.failure: LedgerError | None = None
        self.phase = Phase.DECLARE
        self.recovered = 0
        self._placement = placement
        self._sealer = sealer
        self._limits = limits
        self._ready = RecoveryReady()
        self._proposed = metadata
        self._frozen = metadata
        self._pipeline: Pipeline | None = None
        self._fragments: list[Fragment] = []
        self._witnesses: dict[int, Witness] = {}
        self._refusals: dict[int, int] = {}
        self._fences: dict[int, tuple[int, int]] = {}
        """Request id -> (place, time sent)."""
        self._read: tuple[int, int, ReadSend, int] | None = None
        """The one read in flight: (request id, place, what, time sent)."""
        self._unreadable: set[tuple[int, int]] = set()
        """(place, entry id) that was held, and could not be read: unknown (R-N8 f)."""
        self._unreachable: set[int] = set()
        self._next_request_id = 1
        self._lac0 = NO_ENTRY_ID
        self._next_entry_id = 0
        self._end: int | None = None
        self._length: int | None = None
        self._length_tried = 0

    @property
    def done(self) -> bool:
        return self.phase is Phase.DONE

    @property
    def lac0(self) -> int:
        """Where recovery reads began: everything up to here was committed before."""
        return self._lac0

    def start(self, now_ms: int) -> None:
        """Begin; call once."""
        if self.metadata.closed:
            self.phase = Phase.DONE
        elif self.metadata.state is LedgerState.IN_RECOVERY:
            self._begin_fencing(now_ms)  # declared before, by somebody who died or runs beside us
        else:
            self._propose(self.metadata.in_recovery())

    def take_ready(self, now_ms: int) -> RecoveryReady:
        """Everything owed since the last call."""
        self._advance(now_ms)
        ready, self._ready = self._ready, RecoveryReady()
        if self._pipeline is not None:
            ready.sends, self._pipeline.sends = self._pipeline.sends, []
            ready.hung += self._pipeline.hung
            self._pipeline.hung = []
        return RecoveryReady() if self.failure is not None else ready

    # --- the metadata store's answers

    def stored(self, version: int, now_ms: int) -> None:
        """The record of the last `store` is in the store."""
        self.metadata, self.version = self._proposed, version
        if self.phase is Phase.DECLARE:
            self._begin_fencing(now_ms)
        else:
            self.phase = Phase.DONE

    def conflicted(self, metadata: LedgerMetadata, version: int, now_ms: int) -> None:
        """The store has this record instead; perhaps ours, its answer lost (R-M6)."""
        if metadata.token != self.metadata.token:
            self.fail(
                MetadataConflictError(f"ledger {self.ledger_id} was replaced by another of the same id")
            )
            return
        self.metadata, self.version = metadata, version
        if metadata.closed:
            self.phase = Phase.DONE
        elif self.phase is Phase.DECLARE:
            self.start(now_ms)
        elif (
            metadata.state is not LedgerState.IN_RECOVERY
            or metadata.last_fragment != self._frozen.last_fragment
        ):
            # Only closed fragments may be repaired under us (R-A2); anything else is a defect (R-F4).
            self.fail(
                MetadataConflictError(f"ledger {self.ledger_id}: last fragment changed during recovery")
            )
        else:
            self._propose_close()

    def vanished(self) -> None:
        """The ledger was deleted."""
        self.fail(NoSuchLedgerError(f"ledger {self.ledger_id} was deleted"))

    def store_failed(self, error: LedgerError) -> None:
        self.fail(error)

    def fail(self, error: LedgerError) -> None:
        """End this attempt; the ledger stays as it is."""
        if self.failure is None and not self.done:
            self.failure = error

    # --- the bookies' answers

    def receive_fence(self, request_id: int, reply: FenceReply) -> None:
        """A bookie is fenced and says what it holds; counted also after coverage was reached (R-N8 g)."""
        place, _ = self._fences.pop(request_id, (None, 0))
        if place is None:
            return
        try:
            self._witnesses[place] = Witness(reply)
        except ValueError:
            self._refusals[place] = BAD_ANSWER
        else:
            self._refusals.pop(place, None)

    def receive_fence_error(self, request_id: int, code: int) -> None:
        place, _ = self._fences.pop(request_id, (None, 0))
        if place is None:
            return
        self._refusals[place] = code
        if code == Code.UNAUTHORIZED:
            self.fail(UnauthorizedError(f"ledger {self.ledger_id}: wrong password"))

    def receive_read(self, request_id: int, reply: ReadReply, body: bytes | memoryview, now_ms: int) -> None:
        """A bookie answered a recovery read; a valid prefix counts, whatever follows it."""
        if self._read is None or self._read[0] != request_id:
            return
        _, place, send, _ = self._read
        self._read = None
        if self.phase is Phase.LENGTH:
            self._take_length(send, body)
            return
        before = self._next_entry_id
        problem = reply.error if reply.stop == Stop.ERROR and not len(body) else DIGEST_MISMATCH
        try:
            for extent in iterate_extents(body):
                if not self._write_back(extent, send.last, now_ms):
                    break
        except ExtentError:
            pass  # damaged on the way or on that bookie's disk: what came before it stands
        if self._next_entry_id == before:
            self._unreadable.add((place, before))
            self._refusals.setdefault(place, problem)

    def receive_read_error(self, request_id: int, code: int) -> None:
        if self._read is None or self._read[0] != request_id:
            return
        _, place, send, _ = self._read
        self._read = None
        if code == Code.UNAUTHORIZED:
            self.fail(UnauthorizedError(f"ledger {self.ledger_id}: wrong password"))
        self._unreadable.add((place, send.first))
        self._refusals.setdefault(place, code)
        if code in (UNREACHABLE, TIMEOUT):
            self._unreachable.add(place)

    def receive_add(self, request_id: int, runs: Sequence[tuple[int, int, int]], now_ms: int) -> None:
        """A bookie answered a write-back."""
        if self._pipeline is not None:
            self._pipeline.receive(request_id, runs, now_ms)

    def receive_add_error(self, request_id: int, code: int, now_ms: int) -> None:
        if self._pipeline is not None:
            self._pipeline.receive_error(request_id, code, now_ms)

    def tick(self, now_ms: int) -> None:
        """Look at times; call a few times a second."""
        late = now_ms - self._limits.request_timeout_ms
        for request_id, (place, sent_ms) in list(self._fences.items()):
            if sent_ms <= late:
                self.receive_fence_error(request_id, TIMEOUT)
                self._ready.hung.append(self._frozen.last_fragment.ensemble[place])
        if self._read is not None and self._read[3] <= late:
            self._ready.hung.append(self._read[2].member)
            self.receive_read_error(self._read[0], TIMEOUT)
        if self._pipeline is not None:
            self._pipeline.tick(now_ms)

    # --- the machine

    def _begin_fencing(self, now_ms: int) -> None:
        self.phase = Phase.FENCE
        self._frozen = self.metadata
        floor = self._frozen.last_fragment.first_entry_id - 1
        for place in range(self._frozen.schedule.ensemble_size):
            self._ask_to_fence(place, floor, now_ms)

    def _ask_to_fence(self, place: int, floor: int, now_ms: int) -> None:
        request_id = self._request_id()
        self._fences[request_id] = (place, now_ms)
        self._ready.fences.append(FenceSend(request_id, self._frozen.last_fragment.ensemble[place], floor))

    def _request_id(self) -> int:
        self._next_request_id += 1
        return self._next_request_id

    def _advance(self, now_ms: int) -> None:
        if self.failure is not None:
            return
        if self.phase is Phase.FENCE:
            self._look_for_coverage()
        if self.phase is Phase.COPY:
            self._copy(now_ms)
        if self.phase is Phase.LENGTH and self._read is None and self.failure is None:
            self._ask_length(now_ms)

    def _look_for_coverage(self) -> None:
        places = range(self._frozen.schedule.ensemble_size)
        unknown = [p for p in places if p not in self._witnesses or self._witnesses[p].limbo]
        if not self._frozen.schedule.covers(unknown):
            if not self._fences:
                self._fail_coverage("fencing", unknown)
            return
        floor = self._frozen.last_fragment.first_entry_id - 1
        self._lac0 = max(floor, *(witness.lac for witness in self._witnesses.values()))
        self._next_entry_id = self._lac0 + 1
        self._pipeline = Pipeline(
            self._frozen.schedule,
            self._frozen.last_fragment.ensemble,
            self._lac0,
            0,
            self._placement,
            fatal_codes=_FATAL_CODES,
            request_timeout_ms=self._limits.request_timeout_ms,
            quorum_grace_ms=self._limits.quorum_grace_ms,
        )
        self.phase = Phase.COPY

    def _copy(self, now_ms: int) -> None:
        pipeline = self._pipeline
        assert pipeline is not None
        pipeline.confirm()
        while pipeline.change is not None:  # in memory only; the store hears of it at the close (6.2 step 5)
            start, ensemble = pipeline.change
            if self._fragments and self._fragments[-1].first_entry_id == start:
                self._fragments.pop()
            self._fragments.append(Fragment(start, ensemble))
            pipeline.install(now_ms)
        pipeline.confirm()
        if pipeline.failure is not None:
            error = LedgerRecoveryError(f"ledger {self.ledger_id}: write-back failed: {pipeline.failure}")
            error.__cause__ = pipeline.failure
            self.fail(pipeline.failure if isinstance(pipeline.failure, UnauthorizedError) else error)
        elif (
            self._end is None
            and self._read is None
            and pipeline.pending_bytes < self._limits.write_back_bytes
        ):
            self._judge_next_entry(now_ms)
        if self._end is not None and not pipeline.pending and self.failure is None:
            assert pipeline.lac == self._end
            if self.recovered:
                self._length = pipeline.lac_length
            elif self._end == NO_ENTRY_ID:
                self._length = 0
            if self._length is None:
                self.phase = Phase.LENGTH
            else:
                self._propose_close()

    def _judge_next_entry(self, now_ms: int) -> None:
        """Read the next entry from a bookie that holds it, or see that it can never be acknowledged (6.1)."""
        entry_id, schedule = self._next_entry_id, self._frozen.schedule
        negatives = 0
        for place in schedule.write_set(entry_id):
            witness = self._witnesses.get(place)
            if witness is None:
                continue
            held_until = witness.held_until(entry_id)
            if held_until is None:
                negatives += witness.denies(entry_id)
            elif (place, entry_id) not in self._unreadable and place not in self._unreachable:
                last = schedule.run_end(entry_id, held_until)
                self._send_read(place, self._frozen.last_fragment, entry_id, last, fence=True, now_ms=now_ms)
                return
        if negatives >= schedule.negatives_needed:
            self._end = entry_id - 1
            return
        waiting = {place for place, _ in self._fences.values()}
        for place in schedule.write_set(entry_id):
            witness = self._witnesses.get(place)
            if witness is not None and witness.through < entry_id and place not in waiting:
                self._ask_to_fence(place, entry_id - 1, now_ms)  # its list was cut: ask for the rest
                waiting.add(place)
        if waiting.isdisjoint(schedule.write_set(entry_id)):
            self._fail_coverage(f"entry {entry_id}", schedule.write_set(entry_id))

    def _send_read(
        self, place: int, fragment: Fragment, first: int, last: int, *, fence: bool, now_ms: int
    ) -> None:
        request_id = self._request_id()
        send = ReadSend(request_id, fragment.ensemble[place], first, last, self._limits.read_bytes, fence)
        self._read = (request_id, place, send, now_ms)
        self._ready.reads.append(send)

    def _write_back(self, extent: Extent, last: int, now_ms: int) -> bool:
        """Take the valid prefix of one extent; false where nothing may follow it."""
        pipeline = self._pipeline
        assert pipeline is not None
        if extent.ledger_id != self.ledger_id or extent.first_entry_id != self._next_entry_id:
            return False
        extent.verify_seal(self._sealer)
        if self._length is not None and extent.base_length != self._length:
            return False  # another history than the one copied so far: not a copy of this ledger's entries
        good = extent.first_entry_id + len(extent.verified_payloads()) - 1
        take = min(good, last, extent.last_entry_id)
        if take < extent.first_entry_id:
            return False
        copy = extent.rewrite(extent.first_entry_id, take, self._lac0, self._sealer)
        self._length = extent.base_length + copy.payload_bytes
        pipeline.submit(copy, self._length, now_ms)
        self.recovered += copy.count
        self._next_entry_id = take + 1
        return take == extent.last_entry_id

    def _ask_length(self, now_ms: int) -> None:
        assert self._end is not None
        fragment, _ = self._frozen.fragment_of(self._end)
        write_set = self._frozen.schedule.write_set(self._end)
        if self._length_tried == len(write_set):
            self._fail_coverage(f"the length at entry {self._end}", ())
            return
        place = write_set[self._length_tried]
        self._length_tried += 1
        self._send_read(place, fragment, self._end, self._end, fence=False, now_ms=now_ms)

    def _take_length(self, send: ReadSend, body: bytes | memoryview) -> None:
        try:
            for extent in iterate_extents(body):
                extent.verify_seal(self._sealer)
                if extent.ledger_id == self.ledger_id and extent.first_entry_id == send.first:
                    self._length = extent.length_at(send.first)
                    self._propose_close()
                return
        except ExtentError:
            return  # the next replica is asked

    def _propose(self, metadata: LedgerMetadata) -> None:
        self._proposed = metadata
        self._ready.store = Store(metadata, self.version)

    def _propose_close(self) -> None:
        assert self._end is not None
        assert self._length is not None
        self.phase = Phase.CLOSE
        record = self.metadata
        for start, ensemble in self._fragments:
            record = record.with_ensemble(start, ensemble)
        self._propose(record.closed_at(self._end, self._length))

    def _fail_coverage(self, what: str, places: Sequence[int]) -> None:
        ensemble = self._frozen.last_fragment.ensemble
        reasons = ", ".join(
            f"{ensemble[p].bookie_id}: {code_name(self._refusals[p])}" for p in places if p in self._refusals
        )
        codes = {self._refusals.get(place) for place in places}
        error = LedgerRecoveryError(
            f"ledger {self.ledger_id}: no coverage for {what} ({reasons or 'no answers'})"
        )
        if len(codes) == 1 and None not in codes:
            code = codes.pop()
            error.__cause__ = error_of(code, code_name(code)) if code is not None else None
        self.fail(error)
