"""Long answers are made in slices (DESIGN 3) and bounded."""

from collections.abc import Iterator

import trio
import trio.testing

from coord.reactor import Connection
from coord.server.slices import ANSWER_CHARACTERS_MAX, BUSY, CUT, WAITING_MAX, SlicedAnswers, Slicing


class StepClock:
    """Each look at it takes a millisecond."""

    def __init__(self) -> None:
        self.now_ms = 0

    def monotonic_ms(self) -> int:
        self.now_ms += 1
        return self.now_ms

    def wall_ms(self) -> int:
        return self.monotonic_ms()


class Asker(Connection):
    """A connection that only remembers what it was sent."""

    def __init__(self) -> None:
        self.answer = b""
        self.ended = trio.Event()

    @property
    def is_open(self) -> bool:
        return not self.ended.is_set()

    def send(self, data: object) -> None:
        assert isinstance(data, bytes)
        assert not self.answer, "in one piece"
        self.answer = data

    def close(self, *, flush: bool = True, reason: str = "") -> None:
        self.ended.set()


def pieces(count: int) -> Iterator[str]:
    return (f"{number}\n" for number in range(count))


async def test_a_short_answer_leaves_at_once() -> None:
    asker = Asker()
    SlicedAnswers(StepClock(), lambda: None).answer(asker, pieces(3))
    assert asker.answer == b"0\n1\n2\n"
    assert asker.ended.is_set()


async def test_a_long_answer_goes_on_between_the_ticks_and_leaves_in_one_piece(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    flushed: list[bool] = []
    sliced = SlicedAnswers(StepClock(), lambda: flushed.append(True))
    nursery.start_soon(sliced.run)
    asker = Asker()
    sliced.answer(asker, pieces(1000))
    assert not asker.answer
    began = trio.current_time()
    await asker.ended.wait()
    assert asker.answer == "".join(pieces(1000)).encode()
    assert trio.current_time() - began > 0.02, "many slices, a pause before each"
    assert flushed == [True]


async def test_who_asks_for_one_more_than_can_wait_is_told_so() -> None:
    sliced = SlicedAnswers(StepClock(), lambda: None)
    for _ in range(WAITING_MAX):
        sliced.answer(Asker(), pieces(1000))
    asker = Asker()
    sliced.answer(asker, pieces(1000))
    assert asker.answer == BUSY


def test_an_answer_without_end_is_cut_and_says_so() -> None:
    clock, slicing = StepClock(), Slicing(iter(lambda: "x" * (1 << 20), ""))
    while not slicing.work(clock):
        pass
    assert slicing.data().endswith(CUT.encode())
    assert len(slicing.data()) <= ANSWER_CHARACTERS_MAX + (1 << 20) + len(CUT)
