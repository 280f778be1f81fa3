"""setData, delete, setACL and sessions: spec 4.6, 6.4, 6.6, 6.8, 8.2."""

import struct

import pytest

from coord.protocol import opcodes as o
from coord.protocol.jute import encode_buffer, encode_int, encode_strings
from coord.protocol.records import OPEN_ACL, Acl, encode_acl, encode_create, encode_set_data
from coord.tree.execute import encode_create_session
from tests.coord.tree.machine import OTHER_SESSION, PASSWORD, SESSION, WALL_MS, Machine, dump

_NULL = struct.pack(">i", -1)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_6_6_setdata_changes_data_version_mzxid_and_mtime(machine: Machine) -> None:
    machine.create("/a", b"one")
    before = machine.stat("/a")
    machine.context.wall_ms = WALL_MS + 5
    assert machine.set("/a", b"three") == 0
    assert machine.data("/a") == b"three"
    expected = before._replace(mzxid=machine.zxid, mtime=WALL_MS + 5, version=1, data_length=5)
    assert machine.stat("/a") == expected


def test_6_6_the_answer_is_the_stat_after_the_change(machine: Machine) -> None:
    machine.create("/a")
    err, body = machine.run(o.SET_DATA, encode_set_data("/a", b"x", -1))
    assert (err, body) == (0, machine.tree.nodes[b"/a"].stat)


def test_setting_null_data(machine: Machine) -> None:
    machine.create("/a", b"x")
    machine.set("/a", None)
    assert machine.data("/a") is None
    assert machine.stat("/a").data_length == 0


def test_22_29_a_wrong_version_leaves_the_data(machine: Machine) -> None:
    machine.create("/a", b"one")
    before = dump(machine.tree)
    for version in (1, -2, 7):
        assert machine.set("/a", b"two", version) == o.BAD_VERSION
    assert dump(machine.tree) == before
    assert machine.set("/a", b"two", 0) == 0
    assert machine.set("/a", b"three", -1) == 0


@pytest.mark.parametrize(("before", "after"), [(2**31 - 1, -(2**31)), (-2, 0), (-1, 0), (5, 6)])
def test_8_2_versions_wrap_and_skip_minus_one(machine: Machine, before: int, after: int) -> None:
    machine.create("/a")
    node = machine.tree.nodes[b"/a"]
    machine.tree.touch(b"/a", node)
    node.stat = node.stat[:32] + struct.pack(">i", before) + node.stat[36:]
    machine.set("/a")
    assert machine.stat("/a").version == after


@pytest.mark.parametrize("path", ["", "abc", "/a/", "//", "/a//b", "/a/.", "/\x01"])
def test_6_6_setdata_on_an_illegal_path(machine: Machine, path: str) -> None:
    assert machine.set(path) == o.BAD_ARGUMENTS


def test_6_6_setdata_on_a_missing_node_and_on_the_root(machine: Machine) -> None:
    assert machine.set("/missing") == o.NO_NODE
    assert machine.set("/", b"x") == 0


def test_2_2_setdata_and_setacl_with_a_null_path_are_bad_arguments(machine: Machine) -> None:
    assert machine.run(o.SET_DATA, _NULL + encode_buffer(b"") + encode_int(-1))[0] == o.BAD_ARGUMENTS
    assert machine.run(o.SET_ACL, _NULL + encode_acl(OPEN_ACL) + encode_int(-1))[0] == o.BAD_ARGUMENTS


@pytest.mark.parametrize("size", [-2, -(2**31), 2**31 - 1])
def test_setdata_with_a_length_that_is_none(machine: Machine, size: int) -> None:
    machine.create("/a", b"x")
    body = encode_buffer(b"/a") + encode_int(size) + bytes(40)
    assert machine.run(o.SET_DATA, body)[0] == o.MARSHALLING_ERROR
    assert machine.run(o.SET_DATA, encode_int(size) + bytes(40))[0] == o.MARSHALLING_ERROR
    assert machine.data("/a") == b"x"


@pytest.mark.parametrize(
    ("path", "version", "expected"),
    [
        ("/", -1, o.BAD_ARGUMENTS),
        ("/zookeeper", -1, o.BAD_ARGUMENTS),
        ("/zookeeper/quota", -1, o.BAD_ARGUMENTS),
        ("/zookeeper/config", -1, o.BAD_ARGUMENTS),
        ("", -1, o.BAD_ARGUMENTS),
        ("abc", -1, o.BAD_ARGUMENTS),
        ("/a\0", -1, o.BAD_ARGUMENTS),
        ("/missing/b", -1, o.NO_NODE),
        ("/a/missing", -1, o.NO_NODE),
        ("//b", -1, o.NO_NODE),
        ("/a/", -1, o.NO_NODE),
        ("/a", 1, o.BAD_VERSION),
        ("/a", 0, o.NOT_EMPTY),
        ("/a/b", 0, 0),
    ],
)
def test_6_4_delete_checks_in_order(machine: Machine, path: str, version: int, expected: int) -> None:
    machine.create("/a")
    machine.create("/a/b")
    assert machine.delete(path, version) == expected


def test_6_8_setacl_changes_aversion_alone(machine: Machine) -> None:
    machine.create("/a")
    before = machine.stat("/a")
    assert machine.set_acl("/a", (Acl(31, "world", "anyone"), Acl(1, "ip", "1.2.3.4"))) == 0
    assert machine.stat("/a") == before._replace(aversion=1)
    assert machine.set_acl("/a", OPEN_ACL, 0) == o.BAD_VERSION
    assert machine.set_acl("/a", OPEN_ACL, 1) == 0
    assert machine.events == []


@pytest.mark.parametrize(
    ("path", "acl", "expected"),
    [
        ("/a/", (), o.BAD_ARGUMENTS),
        ("/a", (), o.INVALID_ACL),
        ("/b", (), o.INVALID_ACL),
        ("/b", OPEN_ACL, o.NO_NODE),
    ],
)
def test_6_8_setacl_checks_in_order(machine: Machine, path: str, acl: tuple[Acl, ...], expected: int) -> None:
    machine.create("/a")
    assert machine.set_acl(path, acl) == expected


def test_22_69_equal_lists_are_stored_once_and_go_with_their_last_node(machine: Machine) -> None:
    acl = (Acl(31, "ip", "1.2.3.4"), Acl(31, "world", "anyone"))
    before = dict(machine.tree.acls.lists)
    for number in range(50):
        machine.create(f"/n{number}", acl=acl)
    assert len(machine.tree.acls.lists) == len(before) + 1
    for number in range(50):
        machine.delete(f"/n{number}")
    assert machine.tree.acls.lists == before
    assert machine.tree.digest == machine.tree.recompute_digest()


def test_4_6_closing_deletes_the_ephemerals_in_order_of_their_creation(machine: Machine) -> None:
    for path in ("/z", "/a", "/m"):
        machine.create(path, flags=1)
    machine.create("/mine")
    assert machine.close_session() == 0
    assert machine.events == [
        event
        for path in (b"/z", b"/a", b"/m")
        for event in ((o.NODE_DELETED, path), (o.NODE_CHILDREN_CHANGED, b"/"))
    ]
    assert machine.stat("/").pzxid == machine.zxid
    assert machine.stat("/mine").ephemeral_owner == 0
    assert SESSION not in machine.tree.sessions


def test_22_10_closing_one_session_leaves_the_others_alone(machine: Machine) -> None:
    machine.create("/e1", flags=1)
    machine.run(o.CREATE, encode_create("/e2", b"", OPEN_ACL, 1), session_id=OTHER_SESSION)
    machine.close_session(OTHER_SESSION)
    assert sorted(machine.children("/")) == ["e1", "zookeeper"]


def test_4_6_closing_ignores_acls(machine: Machine) -> None:
    machine.create("/p", acl=(Acl(o.PERM_CREATE, "world", "anyone"),))
    machine.create("/p/e", flags=1, acl=(Acl(0, "world", "anyone"),))
    assert machine.delete("/p/e") == o.NO_AUTH
    machine.close_session()
    assert b"/p/e" not in machine.tree.nodes


def test_4_6_closing_an_unknown_session_succeeds(machine: Machine) -> None:
    digest = machine.tree.digest
    assert machine.close_session(12345) == 0
    assert machine.tree.digest == digest


def test_an_undecodable_session_is_not_created(machine: Machine) -> None:
    for body in (b"", bytes(19), bytes(21)):
        assert machine.run(o.CREATE_SESSION, body, session_id=9)[0] == o.MARSHALLING_ERROR
    assert 9 not in machine.tree.sessions


def test_a_session_keeps_timeout_and_password(machine: Machine) -> None:
    machine.run(o.CREATE_SESSION, encode_create_session(4_000, PASSWORD), session_id=9)
    session = machine.tree.sessions[9]
    assert (session.timeout_ms, session.password) == (4_000, PASSWORD)


def test_22_34_getephemerals_are_the_callers_own_with_a_prefix(machine: Machine) -> None:
    for path in ("/a", "/ab", "/b"):
        machine.create(path, flags=1)
    machine.run(o.CREATE, encode_create("/a2", b"", OPEN_ACL, 1), session_id=OTHER_SESSION)

    def ask(prefix: bytes | None) -> tuple[int, bytes]:
        return machine.read(o.GET_EPHEMERALS, encode_buffer(prefix))

    assert ask(b"/a") == (0, encode_strings([b"/a", b"/ab"]))
    for everything in (None, b"", b"/", b"  ", b" /\x1f"):
        assert ask(everything) == (0, encode_strings([b"/a", b"/ab", b"/b"]))
    assert ask(b"\x01") == (0, encode_strings([]))
    machine.close_session()
    assert ask(None) == (0, encode_strings([]))
