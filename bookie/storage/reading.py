"""Reads in three steps: plan on the loop, load in a thread, assemble on the loop.

A plan names the records that hold a prefix of the asked range and says why it ends there (R-N7). What is in
memory needs no load. Every record that comes from a segment is verified before a byte of it is served (R-S2),
and what cannot be verified is an error, never an absence (R-B9).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from bookie.ledger.extent import Extent, ExtentError
from bookie.ledger.wire import Code, Stop
from bookie.storage import record as records
from bookie.storage.errors import RefusedError
from bookie.storage.index_format import IndexDamagedError
from bookie.storage.local_ledger import LocalLedger, Piece, Place
from bookie.storage.record import RecordDamagedError, RecordUnknownError
from bookie.storage.store import Store
from coord.log import LogDamagedError, SegmentedLog

Loaded = dict[Place, bytes | None]
"""Records by place; None where the bytes could not be had."""

ENTRY_OVERHEAD_BYTES = 8
"""What an entry takes in an extent beside its payload: length and digest."""


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """A prefix of what was asked for.

    Attributes:
        places: records to load; those in memory are not among them.
        stop, next_entry_id: how and where the answer ends if every piece is as it should be.
    """

    ledger_id: int
    pieces: tuple[Piece, ...]
    places: tuple[Place, ...]
    max_bytes: int
    stop: Stop
    next_entry_id: int


class Answer(NamedTuple):
    """Extents of consecutive entries, and why they end before `next_entry_id`."""

    extents: list[bytes]
    stop: Stop
    next_entry_id: int
    error: int = 0


def plan_read(
    store: Store, ledger: LocalLedger, first: int, last: int, max_count: int, max_bytes: int
) -> ReadPlan:
    """Find the records for entries `first`..`last`.

    Args:
        max_count: positive; entries at most.
        max_bytes: positive; the first entry comes whatever its size (5.5).

    Raises:
        RefusedError: the index cannot even say where the first entry is.
    """
    wanted = min(last, first + max_count - 1)
    pieces: list[Piece] = []
    places: list[Place] = []
    size, entry_id = 0, first
    stop = Stop.LIMIT if wanted < last else Stop.END
    try:
        for piece in ledger.pieces(store.index, first, wanted):
            if size >= max_bytes:
                stop = Stop.LIMIT
                break
            source = piece.source
            if isinstance(source, Place):
                size += source.length
                cached = store.cached(source)
                if cached is None:
                    places.append(source)
                else:
                    piece = piece._replace(source=cached)
            else:
                size += len(source)
            pieces.append(piece)
            entry_id = piece.last + 1
        else:
            if entry_id <= wanted:
                stop = Stop.NO_ENTRY
    except IndexDamagedError as error:
        if not pieces:
            raise RefusedError(Code.IO_ERROR, str(error)) from error
        stop = Stop.LIMIT  # the next request begins where the index is damaged, and says so
    return ReadPlan(ledger.ledger_id, tuple(pieces), tuple(places), max_bytes, stop, entry_id)


def load(log: SegmentedLog, places: Iterable[Place]) -> Loaded:
    """Read records from their segments; runs in the one reading thread."""
    loaded: Loaded = {}
    for place in places:
        if place not in loaded:
            try:
                loaded[place] = log.read(*place)
            except (LogDamagedError, OSError):
                loaded[place] = None
    return loaded


def assemble(plan: ReadPlan, loaded: Loaded) -> Answer:
    """Verify, cut to what was asked for, and stop where the limit or damage says so."""
    extents: list[bytes] = []
    size = 0
    for piece in plan.pieces:
        source = piece.source
        try:
            if isinstance(source, Place):
                extent = _verified(loaded[source], plan.ledger_id, piece)
            else:
                extent = Extent(source)
            last = piece.last
            if size + extent.size > plan.max_bytes or extent.last_entry_id > last:
                room = plan.max_bytes - size - extent.payload_offset
                last = _last_that_fits(extent, piece.first, last, room, at_least_one=not extents)
                if last < piece.first:
                    return Answer(extents, Stop.LIMIT, piece.first)
            data = extent.cut(piece.first, last)
        except (RecordDamagedError, RecordUnknownError, ExtentError):
            return Answer(extents, Stop.ERROR, piece.first, Code.IO_ERROR)
        extents.append(data)
        size += len(data)
        if last < piece.last:
            return Answer(extents, Stop.LIMIT, last + 1)
    return Answer(extents, plan.stop, plan.next_entry_id)


def _verified(data: bytes | None, ledger_id: int, piece: Piece) -> Extent:
    """The extent of a record read from a segment, if it is the one the index means."""
    if data is None:
        raise RecordDamagedError("the record could not be read")
    record = records.decode_record(data)
    body = records.moved_from(record)[2] if record.kind == records.MOVED else record.body
    if record.length != len(data) or record.kind not in (records.EXTENT, records.MOVED):
        raise RecordDamagedError("another record stands at its place")
    extent = Extent(body)
    if extent.ledger_id != ledger_id:
        raise RecordDamagedError("another ledger's extent stands at its place")
    if not extent.first_entry_id <= piece.first <= piece.last <= extent.last_entry_id:
        raise RecordDamagedError("an extent of other entries stands at its place")
    return extent


def _last_that_fits(extent: Extent, first: int, last: int, room: int, *, at_least_one: bool) -> int:
    """The last id up to `last` whose entry still fits, `first - 1` if none does."""
    fits = first - 1
    for length in extent.lengths[first - extent.first_entry_id : last + 1 - extent.first_entry_id]:
        room -= length + ENTRY_OVERHEAD_BYTES
        if room < 0 and not (at_least_one and fits < first):
            break
        fits += 1
    return fits
