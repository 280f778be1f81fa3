"""Containers and TTL nodes: spec 6.3, 6.5, 8.3, 22.3."""

import pytest

from coord.protocol import opcodes as o
from coord.protocol.jute import Reader, encode_buffer, encode_long
from coord.protocol.records import OPEN_ACL, encode_create, encode_multi, read_stat
from coord.tree import DataTree
from coord.tree.node import CONTAINER_OWNER, TTL_MS_MAX, ttl_ms_of
from coord.tree.reaping import encode_delete_container
from tests.coord.tree.machine import SESSION, WALL_MS, Machine, decode_results, dump, load, take_checkpoint

TTL_MS = 1000


@pytest.fixture
def machine() -> Machine:
    return Machine()


def later(machine: Machine, ms: int) -> None:
    machine.context.wall_ms += ms


# creating (6.3, 22.42)


@pytest.mark.parametrize("op", [o.CREATE, o.CREATE2, o.CREATE_CONTAINER, o.CREATE_TTL])
@pytest.mark.parametrize("flags", [5, 6])
@pytest.mark.parametrize("ttl", [-1, 0, 1000])
def test_22_42_ttl_modes_are_unimplemented_while_extended_types_are_off(
    op: int, flags: int, ttl: int
) -> None:
    body = encode_create("/t", b"", OPEN_ACL, flags) + encode_long(ttl)
    assert Machine(policy=0).run(op, body)[0] == o.UNIMPLEMENTED


@pytest.mark.parametrize("flags", [5, 6])
@pytest.mark.parametrize("ttl", [0, -1, -(1 << 62), 1 << 40, (1 << 63) - 1])
def test_22_42_a_time_to_live_has_forty_bits_and_is_positive(machine: Machine, flags: int, ttl: int) -> None:
    assert machine.create_ttl("/t", ttl, flags=flags) == o.BAD_ARGUMENTS


@pytest.mark.parametrize("op", [o.CREATE, o.CREATE2, o.CREATE_CONTAINER])
@pytest.mark.parametrize("flags", [5, 6])
def test_6_3_ttl_modes_through_the_other_creates_have_no_time_to_live(
    machine: Machine, op: int, flags: int
) -> None:
    assert machine.create("/t", flags=flags, op=op) == o.BAD_ARGUMENTS


@pytest.mark.parametrize("policy", [0, -1])
@pytest.mark.parametrize("flags", [0, 1, 2, 3, 4, 7, -1])
@pytest.mark.parametrize("ttl", [-1, 0, 1000])
def test_6_3_createttl_with_another_mode_is_bad_arguments(policy: int, flags: int, ttl: int) -> None:
    """With ttl -1 it ends the process of Apache's server when it is applied."""
    machine = Machine() if policy else Machine(policy=0)
    before = dump(machine.tree)
    assert machine.create_ttl("/t", ttl, flags=flags) == o.BAD_ARGUMENTS
    assert dump(machine.tree) == before


def test_22_42_the_largest_time_to_live_and_a_sequential_name_are_accepted(machine: Machine) -> None:
    body = encode_create("/t-", b"x", OPEN_ACL, 6) + encode_long(TTL_MS_MAX)
    err, answer = machine.run(o.CREATE_TTL, body)
    reader = Reader(answer)
    assert (err, reader.read_text()) == (0, "/t-0000000000")
    stat = read_stat(reader)
    assert (stat.ephemeral_owner, stat.czxid, stat.data_length) == (0, machine.zxid, 1)
    assert ttl_ms_of(machine.tree.nodes[b"/t-0000000000"].kind) == TTL_MS_MAX


def test_8_3_raw_owners_are_those_of_zookeeper(machine: Machine) -> None:
    machine.create("/c", op=o.CREATE_CONTAINER)
    machine.create_ttl("/t", 0x1234)
    assert machine.tree.nodes[b"/c"].kind & (1 << 64) - 1 == 0x8000000000000000
    assert machine.tree.nodes[b"/t"].kind & (1 << 64) - 1 == 0xFF00000000001234
    assert ttl_ms_of(CONTAINER_OWNER) == ttl_ms_of(0) == ttl_ms_of(SESSION) == 0


@pytest.mark.parametrize("flags", [0, 1, 2, 3, 4])
def test_6_3_createcontainer_makes_a_container_whatever_the_mode(machine: Machine, flags: int) -> None:
    err, answer = machine.run(o.CREATE_CONTAINER, encode_create("/c", b"", OPEN_ACL, flags))
    reader = Reader(answer)
    path = "/c0000000000" if flags in (2, 3) else "/c"
    assert (err, reader.read_text()) == (0, path)
    assert read_stat(reader).ephemeral_owner == 0
    assert machine.tree.nodes[path.encode()].kind == CONTAINER_OWNER


@pytest.mark.parametrize("op", [o.CREATE, o.CREATE2])
def test_6_3_flag_4_through_a_plain_create_is_a_persistent_node(machine: Machine, op: int) -> None:
    assert machine.create("/p", flags=4, op=op) == 0
    assert machine.tree.nodes[b"/p"].kind == 0
    assert machine.tree.reapable == {}


def test_22_40_containers_and_ttl_nodes_may_have_children_of_every_kind(machine: Machine) -> None:
    machine.create("/c", op=o.CREATE_CONTAINER)
    machine.create_ttl("/t", TTL_MS)
    for parent in ("/c", "/t"):
        assert machine.create(parent + "/plain") == 0
        assert machine.created(parent + "/s-", flags=2) == parent + "/s-0000000001"
        assert machine.create(parent + "/e", flags=1) == 0
        assert machine.create(parent + "/c", op=o.CREATE_CONTAINER) == 0
        assert machine.create_ttl(parent + "/t", TTL_MS) == 0


# in a multi (10.1, 22.41, 22.42)


def ttl_item(path: str, flags: int, ttl_ms: int) -> tuple[int, bytes]:
    return o.CREATE_TTL, encode_create(path, b"", OPEN_ACL, flags) + encode_long(ttl_ms)


def test_22_41_containers_and_ttl_nodes_in_a_multi_answer_with_their_stat(machine: Machine) -> None:
    container, ttl = machine.multi(
        (o.CREATE_CONTAINER, encode_create("/c", b"ab", OPEN_ACL, 0)), ttl_item("/t-", 6, TTL_MS)
    )
    assert isinstance(container, tuple)
    assert isinstance(ttl, tuple)
    assert (container[0], container[1].data_length, container[1].ephemeral_owner) == ("/c", 2, 0)
    assert (ttl[0], ttl[1].czxid, ttl[1].ephemeral_owner) == ("/t-0000000001", machine.zxid, 0)
    assert machine.tree.nodes[b"/c"].kind == CONTAINER_OWNER
    assert ttl_ms_of(machine.tree.nodes[b"/t-0000000001"].kind) == TTL_MS


@pytest.mark.parametrize(("flags", "ttl"), [(5, 0), (5, -1), (6, 1 << 40), (7, 1000), (-1, 1000)])
def test_10_1_a_bad_time_to_live_or_mode_fails_in_its_slot(machine: Machine, flags: int, ttl: int) -> None:
    assert machine.multi(ttl_item("/a", 5, 1), ttl_item("/t", flags, ttl), ttl_item("/b", 5, 1)) == [
        0,
        o.BAD_ARGUMENTS,
        o.RUNTIME_INCONSISTENCY,
    ]
    assert machine.tree.reapable == {}


def test_10_1_a_ttl_mode_fails_in_its_slot_while_extended_types_are_off() -> None:
    assert Machine(policy=0).multi(ttl_item("/t", 5, 1000)) == [o.UNIMPLEMENTED]


@pytest.mark.parametrize("ttl", [-1, 0, 1000, 1 << 40])
@pytest.mark.parametrize(("flags", "kind"), [(0, 0), (1, 0), (2, 0), (4, CONTAINER_OWNER)])
def test_10_1_createttl_of_another_mode_is_the_create_of_that_mode(
    machine: Machine, ttl: int, flags: int, kind: int
) -> None:
    """As 3.9.5 answers it; alone it is refused (6.3)."""
    err, body = machine.run(o.MULTI, encode_multi([ttl_item("/n", flags, ttl)]))
    (result,) = decode_results(body)
    path = "/n0000000000" if flags == 2 else "/n"
    assert err == 0
    assert (result[0] if isinstance(result, tuple) else result) == path
    assert isinstance(result, tuple) == (flags == 4)
    node = machine.tree.nodes[path.encode()]
    assert (node.kind, node.ephemeral_owner) == (kind, SESSION if flags == 1 else 0)


@pytest.mark.parametrize("op", [o.CREATE, o.CREATE2, o.CREATE_CONTAINER])
@pytest.mark.parametrize("flags", [5, 6, 7, -1])
def test_10_1_flags_of_no_plain_mode_in_a_create_refuse_the_whole_multi(
    machine: Machine, op: int, flags: int
) -> None:
    body = encode_multi([(op, encode_create("/n", b"", OPEN_ACL, flags))])
    assert machine.run(o.MULTI, body) == (o.MARSHALLING_ERROR, b"")


# going (6.5, 8.3, 22.40, 22.42)


def test_6_5_only_the_leader_asks_for_the_deletion_of_a_container(machine: Machine) -> None:
    machine.create("/c", op=o.CREATE_CONTAINER)
    body = encode_delete_container(b"/c", 1)
    later(machine, 10)
    assert machine.run(o.DELETE_CONTAINER, body)[0] == o.UNIMPLEMENTED
    assert machine.run(o.DELETE_CONTAINER, encode_buffer(b"/c"))[0] == o.UNIMPLEMENTED
    assert machine.run(o.DELETE_CONTAINER, b"", session_id=0)[0] == o.MARSHALLING_ERROR
    assert machine.get("/c") == 0


def test_22_40_a_container_goes_after_its_last_child_and_its_watchers_are_told(machine: Machine) -> None:
    machine.create("/c", op=o.CREATE_CONTAINER)
    machine.create("/c/k")
    assert machine.reap("/c") == o.NOT_EMPTY
    machine.delete("/c/k")
    assert machine.reap("/c") == 0
    assert machine.events == [(o.NODE_DELETED, b"/c"), (o.NODE_CHILDREN_CHANGED, b"/")]
    assert machine.stat("/").pzxid == machine.zxid
    assert machine.reap("/c") == o.NO_NODE


def test_22_40_an_unused_container_stays_unless_it_is_given_a_time(machine: Machine) -> None:
    machine.create("/c", op=o.CREATE_CONTAINER)
    later(machine, 1 << 40)
    assert machine.reap("/c") == o.BAD_VERSION
    later(machine, -(1 << 40) + 500)
    assert machine.reap("/c", 500) == o.BAD_VERSION
    later(machine, 1)
    assert machine.reap("/c", 500) == 0


def test_22_40_a_cascade_of_containers_takes_one_after_the_other(machine: Machine) -> None:
    for path in ("/a", "/a/b", "/a/b/c"):
        machine.create(path, op=o.CREATE_CONTAINER)
    machine.create("/a/b/c/k")
    machine.delete("/a/b/c/k")
    assert [machine.reap(path) for path in ("/a", "/a/b", "/a/b/c", "/a/b", "/a")] == [
        o.NOT_EMPTY,
        o.NOT_EMPTY,
        0,
        0,
        0,
    ]


def test_22_42_a_ttl_node_goes_when_nobody_wrote_to_it_for_longer_than_its_time(machine: Machine) -> None:
    machine.create_ttl("/t", TTL_MS)
    later(machine, TTL_MS)
    assert machine.reap("/t") == o.BAD_VERSION
    assert machine.set("/t", b"again") == 0
    later(machine, TTL_MS)
    assert machine.reap("/t") == o.BAD_VERSION
    later(machine, 1)
    assert machine.reap("/t") == 0


def test_22_42_a_ttl_node_with_children_stays_and_they_do_not_lengthen_its_time(machine: Machine) -> None:
    machine.create_ttl("/t", TTL_MS)
    later(machine, TTL_MS + 1)
    machine.create("/t/k")
    assert machine.reap("/t") == o.NOT_EMPTY
    machine.delete("/t/k")
    assert machine.reap("/t") == 0


def test_6_5_a_plain_node_and_an_ephemeral_never_go_that_way(machine: Machine) -> None:
    machine.create("/p")
    machine.create("/e", flags=1)
    later(machine, 1 << 40)
    for path in ("/p", "/e", "/zookeeper/quota", "/zookeeper/config"):
        assert machine.reap(path, 1) == o.BAD_VERSION
    assert machine.reap("/", 1) == o.NOT_EMPTY


def test_8_3_a_node_created_anew_in_a_containers_place_stays(machine: Machine) -> None:
    """What the leader saw when it asked no longer matters."""
    machine.create("/c", op=o.CREATE_CONTAINER)
    machine.create("/c/k")
    machine.delete("/c/k")
    machine.delete("/c")
    machine.create("/c")
    assert machine.reap("/c") == o.BAD_VERSION


# the index


def index(tree: DataTree) -> dict[int, bytes]:
    return {node.number: path for path, node in tree.nodes.items() if node.kind}


def test_the_index_of_such_nodes_follows_creates_deletes_and_failed_multis(machine: Machine) -> None:
    machine.create("/c", op=o.CREATE_CONTAINER)
    machine.create_ttl("/t", TTL_MS)
    machine.create("/p")
    assert set(machine.tree.reapable.values()) == {b"/c", b"/t"}
    delete = (o.DELETE, encode_buffer(b"/c") + b"\xff" * 4)
    machine.multi(delete, ttl_item("/u", 5, 1), (o.CHECK, encode_buffer(b"/none") + b"\xff" * 4))
    assert machine.tree.reapable == index(machine.tree)
    assert set(machine.tree.reapable.values()) == {b"/c", b"/t"}
    machine.delete("/c")
    machine.reap("/t")
    assert machine.tree.reapable == index(machine.tree)


def test_a_checkpoint_keeps_kinds_and_index(machine: Machine) -> None:
    machine.create("/c", op=o.CREATE_CONTAINER)
    machine.create_ttl("/t", TTL_MS)
    machine.create("/e", flags=1)
    facts, records = take_checkpoint(machine.tree)
    restored = load(facts, records)
    assert dump(restored) == dump(machine.tree)
    assert restored.reapable == machine.tree.reapable == index(restored)
    machine.tree = restored
    later(machine, WALL_MS)
    assert machine.reap("/t") == 0
    assert machine.reap("/c", 1) == 0
