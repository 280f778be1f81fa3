"""How one checkpoint changes the tables of the index, inside its write transaction.

This runs in a helper thread. It touches the interpreter only between LMDB calls, each of which lets go of the
GIL, so the loop is never held up for longer than one of these short steps.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from google_crc32c import value as crc32c

from bookie.storage.index_format import (
    IndexDamagedError,
    LedgerRecord,
    RunRecord,
    decode_ledger,
    decode_number,
    decode_run,
    encode_ledger,
    encode_number,
    encode_run,
    id_key,
    key_id,
    run_key,
)

DELETED_RUNS_MAX: Final = 100_000
"""Runs of deleted ledgers that one commit removes; the rest waits for the next one."""


class Commit:
    """Applies ledger changes to the tables and keeps what the rest of the index must know of it.

    Attributes:
        segment_deltas: segment -> [runs, live bytes] gained or lost.
        digest_delta: change of the ledger table's digest, may be negative.
        deleted: ledgers that are gone for good.
    """

    def __init__(self, txn: Any, ledgers: Any, runs: Any, tombstones: Any, *, deletes_all: bool) -> None:
        self._txn = txn
        self._ledgers = ledgers
        self._tombstones = tombstones
        self._cursor = txn.cursor(db=runs)
        self._deletions_left = sys.maxsize if deletes_all else DELETED_RUNS_MAX
        self.segment_deltas: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        self.digest_delta = 0
        self.ledgers_added = 0
        self.deleted: list[int] = []

    def apply(self, ledger_id: int, record: LedgerRecord, runs: Iterable[RunRecord]) -> None:
        """Bring one ledger up to date; a ledger being deleted loses its runs, and with the last of them its
        record.
        """
        key = id_key(ledger_id)
        value = self._txn.get(key, db=self._ledgers)
        last, count = -1, 0
        if value is not None:
            old = decode_ledger(key, value)
            last, count = old.last_entry_id, old.runs
            self.digest_delta -= crc32c(key + value)
            self.ledgers_added -= 1
        if record.deleting:
            count -= self._delete_runs(ledger_id)
            if self._deletions_left > 0:
                if value is not None:
                    self._txn.delete(key, db=self._ledgers)
                self._add_tombstone(ledger_id)
                self.deleted.append(ledger_id)
                return
        else:
            for run in runs:
                if run.first > last:
                    self._put(ledger_id, run._replace(previous=last))
                    last, count = run.last, count + 1
                else:
                    last, count = self._merge(ledger_id, run, last, count)
        new = encode_ledger(key, replace(record, last_entry_id=last, runs=count))
        self._txn.put(key, new, db=self._ledgers)
        self.digest_delta += crc32c(key + new)
        self.ledgers_added += 1

    def _merge(self, ledger_id: int, run: RunRecord, last: int, count: int) -> tuple[int, int]:
        """Insert a run among others, cutting those it overlaps: the newest wins (R-B7)."""
        overlapped: list[RunRecord] = []
        successor: RunRecord | None = None
        more = self._cursor.set_range(run_key(ledger_id, run.first))
        while more:
            found, other = decode_run(*self._cursor.item())
            if found != ledger_id:
                break
            if other.first > run.last:
                successor = other
                break
            overlapped.append(other)
            more = self._cursor.next()
        before = overlapped[0] if overlapped else successor
        if before is None:
            raise IndexDamagedError(f"ledger {ledger_id} should have entry {last}, and has no run there")
        for other in overlapped:
            self._delete(ledger_id, other)
        previous = before.previous
        pieces = [run]
        if overlapped and overlapped[0].first < run.first:
            pieces.insert(0, cut(overlapped[0], overlapped[0].first, run.first - 1))
        if overlapped and overlapped[-1].last > run.last:
            pieces.append(cut(overlapped[-1], run.last + 1, overlapped[-1].last))
        for piece in pieces:
            self._put(ledger_id, piece._replace(previous=previous))
            previous = piece.last
        if successor is not None and successor.previous != previous:
            key = run_key(ledger_id, successor.last)
            self._cursor.put(key, encode_run(key, successor._replace(previous=previous)))
        return max(last, previous), count + len(pieces) - len(overlapped)

    def _put(self, ledger_id: int, run: RunRecord) -> None:
        key = run_key(ledger_id, run.last)
        self._cursor.put(key, encode_run(key, run))
        delta = self.segment_deltas[run.segment]
        delta[0] += 1
        delta[1] += run.live_bytes

    def _delete(self, ledger_id: int, run: RunRecord) -> None:
        if not self._cursor.set_key(run_key(ledger_id, run.last)):
            raise IndexDamagedError(f"ledger {ledger_id} has lost its run up to {run.last}")
        self._cursor.delete()
        delta = self.segment_deltas[run.segment]
        delta[0] -= 1
        delta[1] -= run.live_bytes

    def _delete_runs(self, ledger_id: int) -> int:
        """Remove runs of a ledger as far as this commit's budget goes; returns how many."""
        removed = 0
        more = self._cursor.set_range(run_key(ledger_id, 0))
        while more and self._deletions_left > 0:
            found, run = decode_run(*self._cursor.item())
            if found != ledger_id:
                break
            delta = self.segment_deltas[run.segment]
            delta[0] -= 1
            delta[1] -= run.live_bytes
            more = self._cursor.delete() and bool(self._cursor.key())
            removed += 1
            self._deletions_left -= 1
        return removed

    def _add_tombstone(self, ledger_id: int) -> None:
        first = last = ledger_id
        with self._txn.cursor(db=self._tombstones) as cursor:
            # Ranges that hold the id or touch it, at most two, become one.
            more = cursor.set_range(id_key(max(ledger_id - 1, 0)))
            while more:
                key, value = cursor.item()
                other_first, other_last = decode_number(key, value), key_id(key)
                if other_first > ledger_id + 1:
                    break
                first, last = min(first, other_first), max(last, other_last)
                more = cursor.delete() and bool(cursor.key())
            key = id_key(last)
            cursor.put(key, encode_number(key, first))


def cut(run: RunRecord, first: int, last: int) -> RunRecord:
    """A part of a run, with its share of the live bytes."""
    share = run.live_bytes * (last - first + 1) // (run.last - run.first + 1)
    return run._replace(first=first, last=last, live_bytes=share)
