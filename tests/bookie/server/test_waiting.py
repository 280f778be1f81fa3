"""Parked requests: bounded, answered once, and never kept alive for nothing (R-R2)."""

from bookie.server.waiting import Waiter, WaitingRoom


class Room:
    def __init__(self, waiters_max=100):
        self.watched: set[int] = set()
        self.answered: list[str] = []
        self.room = WaitingRoom(self.watched, waiters_max)

    def park(self, name, *, ledger=1, previous=0, owner="peer", deadline=1000):
        return self.room.park(Waiter(ledger, previous, owner, lambda: self.answered.append(name)), deadline)


def test_a_waiter_is_answered_at_the_end_of_the_tick_in_which_the_lac_passes_it():
    room = Room()
    room.park("a", previous=3)
    room.park("b", previous=5)
    room.room.on_lac(1, 4)
    assert room.answered == []
    room.room.answer_risen()
    assert room.answered == ["a"]
    room.room.answer_risen()
    assert room.answered == ["a"]
    assert len(room.room) == 1


def test_only_ledgers_that_somebody_waits_for_are_watched():
    room = Room()
    room.park("a", ledger=7)
    assert room.watched == {7}
    room.room.on_lac(7, 1)
    assert room.watched == set()


def test_a_waiter_is_answered_when_its_time_is_over():
    room = Room()
    room.park("late", deadline=20)
    room.park("soon", deadline=10)
    room.room.expire(9)
    assert room.answered == []
    room.room.expire(10)
    room.room.expire(30)
    assert room.answered == ["soon", "late"]


def test_nobody_is_let_into_a_full_room():
    room = Room(waiters_max=2)
    assert room.park("a")
    assert room.park("b")
    assert not room.park("c")


def test_an_owner_that_is_gone_is_not_answered():
    room = Room()
    room.park("a", owner="gone")
    room.park("b", owner="here")
    room.room.drop("gone")
    room.room.on_lac(1, 9)
    room.room.answer_risen()
    room.room.expire(5000)
    assert room.answered == ["b"]


def test_everybody_is_answered_when_the_ledger_or_the_server_goes():
    room = Room()
    room.park("a", ledger=1)
    room.park("b", ledger=2)
    room.room.wake(1)
    room.room.answer_risen()
    assert room.answered == ["a"]
    room.room.empty()
    assert room.answered == ["a", "b"]


def test_what_is_done_does_not_pile_up_until_its_deadline():
    room = Room(waiters_max=10_000)
    for number in range(5000):
        room.park(str(number), previous=number, deadline=1_000_000)
        room.room.on_lac(1, number + 1)
    assert len(room.room._deadlines) < 200
