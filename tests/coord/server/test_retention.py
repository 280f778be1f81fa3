"""Which part of the log goes when: `autopurge.*` and free space."""

from coord.server.retention import (
    HOUR_MS,
    KEPT_BYTES,
    SHORT_BYTES,
    SHORT_INTERVAL_MS,
    Purge,
    Retention,
)


def test_the_log_reaches_back_as_many_checkpoints_as_are_retained() -> None:
    retention = Retention(3, 0, 0)
    assert [retention.on_checkpoint(zxid, 0) for zxid in (10, 20)] == [None, None]
    assert [retention.on_checkpoint(zxid, 0) for zxid in (30, 40)] == (
        [Purge(10, KEPT_BYTES), Purge(20, KEPT_BYTES)]
    )


def test_an_interval_makes_purges_rarer() -> None:
    retention = Retention(1, 2, 0)
    assert retention.on_checkpoint(10, HOUR_MS) is None
    assert retention.on_checkpoint(20, 2 * HOUR_MS) == Purge(20, KEPT_BYTES)
    assert retention.on_checkpoint(30, 3 * HOUR_MS) is None


def test_short_space_takes_all_that_is_not_needed_to_start() -> None:
    retention = Retention(3, 24, 0)
    assert retention.when_short(10, SHORT_BYTES, 0) is None
    assert retention.when_short(10, SHORT_BYTES - 1, 0) == Purge(10, 0)
    assert retention.when_short(10, SHORT_BYTES - 1, SHORT_INTERVAL_MS - 1) is None
    assert retention.when_short(10, SHORT_BYTES - 1, SHORT_INTERVAL_MS) == Purge(10, 0)


def test_another_state_forgets_the_checkpoints_of_the_one_before() -> None:
    retention = Retention(1, 0, 0)
    retention.on_checkpoint(1000, 0)
    retention.forget()
    assert retention.on_checkpoint(5, 0) == Purge(5, KEPT_BYTES)
