"""The giving side of repair: a server without a leader reads batches of its log to a peer that misses them.

It may be damaged itself; then it gives what is left of the log that it has lost, and it goes on to do so when
its log is repaired: behind its checkpoint there is nothing in the new one. Who has a leader gives
nothing: that leader will bring the peer up to date. What a server lacks is a proof of something only if its
log is whole and nothing is under way to it (`coord.zab.repair`), which is looked at before and after.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from heapq import merge
from itertools import pairwise
from operator import attrgetter
from typing import Final

import trio
from google_crc32c import value as crc32c

from coord import eventlog
from coord.framing import FrameTooLargeError
from coord.log import LogDamagedError
from coord.message import MessageError
from coord.server.peer_tls import ByteStream
from coord.server.persistence import Persistence
from coord.server.repairwire import Answered, GivenBatch, MessageReader, Standing, Wanted, encode
from coord.server.statistics import ServerStatistics
from coord.storage import LoggedBatch, LogsToGive
from coord.storage.txnlog import KIND_BATCH
from coord.zab import Role
from coord.zab.repair import SPANS_MAX, PeerStanding

ANSWER_BYTES_MAX: Final = 64 << 20
"""Payload bytes of one answer; what is missing then is asked for again."""
ANSWER_SECONDS_MAX: Final = 60.0
SLICE_BATCHES: Final = 64
"""Read without a turn of the loop; of 1 KB each they take about a millisecond."""

log = eventlog.get("coord.server.repair")


class LogGiver:
    """Answers the peers of one server; each one question at a time."""

    def __init__(self, persistence: Persistence, statistics: ServerStatistics) -> None:
        self._persistence = persistence
        self._statistics = statistics
        self._logs = LogsToGive(persistence.directory, persistence.lost_log)
        self._asking: set[int] = set()

    async def serve(self, sid: int, stream: ByteStream) -> None:
        """One connection: a question, its answer.

        Raises:
            OSError, trio.BrokenResourceError: the connection broke.
        """
        if sid in self._asking:
            return
        self._asking.add(sid)
        try:
            with trio.move_on_after(ANSWER_SECONDS_MAX):
                asked, _ = await MessageReader(stream).next()
                if isinstance(asked, Wanted):
                    await self._answer(sid, checked(asked), stream)
        except (MessageError, FrameTooLargeError) as error:
            log.warning("a question that cannot be read", sid=sid, error=error)
        finally:
            self._asking.discard(sid)

    async def _answer(self, sid: int, spans: list[tuple[int, int]], stream: ByteStream) -> None:
        before = self.standing
        await stream.send_all(encode(Standing(before.current_epoch, before.is_whole, before.is_led)))
        oldest, batches = self._source(min((above for above, _ in spans), default=0))
        answer = _Answer(spans, stream)
        try:
            if await self._give(_readable(batches), answer):
                answer.passed = len(spans)
            passed = answer.passed
        except LogDamagedError as error:
            passed = answer.passed
            self._statistics.damaged_log_reads += 1
            do = "let it run until its peers are whole, it has its latest batches in memory; then restart it"
            log.error("this server's own log is damaged: a batch cannot be read", do=do, error=error)
            await self._give(self._what_is_left(answer.last), answer)
        known = [number for number in range(passed) if spans[number][0] >= oldest]
        await stream.send_all(encode(Answered(known if self.standing == before else [], oldest)))
        if answer.given:
            log.info(
                "has given batches to a peer whose log is damaged",
                sid=sid,
                batches=answer.given,
                bytes=answer.size,
            )

    async def _give(self, batches: Iterator[LoggedBatch], answer: "_Answer") -> bool:
        """True if it has come to their end. Raises: LogDamagedError."""
        for number, batch in enumerate(batches, 1):
            if number % SLICE_BATCHES == 0:
                await trio.lowlevel.checkpoint()
            if self._persistence.peer.status.is_led or not await answer.take(batch):
                return False
        return True

    def _what_is_left(self, above: int) -> Iterator[LoggedBatch]:
        """In order, some of them twice."""
        behind = _as_far_as_readable(self._logs.batches_in_spite_of_damage(above))
        return merge(behind, self._in_memory(above), key=attrgetter("last"))

    def _in_memory(self, above: int) -> Iterator[LoggedBatch]:
        """What this server has logged and not read again since."""
        if self._persistence.directory.loss is None:
            for previous, batch in self._persistence.peer.batches_in_memory():
                if batch.last_zxid > above:
                    first, last, payload = batch.first_zxid, batch.last_zxid, batch.payload
                    yield LoggedBatch(KIND_BATCH, 0, previous, first, last, payload)

    @property
    def standing(self) -> PeerStanding:
        """What this server's history is worth now."""
        persistence = self._persistence
        peer, directory = persistence.peer, persistence.directory
        is_led = peer.status.role is not Role.LOOKING  # more than `Status.is_led`: see `PeerStanding`
        if directory.loss is not None:
            return PeerStanding(directory.loss.current_epoch, is_whole=False, is_led=is_led)
        current_epoch = directory.epochs.current
        is_settled = peer.last_zxid == peer.logged_zxid == persistence.log.txn_log.durable_zxid
        return PeerStanding(current_epoch, is_whole=current_epoch > 0 and is_settled, is_led=is_led)

    def _source(self, above: int) -> tuple[int, Iterator[LoggedBatch]]:
        """The zxid behind which all is known here, and the batches above a zxid, as far as they are."""
        persistence = self._persistence
        if persistence.peer.status.is_led:
            return 0, iter(())
        directory, txn_log = persistence.directory, persistence.log.txn_log
        oldest_zxid = 0 if directory.loss is not None else txn_log.oldest_zxid
        return oldest_zxid, self._logs.batches_above(txn_log, above)


@dataclass(slots=True)
class _Answer:
    """One answer under way.

    Attributes:
        passed: so many of the spans are behind the batches seen.
        last: the last zxid seen.
        given, size: batches sent, and their bytes.
    """

    spans: list[tuple[int, int]]
    stream: ByteStream
    passed: int = 0
    last: int = 0
    given: int = 0
    size: int = 0

    async def take(self, batch: LoggedBatch) -> bool:
        """The next batch, or one that was: it is sent if it was asked for. False once nothing more is to be
        sent.
        """
        spans = self.spans
        if batch.last <= self.last:
            return True
        while self.passed < len(spans) and spans[self.passed][1] < batch.last:
            self.passed += 1
        if self.passed == len(spans) or self.size > ANSWER_BYTES_MAX:
            return False
        self.last = batch.last
        if batch.last > spans[self.passed][0]:
            head = GivenBatch(batch.previous, batch.first, batch.last, crc32c(batch.payload))
            await self.stream.send_all(encode(head, batch.payload))
            self.given, self.size = self.given + 1, self.size + len(batch.payload)
        return True


def _readable(batches: Iterator[LoggedBatch]) -> Iterator[LoggedBatch]:
    """A disk that fails is told from a connection that breaks.

    Raises:
        LogDamagedError
    """
    try:
        yield from batches
    except OSError as error:
        raise LogDamagedError(str(error.filename or "the log"), 0, f"it cannot be read: {error}") from error


def _as_far_as_readable(batches: Iterator[LoggedBatch]) -> Iterator[LoggedBatch]:
    with suppress(LogDamagedError):
        yield from _readable(batches)


def checked(wanted: Wanted) -> list[tuple[int, int]]:
    """The spans asked for.

    Raises:
        MessageError: too many, or not in order.
    """
    spans = wanted.spans
    if len(spans) > SPANS_MAX or any(one[1] > other[0] for one, other in pairwise(spans)):
        raise MessageError(f"expected at most {SPANS_MAX} spans in order, got {len(spans)}")
    return spans
