"""Asking another hub whether it lives: the probe of DESIGN 6, shared by all that wait for its answer."""

from dataclasses import dataclass, field

import trio

from coord import rpc
from coord.clock import Clock
from pubsub.core.ownership import PROBE_TIMEOUT_MS, PROBE_TRUST_MS, ProbeResult
from pubsub.core.record import Owner
from pubsub.core.wire import FRAME_BYTES_MAX, HUB_PROTOCOL, PROTOCOL_VERSION, Deposed, Hello, HelloReply


@dataclass(slots=True)
class _Asked:
    """One question, under way or answered."""

    done: trio.Event = field(default_factory=trio.Event)
    result: ProbeResult = ProbeResult.SILENT
    at_ms: int = 0


class Prober:
    """Probes owners; a good answer is trusted for PROBE_TRUST_MS."""

    def __init__(self, clock: Clock, timeout_ms: int = PROBE_TIMEOUT_MS) -> None:
        self._clock = clock
        self._timeout_ms = timeout_ms
        self._asked: dict[Owner, _Asked] = {}

    async def probe(self, owner: Owner, *, fresh: bool = False) -> ProbeResult:
        """Ask `owner`; `fresh` does not trust an earlier answer. Cancelled, the next one asks again."""
        known = self._asked.get(owner)
        if known is not None and not known.done.is_set():
            await known.done.wait()
            return known.result
        now_ms = self._clock.monotonic_ms()
        if (
            known is not None
            and not fresh
            and known.result is ProbeResult.ALIVE
            and now_ms - known.at_ms < PROBE_TRUST_MS
        ):
            return known.result
        asked = self._asked[owner] = _Asked()
        try:
            asked.result = await _ask(owner, self._timeout_ms)
            asked.at_ms = self._clock.monotonic_ms()
        finally:
            asked.done.set()
            if asked.result is not ProbeResult.ALIVE:
                self._asked.pop(owner, None)
        return asked.result


async def _ask(owner: Owner, timeout_ms: int) -> ProbeResult:
    host, _, port = owner.address.rpartition(":")
    result = ProbeResult.SILENT
    with trio.move_on_after(timeout_ms / 1000):
        try:
            async with rpc.connect(host, int(port), HUB_PROTOCOL, frame_bytes_max=FRAME_BYTES_MAX) as link:
                reply = (await link.call(Hello(PROTOCOL_VERSION, "probe"))).message
                is_same = isinstance(reply, HelloReply) and reply.registration == owner.registration
                result = ProbeResult.ALIVE if is_same else ProbeResult.OTHER_REGISTRATION
        except* (rpc.RpcError, OSError, ValueError):
            result = ProbeResult.REFUSED
    return result


async def tell_deposed(owner: Owner, topic: str, epoch: int) -> None:
    """Tells a hub that may still believe in itself that it lost a topic. Best effort: fencing is what stops
    it.
    """
    host, _, port = owner.address.rpartition(":")
    with trio.move_on_after(PROBE_TIMEOUT_MS / 1000):
        try:
            async with rpc.connect(host, int(port), HUB_PROTOCOL) as link:
                await link.call(Hello(PROTOCOL_VERSION, "successor"))
                link.send(Deposed(topic, epoch))
                await link.call(Hello(PROTOCOL_VERSION, "successor"))
        except* (rpc.RpcError, OSError, ValueError):
            pass
