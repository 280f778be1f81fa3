"""addWatch, checkWatches, removeWatches, setWatches2: spec 9.1, 9.5, 9.6, 22.58 to 22.64."""

import struct

import pytest

from coord.protocol import opcodes as o
from coord.protocol.jute import encode_buffer, encode_int, encode_long, encode_strings
from coord.protocol.records import decode_watcher_event
from coord.tree import WATCH_CHILD, WATCH_DATA, answer_watch_request
from coord.tree.watches import WATCH_BYTES_MAX
from tests.coord.tree.machine import Machine

_CREATED, _DELETED, _CHANGED, _CHILDREN = 1, 2, 3, 4


class Watcher:
    """One connection of a machine, as requests see it."""

    def __init__(self, machine: Machine, name: str = "c") -> None:
        self.machine = machine
        self.name = name

    def ask(self, op: int, body: bytes) -> tuple[int, bytes, list[tuple[int, str]]]:
        machine = self.machine
        err, answer, frames = answer_watch_request(machine.watches, machine.tree, self.name, op, body)
        return err, answer, [decode_watcher_event(frame[20:])[0::2] for frame in frames]

    def add(self, path: str, mode: int) -> int:
        err, answer, events = self.ask(o.ADD_WATCH, encode_buffer(path.encode()) + encode_int(mode))
        assert (answer, events) == (b"" if err else bytes(4), [])
        return err

    def check(self, path: str, kind: int) -> int:
        err, answer, events = self.ask(o.CHECK_WATCHES, encode_buffer(path.encode()) + encode_int(kind))
        assert (answer, events) == (b"", [])
        return err

    def remove(self, path: str, kind: int) -> int:
        err, answer, events = self.ask(o.REMOVE_WATCHES, encode_buffer(path.encode()) + encode_int(kind))
        assert (answer, events) == (b"", [])
        return err

    def standard(self, path: str, table: int) -> None:
        self.machine.watches.add(self.name, table, path.encode())

    def hears(self, err: int) -> list[tuple[int, str]]:
        """What the last request of the machine tells this connection."""
        assert err == 0
        told = self.machine.watches.fire(self.machine.context.events, self.machine.zxid)
        return [decode_watcher_event(frame[20:])[0::2] for who, frame in told if who == self.name]


@pytest.fixture
def watcher() -> Watcher:
    return Watcher(Machine())


# addWatch


def test_22_59_a_persistent_watch_hears_all_of_its_node_again_and_again(watcher: Watcher) -> None:
    machine = watcher.machine
    assert watcher.add("/a", 0) == 0
    assert watcher.add("/a", 0) == 0
    for _ in range(2):
        assert watcher.hears(machine.create("/a")) == [(_CREATED, "/a")]
        assert watcher.hears(machine.set("/a")) == [(_CHANGED, "/a")]
        assert watcher.hears(machine.create("/a/k")) == [(_CHILDREN, "/a")]
        assert watcher.hears(machine.set("/a/k")) == []
        assert watcher.hears(machine.delete("/a/k")) == [(_CHILDREN, "/a")]
        assert watcher.hears(machine.delete("/a")) == [(_DELETED, "/a")]


def test_22_60_a_recursive_watch_hears_of_the_subtree_and_of_no_children(watcher: Watcher) -> None:
    machine = watcher.machine
    assert watcher.add("/a", 1) == 0
    for path in ("/a", "/a/b", "/a/b/c"):
        assert watcher.hears(machine.create(path)) == [(_CREATED, path)]
    assert watcher.hears(machine.create("/ab")) == []
    assert watcher.hears(machine.delete("/a/b/c")) == [(_DELETED, "/a/b/c")]
    assert machine.watches.count == 1


def test_9_2_persistent_and_recursive_on_one_path_answer_for_each_other(watcher: Watcher) -> None:
    machine = watcher.machine
    machine.create("/p")
    watcher.add("/p", 0)
    watcher.add("/p", 1)
    assert watcher.hears(machine.create("/p/c")) == [(_CREATED, "/p/c"), (_CHILDREN, "/p")]
    assert watcher.hears(machine.set("/p")) == [(_CHANGED, "/p")]


@pytest.mark.parametrize("mode", [2, -1, 3, 1 << 30])
def test_22_64_an_unknown_mode_is_a_marshalling_error(watcher: Watcher, mode: int) -> None:
    assert watcher.add("/a", mode) == o.MARSHALLING_ERROR
    assert watcher.machine.watches.count == 0


def test_2_2_addwatch_on_a_null_path_is_a_marshalling_error(watcher: Watcher) -> None:
    assert watcher.ask(o.ADD_WATCH, encode_int(-1) + encode_int(0)) == (o.MARSHALLING_ERROR, b"", [])
    assert watcher.ask(o.ADD_WATCH, encode_buffer(b"/a"))[0] == o.MARSHALLING_ERROR
    assert watcher.machine.watches.count == 0


@pytest.mark.parametrize("path", ["/missing", "", "no path", "/a//b", "/a\0"])
def test_9_1_addwatch_asks_neither_for_existence_nor_for_a_legal_path(watcher: Watcher, path: str) -> None:
    assert watcher.add(path, 0) == 0
    assert watcher.check(path, 4) == 0


def test_9_1_a_standard_watch_beside_a_persistent_one_is_spent_alone(watcher: Watcher) -> None:
    machine = watcher.machine
    machine.create("/a")
    watcher.standard("/a", WATCH_DATA)
    watcher.add("/a", 0)
    assert watcher.check("/a", 2) == 0
    assert watcher.hears(machine.set("/a")) == [(_CHANGED, "/a")]
    assert watcher.check("/a", 2) == o.NO_WATCHER
    assert watcher.hears(machine.set("/a")) == [(_CHANGED, "/a")]


# checkWatches, removeWatches

NONE = o.NO_WATCHER


@pytest.mark.parametrize(
    ("modes", "tables", "answers"),
    [
        ((), (), [NONE, NONE, NONE, NONE, NONE]),
        ((0,), (), [NONE, NONE, 0, 0, NONE]),
        ((1,), (), [NONE, NONE, 0, NONE, 0]),
        ((), (WATCH_DATA,), [NONE, 0, 0, NONE, NONE]),
        ((), (WATCH_CHILD,), [0, NONE, 0, NONE, NONE]),
        ((0, 1), (WATCH_DATA, WATCH_CHILD), [0, 0, 0, 0, 0]),
    ],
)
def test_9_5_which_type_finds_and_removes_which_watch(
    modes: tuple[int, ...], tables: tuple[int, ...], answers: list[int]
) -> None:
    for kind, expected in zip(range(1, 6), answers, strict=True):
        watcher = Watcher(Machine())
        for mode in modes:
            watcher.add("/w", mode)
        for table in tables:
            watcher.standard("/w", table)
        before = watcher.machine.watches.count
        assert watcher.check("/w", kind) == expected
        assert watcher.machine.watches.count == before
        assert watcher.remove("/w", kind) == expected
        assert watcher.check("/w", kind) == NONE
        assert watcher.remove("/w", kind) == NONE


def test_9_5_a_data_watch_is_removed_from_beside_a_persistent_one(watcher: Watcher) -> None:
    watcher.standard("/w", WATCH_DATA)
    watcher.add("/w", 0)
    assert watcher.remove("/w", 2) == 0
    assert watcher.check("/w", 4) == 0
    assert watcher.hears(watcher.machine.create("/w")) == [(_CREATED, "/w")]


def test_22_58_removal_leaves_other_connections_and_an_empty_table(watcher: Watcher) -> None:
    other = Watcher(watcher.machine, "other")
    for one in (watcher, other):
        one.standard("/w", WATCH_DATA)
        one.standard("/w", WATCH_CHILD)
        one.add("/w", 1)
    assert watcher.remove("/w", 3) == 0
    assert watcher.hears(watcher.machine.create("/w")) == []
    assert other.check("/w", 5) == 0
    assert other.remove("/w", 3) == 0
    table = watcher.machine.watches
    assert (table.count, table.connection_count, table.data_paths) == (0, 0, {})


def test_22_58_an_exists_watch_is_of_the_data_type(watcher: Watcher) -> None:
    watcher.standard("/missing", WATCH_DATA)
    assert watcher.check("/missing", 1) == NONE
    assert watcher.remove("/missing", 2) == 0


def test_22_60_the_last_recursive_watch_leaves_nothing_to_look_for(watcher: Watcher) -> None:
    watcher.add("/", 1)
    watcher.add("/a", 1)
    assert watcher.remove("/", 5) == 0
    assert watcher.hears(watcher.machine.create("/a")) == [(_CREATED, "/a")]
    watcher.machine.watches.remove_connection("c")
    assert watcher.machine.watches.count == 0
    assert watcher.hears(watcher.machine.create("/a/b")) == []


@pytest.mark.parametrize("op", [o.CHECK_WATCHES, o.REMOVE_WATCHES])
@pytest.mark.parametrize("kind", [0, 6, -1])
def test_6_1_an_unknown_type_is_a_marshalling_error(watcher: Watcher, op: int, kind: int) -> None:
    watcher.add("/w", 0)
    assert watcher.ask(op, encode_buffer(b"/w") + encode_int(kind)) == (o.MARSHALLING_ERROR, b"", [])
    assert watcher.ask(op, encode_buffer(b"/w")) == (o.MARSHALLING_ERROR, b"", [])
    assert watcher.check("/w", 4) == 0


@pytest.mark.parametrize("op", [o.CHECK_WATCHES, o.REMOVE_WATCHES])
def test_9_5_nobody_watches_a_null_path(watcher: Watcher, op: int) -> None:
    watcher.add("", 0)
    assert watcher.ask(op, encode_int(-1) + encode_int(3)) == (NONE, b"", [])
    assert watcher.check("", 4) == 0


# setWatches2


def body(seen: int, *lists: list[bytes]) -> bytes:
    return encode_long(seen) + b"".join(map(encode_strings, lists))


def test_9_6_setwatches2_catches_up_in_list_order_and_registers_the_persistent_ones(watcher: Watcher) -> None:
    machine = watcher.machine
    machine.create("/m")
    request = body(0, [b"/gone"], [b"/m"], [b"/m", b"/gone"], [b"/m", b"/new"], [b"/m"])
    assert watcher.ask(o.SET_WATCHES2, request) == (
        0,
        b"",
        [(_DELETED, "/gone"), (_CREATED, "/m"), (_CHILDREN, "/m"), (_DELETED, "/gone")],
    )
    assert [watcher.check("/m", kind) for kind in range(1, 6)] == [NONE, NONE, 0, 0, 0]
    assert watcher.check("/new", 4) == 0
    assert watcher.hears(machine.create("/m/k")) == [(_CREATED, "/m/k"), (_CHILDREN, "/m")]


@pytest.mark.parametrize(
    "wrong",
    [
        body(0, [], [], [], []),
        encode_long(0) + encode_strings([]) * 4 + encode_int(-1),
        encode_long(0) + encode_strings([]) * 3 + encode_int(-1) + encode_strings([]),
        encode_long(0) + encode_strings([]) * 4 + encode_int(1) + encode_int(-1),
        b"",
    ],
)
def test_9_6_a_setwatches2_that_cannot_be_read_registers_nothing(watcher: Watcher, wrong: bytes) -> None:
    assert watcher.ask(o.SET_WATCHES2, wrong) == (o.MARSHALLING_ERROR, b"", [])
    assert watcher.machine.watches.count == 0


def test_9_6_setwatches_reads_three_lists(watcher: Watcher) -> None:
    assert watcher.ask(o.SET_WATCHES, body(0, [], [b"/x"], [])) == (0, b"", [])
    assert watcher.check("/x", 2) == 0


# memory


def test_a_path_that_many_connections_watch_stands_once(watcher: Watcher) -> None:
    """Each client sends its own bytes; only the first one's are kept, apart from those of the second."""
    table = watcher.machine.watches
    paths = [bytes(bytearray(b"/a/path/that/many/watch")) for _ in range(100)]
    assert len(set(map(id, paths))) == 100
    for number, path in enumerate(paths):
        table.add(number, WATCH_DATA, path)
    kept = {id(path) for data, _ in table._of_connection.values() for path in data}
    assert len(kept) == 2
    assert struct.unpack_from(">i", table.fire([(_CHANGED, paths[50], 0)], 1)[0][1], 20) == (_CHANGED,)
    assert (table.count, table.connection_count) == (0, 0)


def test_the_watches_of_one_connection_are_bounded(watcher: Watcher) -> None:
    """Whoever watches long paths that do not exist would otherwise fill the server's memory."""
    table = watcher.machine.watches
    count = WATCH_BYTES_MAX // 1_000_000
    for number in range(count):
        table.add("modest", WATCH_DATA, b"/%d" % number + bytes(1_000_000 - 100))
    for number in range(3 * count):  # spent in between: what is gone does not count
        path = b"/%d" % number + bytes(1_000_000)
        table.add("busy", WATCH_CHILD, path)
        table.fire([(_CHILDREN, path, 0)], 1)
    assert table.overfull is None
    for number in range(2 * count):
        table.add("greedy", WATCH_DATA, b"/%d" % number + bytes(1_000_000))
        if table.overfull is not None:
            break
    assert table.overfull == "greedy"
    assert number < 4 * count // 3 + 2
