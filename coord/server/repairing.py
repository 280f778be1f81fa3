"""The asking side of repair: a server with a damaged log, while it has no leader, asks its peers for the
batches that it misses (`coord.zab.repair` says which, and what the answers prove).

Once the log is whole again the server ends, writes it anew (`coord.storage.salvage`) and begins again with
it, as what it was before the damage. If a leader brings it up to date first, there is nothing to repair any
more.
"""

from collections.abc import Callable
from typing import Final

import trio
from google_crc32c import value as crc32c

from coord import eventlog
from coord.framing import FrameTooLargeError
from coord.message import MessageError
from coord.protocol.batch import decode_batch
from coord.protocol.jute import DecodeError
from coord.server.introduction import IntroductionError
from coord.server.links import PeerLinks
from coord.server.persistence import Persistence
from coord.server.repairwire import Answered, GivenBatch, MessageReader, Standing, Wanted, encode
from coord.storage import LostLog, RestoredBatch
from coord.zab import Proposal, Sid
from coord.zab.repair import (
    ZXID_MAX,
    Given,
    PeerStanding,
    Remains,
    Repair,
    RepairConflictError,
    Span,
)

WAIT_SECONDS: Final = 0.5
"""Before the first round, so that a leader may be found, and between two as long as they bring something."""
WAIT_SECONDS_MAX: Final = 5.0
ASK_SECONDS_MAX: Final = 60.0
"""For one peer's answer."""
RECEIVED_BYTES_MAX: Final = 512 << 20
"""Payloads of batches that were given, kept in memory until the log is written."""
SHOWN_SPANS_MAX: Final = 8
_AWAY: Final = "away"
TAKE_A_STATE: Final = (
    "nothing, if the whole servers are a quorum: their leader sends its state; else bring back a dataLogDir "
    "from before the damage, or load the state of one server on all (zoolog coord to-json, from-json)"
)
START_OTHERS: Final = "start the servers that are away; docs/damage.md says what else helps"

log = eventlog.get("coord.server.repair")


def begin_repair(lost: LostLog, current_epoch: int, others: frozenset[Sid]) -> Repair:
    """`current_epoch`: what went with the log. Raises: RepairConflictError."""
    remains = Remains(
        base_zxid=lost.base_zxid,
        previous={last: kept.previous for last, kept in lost.batches.items()},
        end_zxid=lost.end_zxid,
        tail_bytes=lost.tail_bytes,
        end_zxid_min=lost.end_zxid_min,
        committed_zxid=lost.committed_zxid,
        current_epoch=current_epoch,
    )
    return Repair(remains, others)


def history_of(repair: Repair, lost: LostLog) -> list[RestoredBatch]:
    """What is to be written, once the repair is done."""
    history = []
    for zxid in repair.history():
        given = repair.given(zxid)
        if given is None:
            kept = lost.batches[zxid]
            history.append(RestoredBatch(kept.previous, kept.first, kept.last, None))
        else:
            batch = given.proposal
            history.append(
                RestoredBatch(given.previous_zxid, batch.first_zxid, batch.last_zxid, batch.payload)
            )
    return history


def check_batch(batch: Proposal) -> None:
    """A batch says itself which zxids it has.

    Raises:
        DecodeError: it is none, or has others.
    """
    stamp, _ = decode_batch(batch.payload)
    if (stamp.first_zxid, stamp.first_zxid + stamp.count - 1) != (batch.first_zxid, batch.last_zxid):
        raise DecodeError(f"expected a batch of {batch.first_zxid:#x}, got one of {stamp.first_zxid:#x}")


class LogRepairer:
    """Asks until the log is whole, or nobody needs it any more.

    Args:
        begin_again: called once, when nothing is missing, with the number of batches that are the peers'.
    """

    def __init__(
        self, sid: int, persistence: Persistence, links: PeerLinks, begin_again: Callable[[int], None]
    ) -> None:
        self._sid = Sid(sid)
        self._persistence = persistence
        self._links = links
        self._begin_again = begin_again
        self._said = ""

    async def run(self) -> None:
        """Returns when there is nothing to do (any more)."""
        lost, loss = self._persistence.lost_log, self._persistence.directory.loss
        if lost is None or loss is None:
            return
        try:
            repair = begin_repair(lost, loss.current_epoch, self._persistence.voters_seen - {self._sid})
            if await self._fill(repair):
                self._claim(repair, lost)
        except RepairConflictError as error:
            log.error("its log cannot be repaired", do=TAKE_A_STATE, error=error)

    async def _fill(self, repair: Repair) -> bool:
        """False if a leader was quicker. Raises: RepairConflictError."""
        log.warning("misses part of its log", missing=_missing(repair), known_up_to=hex(repair.end_zxid))
        wait_s = WAIT_SECONDS
        while True:
            await trio.sleep(wait_s)
            if self._persistence.directory.lost_log_path() is None:
                return False
            if not self._is_free:
                continue
            before = repair.received_bytes, repair.spans()
            answers = await self._ask_all(repair)
            if repair.is_done and self._is_free:
                return True
            if before == (repair.received_bytes, repair.spans()):
                wait_s = min(2 * wait_s, WAIT_SECONDS_MAX)
                self._complain(repair, answers)
            else:
                wait_s = WAIT_SECONDS

    @property
    def _is_free(self) -> bool:
        """Without a leader, who would do better. One that has not told its epoch yet is none: without this
        server's own voice it may never be, and be elected all the same, again and again.
        """
        return not self._persistence.peer.status.is_led

    def _claim(self, repair: Repair, lost: LostLog) -> None:
        self._persistence.restore_when_closed(history_of(repair, lost))
        log.info(
            "its log is whole again",
            repaired=repair.repaired,
            is_cut=repair.is_cut,
            up_to=hex(repair.end_zxid),
        )
        self._begin_again(repair.repaired)

    async def _ask_all(self, repair: Repair) -> dict[int, str]:
        """One round; what came of it, by sid."""
        answers = {}
        for sid in self._links.members:
            if repair.is_done:
                break
            try:
                with trio.fail_after(ASK_SECONDS_MAX):
                    answers[sid] = await self._ask(repair, sid)
            except (
                IntroductionError,
                MessageError,
                DecodeError,
                FrameTooLargeError,
                OSError,
                trio.BrokenResourceError,
                trio.TooSlowError,
            ) as error:
                answers[sid] = f"{_AWAY}: {error}"
        return answers

    async def _ask(self, repair: Repair, sid: int) -> str:
        """Raises: RepairConflictError, and what `_ask_all` expects."""
        spans = repair.spans()
        stream = await self._links.open_repair(sid)
        async with stream:
            await stream.send_all(encode(Wanted([(span.above, span.upto) for span in spans])))
            standing = PeerStanding(0, is_whole=False, is_led=True)
            reader = MessageReader(stream)
            record, body = await reader.next()
            while not isinstance(record, Answered):
                if isinstance(record, Standing):
                    standing = PeerStanding(record.current_epoch, record.is_whole, record.is_led)
                elif isinstance(record, GivenBatch):
                    take(repair, sid, standing, record, body)
                record, body = await reader.next()
        repair.answered(Sid(sid), standing, _places(spans, record.lacked))
        if standing.is_led:
            return "has a leader"
        if any(span.above < record.oldest for span in repair.spans()):
            return f"has a log that begins later, behind {record.oldest:#x}"
        return "has given what it has" if standing.is_whole else "is damaged too"

    def _complain(self, repair: Repair, answers: dict[int, str]) -> None:
        """Once for each change of what is known."""
        said = f"{_missing(repair)} {answers}"
        if said != self._said:
            self._said = said
            asked = "; ".join(f"server {sid} {answer}" for sid, answer in answers.items())
            is_away = any(answer.startswith(_AWAY) for answer in answers.values())
            do = START_OTHERS if is_away else TAKE_A_STATE
            log.error("no peer has all that its log misses", do=do, missing=_missing(repair), asked=asked)


def take(repair: Repair, sid: int, standing: PeerStanding, head: GivenBatch, payload: bytes) -> None:
    """Gives `repair` one batch of an answer, if it is what it says.

    Raises:
        MessageError, DecodeError: it is not; the answer cannot be trusted.
        RepairConflictError: nothing can be repaired any more.
    """
    if crc32c(payload) != head.crc:
        raise MessageError(f"the checksum of the batch {head.last:#x} does not match")
    if not 0 <= head.previous < head.first <= head.last or head.first >> 32 != head.last >> 32:
        raise MessageError(f"expected a batch within one epoch, got {head.first:#x} to {head.last:#x}")
    batch = Proposal(head.first, head.last, payload)
    check_batch(batch)
    if repair.received_bytes + len(payload) > RECEIVED_BYTES_MAX:
        raise RepairConflictError(f"more is missing than {RECEIVED_BYTES_MAX} bytes")
    repair.receive(Sid(sid), standing, Given(head.previous, batch))


def _missing(repair: Repair) -> str:
    spans = repair.spans()
    shown = ", ".join(_shown(span) for span in spans[:SHOWN_SPANS_MAX])
    return f"{shown} and more" if len(spans) > SHOWN_SPANS_MAX else shown or "nothing"


def _shown(span: Span) -> str:
    if span.upto == ZXID_MAX:
        return f"whatever followed {span.above:#x}"
    return f"above {span.above:#x} up to {span.upto:#x}"


def _places(spans: list[Span], numbers: list[int]) -> list[Span]:
    return [spans[number] for number in numbers if 0 <= number < len(spans)]
