"""A checkpoint holds the tree as of exactly its freeze, whatever happens meanwhile (DESIGN 4)."""

import gc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coord.protocol import opcodes as o
from coord.protocol.jute import DecodeError
from coord.protocol.records import Acl
from coord.tree import DataTree
from coord.tree.image import decode_facts, decode_node, encode_facts, encode_node
from coord.tree.node import Node, make_node
from coord.tree.tree import TreeLoader
from tests.coord.tree.machine import BOB, SESSION, Machine, dump, load, take_checkpoint

_NAMES = st.sampled_from(["/a", "/b", "/a/x", "/a/y", "/b/z"])
_ACLS = st.sampled_from([(Acl(31, "world", "anyone"),), (Acl(31, "auth", ""), Acl(31, "world", "anyone"))])
_CHANGE = st.one_of(
    st.tuples(st.just("create"), _NAMES, st.binary(max_size=5), st.sampled_from([0, 1, 2]), _ACLS),
    st.tuples(st.just("container"), _NAMES),
    st.tuples(st.just("set"), _NAMES, st.one_of(st.none(), st.binary(max_size=5))),
    st.tuples(st.just("set_acl"), _NAMES, _ACLS),
    st.tuples(st.just("delete"), _NAMES),
    st.tuples(st.just("fold")),
)
_STEP = st.one_of(
    _CHANGE,
    _CHANGE,
    st.tuples(st.just("freeze")),
    st.tuples(st.just("encode"), st.integers(1, 3)),
    st.tuples(st.just("end"), st.booleans()),
    st.tuples(st.just("thaw"), st.integers(1, 3)),
)


def _change(machine: Machine, step: tuple[Any, ...]) -> None:
    machine.events = []
    match step:
        case "create", path, data, flags, acl:
            machine.create(path, data, flags=flags, acl=acl)
        case "container", path:
            machine.create(path, op=o.CREATE_CONTAINER)
        case "set", path, data:
            machine.set(path, data)
        case "set_acl", path, acl:
            machine.set_acl(path, acl)
        case "delete", path:
            machine.delete(path)
        case "fold", *_:
            machine.tree.fold()


class Checkpoints:
    """Checkpoints of a tree, step by step beside its execution, in an environment that is a dict.

    Attributes:
        written: what the environment holds.
        is_ending: it was committed, or has failed, and is not thawed yet.
    """

    def __init__(self, tree: DataTree) -> None:
        self.tree = tree
        self.written: dict[int, bytes] = {}
        self.is_ending = False
        self._records: dict[int, bytes | None] = {}
        self._expected: dict[bytes, tuple[object, ...]] = {}
        self._is_durable = False

    def freeze(self) -> None:
        if self.tree.freeze_in_progress is None:
            self._expected = dump(self.tree)
            self._records = {}
            self.tree.freeze()

    def encode(self, count: int) -> bool:
        """False once there is nothing left."""
        if self.tree.freeze_in_progress is None or self.is_ending:
            return False
        records = self.tree.encode_some(count)
        if records is None:
            return False
        assert len(records) <= count
        assert not self._records.keys() & {number for number, _ in records}, "each comes once"
        self._records.update(records)
        return True

    def end(self, durable: bool) -> None:
        """Encodes the rest of it, and commits it or not."""
        frozen = self.tree.freeze_in_progress
        if frozen is None or self.is_ending:
            return
        while self.encode(5):
            pass
        self.is_ending, self._is_durable = True, durable
        if durable:
            for number, value in self._records.items():
                if value is None:
                    self.written.pop(number, None)
                else:
                    self.written[number] = value
            assert len(self.written) == frozen.nodes
            restored = load(frozen.facts, self.written)
            assert dump(restored) == self._expected
            assert restored.digest == restored.recompute_digest() == decode_facts(frozen.facts).digest

    def thaw(self, count: int) -> None:
        if self.is_ending and self.tree.thaw(count, written=self._is_durable):
            self.is_ending = False


@settings(max_examples=500, deadline=None)
@given(st.lists(_STEP, max_size=80))
def test_each_checkpoint_is_the_tree_as_of_its_freeze(steps: list[tuple[Any, ...]]) -> None:
    """Whatever is executed between its slices, and whether the one before it failed or not."""
    machine = Machine()
    machine.identities = BOB
    checkpoints = Checkpoints(machine.tree)
    rest = [("end", True), ("thaw", 100), ("freeze",), ("end", True)]
    for step in [*steps, *rest]:
        match step:
            case ("freeze",):
                checkpoints.freeze()
            case "encode", count:
                checkpoints.encode(count)
            case "end", durable:
                checkpoints.end(durable)
            case "thaw", count:
                checkpoints.thaw(count)
            case _:
                _change(machine, step)
        assert machine.tree.digest == machine.tree.recompute_digest()


def test_a_freeze_copies_and_walks_nothing() -> None:
    """The loop stands still meanwhile, and a million nodes may have changed."""
    machine = Machine()
    machine.create("/a")
    machine.delete("/a")
    machine.tree.fold()
    changed, removed = machine.tree._dirty, machine.tree._removed
    frozen = machine.tree.freeze()
    assert frozen.changed is changed
    assert frozen.removed is removed


def test_what_the_barrier_has_encoded_is_handed_out_in_slices_too() -> None:
    machine = Machine()
    for number in range(20):
        machine.create(f"/{number}")
    machine.tree.freeze()
    for number in range(20):
        machine.set(f"/{number}", b"x")
    sizes = []
    while (records := machine.tree.encode_some(3)) is not None:
        sizes.append(len(records))
    assert max(sizes) == 3
    assert sum(sizes) == 20 + len(DataTree.fresh().nodes)


def test_of_an_assembled_tree_all_is_in_its_first_checkpoint() -> None:
    facts, records = _checkpoint()
    nodes = [decode_node(number, value) for number, value in records.items()]
    tree = DataTree.assemble(decode_facts(facts), nodes)
    assert tree.digest == decode_facts(facts).digest
    assert take_checkpoint(tree) == (facts, records)


@settings(max_examples=50, deadline=None)
@given(st.lists(_CHANGE, max_size=30), st.lists(_CHANGE, max_size=30))
def test_a_restored_tree_goes_on_like_the_one_it_was_taken_from(
    before: list[tuple[Any, ...]], after: list[tuple[Any, ...]]
) -> None:
    machine, other = Machine(), Machine()
    machine.identities = other.identities = BOB
    for step in before:
        _change(machine, step)
    facts, records = take_checkpoint(machine.tree)
    loader = TreeLoader(facts)
    for number, value in reversed(records.items()):
        loader.add([(number, value)])
    other.tree = loader.finish()
    assert other.tree.sessions == machine.tree.sessions
    assert other.tree.state_digest() == machine.tree.state_digest()
    for step in after:
        _change(machine, step)
        _change(other, step)
        assert other.events == machine.events
    assert dump(other.tree) == dump(machine.tree)
    assert other.tree.state_digest() == machine.tree.state_digest()
    assert other.tree.data_bytes == machine.tree.data_bytes
    assert other.tree.ephemeral_count == machine.tree.ephemeral_count
    assert other.close_session(SESSION) == machine.close_session(SESSION)
    assert other.events == machine.events
    # The next checkpoint of the restored tree adds to the one it came from.
    more, kept = take_checkpoint(other.tree, records)
    assert dump(load(more, kept)) == dump(other.tree)


def _checkpoint() -> tuple[bytes, dict[int, bytes]]:
    machine = Machine()
    machine.create("/a", b"data", acl=(Acl(31, "ip", "127.0.0.1"),))
    for path, flags in (("/a/b", 0), ("/c", 1)):
        assert machine.create(path, flags=flags) == 0
    return take_checkpoint(machine.tree)


@pytest.mark.parametrize("lost", range(7))
def test_a_checkpoint_without_one_of_its_nodes_is_refused(lost: int) -> None:
    facts, records = _checkpoint()
    del records[sorted(records)[lost]]
    with pytest.raises(DecodeError):
        load(facts, records)


def test_a_checkpoint_with_a_node_of_another_age_is_refused() -> None:
    machine = Machine()
    machine.create("/a", b"old")
    _, old = take_checkpoint(machine.tree)
    machine.set("/a", b"new")
    facts, records = take_checkpoint(machine.tree, old)
    number = machine.tree.nodes[b"/a"].number
    records[number] = old[number]
    with pytest.raises(DecodeError, match="digest"):
        load(facts, records)


def test_two_nodes_that_exchange_numbers_or_acls_change_the_digest() -> None:
    def digest(*nodes: Node) -> int:
        return sum(node.digest_of(b"/%d" % index) for index, node in enumerate(nodes)) & (2**64 - 1)

    stat = bytes(68)
    plain = digest(Node(5, b"\0\0\0\0", stat, 1), Node(6, b"\0\0\0\0", stat, 2))
    assert plain != digest(Node(6, b"\0\0\0\0", stat, 1), Node(5, b"\0\0\0\0", stat, 2))
    assert plain != digest(Node(5, b"\0\0\0\0", stat, 2), Node(6, b"\0\0\0\0", stat, 1))
    kind = digest(make_node(5, b"\0\0\0\0", stat, 1, 0, -(2**63)), Node(6, b"\0\0\0\0", stat, 2))
    assert plain != kind
    assert plain != digest(Node(5, b"\0\0\0\0", stat, 1, 1), Node(6, b"\0\0\0\0", stat, 2))


@given(
    st.binary(min_size=1, max_size=30),
    st.one_of(st.none(), st.binary(max_size=30)),
    st.binary(min_size=68, max_size=68),
    st.integers(0, 2**31 - 1),
    st.integers(-(2**31), 2**31 - 1),
    st.sampled_from([0, 0, -(2**63), -(2**56) + 5]),
)
def test_a_node_image_is_read_back(
    path: bytes, data: bytes | None, stat: bytes, acl: int, created: int, kind: int
) -> None:
    from coord.protocol.jute import encode_buffer

    node = make_node(7, encode_buffer(data), stat, acl, created, kind)
    read_path, read = decode_node(7, encode_node(path, node))
    assert read_path == path
    for field in ("number", "data", "stat", "acl", "created", "kind", "children"):
        assert getattr(read, field) == getattr(node, field)
    assert read.digest_of(path) == node.digest_of(path)


@given(st.binary(max_size=160))
def test_hostile_images_raise_only_decode_errors(data: bytes) -> None:
    for decode in (lambda: decode_node(1, data), lambda: decode_facts(data), lambda: TreeLoader(data)):
        try:
            decode()
        except DecodeError:
            pass


def test_an_image_cut_or_lengthened_is_refused() -> None:
    value = encode_node(b"/a", Node(1, b"\0\0\0\1x", bytes(68), 0))
    for size in range(len(value)):
        with pytest.raises(DecodeError):
            decode_node(1, value[:size])
    with pytest.raises(DecodeError):
        decode_node(1, value + b"\0")


def test_facts_are_read_back() -> None:
    facts = decode_facts(_checkpoint()[0])
    assert decode_facts(encode_facts(facts)) == facts
    assert facts.node_count == 7


def test_hot_objects_make_no_cycles() -> None:
    """DESIGN 3: automatic collection is off, so whatever a request leaves behind must go by itself."""
    machine = Machine()
    gc.collect()
    gc.disable()
    try:
        for number in range(200):
            path = f"/n{number}"
            machine.create(path, acl=(Acl(31, "ip", "1.2.3.4"), Acl(31, "world", "anyone")))
            machine.set(path, b"x")
            machine.create(path)
            machine.create("bad")
            machine.multi((o.CHECK, b"\0\0\0\1/" + b"\xff" * 4), (o.DELETE, b"\0\0\0\2/q" + b"\xff" * 4))
            machine.delete(path)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_fresh_tree_is_the_same_everywhere() -> None:
    assert DataTree.fresh().state_digest() == DataTree.fresh().state_digest()
