"""The simulation keeps the laws of 7.5, and finds out when a rule is dropped (17.15: test the tester)."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bookie.ledger.distribution import Schedule
from bookie.ledger.errors import MetadataError
from bookie.ledger.extent import Extent
from bookie.ledger.metadata import LedgerMetadata
from bookie.ledger.pipeline import Pipeline
from bookie.ledger.recovery import Phase, Recovery
from bookie.ledger.wire import AddReply, Code
from tests.bookie.fake_bookie import FakeBookie
from tests.bookie.ledger_simulation import LawBrokenError, simulate

SEEDS = 800
MUTANT_SEEDS = 6_000


@pytest.mark.sim
@pytest.mark.parametrize("striped", [False, True])
def test_no_seed_breaks_a_law(striped: bool) -> None:
    """7.5 (1) to (4), (7), (8)."""
    for seed in range(SEEDS):
        simulate(1_000_000 + seed, striped=striped)


def acknowledge_during_change(patch: pytest.MonkeyPatch) -> None:
    """R-W4: the ack loop runs on while the new ensemble is being stored."""
    confirm = Pipeline.confirm

    def careless(self: Pipeline) -> list:
        change, self.change = self.change, None
        try:
            return confirm(self)
        finally:
            self.change = change

    patch.setattr(Pipeline, "confirm", careless)


def keep_acks_of_replaced(patch: pytest.MonkeyPatch) -> None:
    """R-W9: what replaced bookies stored goes on counting."""
    install = Pipeline.install

    def careless(self: Pipeline, now_ms: int) -> None:
        acked = [(batch, batch.acked) for batch in self.pending]
        install(self, now_ms)
        for batch, places in acked:
            batch.acked |= places

    patch.setattr(Pipeline, "install", careless)


def start_above_pending(patch: pytest.MonkeyPatch) -> None:
    """R-W6: the new fragment begins above entries that are not confirmed."""
    plan = Pipeline._plan

    def careless(self: Pipeline, start: int, now_ms: int) -> None:
        plan(self, self.pending[-1].last_entry_id + 1 if self.pending else start, now_ms)

    patch.setattr(Pipeline, "_plan", careless)


def one_denial_is_enough(patch: pytest.MonkeyPatch) -> None:
    """6.1-read: an entry ends the ledger when a single bookie denies it."""
    patch.setattr(Schedule, "negatives_needed", property(lambda _: 1))
    patch.setattr(Schedule, "covers", lambda self, unknown: len(unknown) < self.ensemble_size)


def no_floor(patch: pytest.MonkeyPatch) -> None:
    """R-F1: recovery begins at the highest LAC heard, even below the last fragment."""
    look = Recovery._look_for_coverage

    def careless(self: Recovery) -> None:
        look(self)
        if self._pipeline is not None and self._witnesses:
            self._lac0 = max(witness.lac for witness in self._witnesses.values())
            self._next_entry_id = self._lac0 + 1
            self._pipeline.lac = self._lac0

    patch.setattr(Recovery, "_look_for_coverage", careless)


def advancing_lac(patch: pytest.MonkeyPatch) -> None:
    """R-F8: write-backs carry the recoverer's own LAC."""
    rewrite = Extent.rewrite

    def careless(self: Extent, first: int, last: int, lac: int, sealer: object) -> object:
        return rewrite(self, first, last, first - 1, sealer)

    patch.setattr(Extent, "rewrite", careless)


def no_declaration(patch: pytest.MonkeyPatch) -> None:
    """6.2-declare: fences go out while the writer can still move on; the close alone is compared and set."""

    def hasty(self: Recovery, now_ms: int) -> None:
        if not self.metadata.closed:
            self._begin_fencing(now_ms)

    def insist(self: Recovery, metadata: LedgerMetadata, version: int, now_ms: int) -> None:
        self.metadata, self.version = metadata, version
        if metadata.closed:
            self.phase = Phase.DONE
        else:
            self._propose_close()

    patch.setattr(Recovery, "start", hasty)
    patch.setattr(Recovery, "conflicted", insist)


def batch_duplicates(patch: pytest.MonkeyPatch) -> None:
    """R-B7-batch: the first id is present, so the batch is a duplicate."""
    add = FakeBookie._add

    def careless(self: FakeBookie, message: object, body: bytes) -> AddReply:
        extent = Extent(body)
        ledger = self.ledgers.get(extent.ledger_id)
        if ledger is not None and extent.first_entry_id in ledger.entries:
            return AddReply(((extent.first_entry_id, extent.last_entry_id, int(Code.OK)),))
        return add(self, message, body)

    patch.setattr(FakeBookie, "_add", careless)


def inexact_testimony(patch: pytest.MonkeyPatch) -> None:
    """R-N8-exact: "I hold up to k" instead of the ranges, k being the end of the first run."""
    testify = FakeBookie._fence_and_testify

    def careless(self: FakeBookie, message: object) -> object:
        reply = testify(self, message)
        return replace(reply, held=reply.held[:1])

    patch.setattr(FakeBookie, "_fence_and_testify", careless)


def forgetful_fence(patch: pytest.MonkeyPatch) -> None:
    """R-B3: the fence is in memory only when it is answered."""
    change = FakeBookie._change

    def careless(self: FakeBookie, ledger_id: int, ledger: object, what: tuple) -> None:
        if what == ("fence",):
            ledger.fenced = True
        else:
            change(self, ledger_id, ledger, what)

    patch.setattr(FakeBookie, "_change", careless)


MUTANTS = [
    acknowledge_during_change,
    keep_acks_of_replaced,
    start_above_pending,
    one_denial_is_enough,
    no_floor,
    advancing_lac,
    no_declaration,
    batch_duplicates,
    inexact_testimony,
    forgetful_fence,
]


@pytest.mark.slow
@pytest.mark.parametrize("drop", MUTANTS)
def test_a_dropped_rule_is_found(
    drop: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """17.15: the drops of the model are the switches that the simulation must find."""
    drop(monkeypatch)
    with pytest.raises((LawBrokenError, AssertionError, MetadataError)):
        for seed in range(MUTANT_SEEDS):
            simulate(seed)
