"""At a server without a quorum: which other one has it, asked with the word `isro` (spec 14.4)."""

import random

import trio

from coord.client.dial import Dial
from coord.client.servers import Address, ServerList

#: How often one of the others is asked: from the first to the second, doubling, with jitter.
PROBE_MS = (100, 10_000)
ANSWER_TIMEOUT_S = 5.0


async def find_writable(dial: Dial, servers: ServerList, here: Address, rng: random.Random) -> Address:
    """Asks the others, one at a time, until one takes writes.

    Our own server closes its connections when it finds its quorum again.
    """
    delay_ms, delay_ms_max = PROBE_MS
    asked = 0
    while True:
        await trio.sleep(delay_ms * rng.uniform(0.5, 1.0) / 1000)
        delay_ms = min(delay_ms_max, delay_ms * 2)
        others = [address for address in servers.servers() if address != here]
        if not others:
            continue
        address = others[asked % len(others)]
        asked += 1
        with trio.move_on_after(ANSWER_TIMEOUT_S):
            if await _is_writable(dial, address):
                return address


async def _is_writable(dial: Dial, address: Address) -> bool:
    """Whether the server takes writes; one that cannot be reached does not."""
    answer = b""
    try:
        stream = await dial(*address)
        try:
            await stream.send_all(b"isro")
            while len(answer) < 2 and (data := await stream.receive_some(16)):
                answer += data
        finally:
            await trio.aclose_forcefully(stream)
    except (OSError, trio.BrokenResourceError):
        return False
    return answer.startswith(b"rw")
