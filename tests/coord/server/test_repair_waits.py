"""When a server with a damaged log asks its peers, and when they give: while nobody leads."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from coord.server.giving import LogGiver
from coord.server.repairing import LogRepairer
from coord.server.statistics import ServerStatistics
from coord.storage import LoggedBatch
from coord.storage.txnlog import KIND_BATCH
from coord.zab import Role, Sid, Status

STANDINGS = [
    (Status(Role.LOOKING, None, 0, serving=False), True),
    (Status(Role.FOLLOWING, Sid(3), 0, serving=False), True),  # elected, and perhaps it will never lead
    (Status(Role.LEADING, Sid(1), 0, serving=False), True),
    (Status(Role.FOLLOWING, Sid(3), 7, serving=False), False),
    (Status(Role.LEADING, Sid(1), 7, serving=True), False),
]


class OneBatch:
    """A log."""

    oldest_zxid = 0

    def batches_above(self, zxid: int) -> Iterator[LoggedBatch]:
        yield LoggedBatch(KIND_BATCH, 0, 0, 1, 1, b"batch")


def persistence(status: Status) -> Any:
    return SimpleNamespace(
        peer=SimpleNamespace(status=status),
        directory=SimpleNamespace(loss=None),
        log=SimpleNamespace(txn_log=OneBatch()),
        lost_log=None,
    )


@pytest.mark.parametrize(("status", "expected"), STANDINGS)
def test_a_damaged_server_asks_until_a_leader_has_told_it_its_epoch(status: Status, expected: bool) -> None:
    repairer = LogRepairer(1, persistence(status), SimpleNamespace(), lambda batches: None)  # type: ignore[arg-type]
    assert repairer._is_free is expected


@pytest.mark.parametrize(("status", "expected"), STANDINGS)
def test_a_peer_gives_until_a_leader_has_told_it_its_epoch(status: Status, expected: bool) -> None:
    _, batches = LogGiver(persistence(status), ServerStatistics())._source(0)
    assert bool(list(batches)) is expected
