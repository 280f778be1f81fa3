"""`coord.nursery`: what a caller sees of a library's background tasks, and what they see of the caller."""

import pytest
import trio
import trio.testing

from coord.nursery import open_private_nursery


async def test_an_exception_of_the_block_is_raised_as_itself() -> None:
    with pytest.raises(KeyError):
        async with open_private_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise KeyError("mine")


async def test_a_group_of_the_block_stays_the_group_it_was() -> None:
    with pytest.raises(ExceptionGroup, match="mine") as caught:
        async with open_private_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise ExceptionGroup("mine", [KeyError("inside")])
    assert len(caught.value.exceptions) == 1


async def test_a_background_task_that_fails_cancels_the_block_and_is_raised_as_itself() -> None:
    async def fail() -> None:
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        async with open_private_nursery() as nursery:
            nursery.start_soon(fail)
            await trio.sleep_forever()


async def test_background_tasks_are_cancelled_when_the_block_ends() -> None:
    ended = trio.Event()

    async def run() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with open_private_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
    assert ended.is_set()


async def test_background_tasks_still_work_while_a_cancelled_block_says_goodbye() -> None:
    asked, answered = trio.Event(), trio.Event()

    async def answer() -> None:
        await asked.wait()
        answered.set()

    with trio.CancelScope() as scope:
        async with open_private_nursery() as nursery:
            nursery.start_soon(answer)
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    asked.set()
                    await answered.wait()
    assert scope.cancelled_caught
