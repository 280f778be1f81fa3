"""Whole subtrees: walked in order, deleted in batches, whatever others do meanwhile."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import coord
from coord.client import trees
from coord.protocol import opcodes
from tests.coord.client.fake_ensemble import FakeEnsemble


@pytest.fixture
def fake() -> FakeEnsemble:
    return FakeEnsemble()


async def plant(zk: coord.Client, *paths: str) -> None:
    for path in paths:
        await coord.ensure_path(zk, path)


async def test_a_node_comes_before_its_children_or_behind_them(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        await plant(zk, "/t/b/x", "/t/a/y/z", "/t/c")
        assert [path async for path in coord.walk(zk, "/t")] == [
            "/t", "/t/a", "/t/a/y", "/t/a/y/z", "/t/b", "/t/b/x", "/t/c",
        ]  # fmt: skip
        assert [path async for path in coord.walk(zk, "/t", bottom_up=True)] == [
            "/t/a/y/z", "/t/a/y", "/t/a", "/t/b/x", "/t/b", "/t/c", "/t",
        ]  # fmt: skip
        assert [path async for path in coord.walk(zk, "/zookeeper")] == [
            "/zookeeper", "/zookeeper/config", "/zookeeper/quota",
        ]  # fmt: skip
        assert "/t/c" in [path async for path in coord.walk(zk, "/")]
        with pytest.raises(coord.NoNodeError):
            _ = [path async for path in coord.walk(zk, "/none")]


async def test_siblings_are_read_together(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        await plant(zk, *(f"/t/{number:04d}" for number in range(450)))
        assert len([path async for path in coord.walk(zk, "/t")]) == 451
        assert fake.served[opcodes.MULTI_READ] == 1 + 5


async def test_nodes_are_deleted_many_at_a_time(fake: FakeEnsemble) -> None:
    async with fake.connect("a:1/zookeeper") as zk:
        await plant(zk, *(f"/t/{number:03d}/x" for number in range(120)))
        assert await coord.delete_tree(zk, "/t", together=100) == 241
        assert fake.served[opcodes.MULTI] == 3
        assert fake.served[opcodes.DELETE] == 0
        assert fake.children("/zookeeper") == ["config", "quota"]
        with pytest.raises(coord.NoNodeError):
            await coord.delete_tree(zk, "/t")


async def test_long_paths_are_fewer_at_a_time(fake: FakeEnsemble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "DELETE_BYTES_MAX", 100)
    async with fake.connect() as zk:
        await plant(zk, *(f"/t/{number:050d}" for number in range(10)))
        assert await coord.delete_tree(zk, "/t") == 11
        assert fake.served[opcodes.MULTI] == 6


async def test_deleting_goes_on_over_lost_connections_and_what_others_do(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        await plant(zk, "/t/a", "/t/b")
        fake.lost_answers = {opcodes.MULTI: True}
        await coord.delete_tree(zk, "/t", together=2)
        assert fake.children("/") == ["zookeeper"]


async def test_who_cannot_win_says_so(fake: FakeEnsemble, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody makes a node below before each transaction."""
    monkeypatch.setattr(trees, "DELETE_ROUNDS_MAX", 3)
    async with fake.connect() as zk, fake.connect() as other:
        await plant(zk, "/t")

        async def multi_late(operations: list[coord.Operation]) -> list[coord.OperationResult]:
            await other.create("/t/late-", sequential=True)
            return await coord.Client.multi(zk, operations)

        monkeypatch.setattr(zk, "multi", multi_late)
        with pytest.raises(coord.NotEmptyError, match="/t"):
            await coord.delete_tree(zk, "/t")


names = st.sampled_from(["a", "b", "c"])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(names, min_size=1, max_size=4), max_size=12))
async def test_whatever_the_tree_every_node_comes_once_and_all_are_deleted(trees: list[list[str]]) -> None:
    fake = FakeEnsemble()
    async with fake.connect("a:1") as zk:
        await plant(zk, "/t", *("/t/" + "/".join(parts) for parts in trees))
        expected = sorted(node.decode() for node in fake.tree.nodes if node.startswith(b"/t"))
        assert sorted([path async for path in coord.walk(zk, "/t")]) == expected
        assert await coord.delete_tree(zk, "/t", together=3) == len(expected)
        assert not any(node.startswith(b"/t") for node in fake.tree.nodes)
