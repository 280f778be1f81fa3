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
    st.tuples(st.just("end")),
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


@settings(max_examples=300, deadline=None)
@given(st.lists(_STEP, max_size=60))
def test_incremental_checkpoints_are_the_tree_as_of_their_freeze(steps: list[tuple[Any, ...]]) -> None:
    machine = Machine()
    machine.identities = BOB
    written: dict[int, bytes] = {}
    expected: dict[bytes, tuple[object, ...]] = {}
    facts = b""
    for step in [*steps, ("end",), ("freeze",), ("end",)]:
        tree = machine.tree
        if step[0] == "freeze" and tree.freeze_in_progress is None:
            expected = dump(tree)
            facts = tree.freeze(whole=not written).facts
        elif step[0] in ("encode", "end") and tree.freeze_in_progress is not None:
            while some := tree.encode_some(step[1] if step[0] == "encode" else 100):
                for number, value in some:
                    if value is None:
                        assert written.pop(number, None) is not None, "only what was written is deleted"
                    else:
                        written[number] = value
                if step[0] == "encode":
                    break
            if step[0] == "end":
                tree.end_freeze(written=True)
                restored = load(facts, written)
                assert dump(restored) == expected
                assert restored.digest == restored.recompute_digest() == decode_facts(facts).digest
        else:
            _change(machine, step)
        assert tree.digest == tree.recompute_digest()


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
        assert value is not None
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
    more = other.tree.freeze()
    kept = {number: value for number, value in records.items() if value is not None}
    while some := other.tree.encode_some(5):
        for number, changed in some:
            if changed is None:
                kept.pop(number)
            else:
                kept[number] = changed
    assert dump(load(more.facts, kept)) == dump(other.tree)


def test_a_failed_checkpoint_is_made_up_for_by_a_whole_one() -> None:
    machine = Machine()
    machine.create("/a")
    machine.tree.freeze()
    machine.tree.encode_some(1)
    machine.set("/a", b"x")
    machine.tree.end_freeze(written=False)
    facts, records = take_checkpoint(machine.tree, whole=True)
    assert dump(load(facts, {n: v for n, v in records.items() if v is not None})) == dump(machine.tree)


def _checkpoint() -> tuple[bytes, dict[int, bytes]]:
    machine = Machine()
    machine.create("/a", b"data", acl=(Acl(31, "ip", "127.0.0.1"),))
    for path, flags in (("/a/b", 0), ("/c", 1)):
        assert machine.create(path, flags=flags) == 0
    facts, records = take_checkpoint(machine.tree)
    return facts, {number: value for number, value in records.items() if value is not None}


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
    facts, records = take_checkpoint(machine.tree)
    number = machine.tree.nodes[b"/a"].number
    records[number] = old[number]
    with pytest.raises(DecodeError, match="digest"):
        load(facts, {n: v for n, v in records.items() if v is not None})


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
