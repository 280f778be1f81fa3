"""What the main job shows: a status line while it runs, the checks, and a table at the end."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import trio
from rich.console import Console
from rich.table import Table

from coord.clock import SYSTEM_CLOCK
from pubsub.mainjob.corpus import Corpus
from pubsub.mainjob.faults import Kill
from pubsub.mainjob.work import Elections, LedgerJob, Publisher, Subscriber, WrongError

TERMINAL_EVERY_S = 0.2
LOG_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything the table is made of."""

    corpus: Corpus
    publisher: Publisher
    subscribers: Sequence[Subscriber]
    ledger_job: LedgerJob
    elections: Elections
    kills: Sequence[Kill]
    seconds: float


class Status:
    """Lines about what happens, and between them, on a terminal, one line that is written over."""

    def __init__(self, title: str) -> None:
        self._terminal = sys.stderr.isatty()
        self._start_ms = SYSTEM_CLOCK.monotonic_ms()
        self.say(title)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal:
            sys.stderr.write("\r\033[K")

    def say(self, text: str) -> None:
        seconds = (SYSTEM_CLOCK.monotonic_ms() - self._start_ms) / 1000
        start = "\r\033[K" if self._terminal else ""
        sys.stderr.write(f"{start}{seconds:6.1f} s  {text}\n")
        sys.stderr.flush()

    async def follow(
        self,
        publisher: Publisher,
        subscribers: Sequence[Subscriber],
        ledger_job: LedgerJob,
        elections: Elections,
    ) -> None:
        """Shows how far the work is, until cancelled."""
        while True:
            await trio.sleep(TERMINAL_EVERY_S if self._terminal else LOG_EVERY_S)
            received = ", ".join(f"{subscriber.received:,}" for subscriber in subscribers)
            text = (
                f"round {publisher.rounds + 1}: {publisher.messages:,} published, {received} received, "
                f"{len(ledger_job.written)} ledgers, {elections.terms} terms"
            )
            if self._terminal:
                sys.stderr.write(f"\r\033[K{text}")
                sys.stderr.flush()
            else:
                self.say(text)


def check(outcome: Outcome) -> None:
    """The comparison that the job exists for.

    Raises:
        WrongError: a round or a ledger differs from the input, or a part did no work.
    """
    for subscriber in outcome.subscribers:
        if len(subscriber.digests) != outcome.publisher.rounds:
            raise WrongError(
                f"subscriber {subscriber.name}: expected {outcome.publisher.rounds} rounds, got "
                f"{len(subscriber.digests)}"
            )
        for number, digest in enumerate(subscriber.digests, 1):
            if digest != outcome.corpus.sha256:
                raise WrongError(f"subscriber {subscriber.name}: round {number} differs from the input")
    if not outcome.ledger_job.verified or not outcome.elections.terms:
        raise WrongError("no ledger was written or no leader elected")
    for kill in outcome.kills:
        if kill.outage_ms is None:
            raise WrongError(f"after the kill of {kill.server} there was not {kill.what} any more")


def print_report(outcome: Outcome) -> int:
    """Prints the table; returns the exit status."""
    publisher, corpus = outcome.publisher, outcome.corpus
    seconds = max(1, publisher.ended_ms - publisher.started_ms) / 1000
    megabytes = publisher.rounds * corpus.byte_count / 1e6
    table = Table(title="zoolog main job", show_header=False)
    table.add_row(
        "published", f"{publisher.messages:,} messages in {publisher.rounds} rounds, {megabytes:.1f} MB"
    )
    table.add_row("", f"{publisher.messages / seconds:,.0f} messages/s, {megabytes / seconds:.1f} MB/s")
    for subscriber in outcome.subscribers:
        seconds = max(1, subscriber.ended_ms - publisher.started_ms) / 1000
        table.add_row(
            f"subscriber {subscriber.name}",
            f"{subscriber.received:,} messages, {subscriber.received / seconds:,.0f}/s, "
            f"{subscriber.duplicates:,} duplicates, SHA-256 of {len(subscriber.digests)} rounds equal",
        )
    ledgers = outcome.ledger_job
    table.add_row(
        "ledgers",
        f"{ledgers.verified} written and read back, {ledgers.verified * corpus.byte_count / 1e6:.1f} MB, "
        "SHA-256 equal",
    )
    table.add_row("leader election", f"{outcome.elections.terms} terms, one leader at a time")
    for kill in outcome.kills:
        table.add_row(f"kill -9 {kill.server}", f"{kill.outage_ms} ms without {kill.what}")
    table.add_row("time", f"{outcome.seconds:.1f} s")
    Console().print(table)
    return 0
