"""Creating nodes: spec 6.3, 8.1, 8.2, 8.4, 22.2."""

import struct

import pytest

from coord.protocol import opcodes as o
from coord.protocol.jute import Reader, encode_buffer, encode_int, encode_text
from coord.protocol.records import OPEN_ACL, Acl, Stat, encode_acl, encode_create, read_stat
from coord.tree.path import is_valid_path
from tests.coord.tree.machine import SESSION, WALL_MS, Machine, dump


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_8_2_stats_of_the_four_nodes_of_a_fresh_tree(machine: Machine) -> None:
    assert machine.stat("/") == Stat(0, 0, 0, 0, 0, -1, 0, 0, 0, 1, 0)
    assert machine.stat("/zookeeper") == Stat(0, 0, 0, 0, 0, -2, 0, 0, 0, 2, 0)
    assert machine.stat("/zookeeper/quota") == Stat(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert machine.stat("/zookeeper/config") == Stat(0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 0)


def test_8_2_after_the_first_create_the_root_has_cversion_0_and_2_children(machine: Machine) -> None:
    machine.create("/a")
    stat = machine.stat("/")
    assert (stat.cversion, stat.num_children, stat.pzxid) == (0, 2, machine.zxid)


def test_22_20_create2_returns_path_and_stat(machine: Machine) -> None:
    err, body = machine.run(o.CREATE2, encode_create("/a", b"xyz", OPEN_ACL, 0))
    reader = Reader(body)
    z = machine.zxid
    assert err == 0
    assert reader.read_text() == "/a"
    assert read_stat(reader) == Stat(z, z, WALL_MS, WALL_MS, 0, 0, 0, 0, 3, 0, z)
    assert reader.remaining == 0


def test_22_21_null_and_empty_data_are_kept_apart(machine: Machine) -> None:
    machine.create("/null", None)
    machine.create("/empty", b"")
    assert machine.data("/null") is None
    assert machine.data("/empty") == b""
    assert machine.stat("/null").data_length == 0


@pytest.mark.parametrize(
    "path", ["/.foo", "/f.", "/..f", "/a b", "/%", "/é", "/\u4e2d", "/a.b", "/...", "/\u200b", "/~"]
)
def test_22_22_odd_paths_that_are_legal(machine: Machine, path: str) -> None:
    assert machine.create(path) == 0


@pytest.mark.parametrize(
    "path",
    [
        *("", "abc", "/a\0", "/b\x1e", "/b\x7f", "/b\x85", "/.", "/..", "/\ue000", "/\uf8ff", "/\ufff0"),
        *("/\U0001f600", "//", "//a", "/ok/", "/ok/.", "/ok/.."),
    ],
)
def test_8_1_illegal_paths(machine: Machine, path: str) -> None:
    machine.create("/ok")
    before = dump(machine.tree)
    assert machine.create(path) == o.BAD_ARGUMENTS
    assert dump(machine.tree) == before


@pytest.mark.parametrize(
    "raw", [b"/a\xff", b"/\xed\xa0\x80", b"/\xf0\x9f\x98\x80", b"/\xc0\xaf", b"/\xe2\x82"]
)
def test_2_3_a_path_that_is_not_utf8_is_illegal(machine: Machine, raw: bytes) -> None:
    body = encode_buffer(raw) + encode_buffer(b"") + encode_acl(OPEN_ACL) + encode_int(0)
    assert machine.run(o.CREATE, body)[0] == o.BAD_ARGUMENTS
    assert machine.run(o.SET_DATA, encode_buffer(raw) + encode_buffer(b"") + encode_int(-1))[0] == (
        o.BAD_ARGUMENTS
    )
    assert not is_valid_path(raw)


@pytest.mark.parametrize(
    ("path", "flags", "acl", "expected"),
    [
        ("/missing/b", 0, OPEN_ACL, o.NO_NODE),
        ("/missing/b", 0, (), o.INVALID_ACL),
        ("/missing/b", 9, (), o.BAD_ARGUMENTS),
        ("abc", 5, (), o.BAD_ARGUMENTS),
        ("abc", 0, (), o.BAD_ARGUMENTS),
        ("a/b", 0, OPEN_ACL, o.NO_NODE),
        ("/", 0, OPEN_ACL, o.NODE_EXISTS),
        ("/a//b", 0, OPEN_ACL, o.NO_NODE),
        ("/a/b/", 0, OPEN_ACL, o.NO_NODE),
        ("/a", 0, OPEN_ACL, o.NODE_EXISTS),
        ("/e/k", 0, OPEN_ACL, o.NO_CHILDREN_FOR_EPHEMERALS),
        ("/zookeeper/x", 0, OPEN_ACL, 0),
    ],
)
def test_6_3_the_first_check_that_fails_wins(
    machine: Machine, path: str, flags: int, acl: tuple[Acl, ...], expected: int
) -> None:
    machine.create("/a")
    machine.create("/e", flags=1)
    assert machine.create(path, flags=flags, acl=acl) == expected


def test_6_3_an_existing_child_of_an_ephemeral_cannot_be(machine: Machine) -> None:
    machine.create("/e", flags=1)
    assert machine.create("/e/k", flags=2) == o.NO_CHILDREN_FOR_EPHEMERALS


def test_8_4_numbers_count_all_creates_of_the_parent_and_survive_deletes(machine: Machine) -> None:
    assert machine.created("/s-", flags=2) == "/s-0000000000"
    machine.create("/plain")
    machine.delete("/s-0000000000")
    assert machine.created("/t-", flags=2) == "/t-0000000002"
    assert machine.created("/", flags=2) == "/0000000003"


def test_22_23_a_hundred_and_five_numbers_are_consecutive(machine: Machine) -> None:
    machine.create("/q")
    names = [machine.created("/q/n", flags=2) for _ in range(105)]
    assert names == [f"/q/n{number:010d}" for number in range(105)]


@pytest.mark.parametrize(
    ("path", "made"), [("/p/", "0000000000"), ("/p/.", ".0000000000"), ("/p/..", "..0000000000")]
)
def test_8_1_a_sequential_path_is_validated_with_its_number(machine: Machine, path: str, made: str) -> None:
    machine.create("/p")
    assert machine.created(path, flags=2) == "/p/" + made


def test_8_4_failed_creates_take_no_number(machine: Machine) -> None:
    machine.create("/p")
    assert machine.create("/p/x", flags=2, acl=()) == o.INVALID_ACL
    assert machine.create("/p/\x01", flags=2) == o.BAD_ARGUMENTS
    assert machine.created("/p/x", flags=2) == "/p/x0000000000"


def test_8_4_the_number_wraps_negative_as_documented(machine: Machine) -> None:
    machine.create("/p")
    machine.tree.touch(b"/p", machine.tree.nodes[b"/p"])
    machine.tree.nodes[b"/p"].created = 2**31 - 1
    assert machine.created("/p/x", flags=2) == "/p/x2147483647"
    assert machine.created("/p/x", flags=2) == "/p/x-2147483648"
    assert machine.created("/p/x", flags=2) == "/p/x-2147483647"


def test_8_4_a_parent_created_again_starts_at_zero(machine: Machine) -> None:
    machine.create("/p")
    child = machine.created("/p/x", flags=2)
    machine.delete(child)
    machine.delete("/p")
    machine.create("/p")
    assert machine.created("/p/x", flags=2) == "/p/x0000000000"


def test_22_31_a_child_changes_its_parent_and_nobody_above(machine: Machine) -> None:
    machine.create("/a")
    machine.create("/a/b")
    above = machine.stat("/a")
    machine.create("/a/b/c")
    stat = machine.stat("/a/b")
    assert (stat.cversion, stat.num_children, stat.pzxid, stat.aversion) == (1, 1, machine.zxid, 0)
    machine.delete("/a/b/c")
    stat = machine.stat("/a/b")
    assert (stat.cversion, stat.num_children, stat.pzxid) == (2, 0, machine.zxid)
    assert machine.stat("/a") == above


def test_flag_4_through_opcode_1_makes_a_plain_node(machine: Machine) -> None:
    machine.create("/plain", flags=4)
    machine.create("/container", op=o.CREATE_CONTAINER)
    assert machine.tree.nodes[b"/plain"].kind == 0
    assert machine.tree.nodes[b"/container"].kind == -(2**63)
    assert machine.stat("/container").ephemeral_owner == 0


@pytest.mark.parametrize("flags", [0, 1, 2, 3, 4])
def test_6_3_createcontainer_always_makes_a_container(machine: Machine, flags: int) -> None:
    err, body = machine.run(o.CREATE_CONTAINER, encode_create("/c", b"", OPEN_ACL, flags))
    assert err == 0
    path = Reader(body).read_text() or ""
    assert path == ("/c0000000000" if flags in (2, 3) else "/c")
    node = machine.tree.nodes[path.encode()]
    assert (node.kind, node.ephemeral_owner) == (-(2**63), 0)


def test_an_ephemeral_carries_its_session(machine: Machine) -> None:
    machine.create("/e", flags=1)
    assert machine.stat("/e").ephemeral_owner == SESSION


def test_a_session_that_is_over_creates_nothing(machine: Machine) -> None:
    """Spec 22.1.9: what stands behind closeSession in a pipeline is not executed."""
    machine.close_session()
    assert machine.create("/e", flags=1) == o.SESSION_EXPIRED
    assert b"/e" not in machine.tree.nodes


@pytest.mark.parametrize("cut", range(47))
def test_2_5_an_undecodable_create_is_answered_and_changes_nothing(machine: Machine, cut: int) -> None:
    body = encode_create("/abc", b"data", OPEN_ACL, 0)
    assert len(body) == 47
    before = machine.tree.digest
    zxid = machine.zxid
    assert machine.run(o.CREATE, body[:cut]) == (o.MARSHALLING_ERROR, b"")
    assert machine.tree.digest == before
    assert machine.zxid == zxid + 1


def test_2_5_bytes_behind_a_record_are_ignored(machine: Machine) -> None:
    assert machine.run(o.CREATE, encode_create("/a", b"", OPEN_ACL, 0) + b"junk")[0] == 0
    body = encode_text("/a") + encode_buffer(b"x") + encode_int(-1) + b"junk"
    assert machine.run(o.SET_DATA, body)[0] == 0


def test_2_2_a_null_path_is_a_marshalling_error(machine: Machine) -> None:
    body = struct.pack(">i", -1) + encode_buffer(b"") + encode_acl(OPEN_ACL) + encode_int(0)
    assert machine.run(o.CREATE, body)[0] == o.MARSHALLING_ERROR
    assert machine.run(o.DELETE, struct.pack(">ii", -1, -1))[0] == o.MARSHALLING_ERROR


@pytest.mark.parametrize("flags", [7, -1, o.FLAG_TTL])
def test_6_3_flags_are_judged_before_a_null_path(machine: Machine, flags: int) -> None:
    """As 3.9.5 does it."""
    body = struct.pack(">i", -1) + encode_buffer(b"") + encode_acl(OPEN_ACL) + encode_int(flags)
    assert machine.run(o.CREATE, body)[0] == o.BAD_ARGUMENTS


def test_5_5_an_operation_that_is_no_write_is_unimplemented(machine: Machine) -> None:
    """Spec 22.39: so is a check outside a multi."""
    for op in (0, o.CHECK, o.EXISTS, o.DELETE_CONTAINER, 77):
        assert machine.run(op, b"") == (o.UNIMPLEMENTED, b"")
