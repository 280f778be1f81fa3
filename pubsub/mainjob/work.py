"""What users do with a cluster, on real input, each part checking what it gets.

Publisher and subscribers work in rounds: one round is the whole corpus, a message a line. A subscriber
knows the round from the messages' sequence alone, so a message that is lost, stored twice or out of order
changes the SHA-256 of a round, and one that is only delivered twice is recognised and counted.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import trio

import bookie
import coord
import pubsub
from coord.clock import SYSTEM_CLOCK
from pubsub.mainjob.corpus import Corpus

PUBLISH_MESSAGES = 20_000
LEDGER_BATCH_BYTES = 1 << 20
LEADERSHIP_S = 0.2
PROBE_INTERVAL_S = 0.005
PROBE_PATH = "/mainjob/probe"
ELECTION_PATH = "/mainjob/election"


class WrongError(Exception):
    """Something that must never happen has happened; the text says what was expected and what came."""


@dataclass(slots=True)
class Marks:
    """When something that should happen all the time happened, to find how long it did not."""

    times_ms: list[int] = field(default_factory=list)

    def note(self) -> None:
        self.times_ms.append(SYSTEM_CLOCK.monotonic_ms())

    def gap_after(self, start_ms: int, until_ms: int) -> int | None:
        """The longest time in ms without a mark between the two moments; None if there is none behind
        them."""
        inside = [mark for mark in self.times_ms if start_ms < mark <= until_ms]
        if not inside:
            return None
        edges = [start_ms, *inside]
        return max(after - before for before, after in pairwise(edges))


@dataclass(slots=True)
class Publisher:
    """Publishes the corpus round after round until told to stop, and always ends with a whole round."""

    corpus: Corpus
    topic: str
    rounds: int = 0
    messages: int = 0
    started_ms: int = 0
    ended_ms: int = 0
    stop: bool = False
    done: trio.Event = field(default_factory=trio.Event)

    async def run(self, bus: pubsub.Bus) -> None:
        lines = self.corpus.lines
        self.started_ms = SYSTEM_CLOCK.monotonic_ms()
        while not self.stop:
            for start in range(0, len(lines), PUBLISH_MESSAGES):
                chunk = lines[start : start + PUBLISH_MESSAGES]
                await bus.publish_many(self.topic, chunk)
                self.messages += len(chunk)
            self.rounds += 1
        self.ended_ms = SYSTEM_CLOCK.monotonic_ms()
        self.done.set()


@dataclass(slots=True)
class Subscriber:
    """Receives everything from the start, and keeps the SHA-256 of each round.

    Attributes:
        duplicates: messages delivered again after they had been received.
        digests: one per round received whole.
        marks: moments at which messages came.
    """

    corpus: Corpus
    topic: str
    name: str
    received: int = 0
    duplicates: int = 0
    ended_ms: int = 0
    digests: list[str] = field(default_factory=list)
    marks: Marks = field(default_factory=Marks)
    _sha: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    _advanced: trio.Event = field(default_factory=trio.Event)

    async def run(self, bus: pubsub.Bus, publisher: Publisher) -> None:
        """Ends when every round that the publisher has published has been received and consumed."""
        async with (
            bus.subscribe(self.topic, self.name, from_="earliest") as messages,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._receive, messages)
            # The last messages may come before the publisher has heard that they are stored, or after.
            await publisher.done.wait()
            while self.received < publisher.messages:
                self._advanced = trio.Event()
                await self._advanced.wait()
            self.ended_ms = SYSTEM_CLOCK.monotonic_ms()
            await messages.flush()
            nursery.cancel_scope.cancel()

    async def _receive(self, messages: pubsub.Subscription) -> None:
        async for batch in messages.batches():
            self.marks.note()
            self._take(batch.first, batch.payloads)
            await messages.consume(batch)
            self._advanced.set()

    def _take(self, first: int, payloads: Sequence[bytes]) -> None:
        size = len(self.corpus.lines)
        expected = self.received + 1
        if first > expected:
            raise WrongError(
                f"subscriber {self.name}: expected message {expected}, got {first}: messages are lost"
            )
        again = min(expected - first, len(payloads))
        self.duplicates += again
        position = again
        while position < len(payloads):
            taken = payloads[position : position + size - self.received % size]
            self._sha.update(b"".join(taken))
            self.received += len(taken)
            position += len(taken)
            if self.received % size == 0:
                self.digests.append(self._sha.hexdigest())
                self._sha = hashlib.sha256()


@dataclass(slots=True)
class LedgerJob:
    """Writes the corpus into ledgers, an entry a file, one ledger after the other; reads all of them at the
    end.

    Attributes:
        written: ids of closed ledgers.
        given_up: ledgers whose writer failed; their readable part is checked too.
    """

    corpus: Corpus
    written: list[int] = field(default_factory=list)
    given_up: int = 0
    verified: int = 0
    stop: bool = False

    async def run(self, ledgers: bookie.Ledgers) -> None:
        while not self.stop:
            async with ledgers.create(ensemble=3, write_quorum=3, ack_quorum=2) as ledger:
                for entries in _batches(self.corpus.files):
                    await ledger.append_many(entries)
            self.written.append(ledger.ledger_id)

    async def verify(self, ledgers: bookie.Ledgers) -> None:
        """Reads every ledger back.

        Raises:
            WrongError: one of them does not return the corpus.
        """
        for ledger_id in self.written:
            sha = hashlib.sha256()
            async with ledgers.open(ledger_id) as reader:
                async for chunk in reader.read_chunks():
                    sha.update(b"".join(map(bytes, chunk.payloads)))
            if sha.hexdigest() != self.corpus.sha256:
                raise WrongError(f"ledger {ledger_id} returns other bytes than were written")
            self.verified += 1


def _batches(files: Sequence[bytes]) -> list[list[bytes]]:
    """Files in lists of about LEDGER_BATCH_BYTES; one larger than an entry may be is cut."""
    batches: list[list[bytes]] = [[]]
    size = 0
    for data in files:
        for start in range(0, len(data), bookie.ENTRY_BYTES_MAX):
            batches[-1].append(data[start : start + bookie.ENTRY_BYTES_MAX])
        size += len(data)
        if size >= LEDGER_BATCH_BYTES:
            batches.append([])
            size = 0
    return [batch for batch in batches if batch]


@dataclass(slots=True)
class Elections:
    """Candidates with a session each stand for election again and again.

    Attributes:
        terms: how often somebody led.
        leader: who leads now.
        last_token: fencing token of the last leader; the next must have a higher one.
    """

    terms: int = 0
    leader: str | None = None
    last_token: int = 0

    async def run(self, hosts: str, name: str) -> None:
        """One candidate, until cancelled; a session that expires is followed by another."""
        while True:
            try:
                async with coord.connect(hosts, connect_timeout_ms=None) as zk:
                    while True:
                        await self._serve_one_term(zk, name)
            except coord.SessionExpiredError:
                if self.leader == name:
                    self.leader = None

    async def _serve_one_term(self, zk: coord.Client, name: str) -> None:
        async with coord.lead(zk, ELECTION_PATH, name.encode()) as leadership:
            if self.leader is not None:
                raise WrongError(f"candidate {name} was elected while {self.leader} leads")
            if leadership.token <= self.last_token:
                raise WrongError(f"expected a token above {self.last_token}, got {leadership.token}")
            self.leader, self.last_token = name, leadership.token
            self.terms += 1
            await trio.sleep(LEADERSHIP_S)
            self.leader = None


@dataclass(slots=True)
class Probe:
    """Writes a node all the time, to see how long the coordination ensemble completes no write."""

    marks: Marks = field(default_factory=Marks)

    async def run(self, zk: coord.Client) -> None:
        await coord.ensure_path(zk, PROBE_PATH)
        while True:
            try:
                await zk.set(PROBE_PATH, b"probe")
            except (coord.ConnectionLossError, coord.NotConnectedError):
                continue
            self.marks.note()
            await trio.sleep(PROBE_INTERVAL_S)
