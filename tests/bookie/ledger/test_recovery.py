"""Recovery's rules of chapter 6, message by message: fake bookies act when a test delivers."""

from collections.abc import Set
from dataclasses import dataclass, field
from typing import Any

import pytest

from bookie.ledger.distribution import Schedule
from bookie.ledger.errors import (
    TIMEOUT,
    UNREACHABLE,
    LedgerRecoveryError,
    MetadataConflictError,
    NoSuchLedgerError,
    UnauthorizedError,
)
from bookie.ledger.extent import Extent, encode_extent
from bookie.ledger.metadata import Ensemble, Fragment, LedgerMetadata, LedgerState, Member
from bookie.ledger.recovery import DEFAULT_RECOVERY_LIMITS, Phase, Recovery, RecoveryLimits
from bookie.ledger.wire import Add, AddFlag, Code, Fence, FenceReply, Read, ReadFlag
from bookie.ledger.witness import Witness
from bookie.ledger.writer import Writer
from tests.bookie.fake_bookie import FakeBookie, Refused

KEY = b"k" * 20
LEDGER = 5
NAMES = "abcde"
A, B, C, D, E = (Member(name, 1) for name in NAMES)


@dataclass
class Store:
    """The record of one ledger."""

    record: LedgerMetadata
    version: int = 0


@dataclass
class Scene:
    """Bookies, the store, and what recoverers owe; nothing is delivered unless a test says so."""

    fragments: tuple[Fragment, ...] = (Fragment(0, (A, B, C)),)
    schedule: Schedule = field(default_factory=lambda: Schedule(3, 3, 2))
    spares: list[Member] = field(default_factory=list)
    now_ms: int = 0

    def __post_init__(self) -> None:
        self.bookies = {Member(n, 1): FakeBookie(n) for n in NAMES}
        self.store = Store(LedgerMetadata(self.schedule, LedgerState.OPEN, self.fragments, token=1))

    def replace(self, ensemble: Ensemble, index: int, excluded: Set[Member]) -> Member | None:
        ids = {m.bookie_id for place, m in enumerate(ensemble) if place != index}
        return next((m for m in self.spares if m not in excluded and m.bookie_id not in ids), None)

    def put(
        self, member: Member, first: int, *payloads: bytes, lac: int = -1, base: int = 0, flags: int = 0
    ) -> Any:
        extent = encode_extent(LEDGER, first, lac, base, list(payloads))
        return self.bookies[member].answer(Add(LEDGER, flags, KEY, extent.checksum), extent.data)

    def held(self, member: Member) -> list[int]:
        ledger = self.bookies[member].ledgers.get(LEDGER)
        return sorted(ledger.entries) if ledger else []


class Driver:
    """One recoverer on a scene; `fences`, `reads`, `sends`, `stores` are owed and not delivered."""

    def __init__(self, scene: Scene, *, limits: RecoveryLimits = DEFAULT_RECOVERY_LIMITS) -> None:
        self.scene = scene
        self.core = Recovery(LEDGER, scene.store.record, scene.store.version, scene, limits=limits)
        self.fences: list[Any] = []
        self.reads: list[Any] = []
        self.sends: list[Any] = []
        self.stores: list[Any] = []
        self.core.start(scene.now_ms)
        self.pump()

    def pump(self) -> None:
        ready = self.core.take_ready(self.scene.now_ms)
        self.fences += ready.fences
        self.reads += ready.reads
        self.sends += ready.sends
        if ready.store is not None:
            self.stores.append(ready.store)

    def deliver_store(self, *, lose_answer: bool = False) -> None:
        store, place = self.stores.pop(0), self.scene.store
        if store.version == place.version:
            place.record, place.version = store.metadata, place.version + 1
            if not lose_answer:
                self.core.stored(place.version, self.scene.now_ms)
                self.pump()
                return
        self.core.conflicted(place.record, place.version, self.scene.now_ms)
        self.pump()

    def deliver_fence(self, member: Member, *, lose_answer: bool = False) -> None:
        send = next(s for s in self.fences if s.member == member)
        self.fences.remove(send)
        try:
            reply, _ = self.scene.bookies[member].answer(Fence(LEDGER, KEY, send.floor))
        except Refused as refused:
            self.core.receive_fence_error(send.request_id, refused.code)
        else:
            if not lose_answer:
                self.core.receive_fence(send.request_id, reply)
        self.pump()

    def fail_fence(self, member: Member, code: int = UNREACHABLE) -> None:
        send = next(s for s in self.fences if s.member == member)
        self.fences.remove(send)
        self.core.receive_fence_error(send.request_id, code)
        self.pump()

    def deliver_read(self) -> None:
        send = self.reads.pop(0)
        flags = int(ReadFlag.FENCE) if send.fence else 0
        message = Read(LEDGER, send.first, send.last, 0, send.max_bytes, flags, KEY)
        try:
            reply, body = self.scene.bookies[send.member].answer(message)
        except Refused as refused:
            self.core.receive_read_error(send.request_id, refused.code)
        else:
            self.core.receive_read(send.request_id, reply, body, self.scene.now_ms)
        self.pump()

    def deliver_add(self, member: Member) -> None:
        send = next(s for s in self.sends if s.member == member)
        self.sends.remove(send)
        message = Add(LEDGER, int(AddFlag.RECOVERY), KEY, send.extent.checksum)
        reply, _ = self.scene.bookies[member].answer(message, send.extent.data)
        self.core.receive_add(send.request_id, reply.runs, self.scene.now_ms)
        self.pump()

    def fail_add(self, member: Member, code: int = UNREACHABLE) -> None:
        send = next(s for s in self.sends if s.member == member)
        self.sends.remove(send)
        self.core.receive_add_error(send.request_id, code, self.scene.now_ms)
        self.pump()

    def step(self) -> bool:
        """Deliver one thing, whichever is first; false when nothing is owed."""
        if self.stores:
            self.deliver_store()
        elif self.fences:
            self.deliver_fence(self.fences[0].member)
        elif self.reads:
            self.deliver_read()
        elif self.sends:
            self.deliver_add(self.sends[0].member)
        else:
            return False
        return True

    def run(self) -> LedgerMetadata:
        while not self.core.done and self.step():
            assert self.core.failure is None, self.core.failure
        assert self.core.done
        return self.core.metadata


def test_nothing_is_fenced_before_the_declaration_is_confirmed() -> None:
    """6.2-declare, R-N8 (a)."""
    driver = Driver(Scene())
    assert driver.fences == []
    assert driver.stores[0].metadata.state is LedgerState.IN_RECOVERY
    driver.deliver_store()
    assert [f.member for f in driver.fences] == [A, B, C]


def test_a_closed_ledger_needs_nobody() -> None:
    """6.2 step 0."""
    scene = Scene()
    scene.store.record = scene.store.record.closed_at(3, 9)
    assert Driver(scene).core.done


def test_a_ledger_never_written_is_closed_empty() -> None:
    """6.7: the fences create it on the bookies, fenced (R-B4)."""
    scene = Scene()
    metadata = Driver(scene).run()
    assert (metadata.last_entry_id, metadata.length) == (-1, 0)
    with pytest.raises(Refused) as refused:
        scene.put(A, 0, b"late")
    assert refused.value.code == Code.FENCED


def test_an_empty_last_fragment_is_closed_below_its_first_entry() -> None:
    """6.7, R-F1, R-F6: the length is read from the last entry, in the fragment before."""
    scene = Scene(fragments=(Fragment(0, (A, B, C)), Fragment(2, (A, B, D))))
    for member in (A, B, C):
        scene.put(member, 0, b"xx", b"yyy")
    metadata = Driver(scene).run()
    assert (metadata.last_entry_id, metadata.length) == (1, 5)


def test_what_one_bookie_holds_is_written_back_to_an_ack_quorum() -> None:
    """6.2 step 5, R-F8: with LAC0 in its head and the writer's lengths."""
    scene = Scene()
    for member in (A, B, C):
        scene.put(member, 0, b"xx")
    scene.put(A, 1, b"yyy", lac=0, base=2)
    metadata = Driver(scene).run()
    assert (metadata.last_entry_id, metadata.length) == (1, 5)
    holders = [m for m in (A, B, C) if 1 in scene.held(m)]
    assert len(holders) >= 2
    assert scene.bookies[holders[1]].ledgers[LEDGER].entries[1].lac == 0
    assert scene.bookies[holders[1]].ledgers[LEDGER].entries[1].base_length == 2


def test_write_backs_carry_lac0_to_the_end() -> None:
    """R-F8: never the recoverer's own advancing LAC."""
    scene = Scene()
    for entry_id in range(4):
        scene.put(A, entry_id, b"x", lac=-1, base=entry_id)
    driver = Driver(scene, limits=RecoveryLimits(read_bytes=1))
    driver.run()
    lacs = {
        entry.lac for member in (B, C) for entry in scene.bookies[member].ledgers[LEDGER].entries.values()
    }
    assert lacs == {-1}


def test_coverage_is_enough_and_less_is_not() -> None:
    """6.1: 3/2 needs two fences; the third may stay silent."""
    driver = Driver(Scene())
    driver.deliver_store()
    driver.deliver_fence(A)
    assert driver.core.phase is Phase.FENCE
    driver.deliver_fence(C)
    assert driver.core.phase is Phase.CLOSE


def test_without_coverage_the_ledger_stays_in_recovery() -> None:
    scene = Scene()
    driver = Driver(scene)
    driver.deliver_store()
    driver.deliver_fence(A)
    driver.fail_fence(B)
    driver.fail_fence(C, TIMEOUT)
    assert isinstance(driver.core.failure, LedgerRecoveryError)
    assert scene.store.record.state is LedgerState.IN_RECOVERY
    assert Driver(scene).run().last_entry_id == -1  # later, by anybody


def test_a_wrong_password_ends_it() -> None:
    scene = Scene()
    scene.bookies[A].answer(Fence(LEDGER, b"other key", -1))
    driver = Driver(scene)
    driver.deliver_store()
    driver.deliver_fence(A)
    assert isinstance(driver.core.failure, UnauthorizedError)


def test_a_silent_bookie_is_given_up_in_time() -> None:
    scene = Scene()
    driver = Driver(scene, limits=RecoveryLimits(request_timeout_ms=100))
    driver.deliver_store()
    driver.deliver_fence(A)
    scene.now_ms = 100
    driver.core.tick(100)
    assert driver.core.take_ready(100).hung == []
    assert isinstance(driver.core.failure, LedgerRecoveryError)


def test_limbo_denies_nothing() -> None:
    """R-N8 (e), 6.4: two bookies, one in limbo: no coverage from its silence about an entry."""
    driver = Driver(Scene())
    driver.deliver_store()
    driver.deliver_fence(A)
    send = driver.fences[0]
    driver.core.receive_fence(send.request_id, FenceReply(-1, -1, (), limbo=True))
    driver.pump()
    assert driver.core.phase is Phase.FENCE
    driver.fences.pop(0)
    driver.deliver_fence(C)
    assert driver.core.phase is Phase.CLOSE


def test_limbo_may_name_what_it_holds() -> None:
    """R-N8 (e): what the limbo bookie holds is read from it."""
    scene = Scene()
    scene.put(B, 0, b"kept")
    driver = Driver(scene)
    driver.deliver_store()
    send = next(f for f in driver.fences if f.member == B)
    driver.fences.remove(send)
    driver.core.receive_fence(send.request_id, FenceReply(-1, -1, ((0, 0),), limbo=True))
    assert driver.run().last_entry_id == 0


def test_an_entry_behind_a_hole_ends_at_the_hole() -> None:
    """R-N8 (c): ids are exact; the first entry denied by enough bookies ends the ledger."""
    scene = Scene()
    scene.put(A, 0, b"x")
    scene.put(A, 2, b"z", base=2)
    driver = Driver(scene)
    assert driver.run().last_entry_id == 0


def test_a_listed_entry_that_cannot_be_read_becomes_unknown_there() -> None:
    """R-N8 (f): the others' answers decide: another copy, a coverage of denials, or failure."""
    scene = Scene()
    for member in (A, B):
        scene.put(member, 0, b"x")
    scene.bookies[A].unreadable.add((LEDGER, 0))
    assert Driver(scene).run().last_entry_id == 0

    denied = Scene()
    denied.put(A, 0, b"x")
    denied.bookies[A].unreadable.add((LEDGER, 0))
    assert Driver(denied).run().last_entry_id == -1

    doubtful = Scene(schedule=Schedule(3, 3, 1))
    doubtful.put(A, 0, b"x")
    doubtful.bookies[A].unreadable.add((LEDGER, 0))
    driver = Driver(doubtful)
    while driver.core.failure is None and driver.step():
        pass
    assert isinstance(driver.core.failure, LedgerRecoveryError)


def test_a_testimony_that_was_cut_is_asked_for_its_rest() -> None:
    """R-N8 (c), RANGES_MAX: beyond `through` an answer says nothing."""
    scene = Scene()
    for member in (A, B, C):
        for entry_id in range(4):
            scene.put(member, entry_id, b"x", base=entry_id)
    driver = Driver(scene)
    driver.deliver_store()
    for send in list(driver.fences):
        driver.core.receive_fence(send.request_id, FenceReply(-1, -1, ((0, 1),), through=1))
    driver.fences.clear()
    driver.pump()
    assert driver.run().last_entry_id == 3


@pytest.mark.parametrize(
    "reply",
    [
        FenceReply(-1, -1, ((3, 2),)),
        FenceReply(-1, -1, ((0, 2), (2, 3))),
        FenceReply(-1, 4, ((3, 5),)),
        FenceReply(5, 4, ()),
        FenceReply(-2, -1, ()),
        FenceReply(-1, 4, (), through=3),
    ],
)
def test_a_testimony_that_contradicts_itself_is_unknown(reply: FenceReply) -> None:
    with pytest.raises(ValueError):
        Witness(reply)
    driver = Driver(Scene())
    driver.deliver_store()
    driver.core.receive_fence(driver.fences[0].request_id, reply)
    driver.pump()
    assert driver.core.phase is Phase.FENCE


def test_defect_1_the_unfenced_third_bookie() -> None:
    """7.2 defect 1 (#2614), step by step: b3 can deny e0 only by being fenced, so its ack never comes."""
    scene = Scene()
    writer = Writer(LEDGER, scene.store.record, 0, scene)
    writer.append([b"e0"], "e0")
    adds = {send.member: send for send in writer.take_ready(0).sends}
    reply = scene.put(B, 0, b"e0")[0]  # 1: A's is lost, B stores it, C's is delayed
    writer.receive(adds[B].request_id, reply.runs, 0)
    driver = Driver(scene)
    driver.deliver_store()
    driver.deliver_fence(A)
    driver.deliver_fence(B)  # 2: coverage, C's fence is lost
    assert driver.core.phase is Phase.COPY
    driver.run()  # B holds e0 and says so: it is kept
    assert driver.core.metadata.last_entry_id == 0


def test_defect_1_with_the_holder_silent() -> None:
    """The same with A and C as witnesses: both deny e0, fenced, and the delayed add is refused."""
    scene = Scene()
    scene.put(B, 0, b"e0")
    driver = Driver(scene)
    driver.deliver_store()
    driver.deliver_fence(A)
    driver.deliver_fence(C)
    while driver.stores or driver.reads or driver.sends:
        if driver.stores:
            driver.deliver_store()
    assert driver.core.metadata.last_entry_id == -1
    for member in (A, C):
        with pytest.raises(Refused) as refused:
            scene.put(member, 0, b"e0")
        assert refused.value.code == Code.FENCED


def test_defect_2_the_floor_of_the_last_fragment() -> None:
    """7.2 defect 2 (#2615): nothing below the last fragment is read or written through the last ensemble."""
    scene = Scene(
        schedule=Schedule(2, 2, 2), fragments=(Fragment(0, (A, B)), Fragment(3, (D, E))), spares=[C]
    )
    for member in (A, B):
        scene.put(member, 0, b"0", b"1", b"2")
    driver = Driver(scene)
    driver.deliver_store()
    assert all(fence.floor == 2 for fence in driver.fences)
    metadata = driver.run()
    assert driver.core.lac0 == 2
    assert (metadata.last_entry_id, metadata.length) == (2, 3)
    assert metadata.fragments == scene.fragments
    assert scene.held(D) == scene.held(E) == []


def test_a_failed_write_back_changes_the_ensemble_in_memory_until_the_close() -> None:
    """6.2 step 5, R-F3: the store hears of the new ensemble with the close."""
    scene = Scene(spares=[D])
    scene.put(A, 0, b"x")
    driver = Driver(scene)
    driver.deliver_store()
    for member in (A, B, C):
        driver.deliver_fence(member)
    driver.deliver_read()
    driver.fail_add(B)
    assert driver.stores == []
    assert D in [send.member for send in driver.sends]
    metadata = driver.run()
    assert metadata.fragments == (Fragment(0, (A, D, C)),)


def test_without_a_spare_the_write_back_needs_an_ack_quorum_only() -> None:
    """DESIGN 5: the recoverer too keeps a failed bookie in place."""
    scene = Scene()
    scene.put(A, 0, b"x")
    driver = Driver(scene)
    driver.deliver_store()
    for member in (A, B):
        driver.deliver_fence(member)
    driver.deliver_read()
    driver.fail_add(C)
    metadata = driver.run()
    assert metadata.last_entry_id == 0
    assert metadata.fragments == scene.fragments


def test_a_late_testimony_is_one_more_holder() -> None:
    """R-N8 (g)."""
    scene = Scene()
    scene.put(C, 0, b"x")
    driver = Driver(scene)
    driver.deliver_store()
    driver.deliver_fence(A)
    driver.deliver_fence(C)
    driver.deliver_fence(B)
    assert driver.run().last_entry_id == 0


@pytest.mark.parametrize("steps", range(14))
def test_a_recoverer_that_dies_after_any_step_is_followed_by_another(steps: int) -> None:
    """17.4."""
    scene = Scene()
    scene.put(A, 0, b"x")
    scene.put(B, 0, b"x")
    scene.put(C, 0, b"x")
    scene.put(C, 1, b"y", lac=0, base=1)
    first = Driver(scene)
    for _ in range(steps):
        first.step()
    metadata = Driver(scene).run()
    assert (metadata.last_entry_id, metadata.length) == (1, 2)


@pytest.mark.parametrize("pattern", range(1, 128, 3))
def test_two_recoverers_interleaved_agree(pattern: int) -> None:
    """6.6, 17.4: one wins the close, the other adopts its result."""
    scene = Scene()
    scene.put(A, 0, b"x")
    scene.put(B, 0, b"x")
    scene.put(C, 0, b"x")
    scene.put(C, 1, b"y", lac=0, base=1)
    one, two = Driver(scene), Driver(scene)
    for turn in range(200):
        (one if pattern >> turn % 7 & 1 else two).step()
        if one.core.done and two.core.done:
            break
        if turn > 100:
            one.step()
            two.step()
    assert one.core.failure is None
    assert two.core.failure is None
    assert one.core.metadata == two.core.metadata == scene.store.record
    assert one.core.metadata.last_entry_id == 1


def test_a_loser_adopts_the_winners_end_though_it_saw_more() -> None:
    """6.6: an unacknowledged entry that only one of them saw."""
    scene = Scene()
    scene.put(C, 0, b"x")
    seer, blind = Driver(scene), Driver(scene)
    seer.deliver_store()
    blind.deliver_store()
    for member in (A, B):
        blind.deliver_fence(member)
    blind.deliver_store()
    assert blind.core.metadata.last_entry_id == -1
    for member in (A, C):
        seer.deliver_fence(member)
    assert seer.run().last_entry_id == -1


@pytest.mark.parametrize("which", ["declare", "close"])
def test_a_lost_answer_of_the_store_is_no_conflict(which: str) -> None:
    """R-M6."""
    scene = Scene()
    driver = Driver(scene)
    driver.deliver_store(lose_answer=which == "declare")
    driver.deliver_fence(A)
    driver.deliver_fence(B)
    driver.deliver_store(lose_answer=which == "close")
    assert driver.core.done
    assert scene.store.record.last_entry_id == -1


def test_a_writer_that_closes_first_wins() -> None:
    """6.8: declared too late: the writer's values are the ledger's."""
    scene = Scene()
    driver = Driver(scene)
    scene.store = Store(scene.store.record.closed_at(7, 70), 1)
    driver.deliver_store()
    assert driver.core.done
    assert driver.core.metadata.last_entry_id == 7
    assert driver.fences == []


def test_an_ensemble_change_before_the_declaration_is_seen() -> None:
    """6.2 step 2: the last ensemble as of the declaration is the one fenced."""
    scene = Scene()
    driver = Driver(scene)
    scene.store = Store(scene.store.record.with_ensemble(0, (A, B, D)), 1)
    driver.deliver_store()
    driver.deliver_store()
    assert [f.member for f in driver.fences] == [A, B, D]


def test_a_repaired_older_fragment_is_kept_at_the_close() -> None:
    """R-F4, R-A5."""
    scene = Scene(fragments=(Fragment(0, (A, B, C)), Fragment(1, (A, B, D))))
    for member in (A, B, C):
        scene.put(member, 0, b"x")
    driver = Driver(scene)
    driver.deliver_store()
    scene.store = Store(scene.store.record.with_member(0, 2, E), scene.store.version + 1)
    metadata = driver.run()
    assert metadata.fragments[0].ensemble == (A, B, E)


def test_a_changed_last_fragment_is_a_defect_that_stops_it() -> None:
    """R-F4: it cannot happen while R-A2 holds."""
    scene = Scene()
    driver = Driver(scene)
    driver.deliver_store()
    driver.deliver_fence(A)
    driver.deliver_fence(B)
    scene.store = Store(scene.store.record.with_member(0, 2, E), scene.store.version + 1)
    driver.deliver_store()
    assert isinstance(driver.core.failure, MetadataConflictError)


def test_a_deleted_ledger_ends_it() -> None:
    driver = Driver(Scene())
    driver.core.vanished()
    assert isinstance(driver.core.failure, NoSuchLedgerError)


def test_copies_of_another_history_are_not_believed() -> None:
    """R-N5: the cumulative length of a copy has to go on where the last one ended."""
    scene = Scene()
    for member in (A, B):
        scene.put(member, 0, b"xx")
    scene.put(A, 1, b"y", base=7)
    scene.put(B, 1, b"y", base=2)
    metadata = Driver(scene, limits=RecoveryLimits(read_bytes=1)).run()
    assert (metadata.last_entry_id, metadata.length) == (1, 3)
    assert Extent(encode_extent(LEDGER, 0, -1, 0, [b"xx"]).data).end_length == 2


def test_with_striping_each_write_set_is_covered() -> None:
    """6.1 per write set: E4 Qw3 Qa2: two fences of four leave a write set uncovered."""
    scene = Scene(schedule=Schedule(4, 3, 2, 2), fragments=(Fragment(0, (A, B, C, D)),))
    driver = Driver(scene)
    driver.deliver_store()
    driver.deliver_fence(A)
    driver.deliver_fence(B)
    assert driver.core.phase is Phase.FENCE
    driver.deliver_fence(D)
    assert driver.core.phase is Phase.CLOSE
