"""Reads: spec 6.7, 6.8, 6.12, 10.5."""

import struct

import pytest

from coord.protocol import opcodes as o
from coord.protocol.jute import Reader, encode_int, encode_text
from coord.protocol.records import MULTI_END, encode_multi, encode_path_watch
from coord.tree import WATCH_CHILD, WATCH_DATA, read
from tests.coord.tree.machine import LOCAL, SESSION, Machine

_WATCHED = [o.EXISTS, o.GET_DATA, o.GET_CHILDREN, o.GET_CHILDREN2]


@pytest.fixture
def machine() -> Machine:
    machine = Machine()
    machine.create("/a", b"data")
    for name in ("x", "b", "y"):
        machine.create(f"/a/{name}")
    machine.create("/a/b/deep")
    return machine


def test_getdata_is_data_and_stat(machine: Machine) -> None:
    node = machine.tree.nodes[b"/a"]
    assert machine.read(o.GET_DATA, encode_path_watch("/a", False)) == (0, node.data + node.stat)


def test_22_32_the_stat_of_getchildren2_is_that_of_exists(machine: Machine) -> None:
    err, body = machine.read(o.GET_CHILDREN2, encode_path_watch("/a", False))
    reader = Reader(body)
    assert (err, reader.read_strings()) == (0, [b"x", b"b", b"y"])
    assert body[reader.offset :] == machine.read(o.EXISTS, encode_path_watch("/a", False))[1]


def test_children_of_the_root_and_of_a_leaf(machine: Machine) -> None:
    assert machine.children("/") == ["zookeeper", "a"]
    assert machine.children("/a/x") == []


@pytest.mark.parametrize(
    ("path", "count"), [("/", 8), ("", 9), ("/a", 4), ("/a/b", 1), ("/a/x", 0), ("/zookeeper", 2)]
)
def test_22_33_all_descendants_are_counted(machine: Machine, path: str, count: int) -> None:
    assert machine.read(o.GET_ALL_CHILDREN_NUMBER, encode_text(path)) == (0, encode_int(count))


def test_22_33_a_fresh_root_counts_three() -> None:
    assert Machine().read(o.GET_ALL_CHILDREN_NUMBER, encode_text("/")) == (0, encode_int(3))


@pytest.mark.parametrize("op", _WATCHED)
@pytest.mark.parametrize("path", ["/missing", "abc", "/a/", "//", "/\x01"])
def test_6_7_reads_do_not_validate_paths(machine: Machine, op: int, path: str) -> None:
    assert machine.read(op, encode_path_watch(path, False)) == (o.NO_NODE, b"")


def test_6_7_exists_refuses_a_nul(machine: Machine) -> None:
    assert machine.read(o.EXISTS, encode_path_watch("/a\0", True)) == (o.BAD_ARGUMENTS, b"")


@pytest.mark.parametrize("op", _WATCHED)
def test_6_7_the_empty_path_is_the_root(machine: Machine, op: int) -> None:
    assert machine.read(op, encode_path_watch("", False)) == machine.read(op, encode_path_watch("/", False))


@pytest.mark.parametrize(
    ("op", "table"),
    [
        (o.EXISTS, WATCH_DATA),
        (o.GET_DATA, WATCH_DATA),
        (o.GET_CHILDREN, WATCH_CHILD),
        (o.GET_CHILDREN2, WATCH_CHILD),
    ],
)
def test_9_1_what_a_read_watches(machine: Machine, op: int, table: int) -> None:
    def ask(path: str, watch: bool) -> tuple[int, bytes] | None:
        return read(machine.tree, op, encode_path_watch(path, watch), LOCAL, SESSION)[2]

    assert ask("/a", True) == (table, b"/a")
    assert ask("/a", False) is None
    assert ask("/missing", True) == ((WATCH_DATA, b"/missing") if op == o.EXISTS else None)


@pytest.mark.parametrize("op", [*_WATCHED, o.GET_ACL, o.GET_ALL_CHILDREN_NUMBER])
def test_2_2_a_null_path_is_a_marshalling_error(machine: Machine, op: int) -> None:
    assert machine.read(op, struct.pack(">iB", -1, 0)) == (o.MARSHALLING_ERROR, b"")
    assert machine.read(op, b"\0\0") == (o.MARSHALLING_ERROR, b"")


def test_5_5_what_is_no_read_is_unimplemented(machine: Machine) -> None:
    assert machine.read(o.CREATE, b"") == (o.UNIMPLEMENTED, b"")


def test_10_5_multiread_answers_each_item(machine: Machine) -> None:
    items = [
        (o.GET_DATA, encode_path_watch("/a", True)),
        (o.GET_CHILDREN, encode_path_watch("/missing", True)),
        (o.GET_CHILDREN, encode_path_watch("/a/b", False)),
    ]
    err, body, watch = read(machine.tree, o.MULTI_READ, encode_multi(items), LOCAL, SESSION)
    node = machine.tree.nodes[b"/a"]
    expected = [
        struct.pack(">i?i", o.GET_DATA, False, 0) + node.data + node.stat,
        struct.pack(">i?ii", -1, False, o.NO_NODE, o.NO_NODE),
        struct.pack(">i?iii4s", o.GET_CHILDREN, False, 0, 1, 4, b"deep"),
        MULTI_END,
    ]
    assert (err, body, watch) == (0, b"".join(expected), None)


def test_10_1_a_multiread_with_a_write_is_refused(machine: Machine) -> None:
    body = encode_multi([(o.DELETE, encode_path_watch("/a", True))])
    assert machine.read(o.MULTI_READ, body)[0] == o.MARSHALLING_ERROR


def test_a_multiread_that_names_a_large_node_too_often_is_refused(machine: Machine) -> None:
    """A frame has room for fifty thousand of a megabyte each: the answer would not fit in memory."""
    machine.create("/large", bytes(1_000_000))
    items = [(o.GET_DATA, encode_path_watch("/large", False))] * 40
    assert machine.read(o.MULTI_READ, encode_multi(items))[0] == o.MARSHALLING_ERROR
    assert machine.read(o.MULTI_READ, encode_multi(items[:20]))[0] == 0
