"""Load on topics: publishers that keep a number of batches under way, and subscribers that take everything.

Each message begins with the time at which its batch was handed over (the machine's monotonic clock), so a
subscriber's latency is from publish to delivery; a publisher's is to the acknowledgement. Both sides measure
`seconds` that begin `warm_up_s` after their first message.
"""

import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter

import trio

import pubsub
from pubsub.command.load.coord import OnProgress
from pubsub.command.load.latency import Latencies, LoadResult

REPORT_S = 0.2
STAMP = struct.Struct(">q")
#: Smallest message: the stamp.
SIZE_MIN = STAMP.size
#: The message that tells subscribers that nothing will follow: a time that no batch has.
END = STAMP.pack(-1)
#: Publishers go on for so long after their own measurement, so that the subscribers' ends under load.
TAIL_S = 0.5
#: What was published and not acknowledged or delivered may take so long at the end.
DRAIN_S = 30.0


@dataclass(frozen=True, slots=True)
class TopicLoad:
    """What to publish; of a subscriber only `topic`, `subscription` and the times matter."""

    hosts: str
    topic: str
    subscription: str = ""
    clients: int = 1
    outstanding: int = 8
    batch: int = 1000
    seconds: float = 10.0
    warm_up_s: float = 1.0
    size: int = 100


class Window:
    """Counts what falls between the end of the warm-up and the end of the measurement."""

    def __init__(self, spec: TopicLoad) -> None:
        self.completed = 0
        self.errors = 0
        self.all = 0
        self.latencies = Latencies()
        self._spec = spec
        self._from: float | None = None
        self._cpu = 0.0
        self._generator_cpu: float | None = None

    def count(self, number: int, now: float) -> bool:
        """Notes `number` messages; says whether they are within the measurement."""
        self.all += number
        if self._from is None:
            self._from = now + self._spec.warm_up_s
        since = now - self._from
        if since < 0:
            self._cpu = time.process_time()
            return False
        if since > self._spec.seconds:
            if self._generator_cpu is None:
                self._generator_cpu = (time.process_time() - self._cpu) / since
            return False
        self.completed += number
        return True

    def result(self) -> LoadResult:
        return LoadResult(
            seconds=self._spec.seconds,
            completed=self.completed,
            errors=self.errors,
            all=self.all,
            generator_cpu=self._generator_cpu or 0.0,
            latencies=self.latencies.counts,
        )


async def publish(spec: TopicLoad, on_ready: Callable[[], None], on_progress: OnProgress) -> LoadResult:
    """Publishes for the length of the run, then the end mark."""
    window = Window(spec)
    filler = bytes(max(0, spec.size - SIZE_MIN))
    async with pubsub.connect(spec.hosts) as bus:
        on_ready()
        until = time.perf_counter() + spec.warm_up_s + spec.seconds + TAIL_S

        async def keep_publishing() -> None:
            while time.perf_counter() < until:
                begun_ns = time.monotonic_ns()
                payload = STAMP.pack(begun_ns) + filler
                try:
                    await bus.publish_many(spec.topic, [payload] * spec.batch)
                except pubsub.PubsubError:
                    window.errors += spec.batch
                    await trio.sleep(REPORT_S)
                    continue
                if window.count(spec.batch, time.perf_counter()):
                    window.latencies.add((time.monotonic_ns() - begun_ns) / 1e9, spec.batch)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(_report, window, on_progress)
            async with trio.open_nursery() as publishers:
                for _ in range(spec.clients * spec.outstanding):
                    publishers.start_soon(keep_publishing)
            nursery.cancel_scope.cancel()
        with trio.fail_after(DRAIN_S):
            await bus.publish(spec.topic, END)
    return window.result()


async def subscribe(spec: TopicLoad, on_ready: Callable[[], None], on_progress: OnProgress) -> LoadResult:
    """Takes and consumes every message up to the end mark."""
    window = Window(spec)
    stamp_of = itemgetter(slice(0, STAMP.size))
    async with (
        pubsub.connect(spec.hosts) as bus,
        bus.subscribe(spec.topic, spec.subscription, from_="earliest") as messages,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_report, window, on_progress)
        on_ready()
        async for batch in messages.batches():
            payloads = list(batch.payloads)
            ended = payloads[-1] == END
            if ended:
                payloads.pop()
            now_ns = time.monotonic_ns()
            if window.count(len(payloads), time.perf_counter()):
                for stamp, count in Counter(map(stamp_of, payloads)).items():
                    window.latencies.add((now_ns - STAMP.unpack(stamp)[0]) / 1e9, count)
            await messages.consume(batch)
            if ended:
                break
        nursery.cancel_scope.cancel()
    return window.result()


async def _report(window: Window, on_progress: OnProgress) -> None:
    while True:
        await trio.sleep(REPORT_S)
        on_progress(window.all, window.errors)
