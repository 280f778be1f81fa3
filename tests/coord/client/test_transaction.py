"""Transactions as the client says them (spec 10)."""

import struct

import pytest

import coord
from coord.client.transaction import decode_results
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
        decode_results([coord.Delete("/a"), coord.Delete("/b")], Reader(reply), lambda path: path)
