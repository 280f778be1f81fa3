"""The ledgers of a store in memory over the index: loaded on demand, written back by checkpoints.

Live requests and replay change ledgers through here alone; nothing in this module touches the log.
"""

from bookie.ledger.wire import Code
from bookie.storage.errors import RefusedError
from bookie.storage.index import Changes, CommitReport, Index, LedgerChange
from bookie.storage.index_format import IndexDamagedError, LedgerRecord
from bookie.storage.local_ledger import LocalLedger
from bookie.storage.runs import ExtentRef
from coord.log import Position


class LedgerTable:
    """Every ledger that somebody touched lately.

    Attributes:
        recent_runs: runs in memory that the index does not hold: what a checkpoint would free.
    """

    def __init__(self, index: Index, ledgers_cached_max: int) -> None:
        self.index = index
        self.recent_runs = 0
        self._ledgers_cached_max = ledgers_cached_max
        self._ledgers: dict[int, LocalLedger] = {}
        self._changed: list[LocalLedger] = []
        self._frozen: list[LocalLedger] = []
        for ledger_id in index.deleting:  # where a crash has interrupted that
            ledger = self.get(ledger_id)
            assert ledger is not None
            self.delete(ledger)

    def __len__(self) -> int:
        return len(self._ledgers)

    @property
    def has_changes(self) -> bool:
        return bool(self._changed)

    def get(self, ledger_id: int) -> LocalLedger | None:
        """The ledger, one being deleted included; None is a promise that it is not known here (R-B9).

        Raises:
            RefusedError: the index cannot say.
        """
        ledger = self._ledgers.get(ledger_id)
        if ledger is not None:
            return ledger
        try:
            found = self.index.ledger(ledger_id)
        except IndexDamagedError as error:
            raise RefusedError(Code.IO_ERROR, str(error)) from error
        if found is None:
            return None
        ledger = self._ledgers[ledger_id] = LocalLedger(ledger_id, found)
        return ledger

    def create(self, ledger_id: int, master_key: bytes) -> LocalLedger:
        """A ledger that was not known; one with a tombstone comes back fenced (R-G5)."""
        fenced = ledger_id in self.index.tombstones
        ledger = self._ledgers[ledger_id] = LocalLedger(ledger_id, LedgerRecord(master_key, fenced))
        self.mark_changed(ledger)
        return ledger

    def insert(self, ledger: LocalLedger, first: int, last: int, ref: ExtentRef) -> None:
        """Entries that are durable; the newest copy wins (R-B7)."""
        before = len(ledger.recent)
        ledger.recent.insert(first, last, ref)
        self.recent_runs += len(ledger.recent) - before
        self.mark_changed(ledger)

    def delete(self, ledger: LocalLedger) -> None:
        """Nothing of the ledger is found any more; its runs go with the next checkpoints."""
        ledger.deleting = True
        self.recent_runs -= len(ledger.recent)
        ledger.forget_runs()
        self.index.tombstones.add(ledger.ledger_id, ledger.ledger_id)
        self.mark_changed(ledger)

    def mark_changed(self, ledger: LocalLedger) -> None:
        if not ledger.changed:
            ledger.changed = True
            self._changed.append(ledger)

    def ids(self, after: int, count: int) -> tuple[list[int], bool]:
        """Ids above `after` that are not being deleted, ascending, at most `count`; and whether others may
        follow.
        """
        live: list[int] = []
        while len(live) < count:
            # What the index lacks has changed since the last checkpoint.
            stored = self.index.ledger_ids(after, count)
            fresh = {
                ledger.ledger_id for ledger in (*self._changed, *self._frozen) if ledger.ledger_id > after
            }
            page = sorted(fresh.union(stored))[:count]
            for number in page:
                ledger = self._ledgers.get(number)
                if ledger is None or not ledger.deleting:
                    live.append(number)
            if len(page) < count:
                return live[:count], len(live) > count
            after = page[-1]
        return live[:count], True

    def freeze(self, mark: Position) -> Changes:
        """Everything applied so far, to be committed with `mark`, the end of the applied log."""
        assert not self._frozen
        self._frozen, self._changed = self._changed, []
        return Changes(mark, [LedgerChange(x.ledger_id, x.record(), x.freeze()) for x in self._frozen])

    def thaw(self, report: CommitReport) -> None:
        """The index holds what was frozen."""
        self.index.refresh(report)
        deleted = set(report.deleted)
        for ledger in self._frozen:
            self.recent_runs -= ledger.thaw()
            if ledger.ledger_id in deleted:
                # In a replay the ledger may be back by now.
                if self._ledgers.get(ledger.ledger_id) is ledger:
                    del self._ledgers[ledger.ledger_id]
            elif ledger.deleting:
                self.mark_changed(ledger)  # its other runs go with the next checkpoint
        self._frozen = []
        self._forget_idle()

    def _forget_idle(self) -> None:
        excess = len(self._ledgers) - self._ledgers_cached_max
        if excess > 0:
            idle = [number for number, ledger in self._ledgers.items() if ledger.idle and not ledger.deleting]
            for number in idle[:excess]:
                del self._ledgers[number]
