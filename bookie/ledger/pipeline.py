"""Adds in flight: who was sent what, who stored it, what is confirmed in order, and how an ensemble changes.

Writer and recoverer share this core (R-F3). Its unit is the batch, one extent; a batch is confirmed whole, so
LAC + 1 is always the first id of a batch and an ensemble change never has to cut one (R-W6).

How state moves:

    submit -> sent to the live part of the write set -> stored by an ack quorum = completed
    -> head of the queue, and no change under way: confirmed, LAC = its last id (R-W3, R-W4)

    a place fails -> a replacement is asked for at once
        one exists:  `change` says (start = LAC + 1, new ensemble); the owner stores it and calls `install`.
                     Failures meanwhile chain another change with the same start. Then, in two passes over
                     all that is pending: forget what the replaced places said (A), send to the new ones (B)
                     (R-W9). Until `install` nothing goes to a replacement (R-W12) and nothing is confirmed
                     (R-W4, R-W5).
        none exists: the place stays, is skipped, and is tried again with growing pauses, or as soon as
                     somebody hears of the bookie or of a spare. Batches are then stored on fewer places,
                     never on fewer than the ack quorum; only when no ack quorum has been reachable for
                     `quorum_grace_ms` everything fails with NotEnoughBookies.

A request id is one attempt at one place: whatever answers to another attempt is ignored (R-W1). When a place
fails, its outstanding requests are forgotten at once, so that a hanging bookie holds no memory.
"""

from collections import deque
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from bookie.ledger.distribution import Schedule
from bookie.ledger.errors import BAD_ANSWER, TIMEOUT, LedgerError, NotEnoughBookiesError, code_name, error_of
from bookie.ledger.extent import EncodedExtent
from bookie.ledger.metadata import Ensemble, Member
from bookie.ledger.wire import Code

RETRY_FIRST_MS = 500
"""First pause before a failed place without replacement is tried again; doubles up to RETRY_LAST_MS."""

RETRY_LAST_MS = 30_000


class Placement(Protocol):
    """Chooses bookies; an answer is a pure function of what is known and of the caller's chance."""

    def replace(self, ensemble: Ensemble, index: int, excluded: Set[Member]) -> Member | None:
        """A writable bookie for one place, or None.

        Not a member of `excluded`, and not an id that holds another place of `ensemble` (R-W8). A later
        incarnation of the failed bookie itself is allowed: its denials are certain again (R-I6).
        """


class Send(NamedTuple):
    """Add this extent at this bookie; answer with the request id."""

    request_id: int
    member: Member
    extent: EncodedExtent


class Change(NamedTuple):
    """An ensemble that must be stored before anything else is confirmed."""

    start: int
    ensemble: Ensemble


class Batch:
    """One extent on its way, until every live place of its write set answered."""

    __slots__ = ("acked", "end_length", "extent", "last_entry_id", "sent", "write_set")

    def __init__(self, extent: EncodedExtent, write_set: tuple[int, ...], end_length: int) -> None:
        self.extent = extent
        self.last_entry_id = extent.first_entry_id + extent.count - 1
        self.write_set = write_set
        self.end_length = end_length
        self.sent: dict[int, tuple[Member, int]] = {}
        """Place -> who was really asked, and by which request (R-W7)."""
        self.acked = 0
        """Bit set of places that stored it."""


class _Request(NamedTuple):
    batch: Batch
    place: int
    member: Member
    sent_ms: int


@dataclass(slots=True)
class _Down:
    """A failed place that nobody replaced."""

    code: int
    retry_ms: int
    pause_ms: int


class Pipeline:
    """Adds in flight for one ledger.

    Attributes:
        ensemble: where new batches go; as stored.
        lac: highest id confirmed in order. lac_length: cumulative payload bytes up to it.
        change: what the owner has to store, then report with `install`; None most of the time.
        failure: set once, when nothing more can be confirmed; the owner takes it from there.
        sends, hung: outboxes, emptied by the owner. `hung` lists bookies that did not answer in time.
        under_replicated: batches confirmed while a place of their write set was down (a metric).
    """

    def __init__(
        self,
        schedule: Schedule,
        ensemble: Ensemble,
        lac: int,
        lac_length: int,
        placement: Placement,
        *,
        fatal_codes: frozenset[int],
        request_timeout_ms: int,
        quorum_grace_ms: int,
    ) -> None:
        self.schedule = schedule
        self.ensemble = ensemble
        self.lac = lac
        self.lac_length = lac_length
        self.change: Change | None = None
        self.failure: LedgerError | None = None
        self.sends: list[Send] = []
        self.hung: list[Member] = []
        self.pending: deque[Batch] = deque()
        self.pending_bytes = 0
        self.under_replicated = 0
        self._placement = placement
        self._fatal_codes = fatal_codes
        self._request_timeout_ms = request_timeout_ms
        self._quorum_grace_ms = quorum_grace_ms
        self._requests: dict[int, _Request] = {}
        self._next_request_id = 1
        self._unanswered = [0] * schedule.ensemble_size
        self._failing: dict[int, int] = {}
        self._down: dict[int, _Down] = {}
        self._pauses: dict[int, int] = {}
        self._quorum_lost_ms: int | None = None

    @property
    def unanswered_bytes(self) -> int:
        """Bytes sent to the slowest place and not answered by it."""
        return max(self._unanswered)

    @property
    def down(self) -> dict[int, int]:
        """Failed places without replacement, with their last outcome code."""
        return {index: down.code for index, down in self._down.items()}

    def submit(self, extent: EncodedExtent, end_length: int, now_ms: int) -> None:
        """Take a batch that follows the last one; it is sent now, or after a running change."""
        batch = Batch(extent, self.schedule.write_set(extent.first_entry_id), end_length)
        self.pending.append(batch)
        self.pending_bytes += len(extent.data)
        if self.change is None:
            self._send_missing(batch, now_ms)
            if self._down:
                self._judge(now_ms)

    def receive(self, request_id: int, runs: Sequence[tuple[int, int, int]], now_ms: int) -> None:
        """A bookie answered by runs (first, last, code); only OK for every entry counts (R-N1)."""
        request = self._requests.get(request_id)
        if request is None:
            return
        covered = request.batch.extent.first_entry_id - 1
        for first, last, code in sorted(runs):
            if code != Code.OK:
                self.receive_error(request_id, code, now_ms)
                return
            if first <= covered + 1:
                covered = max(covered, last)
        if covered < request.batch.last_entry_id:
            self.receive_error(request_id, BAD_ANSWER, now_ms)
            return
        self._forget(request_id)
        request.batch.acked |= 1 << request.place
        self._pauses.pop(request.place, None)

    def receive_error(self, request_id: int, code: int, now_ms: int) -> None:
        """A bookie refused, or nobody knows what it did."""
        request = self._forget(request_id)
        if request is None:
            return
        request.batch.sent.pop(request.place, None)
        if code in self._fatal_codes:
            self.confirm()  # what an ack quorum has stored in order may still be acknowledged (R-W2)
            self.failure = error_of(code, f"{request.member.bookie_id}: {code_name(code)}")
            return
        self._fail_place(request.place, code, now_ms)

    def tick(self, now_ms: int) -> None:
        """Time passed: requests without answer, failed places to try again, a quorum lost for too long."""
        for request in list(self._requests.values()):
            if request.sent_ms + self._request_timeout_ms > now_ms:
                break  # ids, and so times, ascend
            if self.ensemble[request.place] == request.member and request.place not in self._failing:
                self.hung.append(request.member)
                self._fail_place(request.place, TIMEOUT, now_ms)
        self._retry([index for index, down in self._down.items() if down.retry_ms <= now_ms], now_ms)
        if self._down:
            self._judge(now_ms)

    def bookie_returned(self, member: Member, now_ms: int) -> None:
        """The bookie can be reached again (a new registration, a new connection)."""
        self._retry([i for i in self._down if self.ensemble[i] == member], now_ms)

    def spares_changed(self, now_ms: int) -> None:
        """Other bookies may have come: try to replace what is down."""
        if self._down and self.change is None and self.failure is None:
            self._plan(self.lac + 1, now_ms)

    def confirm(self) -> list[Batch]:
        """Move the completed head of the queue below the LAC; call once for many answers (R-N10).

        Returns:
            The batches confirmed now, in order; none while an ensemble change is under way (R-W4).
        """
        confirmed: list[Batch] = []
        if self.change is not None or self.failure is not None:
            return confirmed
        quorum = self.schedule.ack_quorum
        while self.pending and self.pending[0].acked.bit_count() >= quorum:
            batch = self.pending.popleft()
            self.pending_bytes -= len(batch.extent.data)
            self.lac = batch.last_entry_id
            self.lac_length = batch.end_length
            self.under_replicated += not self._down.keys().isdisjoint(batch.write_set)
            confirmed.append(batch)
        if confirmed or not self.pending:
            self._quorum_lost_ms = None
        return confirmed

    def install(self, now_ms: int) -> None:
        """The change is stored: go over to its ensemble, or on to a chained change (4.5 steps 8 and 9)."""
        assert self.change is not None
        start, ensemble = self.change
        for index in range(self.schedule.ensemble_size):
            if ensemble[index] != self.ensemble[index]:
                self._down.pop(index, None)
                self._pauses.pop(index, None)
        self.ensemble = ensemble
        for batch in self.pending:  # pass A: no batch may look complete by a place that is no longer listed
            for index in batch.write_set:
                sent = batch.sent.get(index)
                if sent is not None and sent[0] != ensemble[index]:
                    del batch.sent[index]
                    batch.acked &= ~(1 << index)
        self.change = None
        if self._failing:
            self._plan(start, now_ms)
        if self.change is None:
            for batch in self.pending:  # pass B
                self._send_missing(batch, now_ms)
            if self._down:
                self._judge(now_ms)

    def abandon(self) -> None:
        """Give up what is not confirmed, and the change that is being stored (R-W11)."""
        self.pending.clear()
        self.pending_bytes = 0
        self._requests.clear()
        self._unanswered = [0] * self.schedule.ensemble_size
        self._failing.clear()
        self.sends.clear()
        self.change = None

    def _fail_place(self, index: int, code: int, now_ms: int) -> None:
        for request_id in [k for k, request in self._requests.items() if request.place == index]:
            request = self._forget(request_id)
            if request is not None:
                request.batch.sent.pop(index, None)
        self._failing[index] = code
        if self.change is None and self.failure is None:
            self._plan(self.lac + 1, now_ms)

    def _plan(self, start: int, now_ms: int) -> None:
        """Replace what can be replaced of the failed places; the others stay in place, down."""
        troubled = sorted(self._failing.keys() | self._down.keys())
        excluded = {self.ensemble[index] for index in troubled}
        ensemble = list(self.ensemble)
        for index in troubled:
            member = self._placement.replace(tuple(ensemble), index, excluded)
            if member is not None:
                ensemble[index] = member
                assert member not in excluded
                assert len({other.bookie_id for other in ensemble}) == len(ensemble)
        for index, code in self._failing.items():
            if ensemble[index] == self.ensemble[index]:
                pause_ms = min(2 * self._pauses.get(index, RETRY_FIRST_MS // 2), RETRY_LAST_MS)
                self._pauses[index] = pause_ms
                self._down[index] = _Down(code, now_ms + pause_ms, pause_ms)
        self._failing.clear()
        if tuple(ensemble) != self.ensemble:
            self.change = Change(start, tuple(ensemble))
        else:
            self._judge(now_ms)

    def _retry(self, indices: list[int], now_ms: int) -> None:
        if self.change is not None or self.failure is not None:
            return
        for index in indices:
            del self._down[index]
        if indices:
            for batch in self.pending:
                self._send_missing(batch, now_ms)

    def _judge(self, now_ms: int) -> None:
        """Fail when what is pending has had no ack quorum within reach for the time of grace."""
        if self._reachable():
            return  # but the clock runs on: only a confirmed batch proves that trying again helped
        if self._quorum_lost_ms is None:
            self._quorum_lost_ms = now_ms
        if now_ms - self._quorum_lost_ms >= self._quorum_grace_ms:
            names = ", ".join(
                f"{self.ensemble[i].bookie_id}: {code_name(d.code)}" for i, d in self._down.items()
            )
            self.failure = NotEnoughBookiesError(
                f"no ack quorum of {self.schedule.ack_quorum} within reach after entry {self.lac} ({names})"
            )

    def _reachable(self) -> bool:
        quorum = self.schedule.ack_quorum
        for batch in self.pending:
            live = sum(1 for i in batch.write_set if i not in self._down or batch.acked >> i & 1)
            if live < quorum:
                return False
        return True

    def _send_missing(self, batch: Batch, now_ms: int) -> None:
        for index in batch.write_set:
            if index in self._down or index in batch.sent or batch.acked >> index & 1:
                continue
            member = self.ensemble[index]
            request_id = self._next_request_id
            self._next_request_id += 1
            batch.sent[index] = (member, request_id)
            self._requests[request_id] = _Request(batch, index, member, now_ms)
            self._unanswered[index] += len(batch.extent.data)
            self.sends.append(Send(request_id, member, batch.extent))

    def _forget(self, request_id: int) -> _Request | None:
        request = self._requests.pop(request_id, None)
        if request is not None:
            self._unanswered[request.place] -= len(request.batch.extent.data)
        return request
