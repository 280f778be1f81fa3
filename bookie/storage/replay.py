"""Start-up: apply what the log holds behind the index's mark (spec 9.5).

Adds are applied whatever the fences say: they were accepted before the fence, or were recovery adds. Keys,
fences and LACs are kept. Applying the same records again gives the same result, since the newest copy of an
entry wins.
"""

from bookie.ledger.extent import Extent, ExtentError
from bookie.storage import record as records
from bookie.storage.ledger_table import LedgerTable
from bookie.storage.local_ledger import LocalLedger, Place
from bookie.storage.record import RecordDamagedError
from bookie.storage.runs import ExtentRef


class Replay:
    """Applies records in log order.

    Args:
        rebuilding: the index was lost and everything is replayed: every ledger comes back fenced (spec 9.6).
    """

    def __init__(self, table: LedgerTable, *, rebuilding: bool = False) -> None:
        self._table = table
        self.rebuilding = rebuilding
        self.records = 0

    def apply(self, payload: bytes, segment: int, offset: int) -> None:
        """Apply the records of one append, found at `offset` of `segment`.

        Raises:
            RecordDamagedError, RecordUnknownError: it was not written by this version, or is damaged.
        """
        for record in records.iterate_records(payload):
            self.records += 1
            place = Place(segment, offset + record.start, record.length)
            match record.kind:
                case records.EXTENT:
                    self._extent(record.body, place)
                case records.MOVED:
                    old_segment, old_offset, body = records.moved_from(record)
                    self._moved(old_segment, old_offset, body, place)
                case records.KEY:
                    self._key(records.ledger_of(record), record.body[8:])
                case records.FENCE:
                    ledger = self._ledger(records.ledger_of(record))
                    ledger.fenced = ledger.fence_durable = True
                    self._table.mark_changed(ledger)
                case records.LAC:
                    ledger = self._ledger(records.ledger_of(record))
                    ledger.lac = max(ledger.lac, records.lac_of(record))
                    self._table.mark_changed(ledger)
                case records.OPENED:
                    pass
                case _:
                    found = self._table.get(records.ledger_of(record))
                    if found is not None and not found.deleting:
                        self._table.delete(found)

    def _key(self, ledger_id: int, master_key: bytes) -> None:
        ledger = self._table.get(ledger_id)
        if ledger is None or ledger.deleting:
            # Behind a tombstone only a recovery add brings a ledger back.
            ledger = self._create(ledger_id, master_key, fenced=self.rebuilding)
        elif not any(ledger.master_key):
            ledger.master_key = master_key
            self._table.mark_changed(ledger)

    def _ledger(self, ledger_id: int) -> LocalLedger:
        """The ledger of a fence, LAC or extent whose key record is gone with its segment: no key is known of
        it.
        """
        return self._table.get(ledger_id) or self._create(ledger_id, b"", fenced=True)

    def _create(self, ledger_id: int, master_key: bytes, *, fenced: bool) -> LocalLedger:
        ledger = self._table.create(ledger_id, master_key)
        if fenced:
            ledger.fenced = ledger.fence_durable = True
        return ledger

    def _extent(self, body: bytes, place: Place) -> None:
        extent = _decode(body, place)
        if self._table.get(extent.ledger_id) is None and extent.ledger_id in self._table.index.tombstones:
            return  # accepted before the deletion, which the index holds already
        ledger = self._ledger(extent.ledger_id)
        if not ledger.deleting:
            self._table.insert(ledger, extent.first_entry_id, extent.last_entry_id, _ref(extent, place))
            ledger.lac = max(ledger.lac, extent.lac)

    def _moved(self, segment: int, offset: int, body: bytes, place: Place) -> None:
        """A copy counts only for entries that are still found where it was made from."""
        extent = _decode(body, place)
        ledger = self._table.get(extent.ledger_id)
        if ledger is None or ledger.deleting:
            return
        first, last = extent.first_entry_id, extent.last_entry_id
        moved: list[tuple[int, int]] = []
        entry_id = first
        while entry_id <= last:
            for piece in ledger.pieces(self._table.index, entry_id, last):
                if isinstance(piece.source, Place) and piece.source[:2] == (segment, offset):
                    moved.append((piece.first, piece.last))
                entry_id = piece.last + 1
            entry_id += 1
        ref = _ref(extent, place)
        for low, high in moved:
            self._table.insert(ledger, low, high, ref)


def _decode(body: bytes, place: Place) -> Extent:
    try:
        extent = Extent(body)
    except ExtentError as error:
        raise RecordDamagedError(f"segment {place.segment} offset {place.offset}: {error}") from error
    if extent.size != len(body):
        raise RecordDamagedError(f"segment {place.segment} offset {place.offset}: bytes behind the extent")
    return extent


def _ref(extent: Extent, place: Place) -> ExtentRef:
    ref = ExtentRef(extent.first_entry_id, extent.count, place.length, None)
    ref.segment, ref.offset = place.segment, place.offset
    return ref
