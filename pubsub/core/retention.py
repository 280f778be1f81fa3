"""When a ledger is rolled, and which ledgers of a chain may go (1.4, 1.13, 2.6)."""

from dataclasses import dataclass
from typing import Final

from pubsub.core.record import LedgerRange, TopicRecord

ROLL_BYTES: Final = 512 << 20
ROLL_ENTRIES: Final = 50_000
ROLL_AGE_MS: Final = 4 * 3600 * 1000
ROLL_AGE_MS_MIN: Final = 10 * 60 * 1000
"""A ledger younger than this is not rolled for its number of entries, only for its bytes (Pulsar's rule)."""
UNSUBSCRIBED_KEEP_MS: Final = 3600 * 1000
"""A topic without subscriptions keeps a closed ledger this long, for the one who subscribes from earliest."""


@dataclass(frozen=True, slots=True)
class RollPolicy:
    """Bounds of one ledger; T3: without them consumed data of a long-lived owner is never deleted."""

    bytes_max: int = ROLL_BYTES
    entries_max: int = ROLL_ENTRIES
    age_ms_max: int = ROLL_AGE_MS
    age_ms_min: int = ROLL_AGE_MS_MIN

    def due(self, byte_count: int, entries: int, age_ms: int, *, reduced: bool, full_possible: bool) -> bool:
        """Whether an open ledger should be closed and followed by a new one.

        Args:
            reduced: it has fewer copies than wanted (created small, or a failed bookie was left in place).
            full_possible: enough bookies are there now for a full one.
        """
        if reduced and full_possible:
            return True
        if entries == 0:
            return False
        if byte_count >= self.bytes_max or age_ms >= self.age_ms_max:
            return True
        return entries >= self.entries_max and age_ms >= self.age_ms_min


def deletable_ranges(record: TopicRecord, persisted_marks: list[int], dedup_covered: int, now_ms: int) -> int:
    """How many ranges at the head of the chain may be deleted: whole closed ledgers, a prefix only.

    Args:
        persisted_marks: the persisted (not in-memory) mark of every durable subscription: after a crash they
            fall
            back to these.
        dedup_covered: sequence the persisted dedup snapshot covers; what is above must be replayable (2.9).
    """
    limit = min([*persisted_marks, dedup_covered])
    count = 0
    for one in record.ranges:
        if one.last is None or one.last > limit:
            break
        if not persisted_marks and not _expired(one, now_ms):
            break
        count += 1
    return count


def _expired(one: LedgerRange, now_ms: int) -> bool:
    return now_ms - one.last_time_ms >= UNSUBSCRIBED_KEEP_MS
