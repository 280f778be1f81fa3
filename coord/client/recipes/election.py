"""Leader election: of many candidates one leads, and the next takes over when it resigns or dies."""

import contextlib
import random
from collections.abc import AsyncIterator

from coord.client.client import Client
from coord.client.recipes.contention import Held, take_turn

Leadership = Held


@contextlib.asynccontextmanager
async def lead(
    zk: Client, path: str, data: bytes = b"", *, rng: random.Random | None = None
) -> AsyncIterator[Leadership]:
    """Stands for election at `path` and enters the block once elected; leaving it resigns.

    Inside the block the candidate leads as long as the client's session lives: watch `zk.expired` where
    work goes on without calls. Who waits, what happens to lost answers and when cancelled: as `take_turn`.

    Raises:
        SessionExpiredError: the session ended while waiting; the candidature ended with it.
        NoNodeError: somebody deleted the candidate's node while it waited.
    """
    async with take_turn(zk, path, data, rng=rng) as leadership:
        yield leadership
