"""Reading decisions of chapter 5."""

import pytest

from bookie.ledger.distribution import Schedule
from bookie.ledger.errors import (
    TIMEOUT,
    UNREACHABLE,
    BookieTimeoutError,
    BookieUnavailableError,
    DigestMismatchError,
    LedgerError,
    NoSuchEntryError,
    NoSuchLedgerError,
    ReadError,
)
from bookie.ledger.extent import CRC_SEALER, Sealer, SealKind, encode_extent
from bookie.ledger.metadata import Fragment, LedgerMetadata, LedgerState, Member
from bookie.ledger.reader import (
    SPECULATION_MS,
    ChunkRead,
    LacRead,
    final_error,
    poll_targets,
    replica_order,
)
from bookie.ledger.wire import Code, ReadReply, Stop

A, B, C, D, E = (Member(name, 1) for name in "abcde")
LEDGER = 5


def chunk_read(first: int = 0, last: int = 9, sealer: Sealer = CRC_SEALER) -> ChunkRead:
    read = ChunkRead(LEDGER, first, last, [A, B, C], sealer, max_bytes=1000, request_timeout_ms=5000)
    read.start(0)
    return read


def body(first: int, *payloads: bytes, ledger: int = LEDGER) -> bytes:
    return encode_extent(ledger, first, -1, 0, list(payloads)).data


def reply(stop: Stop = Stop.END, next_id: int = 0, error: int = 0, lac: int = -1) -> ReadReply:
    return ReadReply(int(stop), next_id, lac, error=error)


def test_the_first_valid_answer_wins() -> None:
    read = chunk_read()
    assert [s.member for s in read.take_sends()] == [A]
    read.receive(0, reply(lac=4), body(0, b"x", b"y") + body(2, b"z"), 1)
    assert read.result is not None
    assert read.result.payloads == [b"x", b"y", b"z"]
    assert read.result.next_entry_id == 3
    assert read.lac == 4


def test_entries_beyond_those_asked_for_are_cut_off() -> None:
    read = chunk_read(0, 1)
    read.receive(0, reply(), body(0, b"x", b"y", b"z"), 1)
    assert read.result is not None
    assert read.result.payloads == [b"x", b"y"]


def test_an_error_goes_to_the_next_replica_at_once() -> None:
    read = chunk_read()
    read.take_sends()
    read.receive_error(0, UNREACHABLE, 1)
    assert [s.member for s in read.take_sends()] == [B]
    assert read.suspects == [A]


def test_silence_asks_another_and_keeps_the_first_question_open() -> None:
    """5.3."""
    read = chunk_read()
    read.take_sends()
    read.tick(SPECULATION_MS - 1)
    assert read.take_sends() == []
    read.tick(SPECULATION_MS)
    assert [s.member for s in read.take_sends()] == [B]
    read.receive(0, reply(), body(0, b"late but first"), SPECULATION_MS + 1)
    assert read.result is not None
    read.receive(1, reply(), body(0, b"dropped"), SPECULATION_MS + 2)
    assert read.result.payloads == [b"late but first"]
    assert read.speculated == 1


def test_silence_of_all_ends_in_a_time_out() -> None:
    read = chunk_read()
    now_ms = 0
    while not read.done:
        now_ms = max(now_ms + 1, read.deadline_ms)
        read.tick(now_ms)
    assert isinstance(read.failure, BookieTimeoutError)


@pytest.mark.parametrize(
    "bad",
    [
        body(1, b"x"),
        body(0, b"x", ledger=6),
        b"garbage",
        body(0, b"x")[:-1] + b"y",
        b"",
    ],
)
def test_an_answer_that_is_not_the_entries_asked_for_is_that_replicas_error(bad: bytes) -> None:
    """5.3: OK and digest and ids."""
    read = chunk_read()
    read.take_sends()
    read.receive(0, reply(), bad, 1)
    assert read.result is None
    assert [s.member for s in read.take_sends()] == [B]


def test_a_valid_prefix_is_an_answer() -> None:
    """5.5: later bad = truncate before it."""
    read = chunk_read()
    damaged = bytearray(body(0, b"x", b"y"))
    damaged[-1] ^= 1
    read.receive(0, reply(), bytes(damaged), 1)
    assert read.result is not None
    assert read.result.payloads == [b"x"]
    other = chunk_read()
    other.receive(0, reply(), body(0, b"x") + b"garbage", 1)
    assert other.result is not None
    assert other.result.payloads == [b"x"]


def test_an_hmac_ledger_believes_no_crc_extent() -> None:
    read = chunk_read(sealer=Sealer(SealKind.HMAC_SHA256, b"k"))
    read.receive(0, reply(), body(0, b"x"), 1)
    assert read.result is None


def test_no_such_entry_only_if_every_replica_says_so() -> None:
    """R-R1."""
    read = chunk_read()
    for request in range(3):
        read.receive(request, reply(Stop.NO_ENTRY), b"", 1)
    assert isinstance(read.failure, NoSuchEntryError)
    other = chunk_read()
    other.receive(0, reply(Stop.NO_ENTRY), b"", 1)
    other.receive_error(1, TIMEOUT, 1)
    other.receive(2, reply(Stop.NO_ENTRY), b"", 1)
    assert isinstance(other.failure, BookieTimeoutError)


def test_a_stop_with_an_error_is_that_error() -> None:
    read = chunk_read()
    for request in range(3):
        read.receive(request, reply(Stop.ERROR, error=int(Code.IO_ERROR)), b"", 1)
    assert isinstance(read.failure, ReadError)


@pytest.mark.parametrize(
    ("codes", "kind"),
    [
        ([403, 403, 403], NoSuchEntryError),
        ([402, 402], NoSuchLedgerError),
        ([402, 403], NoSuchEntryError),
        ([403, UNREACHABLE, 403], BookieUnavailableError),
        ([403, UNREACHABLE, 501], ReadError),
        ([UNREACHABLE, TIMEOUT], BookieTimeoutError),
        ([TIMEOUT, 501], BookieTimeoutError),
        ([-5, 403], DigestMismatchError),
        ([601, 602], BookieUnavailableError),
        ([12345], ReadError),
        ([], BookieUnavailableError),
    ],
)
def test_one_error_is_reported(codes: list[int], kind: type[LedgerError]) -> None:
    """5.4, 15.1."""
    assert type(final_error(codes, "entry")) is kind


def test_the_order_of_replicas_keeps_all_of_them() -> None:
    """5.2: sticky where E = Qw, write-set order elsewhere, suspects last."""
    whole, fragment = Schedule(3, 3, 2), Fragment(0, (A, B, C))
    assert [replica_order(whole, fragment, e, 1)[0] for e in range(5)] == [B] * 5
    assert replica_order(whole, fragment, 7, 1, {B}) == [C, A, B]
    striped, wide = Schedule(5, 3, 2), Fragment(0, (A, B, C, D, E))
    assert replica_order(striped, wide, 4, 2) == [E, A, B]


def record(schedule: Schedule, *, closed: int | None = None) -> LedgerMetadata:
    ensemble = (A, B, C, D, E)[: schedule.ensemble_size]
    fragments = (Fragment(0, ensemble), Fragment(10, ensemble))
    metadata = LedgerMetadata(schedule, LedgerState.OPEN, fragments, token=1)
    return metadata if closed is None else metadata.closed_at(closed, 0)


def test_the_lac_is_known_by_coverage_and_never_below_the_last_fragment() -> None:
    """5.6, 1.5."""
    read = LacRead(LEDGER, record(Schedule(3, 3, 2)))
    read.receive(0, 3)
    assert read.result is None
    read.receive_error(1, int(Code.NO_LEDGER))
    assert read.result == 9
    other = LacRead(LEDGER, record(Schedule(3, 3, 2)))
    other.receive(0, 15)
    other.receive_error(1, UNREACHABLE)
    other.receive_error(2, UNREACHABLE)
    assert isinstance(other.failure, BookieUnavailableError)
    silent = LacRead(LEDGER, record(Schedule(3, 3, 2)))
    silent.receive(2, 15)
    silent.time_out()
    assert isinstance(silent.failure, BookieTimeoutError)
    assert LacRead(LEDGER, record(Schedule(3, 3, 2), closed=40)).result == 40


def test_a_tail_listens_to_enough_bookies_that_no_ack_quorum_misses_them() -> None:
    for schedule in (Schedule(3, 3, 2), Schedule(3, 3, 1), Schedule(5, 5, 3), Schedule(4, 3, 2)):
        metadata = record(schedule)
        for turn in range(4):
            asked = {metadata.last_fragment.ensemble.index(m) for m in poll_targets(metadata, turn)}
            assert schedule.covers(set(range(schedule.ensemble_size)) - asked)
