"""The store of a bookie: one log that is journal and data at once, and an index of where each entry is.

Who moves what, and what comes before what:

* `add`, `fence`, `write_lac`, `delete` decide at once, on the loop: check and insertion are one step with no
  wait between them (R-B1, R-N2), and an accepted add is found by reads from then on (R-B2). Each leaves a
  record in the outbox. `flush`, called at the end of a tick, appends the outbox to the log as one piece, so
  log order is the order of decisions (R-B6).
* `on_log`, called when the log's thread reports, takes what became durable: extents get their places, and the
  callbacks run that send the answers. No answer that promises anything is sent from anywhere else (R-B3,
  R-N16).
* A checkpoint begins with a barrier in the log. When it comes back, everything before it has been applied
  here, and what the index does not hold yet is frozen; `Index.commit` writes that and the barrier's position
  in one transaction, in a thread; `finish_checkpoint` then drops the frozen part (R-J5, R-J6, R-S1).
* A segment goes when a committed mark is behind it, no run of the index is in it, and nobody is reading from
  it.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, cast

from bookie.ledger.extent import Extent
from bookie.ledger.wire import Code
from bookie.storage import record as records
from bookie.storage.errors import RefusedError
from bookie.storage.index import Changes, CommitReport
from bookie.storage.ledger_table import LedgerTable
from bookie.storage.limits import StoreLimits
from bookie.storage.local_ledger import LocalLedger, Place
from bookie.storage.runs import ExtentRef
from coord.log import Appended, LogWriter, Position, SegmentedLog

Callback = Callable[[], None]

APPEND_BYTES_MAX: Final = 8 << 20
"""Bytes of the outbox that go to the log as one record; a tick with more makes several."""

_Item = tuple[int, int, LocalLedger | None, ExtentRef | None, Callback | None]
"""Offset in the appended record, length, and what to do once it is durable."""


class Store:
    """An open store; made by `bookie.storage.opening.open_store`.

    Attributes:
        read_only: normal adds are refused (R-B11: fences, reads and recovery adds go on).
        refuse_recovery: recovery adds are refused as well: the disk's reserve is used up.
        lac_watched: ledgers whose LAC somebody waits for; `on_lac` is called when one rises.
    """

    def __init__(self, log: SegmentedLog, writer: LogWriter, table: LedgerTable, limits: StoreLimits) -> None:
        self.log = log
        self.index = table.index
        self.limits = limits
        self.read_only = False
        self.refuse_recovery = False
        self.lac_watched: set[int] = set()
        self.on_lac: Callable[[int, int], None] = lambda ledger_id, lac: None
        self.entries_added = self.extents_added = self.bytes_added = 0
        self.checkpoints = 0
        self.writer = writer
        self._table = table
        self._checkpointing = False
        self._outbox: list[bytes] = []
        self._items: list[_Item] = []
        self._outbox_bytes = 0
        self._cache: dict[Place, bytes] = {}
        self._cache_bytes = 0
        self._logged_bytes = 0
        self._reading: Counter[int] = Counter()

    # ---- changes: decided on the loop, answered when durable

    def add(
        self,
        extent: Extent,
        data: bytes,
        checksum: int,
        master_key: bytes,
        *,
        recovery: bool,
        on_durable: Callback,
    ) -> None:
        """Accept an extent; `on_durable` is called when every entry of it is on disk.

        Args:
            extent: decoded from `data`, its sizes, ids and seal checked.
            checksum: CRC32C of `data`, verified (R-M3).

        Raises:
            RefusedError: nothing was accepted, and nothing has changed (R-B12).
        """
        ledger_id = extent.ledger_id
        state = self._table.get(ledger_id)
        # Recovery is not to starve behind a busy writer: it may go on for as much again (R-B11).
        if self.writer.queued_bytes + self._outbox_bytes > self.limits.unlogged_bytes_max * (1 + recovery):
            raise RefusedError(Code.TOO_MANY_REQUESTS, "too many bytes wait for the disk")
        if not recovery:
            if self.read_only:
                raise RefusedError(Code.READ_ONLY, "the bookie is read-only")
            if (state is None or state.deleting) and ledger_id in self.index.tombstones:
                raise RefusedError(Code.FENCED, f"ledger {ledger_id} was deleted here")
            if state is not None and state.fenced:
                raise RefusedError(Code.FENCED, f"ledger {ledger_id} is fenced")
        elif self.refuse_recovery:
            raise RefusedError(Code.READ_ONLY, "the bookie's disk is full")
        state = self._known(ledger_id, state, master_key)
        length = records.HEADER_BYTES + len(data)
        ref = ExtentRef(extent.first_entry_id, extent.count, length, data)
        state.pending.insert(ref.first, ref.last, ref)
        self._put(records.encode_header(records.EXTENT, data, checksum), data, state, ref, on_durable)
        self.entries_added += extent.count
        self.extents_added += 1
        self.bytes_added += len(data)
        if extent.lac > state.lac:
            self._raise_lac(state, extent.lac)

    def fence(self, ledger_id: int, master_key: bytes, on_durable: Callback) -> None:
        """Fence the ledger, created if it is not known (R-B4); `on_durable` is called when the fence is on
        disk.

        That is at once if it was before. Whatever the answer to the fencing request, it waits for this
        (R-B3).

        Raises:
            RefusedError: the ledger was not fenced: another master key.
        """
        state = self._known(ledger_id, self._table.get(ledger_id), master_key)
        if state.fence_durable:
            on_durable()
            return
        state.fence_waiters.append(on_durable)
        if not state.fenced or len(state.fence_waiters) == 1:
            self._put_fence(state)

    def write_lac(self, ledger_id: int, master_key: bytes, lac: int, on_durable: Callback) -> None:
        """Take an explicit LAC (4.8); the highest counts.

        Raises:
            RefusedError: another master key.
        """
        state = self._known(ledger_id, self._table.get(ledger_id), master_key)
        self._put(records.lac_record(ledger_id, lac), b"", None, None, on_durable)
        if lac > state.lac:
            self._raise_lac(state, lac)

    def delete(self, ledger_id: int) -> bool:
        """Drop a ledger's entries and leave a tombstone (R-G5); False if it is not here."""
        state = self._table.get(ledger_id)
        if state is None or state.deleting:
            return False
        self._table.delete(state)
        self._put(records.tombstone_record(ledger_id), b"", None, None, None)
        return True

    # ---- reading

    def ledger(self, ledger_id: int) -> LocalLedger | None:
        """The ledger's state, or None if it is certainly not known here.

        Raises:
            RefusedError: the index cannot say.
        """
        state = self._table.get(ledger_id)
        return None if state is None or state.deleting else state

    def ledger_ids(self, after: int, count: int) -> tuple[list[int], bool]:
        """Ids above `after`, ascending, at most `count` of them, and whether others follow."""
        return self._table.ids(after, count)

    def cached(self, place: Place) -> bytes | None:
        """The extent of the record at a place, if it is still in memory."""
        return self._cache.get(place)

    def begin_read(self, places: Iterable[Place]) -> None:
        """Keep the segments of these places until `end_read`."""
        self._reading.update(place.segment for place in places)

    def end_read(self, places: Iterable[Place]) -> None:
        self._reading.subtract(place.segment for place in places)
        self._reading = +self._reading

    # ---- the log

    def flush(self) -> None:
        """Hand what this tick decided to the log."""
        self._append()
        self.writer.hand_over()

    def write(self) -> None:
        """`flush`; what is durable at once has its callbacks run.

        Raises:
            OSError: as `on_log`.
        """
        self._append()
        if self.writer.write():
            self.on_log()

    def _append(self) -> None:
        if self._outbox:
            self._logged_bytes += self._outbox_bytes
            self.writer.append(self._outbox, self._items)
            self._outbox, self._items, self._outbox_bytes = [], [], 0

    def on_log(self) -> None:
        """Take what became durable and run its callbacks.

        Raises:
            OSError: the log has failed; the process must stop (R-J1, R-J3).
        """
        for done in self.writer.take_durable():
            if not isinstance(done, Appended):
                cast(Callable[[object], None], done.token)(done.result)
                continue
            segment, base = done.segment, done.offset
            for offset, length, state, ref, callback in cast(list[_Item], done.token):
                if ref is not None and state is not None:
                    self._settle(state, ref, Place(segment, base + offset, length))
                if callback is not None:
                    callback()
        if self.writer.failure is not None:
            raise self.writer.failure

    # ---- checkpoints

    @property
    def checkpoint_due(self) -> bool:
        """Enough has gathered since the last checkpoint that it should not wait for its time."""
        limits = self.limits
        return (
            self._logged_bytes > limits.checkpoint_bytes_max
            or self._table.recent_runs > limits.recent_runs_max
        )

    @property
    def has_changes(self) -> bool:
        """A checkpoint would write something."""
        return self._table.has_changes

    def begin_checkpoint(self, on_frozen: Callable[[Changes], None]) -> None:
        """Send the barrier; `on_frozen` gets what `Index.commit` must write, then `finish_checkpoint` is
        owed.
        """
        assert not self._checkpointing
        self._checkpointing = True
        self.flush()
        self._logged_bytes = 0
        self.writer.submit(self.log.end, lambda end: on_frozen(self._table.freeze(cast(Position, end))))

    def finish_checkpoint(self, report: CommitReport) -> None:
        """The index holds what was frozen: forget it here."""
        self._table.thaw(report)
        self._checkpointing = False
        self.checkpoints += 1

    def removable_segments(self) -> list[int]:
        """Segments that nothing needs: see the end of the module's docstring."""
        counts = self.index.segments
        return [
            number
            for number, _ in self.log.segments()
            if number < self.index.mark.segment
            and counts.get(number, (0, 0))[0] == 0
            and not self._reading[number]
        ]

    def remove_segments(self, on_removed: Callable[[list[int]], None]) -> bool:
        """Unlink what is removable, False if nothing is; `on_removed` gets the numbers once it is done."""
        numbers = self.removable_segments()
        if numbers:
            self.writer.submit(lambda: self.log.remove(numbers), lambda _: on_removed(numbers))
        return bool(numbers)

    def statistics(self) -> dict[str, int]:
        return {
            "ledgers_in_memory": len(self._table),
            "recent_runs": self._table.recent_runs,
            "cache_bytes": self._cache_bytes,
            "unlogged_bytes": self.writer.queued_bytes + self._outbox_bytes,
            "entries_added": self.entries_added,
            "extents_added": self.extents_added,
            "bytes_added": self.bytes_added,
            "checkpoints": self.checkpoints,
        }

    def close(self) -> None:
        """Write what is queued and close the files; no answer is sent any more."""
        self.flush()
        self.writer.close()
        self.log.close()
        self.index.close()

    # ---- parts

    def _known(self, ledger_id: int, state: LocalLedger | None, master_key: bytes) -> LocalLedger:
        """The state to change, created if need be; its key record comes before all else of it."""
        if state is None:
            state = self._table.create(ledger_id, master_key)
            self._put(records.key_record(ledger_id, master_key), b"", None, None, None)
            if state.fenced:
                self._put_fence(state)
        elif state.deleting:
            raise RefusedError(Code.TOO_MANY_REQUESTS, f"ledger {ledger_id} is being deleted here")
        elif state.master_key != master_key:
            if any(state.master_key):
                raise RefusedError(Code.UNAUTHORIZED, f"another master key for ledger {ledger_id}")
            # An empty key comes from an index rebuilt without it; the first real one takes its place (1.4).
            state.master_key = master_key
            self._put(records.key_record(ledger_id, master_key), b"", None, None, None)
            self._table.mark_changed(state)
        return state

    def _put(
        self,
        header: bytes,
        body: bytes,
        state: LocalLedger | None,
        ref: ExtentRef | None,
        callback: Callback | None,
    ) -> None:
        length = len(header) + len(body)
        if self._outbox_bytes + length > APPEND_BYTES_MAX:
            self.flush()
        self._items.append((self._outbox_bytes, length, state, ref, callback))
        self._outbox.append(header)
        if body:
            self._outbox.append(body)
        self._outbox_bytes += length

    def _put_fence(self, state: LocalLedger) -> None:
        def durable() -> None:
            state.fence_durable = True
            waiters, state.fence_waiters = state.fence_waiters, []
            for waiter in waiters:
                waiter()

        state.fenced = True
        self._put(records.fence_record(state.ledger_id), b"", None, None, durable)
        self._table.mark_changed(state)

    def _settle(self, state: LocalLedger, ref: ExtentRef, place: Place) -> None:
        """An extent is durable: pending becomes recent."""
        ref.segment, ref.offset, ref.length = place
        data, ref.data = ref.data, None
        state.pending.remove(ref)
        if state.deleting or data is None:
            return
        self._table.insert(state, ref.first, ref.last, ref)
        self._cache[place] = data
        self._cache_bytes += len(data)
        while self._cache_bytes > self.limits.cache_bytes_max:
            self._cache_bytes -= len(self._cache.pop(next(iter(self._cache))))

    def _raise_lac(self, state: LocalLedger, lac: int) -> None:
        state.lac = lac
        self._table.mark_changed(state)
        if state.ledger_id in self.lac_watched:
            self.on_lac(state.ledger_id, lac)
