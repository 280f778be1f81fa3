"""Transactions as the client says them (spec 10)."""

import struct

import pytest

import coord
from coord.client.transaction import decode_outcomes, find_failure
from coord.protocol.jute import Reader
from coord.protocol.records import MULTI_END
from tests.coord.client.fake_ensemble import FakeEnsemble


@pytest.fixture
def fake() -> FakeEnsemble:
    return FakeEnsemble()


async def test_all_operations_or_none(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        results = await zk.multi(
            [coord.Create("/a", b"1"), coord.SetData("/a", b"22", 0), coord.Check("/a", 1)]
        )
        assert results[0] == "/a"
        assert isinstance(results[1], coord.Stat)
        assert results[1].version == 1
        assert results[2] is None
        with pytest.raises(coord.BadVersionError) as caught:
            await zk.multi([coord.Create("/b"), coord.Check("/a", 9), coord.Delete("/a")])
        assert (caught.value.index, caught.value.path, caught.value.happened) == (1, "/a", False)
        assert await zk.exists("/b") is None


async def test_kinds_of_nodes_in_a_transaction(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        results = await zk.multi(
            [
                coord.Create("/s-", sequential=True),
                coord.Create("/e", ephemeral=True),
                coord.Create("/e-", ephemeral=True, sequential=True),
            ]
        )
        assert results == ["/s-0000000000", "/e", "/e-0000000002"]
        stat = await zk.exists("/e")
        assert stat is not None
        assert stat.ephemeral_owner == zk.session_id


async def test_no_operations_are_done_at_once(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        assert await zk.multi([]) == []


DELETED = struct.pack(">i?i", 2, False, 0)
ROLLED_BACK = struct.pack(">i?ii", -1, False, 0, 0)


@pytest.mark.parametrize(
    "reply",
    [MULTI_END, DELETED + MULTI_END, DELETED * 3 + MULTI_END, ROLLED_BACK * 2 + MULTI_END],
    ids=["none", "one", "three", "no reason"],
)
def test_a_reply_to_other_operations_is_refused(reply: bytes) -> None:
    with pytest.raises(coord.ProtocolError, match="expected 2 results"):
        find_failure(
            decode_outcomes([coord.Delete("/a"), coord.Delete("/b")], Reader(reply), lambda path: path)
        )


async def test_a_builder_hands_each_operation_its_result(fake: FakeEnsemble) -> None:
    async with fake.connect("a:1/zookeeper") as zk:
        transaction = zk.transaction()
        job = transaction.create("/job-", b"1", sequential=True)
        owned = transaction.create_with_stat("/owned", ephemeral=True)
        changed = transaction.set("/job-0000000000", b"22", 0)
        checked = transaction.check("/owned", 0)
        deleted = transaction.delete("/job-0000000000", 1)
        assert len(transaction) == 5
        with pytest.raises(RuntimeError, match="has not been committed"):
            _ = job.result
        assert len(await transaction.commit()) == 5
        assert job.result == "/job-0000000000"
        path, stat = owned.result
        assert path == "/owned"
        assert stat is not None
        assert (stat.czxid, stat.ephemeral_owner) == (zk.last_zxid, zk.session_id)
        assert (changed.result.version, changed.result.data_length) == (1, 2)
        for pending in (checked, deleted):
            assert pending.error is None
        with pytest.raises(RuntimeError, match="expected a transaction that was not committed"):
            await transaction.commit()


async def test_a_builder_hands_each_operation_its_error(fake: FakeEnsemble) -> None:
    """Spec 10.3: 0 before the one that failed, -2 behind it."""
    async with fake.connect() as zk:
        transaction = zk.transaction()
        made = transaction.create("/made")
        failed = transaction.delete("/none")
        later = transaction.check("/")
        with pytest.raises(coord.NoNodeError) as caught:
            await transaction.commit()
        assert (caught.value.index, caught.value.happened) == (1, False)
        assert isinstance(made.error, coord.RolledBackError)
        assert failed.error is caught.value
        assert isinstance(later.error, coord.NotTriedError)
        with pytest.raises(coord.RolledBackError, match="/made"):
            _ = made.result
        assert await zk.exists("/made") is None
