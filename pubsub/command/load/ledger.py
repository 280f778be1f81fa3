"""Load on ledgers: writers that keep a number of appends under way, each of a batch of entries.

Latency counts from handing a batch over to its being durable on an ack quorum.
"""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import trio

import bookie
from pubsub.command.load.coord import OnProgress
from pubsub.command.load.latency import Latencies, LoadResult

REPORT_S = 0.2
#: After a failed ledger its writer waits so long before it creates the next.
RETRY_S = 0.2
#: What is under way at the end may take so long to be durable.
DRAIN_S = 10.0


@dataclass(frozen=True, slots=True)
class LedgerLoad:
    """What to append."""

    hosts: str
    clients: int = 1
    outstanding: int = 32
    batch: int = 100
    seconds: float = 10.0
    warm_up_s: float = 1.0
    size: int = 100
    ensemble: int = 3
    write_quorum: int = 3
    ack_quorum: int = 2


class Counts:
    """What all writers have done since the last reset."""

    def __init__(self) -> None:
        self.completed = 0
        self.errors = 0
        self.latencies = Latencies()

    def reset(self) -> None:
        self.completed = self.errors = 0
        self.latencies = Latencies()


async def run(spec: LedgerLoad, on_ready: Callable[[], None], on_progress: OnProgress) -> LoadResult:
    """Creates the ledgers, warms up, measures, and deletes the ledgers."""
    counts = Counts()
    created: list[int] = []
    async with bookie.connect(spec.hosts) as ledgers:
        # The first one here, so that what cannot work at all fails at once and says why.
        async with _create(ledgers, spec) as ledger:
            created.append(ledger.ledger_id)
            await ledger.append(bytes(spec.size))
        on_ready()
        try:
            async with trio.open_nursery() as nursery:
                stopping = trio.Event()
                for _ in range(spec.clients):
                    nursery.start_soon(_write, ledgers, spec, counts, created, stopping)
                await _watch(counts, time.perf_counter() + spec.warm_up_s, on_progress)
                counts.reset()
                begun, cpu_begun = time.perf_counter(), time.process_time()
                await _watch(counts, begun + spec.seconds, on_progress)
                took = time.perf_counter() - begun
                result = LoadResult(
                    seconds=took,
                    completed=counts.completed,
                    errors=counts.errors,
                    generator_cpu=(time.process_time() - cpu_begun) / took,
                    latencies=counts.latencies.counts,
                )
                stopping.set()
                nursery.cancel_scope.deadline = trio.current_time() + DRAIN_S
        finally:
            with trio.move_on_after(DRAIN_S) as scope:
                scope.shield = True
                for ledger_id in created:
                    with contextlib.suppress(bookie.LedgerError):
                        await ledgers.delete(ledger_id)
    return result


async def _watch(counts: Counts, deadline: float, on_progress: OnProgress) -> None:
    while (left := deadline - time.perf_counter()) > 0:
        await trio.sleep(min(REPORT_S, left))
        on_progress(counts.completed, counts.errors)


def _create(
    ledgers: bookie.Ledgers, spec: LedgerLoad
) -> contextlib.AbstractAsyncContextManager[bookie.LedgerWriter]:
    return ledgers.create(ensemble=spec.ensemble, write_quorum=spec.write_quorum, ack_quorum=spec.ack_quorum)


async def _write(
    ledgers: bookie.Ledgers, spec: LedgerLoad, counts: Counts, created: list[int], stopping: trio.Event
) -> None:
    """One writer, with a new ledger whenever one has failed."""
    while not stopping.is_set():
        try:
            async with _create(ledgers, spec) as ledger:
                created.append(ledger.ledger_id)
                await _append(ledger, spec, counts, stopping)
        except bookie.LedgerError:
            counts.errors += 1
            await trio.sleep(RETRY_S)


async def _append(
    ledger: bookie.LedgerWriter, spec: LedgerLoad, counts: Counts, stopping: trio.Event
) -> None:
    """Keeps `outstanding` batches under way on one ledger, until it fails or the run is over."""
    payloads = [os.urandom(spec.size) for _ in range(spec.batch)]
    under_way, room = 0, trio.Event()

    def append() -> None:
        nonlocal under_way
        begun = time.perf_counter()

        def done(result: int | bookie.LedgerError) -> None:
            nonlocal under_way
            under_way -= 1
            if isinstance(result, int):
                counts.completed += spec.batch
                counts.latencies.add(time.perf_counter() - begun, spec.batch)
            else:
                counts.errors += spec.batch
            room.set()

        under_way += 1
        try:
            ledger.append_many_nowait(payloads, done)
        except bookie.LedgerError:
            under_way -= 1
            raise

    while not stopping.is_set() and ledger.failure is None:
        while under_way < spec.outstanding and ledger.writable:
            append()
        if under_way < spec.outstanding and ledger.failure is None:
            await ledger.wait_writable()
            continue
        room = trio.Event()
        await room.wait()
