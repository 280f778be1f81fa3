"""When the leader asks for the deletion of containers and TTL nodes (specification 8.3)."""

from coord.protocol import opcodes as o
from coord.server.reaper import LOOKED_AT_MAX, Reaper, ReaperSettings
from tests.coord.tree.machine import WALL_MS, Machine

SETTINGS = ReaperSettings(interval_ms=1000, per_minute_max=600)


def emptied(count: int) -> Machine:
    """A tree with containers that have lost their only child."""
    machine = Machine()
    for number in range(count):
        machine.create(f"/c{number}", op=o.CREATE_CONTAINER)
        machine.create(f"/c{number}/k")
        machine.delete(f"/c{number}/k")
    return machine


def test_the_first_look_comes_an_interval_after_the_leadership_began() -> None:
    reaper, machine = Reaper(SETTINGS), emptied(1)
    assert reaper.take_due(machine.tree, WALL_MS, 5000) == []
    assert reaper.take_due(machine.tree, WALL_MS, 5999) == []
    assert reaper.take_due(machine.tree, WALL_MS, 6000) == [b"/c0"]
    assert reaper.take_due(machine.tree, WALL_MS, 6250) == []
    assert reaper.take_due(machine.tree, WALL_MS, 7000) == [b"/c0"]


def test_deletions_are_spread_evenly_over_the_minute() -> None:
    reaper, machine = Reaper(SETTINGS), emptied(40)
    taken = [len(reaper.take_due(machine.tree, WALL_MS, now)) for now in range(0, 4001, 250)]
    assert sum(taken) == 33  # one, and 10 a second from 750 to 4000
    assert max(taken) == 3


def test_a_pause_is_not_made_up_for_by_a_burst() -> None:
    reaper, machine = Reaper(SETTINGS), emptied(40)
    reaper.take_due(machine.tree, WALL_MS, 0)
    assert len(reaper.take_due(machine.tree, WALL_MS, 600_000)) <= 11


def test_a_call_looks_at_a_bounded_number_of_nodes() -> None:
    machine = Machine()
    for number in range(LOOKED_AT_MAX + 10):
        machine.create_ttl(f"/t{number:05d}", 1 << 30)
    machine.create_ttl("/due", 1)
    reaper = Reaper(SETTINGS)
    reaper.take_due(machine.tree, WALL_MS + 2, 0)
    assert reaper.take_due(machine.tree, WALL_MS + 2, 1000) == []
    assert reaper.take_due(machine.tree, WALL_MS + 2, 1001) == [b"/due"]


def test_what_went_meanwhile_is_passed_over() -> None:
    reaper, machine = Reaper(SETTINGS), emptied(5)
    for now in (0, 999):
        reaper.take_due(machine.tree, WALL_MS, now)
    first = reaper.take_due(machine.tree, WALL_MS, 1000)
    for number in range(4):
        machine.delete(f"/c{number}")
    assert (first, reaper.take_due(machine.tree, WALL_MS, 2000)) == ([b"/c0"], [b"/c4"])


def test_a_server_that_leads_no_longer_forgets_its_round() -> None:
    reaper, machine = Reaper(SETTINGS), emptied(5)
    reaper.take_due(machine.tree, WALL_MS, 0)
    reaper.take_due(machine.tree, WALL_MS, 1000)
    reaper.rest()
    assert reaper.take_due(machine.tree, WALL_MS, 1250) == []
    assert reaper.take_due(machine.tree, WALL_MS, 2249) == []
    assert len(reaper.take_due(machine.tree, WALL_MS, 2250)) == 1
