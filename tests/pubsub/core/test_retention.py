"""Rolling and deletion of ledgers (spec 1.4, 1.13, 2.6)."""

from pubsub.core.record import LedgerRange, Owner, TopicRecord
from pubsub.core.retention import UNSUBSCRIBED_KEEP_MS, RollPolicy, deletable_ranges


def chain() -> TopicRecord:
    record = TopicRecord(bytes(16)).claimed(Owner("h:1", 1))
    for ledger_id, last in ((1, 10), (2, 20), (3, 30)):
        record = record.opened(LedgerRange(ledger_id, record.next_first)).closed(last, 100, 1000)
    return record.opened(LedgerRange(4, 31))


def test_only_a_prefix_that_every_persisted_cursor_has_passed_goes() -> None:
    assert deletable_ranges(chain(), [25, 19], 100, 0) == 1
    assert deletable_ranges(chain(), [20], 100, 0) == 2
    assert deletable_ranges(chain(), [9], 100, 0) == 0


def test_the_open_ledger_never_goes() -> None:
    assert deletable_ranges(chain(), [1000], 1000, 0) == 3


def test_what_the_producer_snapshot_does_not_cover_stays() -> None:
    assert deletable_ranges(chain(), [1000], 15, 0) == 1


def test_a_topic_without_subscriptions_keeps_its_ledgers_for_a_time() -> None:
    assert deletable_ranges(chain(), [], 1000, 1000 + UNSUBSCRIBED_KEEP_MS - 1) == 0
    assert deletable_ranges(chain(), [], 1000, 1000 + UNSUBSCRIBED_KEEP_MS) == 3


def test_t3_ledgers_roll_by_bytes_age_and_entries() -> None:
    policy = RollPolicy(bytes_max=1000, entries_max=50, age_ms_max=500, age_ms_min=100)

    def due(byte_count: int, entries: int, age_ms: int, reduced: bool = False, full: bool = True) -> bool:
        return policy.due(byte_count, entries, age_ms, reduced=reduced, full_possible=full)

    assert not due(999, 49, 499)
    assert due(1000, 1, 0)
    assert due(1, 1, 500)
    assert not due(0, 0, 500)
    assert not due(1, 50, 99)
    assert due(1, 50, 100)


def test_a_reduced_ledger_is_rolled_once_enough_bookies_are_back() -> None:
    policy = RollPolicy()
    assert policy.due(0, 0, 0, reduced=True, full_possible=True)
    assert not policy.due(0, 0, 0, reduced=True, full_possible=False)
