"""Seeds of whole servers that always run, and the test of the tester for the laws of sessions, watches and
storage. `python -m tests.sim --servers --seeds N` runs more.
"""

import pytest

from tests.sim.defects import patched
from tests.sim.servers.defects import SERVER_DEFECTS
from tests.sim.servers.laws import SERVER_LAWS
from tests.sim.servers.world import run_servers

pytestmark = pytest.mark.sim

BORROWED = {
    "TotalOrder",
    "CheckDuringAction",
    "messageIllegal",
    "ShouldNotBeTriggered",
    "Durability",
    "ElectableLeads",
}
"""Laws that have their switches at the first level, where the same steps are wrong."""


@pytest.mark.parametrize("first", [1, 4])
def test_all_laws_hold_under_faults(first: int) -> None:
    for seed in range(first, first + 3):
        outcome = run_servers(seed)
        replay = f"python -m tests.sim --servers --replay {seed}"
        assert outcome.law is None, f"{outcome.text}\nreplay: {replay}"
        assert outcome.acknowledged > 0


def test_one_seed_is_one_story() -> None:
    assert run_servers(8) == run_servers(8)


@pytest.mark.parametrize("name", sorted(SERVER_DEFECTS))
def test_known_defect_is_found(name: str) -> None:
    """By a law of those that the table names; `--servers --measure` says what they are."""
    defect, broken = SERVER_DEFECTS[name], []
    with patched(defect) as profile:
        for seed in range(1, defect.runs_max + 1):
            broken.append(run_servers(seed, profile=profile).law)
            if broken[-1] in defect.laws:
                return
    pytest.fail(f"{defect.runs_max} runs broke {set(broken)}, none of {defect.laws}")


def test_every_law_of_servers_has_a_switch() -> None:
    found = {law for defect in SERVER_DEFECTS.values() for law in defect.laws}
    assert found | BORROWED == SERVER_LAWS.keys()
