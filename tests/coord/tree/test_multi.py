"""multi: spec chapter 10 and 22.4."""

import struct

import pytest

from coord.protocol import opcodes as o
from coord.protocol.jute import encode_buffer, encode_int, encode_long, encode_text
from coord.protocol.records import (
    MULTI_END,
    OPEN_ACL,
    Acl,
    Stat,
    encode_create,
    encode_multi,
    encode_path_version,
    encode_path_watch,
    encode_set_data,
)
from tests.coord.tree.machine import BOB, DIGEST_ID, Machine, dump, take_checkpoint

Operation = tuple[int, bytes]


def create(path: str, data: bytes | None = b"", flags: int = 0, op: int = o.CREATE) -> Operation:
    return op, encode_create(path, data, OPEN_ACL, flags)


def delete(path: str, version: int = -1) -> Operation:
    return o.DELETE, encode_path_version(path, version)


def set_data(path: str, data: bytes = b"", version: int = -1) -> Operation:
    return o.SET_DATA, encode_set_data(path, data, version)


def check(path: str, version: int = -1) -> Operation:
    return o.CHECK, encode_path_version(path, version)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_22_44_operations_see_those_before_them(machine: Machine) -> None:
    zxid = machine.zxid + 1
    results = machine.multi(
        create("/a"),
        create("/a/b"),
        check("/a/b", 0),
        set_data("/a/b", b"xy", 0),
        check("/a/b", 1),
        delete("/a/b", 1),
        create("/a/b", b"new"),
    )
    stat = Stat(zxid, zxid, machine.context.wall_ms, machine.context.wall_ms, 1, 0, 0, 0, 2, 0, zxid)
    assert results == ["/a", "/a/b", None, stat, None, None, "/a/b"]
    assert machine.zxid == zxid
    assert machine.data("/a/b") == b"new"
    assert machine.stat("/a").cversion == 3


def test_10_4_a_stat_is_the_one_right_after_its_operation(machine: Machine) -> None:
    results = machine.multi(create("/a", op=o.CREATE2), create("/a/b"))
    assert isinstance(results[0], tuple)
    assert results[0][1].num_children == 0
    assert machine.stat("/a").num_children == 1


def test_22_47_two_changes_of_one_node(machine: Machine) -> None:
    machine.create("/a")
    machine.multi(set_data("/a", b"1"), set_data("/a", b"2"))
    assert (machine.stat("/a").version, machine.data("/a")) == (2, b"2")


@pytest.mark.parametrize("failing", range(6))
def test_22_45_a_failed_multi_changes_nothing_wherever_it_fails(machine: Machine, failing: int) -> None:
    machine.create("/a", b"old")
    machine.create("/a/gone", flags=1)
    machine.context.policy = 0
    machine.create("/secret", acl=(Acl(31, "ip", "127.0.0.1"),))
    machine.tree.freeze()
    before, digest = dump(machine.tree), machine.tree.state_digest()
    counts = machine.tree.data_bytes, machine.tree.ephemeral_count, dict(machine.tree.acls.lists)
    operations = [
        create("/a/s-", flags=3),
        delete("/a/gone"),
        set_data("/a", b"longer than before"),
        delete("/secret"),
        (o.CREATE, encode_create("/other", b"", (Acl(1, "ip", "9.9.9.9"),), 0)),
    ]
    operations.insert(failing, check("/nowhere"))
    assert machine.multi(*operations) == [0] * failing + [o.NO_NODE] + [-2] * (5 - failing)
    assert machine.events == []
    machine.tree.last_zxid -= 1
    assert dump(machine.tree) == before
    assert machine.tree.state_digest() == digest
    assert machine.tree.digest == machine.tree.recompute_digest()
    assert (
        machine.tree.data_bytes,
        machine.tree.ephemeral_count,
        dict(machine.tree.acls.lists),
    ) == counts
    assert machine.created("/a/s-", flags=2) == "/a/s-0000000001"


def test_an_acl_freed_and_made_again_in_a_failed_multi_keeps_its_number(machine: Machine) -> None:
    acl = (Acl(31, "ip", "127.0.0.1"),)
    machine.create("/a", acl=acl)
    lists, digest = dict(machine.tree.acls.lists), machine.tree.digest
    machine.multi(delete("/a"), (o.CREATE, encode_create("/b", b"", acl, 0)), check("/nowhere"))
    assert machine.tree.acls.lists == lists
    assert machine.tree.digest == digest == machine.tree.recompute_digest()
    assert machine.get("/a") == 0


def test_a_deletion_taken_back_is_not_deleted_by_the_next_checkpoint(machine: Machine) -> None:
    machine.create("/a")
    number = machine.tree.nodes[b"/a"].number
    _, records = take_checkpoint(machine.tree)
    machine.multi(delete("/a"), check("/nowhere"))
    assert number in take_checkpoint(machine.tree, records)[1]


def test_22_46_a_bad_path_fails_in_its_slot(machine: Machine) -> None:
    assert machine.multi(create("/a"), create("bad"), create("/b")) == [0, o.BAD_ARGUMENTS, -2]


def test_22_47_an_ephemeral_and_its_child(machine: Machine) -> None:
    results = machine.multi(create("/e", flags=1), create("/e/k"))
    assert results == [0, o.NO_CHILDREN_FOR_EPHEMERALS]


def test_22_48_events_come_in_order_of_the_operations(machine: Machine) -> None:
    machine.create("/a")
    machine.multi(set_data("/a"), create("/b"), delete("/a"))
    assert machine.events == [
        (o.NODE_DATA_CHANGED, b"/a"),
        (o.NODE_CREATED, b"/b"),
        (o.NODE_CHILDREN_CHANGED, b"/"),
        (o.NODE_DELETED, b"/a"),
        (o.NODE_CHILDREN_CHANGED, b"/"),
    ]


def test_22_51_no_auth_in_a_slot(machine: Machine) -> None:
    machine.identities = BOB
    machine.create("/secret", acl=(Acl(31, "digest", DIGEST_ID),))
    machine.identities = ()
    assert machine.multi(check("/secret"), create("/x")) == [o.NO_AUTH, -2]


def test_10_2_a_session_that_is_over_shows_in_the_first_slot(machine: Machine) -> None:
    machine.close_session()
    assert machine.multi(create("/a"), create("/b")) == [o.SESSION_EXPIRED, -2]


@pytest.mark.parametrize("op", [o.CREATE, o.CREATE2, o.CREATE_CONTAINER])
def test_10_2_flag_4_makes_a_container_and_answers_with_a_stat(machine: Machine, op: int) -> None:
    (result,) = machine.multi(create("/c", flags=4, op=op))
    assert isinstance(result, tuple)
    assert result[0] == "/c"
    assert machine.tree.nodes[b"/c"].kind == -(2**63)


def _null_path(rest: bytes) -> bytes:
    return struct.pack(">i", -1) + rest


@pytest.mark.parametrize(
    "operation",
    [
        (o.GET_DATA, encode_path_watch("/a", False)),
        (o.SET_ACL, b""),
        (o.DELETE_CONTAINER, encode_buffer(b"/a")),
        (o.MULTI, MULTI_END),
        (99, b""),
        create("/x", flags=5),
        create("/x", flags=7),
        create("/x", flags=-1),
        (o.SET_DATA, _null_path(encode_buffer(b"") + encode_int(-1))),
        (o.DELETE, _null_path(encode_int(-1))),
        (o.CHECK, _null_path(encode_int(-1))),
    ],
)
def test_10_1_what_cannot_be_part_of_a_multi_refuses_it_whole(machine: Machine, operation: Operation) -> None:
    digest = machine.tree.digest
    body = encode_multi([create("/first"), operation])
    assert machine.run(o.MULTI, body) == (o.MARSHALLING_ERROR, b"")
    assert machine.tree.digest == digest


@pytest.mark.parametrize("op", [o.CREATE, o.CREATE2, o.CREATE_CONTAINER])
def test_10_1_a_null_acl_refuses_the_whole_multi(machine: Machine, op: int) -> None:
    """As 3.9.5 does it; an empty one is refused in its place."""
    body = encode_text("/a") + encode_buffer(b"") + encode_int(-1) + encode_int(0)
    assert machine.run(o.MULTI, encode_multi([(op, body)])) == (o.MARSHALLING_ERROR, b"")


def test_10_1_a_null_acl_of_a_ttl_node_is_refused_in_its_place(machine: Machine) -> None:
    """As 3.9.5 does it."""
    body = encode_text("/a") + encode_buffer(b"") + encode_int(-1) + encode_int(o.FLAG_TTL) + encode_long(9)
    assert machine.multi((o.CREATE_TTL, body), create("/b")) == [o.INVALID_ACL, -2]


def test_10_1_a_multi_cut_anywhere_is_refused_whole(machine: Machine) -> None:
    machine.create("/a")
    body = encode_multi([create("/first", b"data"), set_data("/a", b"x"), check("/a"), delete("/a")])
    digest = machine.tree.digest
    for size in range(len(body)):
        assert machine.run(o.MULTI, body[:size]) == (o.MARSHALLING_ERROR, b"")
    assert machine.tree.digest == digest
    assert machine.run(o.MULTI, body)[0] == 0


def test_10_1_of_the_terminator_only_done_counts(machine: Machine) -> None:
    assert machine.run(o.MULTI, struct.pack(">i?i", 14, True, 77)) == (0, MULTI_END)
