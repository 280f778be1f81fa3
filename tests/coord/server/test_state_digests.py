"""Digests are taken as of the same zxids on all servers, and rarely."""

from coord.protocol.batch import Stamp
from coord.server.state import State
from coord.server.state_digests import DIGEST_INTERVAL, StateDigests
from coord.tree import DataTree


class Executor:
    """A state that batches move on, without a change."""

    def __init__(self) -> None:
        self.state = State(DataTree.fresh())
        self.digests = StateDigests(self.state)

    def execute(self, count: int, wall_ms: int) -> None:
        first = self.state.zxid + 1
        self.state.tree.last_zxid += count
        self.digests.on_executed(Stamp(1, wall_ms, first, count, 0))

    @property
    def zxids(self) -> list[int]:
        return [zxid for zxid, _ in self.digests.kept]


def test_small_batches_are_digested_once_in_an_interval() -> None:
    executor = Executor()
    for _ in range(30):
        executor.execute(10, wall_ms=0)
    assert executor.zxids == [10, 130, 260]


def test_large_batches_are_digested_once_a_second() -> None:
    executor = Executor()
    for wall_ms in (0, 400, 800, 1200, 1600, 2000):
        executor.execute(2 * DIGEST_INTERVAL, wall_ms)
    assert executor.zxids == [256, 4 * 256, 6 * 256]


def test_a_server_that_begins_later_takes_digests_where_the_others_do() -> None:
    one, other = Executor(), Executor()
    for number in range(200):
        one.execute(1 + number % 40, wall_ms=number * 30)
        if number == 50:
            other.state.tree.last_zxid = one.state.zxid
        elif number > 50:
            other.execute(1 + number % 40, wall_ms=number * 30)
    later = [zxid for zxid in one.zxids if zxid > other.zxids[0]]
    assert len(later) > 20
    assert other.zxids[1:] == later


def test_an_idle_server_takes_one_where_it_stands() -> None:
    executor = Executor()
    executor.execute(1, wall_ms=0)
    executor.execute(1, wall_ms=0)
    executor.digests.on_idle()
    assert executor.zxids == [1]
    executor.digests.on_idle()
    executor.digests.on_idle()
    assert executor.zxids == [1, 2]


def test_a_state_in_the_place_of_another_is_digested_anew() -> None:
    executor = Executor()
    executor.execute(1, wall_ms=0)
    tree = DataTree.fresh()
    tree.last_zxid = 1
    executor.state.replace(tree)
    executor.digests.take()
    assert executor.zxids == [1, 1]


def test_each_is_told_once() -> None:
    executor = Executor()
    executor.execute(1, wall_ms=0)
    assert executor.digests.take_untold() == list(executor.digests.kept)
    assert executor.digests.take_untold() == []


def test_the_digest_covers_the_counters_too() -> None:
    """DESIGN 4: two servers whose nodes are alike may still go apart at the next create."""
    one, other = Executor(), Executor()
    other.state.tree.next_number += 1
    for executor in (one, other):
        executor.execute(1, wall_ms=0)
    assert list(one.digests.kept) != list(other.digests.kept)
