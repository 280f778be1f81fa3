"""Two servers introduce themselves: a wrong one is refused, and both sides know why."""

from dataclasses import replace

import pytest
import trio
import trio.testing

from coord.server.greeting import LinkIdentity, hear_introduction, introduce
from coord.server.introduction import NONCE_BYTES, PURPOSE_MESSAGES, IntroductionError

NONCE = bytes(NONCE_BYTES)
ADDRESSES = {sid: (("host", 1),) for sid in (1, 2)}
ONE = LinkIdentity("zoolog", b"s" * 16, 1, ADDRESSES)
TWO = LinkIdentity("zoolog", b"s" * 16, 2, ADDRESSES)


async def meet(dialler: LinkIdentity, target: int, listener: LinkIdentity) -> list[str]:
    """What each side says is wrong, the dialler first; empty texts where all is well."""
    near, far = trio.testing.memory_stream_pair()
    wrong = ["", ""]

    async def dial() -> None:
        try:
            await introduce(near, dialler, target, PURPOSE_MESSAGES, NONCE)  # type: ignore[arg-type]
        except IntroductionError as error:
            wrong[0] = str(error)
            await near.aclose()

    async def listen() -> None:
        try:
            await hear_introduction(far, listener, NONCE)  # type: ignore[arg-type]
        except IntroductionError as error:
            wrong[1] = str(error)
            await far.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        nursery.start_soon(listen)
    return wrong


async def test_members_of_one_ensemble_meet() -> None:
    assert await meet(TWO, 1, ONE) == ["", ""]


@pytest.mark.parametrize(
    ("dialler", "target", "reason"),
    [
        (replace(TWO, ensemble="other"), 1, "ensemble.id 'other', expected 'zoolog'"),
        (TWO, 7, "looks for server.7, this is server.1"),
        (replace(TWO, sid=9), 1, "server.9 is no other member of this ensemble"),
        (replace(TWO, sid=1), 1, "server.1 is no other member of this ensemble"),
    ],
)
async def test_a_wrong_peer_is_named_on_both_sides(dialler: LinkIdentity, target: int, reason: str) -> None:
    """Another ensemble, another number, an unknown one, our own."""
    assert await meet(dialler, target, ONE) == [f"the other server refuses this one: {reason}", reason]


async def test_another_secret_is_named_on_both_sides() -> None:
    """The dialler is the first that can tell."""
    reason = "the other side does not have this ensemble's secret"
    wrong = await meet(replace(TWO, secret=b"t" * 16), 1, ONE)
    assert wrong == [reason, f"the other server refuses this one: {reason}"]


async def test_a_stranger_that_proves_the_secret_may_learn_where_members_can_change() -> None:
    """19.5: a joiner is in nobody's list yet."""
    assert await meet(replace(TWO, sid=9), 1, replace(ONE, takes_strangers=True)) == ["", ""]
