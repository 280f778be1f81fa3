"""Reading decisions: which replica to ask, when to ask another too, what to believe, what to report.

A `ChunkRead` gets consecutive entries from one id on, as many as fit. It asks the replicas in order: the next
one at once after an error, and also when the ones asked stay silent for the speculation time, keeping the
earlier questions open (5.3). The first valid answer wins. Valid means the ledger's own entries from the id
asked for, under the ledger's seal, each payload matching its digest; a valid prefix is an answer, what
follows it is asked for again (5.5).

When nobody gave a valid answer, `final_error` picks one error (5.4): that an entry does not exist is said
only if every replica said so (R-R1).

A `LacRead` asks all bookies of the last ensemble and knows the LAC when no ack quorum can exist among those
that did not answer (5.6).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bookie.ledger.distribution import Schedule
from bookie.ledger.errors import (
    BAD_ANSWER,
    DIGEST_MISMATCH,
    TIMEOUT,
    UNREACHABLE,
    BookieUnavailableError,
    LedgerError,
    code_name,
    error_of,
)
from bookie.ledger.extent import ExtentError, Sealer, iterate_extents
from bookie.ledger.metadata import Fragment, LedgerMetadata, Member
from bookie.ledger.recovery import ReadSend
from bookie.ledger.wire import Code, ReadReply, Stop

SPECULATION_MS = 500
"""Silence after which the next replica is asked too; doubles with each one, up to SPECULATION_MAX_MS."""

SPECULATION_MAX_MS = 2_000

_DENIALS = frozenset((int(Code.NO_ENTRY), int(Code.NO_LEDGER)))
_UNAVAILABLE = frozenset((UNREACHABLE, int(Code.WRONG_BOOKIE), int(Code.REPLACE_ME)))


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive entries that were read and verified."""

    first_entry_id: int
    payloads: list[bytes]

    @property
    def next_entry_id(self) -> int:
        return self.first_entry_id + len(self.payloads)


def replica_order(
    schedule: Schedule, fragment: Fragment, entry_id: int, sticky: int, suspects: Iterable[Member] = ()
) -> list[Member]:
    """The write set of the entry in the order to ask it: all of it, whatever the order (5.2).

    Args:
        sticky: a number that is constant for a handle: where E = Qw its reads begin at the same bookie, which
            reads ahead; elsewhere the write set's own order counts.
        suspects: members that failed lately; asked last.
    """
    places = schedule.write_set(entry_id)
    if schedule.ensemble_size == schedule.write_quorum:
        turn = (sticky - places[0]) % len(places)
        places = places[turn:] + places[:turn]
    avoid = set(suspects)
    return sorted((fragment.ensemble[place] for place in places), key=avoid.__contains__)


def final_error(codes: Sequence[int], what: str) -> LedgerError:
    """The one error to report when every replica failed, with these codes in the order of asking (5.4)."""
    missing = [code for code in codes if code in _DENIALS]
    unavailable = [code for code in codes if code in _UNAVAILABLE]
    specific = [code for code in codes if code not in _DENIALS and code not in _UNAVAILABLE]
    reasons = ", ".join(map(code_name, codes))
    if specific:
        return error_of(specific[0], f"{what}: {reasons}")
    if unavailable:
        return BookieUnavailableError(f"{what}: {reasons}")
    if missing:
        # NO_LEDGER from all means that not even the ledger was seen there: the stronger statement loses.
        code = Code.NO_ENTRY if Code.NO_ENTRY in missing else Code.NO_LEDGER
        return error_of(code, f"{what}: denied by every replica")
    return BookieUnavailableError(f"{what}: no replica was asked")


class ChunkRead:
    """One chunk on its way. `result` or `failure` is set exactly once."""

    def __init__(
        self,
        ledger_id: int,
        first: int,
        last: int,
        replicas: Sequence[Member],
        sealer: Sealer,
        *,
        max_bytes: int,
        request_timeout_ms: int = 5_000,
    ) -> None:
        self.first = first
        self.last = last
        self.result: Chunk | None = None
        self.failure: LedgerError | None = None
        self.lac = -1
        """Highest LAC that an answer mentioned."""
        self.suspects: list[Member] = []
        """Replicas that failed or stayed silent."""
        self.speculated = 0
        self._ledger_id = ledger_id
        self._replicas = replicas
        self._sealer = sealer
        self._max_bytes = max_bytes
        self._timeout_ms = request_timeout_ms
        self._sends: list[ReadSend] = []
        self._asked: dict[int, tuple[Member, int]] = {}
        """Request id (the place in `replicas`) -> (member, when asked), not answered yet."""
        self._codes: dict[int, int] = {}
        self._next = 0
        self._speculation_ms = SPECULATION_MS
        self.deadline_ms = 0
        """When `tick` wants to be called, at the latest."""

    @property
    def done(self) -> bool:
        return self.result is not None or self.failure is not None

    def start(self, now_ms: int) -> None:
        self._ask_next(now_ms)

    def take_sends(self) -> list[ReadSend]:
        sends, self._sends = self._sends, []
        return sends

    def receive(self, request_id: int, reply: ReadReply, body: bytes | memoryview, now_ms: int) -> None:
        """A replica answered; ignored after the first valid answer."""
        asked = self._asked.pop(request_id, None)
        if asked is None or self.done:
            return
        self.lac = max(self.lac, reply.lac)
        payloads, code = self._believe(body)
        if payloads:
            self.result = Chunk(self.first, payloads)
            return
        if code == Code.OK and reply.stop == Stop.NO_ENTRY:
            code = Code.NO_ENTRY
        elif code == Code.OK:
            code = reply.error if reply.stop == Stop.ERROR and reply.error else BAD_ANSWER
        self._fail(request_id, asked[0], code, now_ms)

    def receive_error(self, request_id: int, code: int, now_ms: int) -> None:
        asked = self._asked.pop(request_id, None)
        if asked is not None and not self.done:
            self._fail(request_id, asked[0], code, now_ms)

    def tick(self, now_ms: int) -> None:
        """Silence: ask another replica too, and give up those that had their time."""
        if self.done:
            return
        for request_id, (member, asked_ms) in list(self._asked.items()):
            if now_ms - asked_ms >= self._timeout_ms:
                del self._asked[request_id]
                self._fail(request_id, member, TIMEOUT, now_ms)
        if not self.done and now_ms >= self.deadline_ms:
            if self._next < len(self._replicas):
                self.speculated += 1
                self.suspects += [member for member, _ in self._asked.values()]
                self._ask_next(now_ms)
            else:
                self.deadline_ms = now_ms + self._speculation_ms

    def _believe(self, body: bytes | memoryview) -> tuple[list[bytes], int]:
        """The valid prefix of an answer, and why it ends where nothing is valid."""
        payloads: list[bytes] = []
        next_id = self.first
        try:
            for extent in iterate_extents(body):
                if extent.ledger_id != self._ledger_id or extent.first_entry_id != next_id:
                    return payloads, BAD_ANSWER
                extent.verify_seal(self._sealer)
                good = extent.verified_payloads()
                room = self.last - next_id + 1
                payloads += good[:room]
                next_id += min(len(good), room)
                if len(good) < extent.count:
                    return payloads, DIGEST_MISMATCH
                if next_id > self.last:
                    break
        except ExtentError:
            return payloads, DIGEST_MISMATCH
        return payloads, int(Code.OK)

    def _fail(self, request_id: int, member: Member, code: int, now_ms: int) -> None:
        self._codes[request_id] = code
        if code not in _DENIALS:
            self.suspects.append(member)
        if self._next < len(self._replicas):
            self._ask_next(now_ms)
        elif not self._asked:
            codes = [code for _, code in sorted(self._codes.items())]
            self.failure = final_error(codes, f"ledger {self._ledger_id} entry {self.first}")

    def _ask_next(self, now_ms: int) -> None:
        if not self._replicas:
            self.failure = final_error((), f"ledger {self._ledger_id} entry {self.first}")
            return
        request_id = self._next
        self._next += 1
        member = self._replicas[request_id]
        self._asked[request_id] = (member, now_ms)
        self._sends.append(ReadSend(request_id, member, self.first, self.last, self._max_bytes, fence=False))
        self.deadline_ms = now_ms + self._speculation_ms
        self._speculation_ms = min(2 * self._speculation_ms, SPECULATION_MAX_MS)


class LacRead:
    """The LAC of an open ledger from coverage of its last ensemble; `result` or `failure` is set once."""

    def __init__(self, ledger_id: int, metadata: LedgerMetadata) -> None:
        self.ledger_id = ledger_id
        self.members = metadata.last_fragment.ensemble
        """Whom to ask, each once."""
        self.result: int | None = metadata.last_entry_id
        self.failure: LedgerError | None = None
        self._schedule = metadata.schedule
        self._lac = metadata.lac_floor
        self._unknown = set(range(len(self.members)))
        self._codes: dict[int, int] = {}

    def receive(self, place: int, lac: int) -> None:
        """The bookie at this place answered; a denial of the ledger is an answer with LAC -1."""
        self._lac = max(self._lac, lac)
        self._unknown.discard(place)
        if self.result is None and self._schedule.covers(self._unknown):
            self.result = self._lac

    def time_out(self) -> None:
        """Whoever has not answered counts as silent."""
        for place in list(self._unknown - self._codes.keys()):
            self.receive_error(place, TIMEOUT)

    def receive_error(self, place: int, code: int) -> None:
        """The bookie's LAC stays unknown, unless it denies the ledger."""
        if code in _DENIALS:
            self.receive(place, -1)
            return
        self._codes[place] = code
        if self.result is None and self._codes.keys() >= self._unknown:
            codes = [self._codes[p] for p in sorted(self._unknown)]
            self.failure = final_error(codes, f"LAC of ledger {self.ledger_id}")


def poll_targets(metadata: LedgerMetadata, turn: int) -> list[Member]:
    """Whom a tail reader asks for news: enough of the last ensemble that no ack quorum misses them all.

    Args:
        turn: changes after a failure, so that other members get their turn.
    """
    ensemble, schedule = metadata.last_fragment.ensemble, metadata.schedule
    size = schedule.ensemble_size
    count = schedule.negatives_needed if size == schedule.write_quorum else size
    return [ensemble[(turn + k) % size] for k in range(count)]
