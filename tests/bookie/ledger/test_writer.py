"""The writer's rules of chapter 4, one at a time, on the core alone."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import pytest

from bookie.ledger.distribution import Schedule
from bookie.ledger.errors import (
    UNREACHABLE,
    IncorrectParameterError,
    LedgerClosedError,
    LedgerFencedError,
    MetadataConflictError,
    NoSuchLedgerError,
    NotEnoughBookiesError,
    UnauthorizedError,
)
from bookie.ledger.extent import ENTRY_BYTES_MAX, Extent
from bookie.ledger.metadata import Ensemble, Fragment, LedgerMetadata, LedgerState, Member
from bookie.ledger.pipeline import RETRY_FIRST_MS, Send
from bookie.ledger.wire import Code
from bookie.ledger.writer import BATCHES_IN_FLIGHT_MAX, Ready, Store, Writer, WriterLimits

A, B, C, D, E = (Member(name, 1) for name in "abcde")
OK = int(Code.OK)
LIMITS = WriterLimits(batch_entries=4, request_timeout_ms=1000, quorum_grace_ms=500)


@dataclass
class Bench:
    """A writer, the spares it may choose from in order, and what it owed so far."""

    writer: Writer = field(init=False)
    spares: list[Member] = field(default_factory=list)
    schedule: Schedule = field(default_factory=lambda: Schedule(3, 3, 2))
    limits: WriterLimits = LIMITS
    now_ms: int = 0
    sends: list[Send] = field(default_factory=list)
    confirmed: list[int] = field(default_factory=list)
    failed: list[object] = field(default_factory=list)
    store: Store | None = None
    hung: list[Member] = field(default_factory=list)

    def __post_init__(self) -> None:
        ensemble = (A, B, C, D)[: self.schedule.ensemble_size]
        record = LedgerMetadata(self.schedule, LedgerState.OPEN, (Fragment(0, ensemble),), token=1)
        self.writer = Writer(5, record, 0, self, limits=self.limits)

    def replace(self, ensemble: Ensemble, index: int, excluded: Set[Member]) -> Member | None:
        ids = {m.bookie_id for place, m in enumerate(ensemble) if place != index}
        return next((m for m in self.spares if m not in excluded and m.bookie_id not in ids), None)

    def append(self, *payloads: bytes) -> None:
        self.writer.append(payloads, len(payloads))
        self.pump()

    def pump(self) -> Ready:
        ready = self.writer.take_ready(self.now_ms)
        self.sends += ready.sends
        self.confirmed += [last for last, _ in ready.confirmed]
        self.failed += ready.failed
        self.hung += ready.hung
        if ready.store is not None:
            assert self.store is None
            self.store = ready.store
        return ready

    def sent(self, member: Member, first: int) -> Send:
        """The last add sent to this bookie that begins there."""
        return [s for s in self.sends if s.member == member and s.extent.first_entry_id == first][-1]

    def ok(self, member: Member, first: int) -> None:
        send = self.sent(member, first)
        self.writer.receive(send.request_id, [(first, send.extent.last_entry_id, OK)], self.now_ms)
        self.pump()

    def error(self, member: Member, first: int, code: int = UNREACHABLE) -> None:
        self.writer.receive_error(self.sent(member, first).request_id, code, self.now_ms)
        self.pump()

    def stored(self) -> None:
        assert self.store is not None
        store, self.store = self.store, None
        self.writer.stored(store.version + 1, self.now_ms)
        self.pump()

    def conflicted(self, record: LedgerMetadata, version: int = 9) -> None:
        self.store = None
        self.writer.conflicted(record, version, self.now_ms)
        self.pump()

    def sends_to(self, member: Member) -> list[int]:
        return [s.extent.first_entry_id for s in self.sends if s.member == member]


def test_the_first_append_leaves_at_once_and_what_follows_leaves_together() -> None:
    """DESIGN 5: send when the pipe is free; the same bytes go to all bookies."""
    bench = Bench()
    bench.append(b"a")
    bench.append(b"b")
    bench.append(b"c")
    assert [s.member for s in bench.sends] == [A, B, C]
    assert len({id(s.extent.data) for s in bench.sends}) == 1
    bench.ok(A, 0)
    bench.ok(C, 0)
    assert bench.confirmed == [0]
    second = Extent(bench.sent(A, 1).extent.data)
    assert second.payloads() == [b"b", b"c"]
    assert (second.lac, second.base_length) == (0, 1)


def test_full_batches_do_not_wait_but_are_bounded() -> None:
    bench = Bench()
    bench.append(*[b"x"] * 100)
    assert len(bench.sends_to(A)) == BATCHES_IN_FLIGHT_MAX
    assert not bench.writer.idle


def test_a_batch_is_bounded_in_bytes() -> None:
    bench = Bench(limits=WriterLimits(batch_entries=100, batch_bytes=10))
    bench.append(b"1234", b"5678", b"90ab", b"x" * 50, b"c")
    sizes = [s.extent.count for s in bench.sends if s.member == A]
    assert sizes == [2, 1, 1]
    bench.ok(A, 0)
    bench.ok(B, 0)
    assert bench.confirmed == []  # the append is confirmed as a whole


def test_acknowledgements_are_in_order_without_holes() -> None:
    """R-W3."""
    bench = Bench()
    bench.append(*[b"x"] * 8)
    bench.ok(A, 4)
    bench.ok(B, 4)
    assert (bench.writer.lac, bench.confirmed) == (-1, [])
    bench.ok(A, 0)
    bench.ok(B, 0)
    assert (bench.writer.lac, bench.confirmed) == (7, [7])


@pytest.mark.parametrize(
    "runs",
    [[(0, 1, OK)], [(0, 1, OK), (3, 3, OK)], [], [(0, 2, OK), (3, 3, int(Code.IO_ERROR))], [(1, 3, OK)]],
)
def test_ok_for_a_part_of_a_batch_is_no_ok(runs: Sequence[tuple[int, int, int]]) -> None:
    """R-N1."""
    bench = Bench()
    bench.append(*[b"x"] * 4)
    bench.ok(B, 0)
    bench.writer.receive(bench.sent(A, 0).request_id, runs, 0)
    bench.pump()
    assert bench.confirmed == []
    assert bench.writer.down == [A]


def test_runs_that_add_up_to_the_batch_are_an_ok() -> None:
    """R-N6: ack ranges, in any order and overlapping."""
    bench = Bench()
    bench.append(*[b"x"] * 4)
    bench.ok(B, 0)
    bench.writer.receive(bench.sent(A, 0).request_id, [(2, 3, OK), (0, 2, OK)], 0)
    bench.pump()
    assert bench.confirmed == [3]


def test_an_answer_counts_once() -> None:
    """R-W1: one attempt, one answer; and a late repeat is nothing."""
    bench = Bench()
    bench.append(b"x")
    bench.ok(A, 0)
    bench.ok(A, 0)
    assert bench.confirmed == []


def test_answers_of_a_replaced_bookie_are_ignored() -> None:
    """R-W1: also when they arrive after the change, and when the bookie comes back (attempt)."""
    bench = Bench(spares=[D])
    bench.append(b"x")
    old = bench.sent(A, 0)
    bench.error(A, 0)
    bench.stored()
    bench.writer.receive(old.request_id, [(0, 0, OK)], 0)
    bench.ok(B, 0)
    assert bench.confirmed == []
    bench.spares = [A]
    bench.error(D, 0)
    bench.stored()
    assert bench.writer.metadata.last_fragment.ensemble == (A, B, C)
    bench.writer.receive(old.request_id, [(0, 0, OK)], 0)
    bench.pump()
    assert bench.confirmed == []
    bench.ok(A, 0)
    assert bench.confirmed == [0]


def test_nothing_goes_to_a_replacement_before_its_record_is_stored() -> None:
    """R-W12."""
    bench = Bench(spares=[D])
    bench.append(b"x")
    bench.error(A, 0)
    assert bench.store is not None
    assert bench.sends_to(D) == []
    bench.stored()
    assert bench.sends_to(D) == [0]


def test_nothing_is_acknowledged_while_the_record_is_being_stored() -> None:
    """R-W4, R-W5."""
    bench = Bench(spares=[D])
    bench.append(*[b"x"] * 8)
    bench.error(A, 0)
    bench.ok(B, 0)
    bench.ok(C, 0)
    assert (bench.writer.lac, bench.confirmed) == (-1, [])
    assert bench.store is not None
    assert bench.store.metadata.last_fragment == Fragment(0, (D, B, C))
    bench.stored()
    assert bench.writer.lac == 3


def test_the_new_fragment_begins_above_the_lac() -> None:
    """R-W6: append above what is confirmed; what is pending moves, complete or not."""
    bench = Bench(spares=[D])
    bench.append(*[b"x"] * 12)
    bench.ok(A, 0)
    bench.ok(B, 0)
    bench.ok(B, 8)
    bench.ok(C, 8)
    bench.error(A, 4)
    assert bench.store is not None
    assert bench.store.metadata.fragments == (Fragment(0, (A, B, C)), Fragment(4, (D, B, C)))
    bench.stored()
    assert bench.sends_to(D) == [4, 8]


def test_retargeting_takes_acks_of_replaced_places_away_from_later_batches() -> None:
    """R-W9 (#4097, #4194): a later batch that was complete by the replaced bookie waits for the new one."""
    bench = Bench(spares=[D])
    bench.append(*[b"x"] * 8)
    bench.ok(A, 4)
    bench.ok(B, 4)  # 4..7 complete on A and B, blocked by 0..3
    bench.error(A, 0)
    bench.stored()
    bench.ok(B, 0)
    bench.ok(C, 0)
    assert bench.confirmed == []
    assert bench.writer.lac == 3
    bench.ok(D, 4)
    assert bench.writer.lac == 7


def test_a_failure_of_the_replacement_chains_a_change_with_the_same_start() -> None:
    """4.5 step 8: append becomes replace; #1886: the second failure is taken along."""
    bench = Bench(spares=[D, E])
    bench.append(*[b"x"] * 8)
    bench.ok(A, 0)
    bench.ok(B, 0)
    bench.error(A, 4)
    bench.error(B, 4)  # while the first change is being stored
    assert bench.store is not None
    assert bench.store.metadata.last_fragment == Fragment(4, (D, B, C))
    bench.stored()
    assert bench.store is not None
    assert bench.store.metadata.fragments == (Fragment(0, (A, B, C)), Fragment(4, (D, E, C)))
    assert bench.sends_to(D) == bench.sends_to(E) == []
    bench.stored()
    assert (bench.sends_to(D), bench.sends_to(E)) == ([4], [4])
    bench.ok(D, 4)
    bench.ok(E, 4)
    assert bench.confirmed == [7]


def test_a_chain_back_to_the_first_bookies_resends_what_is_pending() -> None:
    """R-W7 (#4459)."""
    bench = Bench(spares=[D])
    bench.append(b"x")
    bench.error(A, 0)
    bench.stored()
    bench.spares = [A]
    bench.error(D, 0)
    bench.stored()
    assert bench.sends_to(A) == [0, 0]
    bench.ok(A, 0)
    bench.ok(B, 0)
    assert bench.confirmed == [0]


def test_an_ensemble_never_names_a_bookie_twice() -> None:
    """R-W8 (#4012, #4013): with two failures at once and one spare, one place stays."""
    bench = Bench(spares=[B, D])
    bench.append(b"x")
    bench.error(A, 0)
    bench.error(B, 0)
    bench.stored()
    assert bench.store is None
    assert bench.writer.metadata.last_fragment.ensemble == (D, B, C)
    assert bench.writer.down == [B]


def test_a_later_incarnation_of_a_failed_bookie_may_take_its_place() -> None:
    """R-I6: its denials are certain again."""
    reborn = Member("a", 2)
    bench = Bench(spares=[reborn])
    bench.append(b"x")
    bench.error(A, 0, int(Code.WRONG_BOOKIE))
    bench.stored()
    assert bench.writer.metadata.last_fragment.ensemble == (reborn, B, C)


def test_without_a_spare_a_failed_bookie_stays_in_place() -> None:
    """DESIGN 5: no replacement, quorum in reach: under-replicated, not failed, no record written."""
    bench = Bench()
    bench.append(b"x")
    bench.error(A, 0)
    assert bench.store is None
    bench.ok(B, 0)
    bench.ok(C, 0)
    assert bench.confirmed == [0]
    bench.append(b"y")
    assert bench.sends_to(A) == [0]
    bench.ok(B, 1)
    bench.ok(C, 1)
    assert bench.confirmed == [0, 1]
    assert bench.writer.under_replicated == 2


def test_a_bookie_that_stayed_in_place_is_used_again_after_a_while() -> None:
    bench = Bench()
    bench.append(b"x")
    bench.error(A, 0)
    bench.now_ms += RETRY_FIRST_MS
    bench.writer.tick(bench.now_ms)
    bench.pump()
    assert bench.sends_to(A) == [0, 0]
    bench.ok(A, 0)
    bench.ok(B, 0)
    assert bench.confirmed == [0]


def test_a_bookie_that_registers_again_is_used_at_once() -> None:
    bench = Bench()
    bench.append(b"x")
    bench.error(A, 0)
    bench.writer.bookie_returned(A, 1)
    bench.pump()
    assert bench.sends_to(A) == [0, 0]
    assert bench.writer.down == []


def test_a_spare_that_comes_later_replaces_the_failed_bookie() -> None:
    bench = Bench()
    bench.append(b"x")
    bench.error(A, 0)
    bench.spares = [D]
    bench.writer.spares_changed(1)
    bench.pump()
    bench.stored()
    assert bench.sends_to(D) == [0]
    assert bench.writer.down == []


def test_only_a_lost_ack_quorum_fails_the_writer_and_only_after_the_grace() -> None:
    """DESIGN 5: fewer than Qa live bookies."""
    bench = Bench()
    bench.append(b"x")
    bench.error(A, 0)
    bench.error(B, 0)
    bench.ok(C, 0)
    assert bench.writer.failure is None
    bench.now_ms = LIMITS.quorum_grace_ms
    for send in list(bench.sends):
        bench.writer.receive_error(send.request_id, UNREACHABLE, bench.now_ms)
    bench.writer.tick(bench.now_ms)
    bench.pump()
    for member in (A, B):
        if bench.writer.failure is None and len(bench.sends_to(member)) > 1:
            bench.error(member, 0)
    bench.now_ms += RETRY_FIRST_MS
    assert isinstance(bench.writer.failure, NotEnoughBookiesError)
    assert bench.failed == [1]
    with pytest.raises(NotEnoughBookiesError):
        bench.append(b"y")


def test_silence_is_a_failure() -> None:
    """5 s by default: request time-out, outcome unknown; the hanging connection is given up."""
    bench = Bench(spares=[D])
    bench.append(b"x")
    bench.ok(B, 0)
    bench.ok(C, 0)
    bench.now_ms = LIMITS.request_timeout_ms
    bench.writer.tick(bench.now_ms)
    bench.pump()
    assert bench.hung == [A]
    assert bench.store is not None


def test_one_fenced_answer_ends_the_writer_after_what_was_complete() -> None:
    """R-W2."""
    bench = Bench()
    bench.append(*[b"x"] * 4)
    bench.append(*[b"y"] * 4)
    bench.ok(A, 0)
    bench.writer.receive(bench.sent(B, 0).request_id, [(0, 3, OK)], 0)
    bench.writer.receive_error(bench.sent(C, 0).request_id, int(Code.FENCED), 0)
    bench.pump()
    assert bench.confirmed == [3]
    assert bench.failed == [4]
    assert isinstance(bench.writer.failure, LedgerFencedError)
    assert bench.writer.failure.happened is None
    bench.writer.close()
    assert bench.pump().store is None


def test_a_wrong_key_ends_the_writer() -> None:
    bench = Bench()
    bench.append(b"x")
    bench.error(A, 0, int(Code.UNAUTHORIZED))
    assert isinstance(bench.writer.failure, UnauthorizedError)


def changing(*, spares: Sequence[Member] = (D,)) -> Bench:
    bench = Bench(spares=list(spares))
    bench.append(b"x")
    bench.error(A, 0)
    assert bench.store is not None
    return bench


def test_a_change_whose_answer_was_lost_is_recognised() -> None:
    """R-M6: the re-read record already shows it."""
    bench = changing()
    assert bench.store is not None
    bench.conflicted(bench.store.metadata, 1)
    assert bench.writer.failure is None
    assert bench.writer.version == 1
    assert bench.sends_to(D) == [0]


def test_a_change_that_meets_recovery_ends_the_writer() -> None:
    """R-M7, 6.8."""
    bench = changing()
    bench.conflicted(bench.writer.metadata.in_recovery())
    assert isinstance(bench.writer.failure, LedgerFencedError)
    assert bench.store is None


def test_a_change_that_meets_a_closed_ledger_ends_the_writer() -> None:
    bench = changing()
    bench.conflicted(bench.writer.metadata.in_recovery().closed_at(-1, 0))
    assert isinstance(bench.writer.failure, LedgerClosedError)


def test_a_change_that_meets_a_repaired_older_fragment_is_applied_to_it() -> None:
    """12.6: the transform works on the re-read record."""
    bench = changing(spares=[D])
    bench.stored()
    bench.ok(D, 0)
    bench.ok(B, 0)
    bench.append(b"y")
    bench.spares = [A]
    bench.error(B, 1)
    repaired = bench.writer.metadata.with_member(0, 2, E)
    repaired = repaired.with_ensemble(1, (D, B, C)) if len(repaired.fragments) > 1 else repaired
    assert bench.store is not None
    first = bench.store.metadata.fragments[0]
    if len(bench.writer.metadata.fragments) == 1:
        # The last fragment itself was touched: nobody but us may do that.
        bench.conflicted(repaired)
        assert isinstance(bench.writer.failure, MetadataConflictError)
        assert first.first_entry_id == 0


def test_a_change_on_a_record_with_a_repaired_closed_fragment() -> None:
    bench = Bench(spares=[D])
    bench.append(b"x")
    bench.ok(B, 0)
    bench.ok(C, 0)
    bench.error(A, 0)
    bench.stored()  # fragments 0: a b c, 1: d b c
    bench.append(b"y")
    bench.spares = [A]
    bench.error(D, 1)
    bench.conflicted(bench.writer.metadata.with_member(0, 0, E), 7)
    assert bench.store is not None
    assert bench.store.version == 7
    assert bench.store.metadata.fragments == (Fragment(0, (E, B, C)), Fragment(1, (A, B, C)))


def test_a_deleted_ledger_ends_the_writer_at_its_next_change() -> None:
    bench = changing()
    bench.writer.vanished()
    assert isinstance(bench.writer.failure, NoSuchLedgerError)


def test_closing_waits_for_what_is_pending_then_stores_end_and_length() -> None:
    """4.10."""
    bench = Bench()
    bench.append(b"abc", b"de")
    bench.writer.close()
    bench.pump()
    assert bench.store is None
    with pytest.raises(LedgerClosedError):
        bench.append(b"z")
    bench.ok(A, 0)
    bench.ok(C, 0)
    assert bench.store is not None
    assert (bench.store.metadata.last_entry_id, bench.store.metadata.length) == (1, 5)
    bench.stored()
    assert bench.writer.closed


def test_an_empty_ledger_is_closed_at_minus_one() -> None:
    bench = Bench()
    bench.writer.close()
    bench.pump()
    assert bench.store is not None
    assert (bench.store.metadata.last_entry_id, bench.store.metadata.length) == (-1, 0)


def closing() -> Bench:
    bench = Bench()
    bench.writer.close()
    bench.pump()
    assert bench.store is not None
    return bench


def test_a_close_whose_answer_was_lost_is_recognised() -> None:
    """R-M6: CLOSED with exactly my values."""
    bench = closing()
    assert bench.store is not None
    bench.conflicted(bench.store.metadata)
    assert bench.writer.closed


def test_a_close_that_finds_other_values_fails() -> None:
    bench = closing()
    bench.conflicted(bench.writer.metadata.in_recovery().closed_at(4, 4))
    assert isinstance(bench.writer.failure, LedgerClosedError)


def test_a_close_that_meets_recovery_leaves_the_closing_to_it() -> None:
    """R-F7, the strict form."""
    bench = closing()
    bench.conflicted(bench.writer.metadata.in_recovery())
    assert isinstance(bench.writer.failure, LedgerFencedError)
    assert not bench.writer.closed


def test_giving_up_fails_what_is_pending_and_closes_at_the_lac() -> None:
    """4.10 step 1, R-W11: also in the middle of a change, whose late answer touches nothing."""
    bench = Bench(spares=[D])
    bench.append(b"abc")
    bench.ok(A, 0)
    bench.ok(B, 0)
    bench.append(b"y")
    bench.error(A, 1)
    assert bench.store is not None
    bench.writer.abandon()
    bench.pump()
    bench.stored()
    assert bench.sends_to(D) == []
    assert bench.failed == [1]
    assert bench.store is not None
    assert (bench.store.metadata.last_entry_id, bench.store.metadata.length) == (0, 3)


def test_what_cannot_be_an_entry_gets_no_id() -> None:
    """R-N11: checked before ids are given out."""
    bench = Bench()
    for bad in ((), ("text",), (b"x" * (ENTRY_BYTES_MAX + 1),), (bytearray(b"x"),)):
        with pytest.raises(IncorrectParameterError):
            bench.writer.append(bad, None)  # type: ignore[arg-type]
    bench.append(b"")
    assert bench.writer.last_add_pushed == 0


def test_outstanding_appends_are_bounded_in_entries_and_bytes() -> None:
    bench = Bench(limits=WriterLimits(outstanding_entries=3, outstanding_bytes=1000))
    bench.append(b"x", b"x")
    assert bench.writer.writable
    bench.append(b"x")
    assert not bench.writer.writable
    other = Bench(limits=WriterLimits(outstanding_bytes=1000))
    other.append(bytes(1000))
    assert not other.writer.writable


def test_a_straggler_holds_a_bounded_number_of_bytes() -> None:
    """One bookie answers nothing: the others go on until it owes too much, then its silence decides."""
    bench = Bench(limits=WriterLimits(straggler_bytes=3000, request_timeout_ms=1000))
    for k in range(10):
        bench.append(bytes(1000))
        if k in bench.sends_to(A):
            bench.ok(A, k)
            bench.ok(B, k)
    assert bench.writer.lac == 2
    bench.now_ms = 1000
    bench.writer.tick(bench.now_ms)
    bench.pump()
    assert bench.writer.down == [C]
    assert len(bench.sends_to(A)) == 4


def test_an_idle_writers_lac_is_worth_telling_once() -> None:
    """4.8."""
    bench = Bench()
    bench.append(b"x")
    assert bench.writer.take_explicit_lac() is None
    bench.ok(A, 0)
    bench.ok(B, 0)
    assert bench.writer.take_explicit_lac() == 0
    assert bench.writer.take_explicit_lac() is None


def test_with_striping_each_batch_has_one_write_set() -> None:
    """R-N12, DESIGN 5: batches are cut at multiples of the stripe unit."""
    bench = Bench(schedule=Schedule(4, 3, 2, 2))
    bench.append(*[b"x"] * 5)
    firsts = sorted({s.extent.first_entry_id for s in bench.sends})
    assert firsts == [0, 2, 4] or firsts[:1] == [0]
    for send in bench.sends:
        last = send.extent.last_entry_id
        assert send.extent.first_entry_id // 2 == last // 2
        place = (A, B, C, D).index(send.member)
        assert bench.schedule.holds(place, last)
