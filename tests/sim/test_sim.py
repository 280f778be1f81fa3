"""Seeds of the simulator that always run, and the test of the tester: each known defect is found within a
stated number of seeds. `python -m tests.sim --seeds N` runs more.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from coord.zab import Detection, Membership, Status
from coord.zab.digests import Mismatch
from tests.sim.defects import DEFECTS, introduced
from tests.sim.falsified import falsified
from tests.sim.faults import CALM, DAMAGED
from tests.sim.issues import ISSUES
from tests.sim.laws import LAWS, family_of
from tests.sim.tables import TABLES
from tests.sim.world import run_seed

pytestmark = pytest.mark.sim

SEEDS = range(1, 21)
TESTING = Path(__file__).parents[2] / "docs" / "testing.md"


@pytest.mark.parametrize("first", SEEDS[::10])
def test_all_laws_hold_under_faults(first: int) -> None:
    """Chapter 21, durability and progress."""
    for seed in range(first, first + 10):
        outcome = run_seed(seed)
        assert outcome.law is None, f"{outcome.text}\nreplay: python -m tests.sim --replay {seed}"
        assert outcome.simulated_ms > 0


@pytest.mark.parametrize("first", [1, 11, 21])
def test_all_laws_hold_while_damaged_logs_are_repaired(first: int) -> None:
    """A server whose log is whole again claims the epoch that it had, and no more; whatever it has promised
    meanwhile it keeps.
    """
    for seed in range(first, first + 10):
        outcome = run_seed(seed, profile=DAMAGED)
        assert outcome.law is None, outcome.text


@pytest.mark.parametrize("minimum_ms", [0, 1])
def test_all_laws_hold_with_phi_accrual(minimum_ms: int) -> None:
    """Chapter 21, with detectors that wait two ticks at least, and with some that wait as long as they like:
    faults make them wrong now and then, which costs elections and breaks no law.
    """
    for seed in range(101, 105):
        outcome = run_seed(seed, detection=Detection("phi", 4, minimum_ms))
        assert outcome.law is None, outcome.text


def test_phi_accrual_convicts_nobody_in_a_calm_network() -> None:
    """Without faults every server serves from its first day to its last."""
    for seed in range(1, 6):
        serving: set[int] = set()
        interrupted: list[object] = []
        note = partial(_note_interruption, serving, interrupted)
        outcome = run_seed(seed, note, CALM, Detection("phi"))
        assert outcome.law is None, outcome.text
        assert interrupted == []


def test_one_seed_is_one_story() -> None:
    """Replay shows what happened: the same seed gives the same events."""
    assert run_seed(7) == run_seed(7)


def test_epochs_that_run_out_of_zxids_are_followed_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """20.1: with 60 zxids in an epoch instead of 2^32 leaders take new ones all the time; all laws hold."""
    monkeypatch.setattr("coord.zab.leader.COUNTER_MAX", 60)
    for seed in range(1, 6):
        outcome = run_seed(seed)
        assert outcome.law is None, outcome.text
        assert outcome.epochs >= outcome.executed // 60


def test_epochs_that_run_out_of_zxids_interrupt_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """20.1, chapter 24: without faults every server serves from its first day to its last."""
    monkeypatch.setattr("coord.zab.leader.COUNTER_MAX", 60)
    for seed in range(1, 6):
        serving: set[int] = set()
        interrupted: list[object] = []
        outcome = run_seed(seed, partial(_note_interruption, serving, interrupted), CALM)
        assert outcome.law is None, outcome.text
        assert outcome.epochs >= outcome.executed // 60 > 5
        assert interrupted == []


@pytest.mark.parametrize("sid", [1, 2, 3])
def test_a_replica_that_executes_differently_is_found_and_repaired(sid: int) -> None:
    """20.8, DESIGN 4: whether it leads or follows; in the end all have one state and serve."""
    profile = replace(CALM, membership=Membership.of([1, 2, 3]))
    for seed in range(1, 6):
        found: list[object] = []
        installed: list[int] = []
        with falsified(sid):
            outcome = run_seed(seed, partial(_note_difference, found, installed), profile)
        assert outcome.law is None, outcome.text
        assert found
        assert all(isinstance(what, Mismatch) and what.sid == sid for what in found), found
        assert set(installed) == {sid}  # perhaps again, if the window has moved on


def _note_difference(
    found: list[object], installed: list[int], now_us: int, kind: str, sid: int, what: object
) -> None:
    if kind == "differs":
        found.append(what)
    elif kind == "installed":
        installed.append(sid)


def _note_interruption(
    serving: set[int], interrupted: list[object], now_us: int, kind: str, sid: int, what: object
) -> None:
    if kind == "status" and isinstance(what, Status):
        if what.serving:
            serving.add(sid)
        elif sid in serving:
            interrupted.append((now_us, sid, what))


@pytest.mark.parametrize("name", sorted(DEFECTS))
def test_known_defect_is_found(name: str) -> None:
    """DESIGN 9, test the tester: by a law of those that the table names. After a change of the core
    `--measure` says what they are now.
    """
    defect, broken = DEFECTS[name], []
    with introduced(name) as profile:
        for seed in range(1, defect.runs_max + 1):
            broken.append(run_seed(seed, profile=profile).law)
            if broken[-1] in defect.laws:
                return
    pytest.fail(f"{defect.runs_max} runs broke {set(broken)}, none of {defect.laws}")


def test_an_introduced_defect_leaves_with_its_context() -> None:
    before = {
        name: [patch.owner.__dict__[patch.name] for patch in each.patches] for name, each in DEFECTS.items()
    }
    for name in DEFECTS:
        with introduced(name):
            assert all(patch.owner.__dict__[patch.name] is patch.wrong for patch in DEFECTS[name].patches)
    after = {
        name: [patch.owner.__dict__[patch.name] for patch in each.patches] for name, each in DEFECTS.items()
    }
    assert after == before


def test_the_issues_name_switches_that_exist() -> None:
    assert {name for issue in ISSUES for name in issue.switches} <= DEFECTS.keys()


def test_chapter_21_is_among_the_laws_by_name() -> None:
    invariants = (
        "ShouldNotBeTriggered CheckDuringAction Leadership1 Leadership2 PrefixConsistency Integrity "
        "Agreement TotalOrder LocalPrimaryOrder GlobalPrimaryOrder PrimaryIntegrity stateInconsistent "
        "proposalInconsistent commitInconsistent ackInconsistent messageIllegal"
    )
    assert set(invariants.split()) <= LAWS.keys()
    assert all(meaning for meaning in LAWS.values())


def test_every_law_has_a_switch() -> None:
    """But for two that say from another side what a law before them has said already."""
    found = {law for defect in DEFECTS.values() for law in defect.laws}
    assert found | {"Agreement", "PrimaryIntegrityLater"} == LAWS.keys()


@pytest.mark.parametrize(
    ("incident", "family"),
    [
        ("server 2 sent its leader a Commit", "messageIllegal"),
        ("server 2 in JOINED acked 0x100000001, history at 0x100000001", "ackInconsistent"),
        ("AckNewLeader of server 2 in SYNCED", "ackInconsistent"),
        ("AckEpoch of server 2 in SYNCED", "stateInconsistent"),
        ("NewLeader at 0x1 in phase WAITING, history at 0x0", "stateInconsistent"),
        ("commit of 0x100000002, history at 0x100000001", "commitInconsistent"),
        ("batch 0x100000003 after 0x100000002 does not follow 0x100000001", "proposalInconsistent"),
        ("told to truncate to 0x1, which this history does not have", "proposalInconsistent"),
        ("epoch 4294967295 is more than zxids can hold", "ShouldNotBeTriggered"),
    ],
)
def test_an_incident_belongs_to_a_family(incident: str, family: str) -> None:
    """Chapter 21, the fields of ShouldNotBeTriggered."""
    assert family_of(incident) == family


@pytest.mark.parametrize("table", TABLES)
def test_the_page_shows_the_tables_of_the_code(table: str) -> None:
    """docs/testing.md; `python -m tests.sim --tables` prints them."""
    assert TABLES[table]() in TESTING.read_text(), f"docs/testing.md lacks the table of {table} as it is"
