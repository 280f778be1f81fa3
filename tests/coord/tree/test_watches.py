"""Watches: spec chapter 9 and 22.5."""

import struct
from collections.abc import Sequence

import pytest

from coord.protocol import opcodes as o
from coord.protocol.jute import DecodeError, encode_int, encode_long, encode_strings, encode_text
from coord.protocol.records import decode_watcher_event
from coord.tree import WATCH_CHILD, WATCH_DATA, WatchTable, set_watches
from coord.tree.watches import PERSISTENT, RECURSIVE, STANDARD
from tests.coord.tree.machine import Machine

_CREATED, _DELETED, _CHANGED, _CHILDREN = 1, 2, 3, 4


class Told:
    """A machine whose every request fires at its watch table."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.table = self.machine.watches

    def __call__(self, err: int) -> list[tuple[object, int, str]]:
        assert err == 0
        told = self.table.fire(self.machine.context.events, self.machine.zxid)
        return [(who, *_event(frame, self.machine.zxid)) for who, frame in told]


def _event(frame: bytes, zxid: int) -> tuple[int, str]:
    length, xid, header_zxid, err = struct.unpack_from(">iiqi", frame)
    assert (length, xid, header_zxid, err) == (len(frame) - 4, -1, zxid, 0)
    kind, state, path = decode_watcher_event(frame[20:])
    assert state == 3
    return kind, path


@pytest.fixture
def told() -> Told:
    return Told()


def test_22_52_a_standard_watch_fires_once(told: Told) -> None:
    told.machine.create("/a")
    told.table.add("c", WATCH_DATA, b"/a")
    assert told(told.machine.set("/a")) == [("c", _CHANGED, "/a")]
    assert told(told.machine.set("/a")) == []
    assert (told.table.count, told.table.connection_count) == (0, 0)


def test_22_52_data_and_child_watches_do_not_mix(told: Told) -> None:
    told.machine.create("/a")
    told.table.add("c", WATCH_CHILD, b"/a")
    told.table.add("d", WATCH_DATA, b"/a")
    assert told(told.machine.create("/a/b")) == [("c", _CHILDREN, "/a")]
    assert told(told.machine.set("/a")) == [("d", _CHANGED, "/a")]


def test_22_53_an_exists_watch_fires_on_creation(told: Told) -> None:
    told.table.add("c", WATCH_DATA, b"/a")
    assert told(told.machine.create("/a")) == [("c", _CREATED, "/a")]


def test_9_2_a_top_level_child_changes_the_root(told: Told) -> None:
    told.table.add("c", WATCH_CHILD, b"/")
    assert told(told.machine.create("/a")) == [("c", _CHILDREN, "/")]


def test_22_54_a_deletion_is_told_once_and_before_the_parents(told: Told) -> None:
    told.machine.create("/p")
    told.machine.create("/p/a")
    for table, path in ((WATCH_DATA, b"/p/a"), (WATCH_CHILD, b"/p/a"), (WATCH_CHILD, b"/p")):
        told.table.add("c", table, path)
    assert told(told.machine.delete("/p/a")) == [("c", _DELETED, "/p/a"), ("c", _CHILDREN, "/p")]
    assert told.table.count == 0


def test_9_2_setacl_tells_nobody(told: Told) -> None:
    told.machine.create("/a")
    told.table.add("c", WATCH_DATA, b"/a")
    assert told(told.machine.set_acl("/a", ((31, "world", "anyone"),))) == []  # type: ignore[arg-type]


def test_22_12_a_closing_session_tells_the_watchers_of_its_ephemerals(told: Told) -> None:
    told.machine.create("/e", flags=1)
    told.table.add("c", WATCH_DATA, b"/e")
    assert told(told.machine.close_session()) == [("c", _DELETED, "/e")]


def test_9_1_the_same_watch_twice_is_one(told: Told) -> None:
    told.machine.create("/a")
    told.table.add("c", WATCH_DATA, b"/a")
    told.table.add("c", WATCH_DATA, b"/a")
    assert told.table.count == 1
    assert told(told.machine.set("/a")) == [("c", _CHANGED, "/a")]


def test_22_59_a_persistent_watch_stays(told: Told) -> None:
    for table in (WATCH_DATA, WATCH_CHILD):
        told.table.add("c", table, b"/a", PERSISTENT)
    assert told(told.machine.create("/a")) == [("c", _CREATED, "/a")]
    assert told(told.machine.create("/a/b")) == [("c", _CHILDREN, "/a")]
    assert told(told.machine.delete("/a/b")) == [("c", _CHILDREN, "/a")]
    assert told(told.machine.set("/a")) == [("c", _CHANGED, "/a")]
    assert told(told.machine.delete("/a")) == [("c", _DELETED, "/a")]
    assert told(told.machine.create("/a")) == [("c", _CREATED, "/a")]


def test_9_1_a_standard_watch_beside_a_persistent_one_is_spent_alone(told: Told) -> None:
    told.machine.create("/a")
    told.table.add("c", WATCH_DATA, b"/a", PERSISTENT)
    told.table.add("c", WATCH_DATA, b"/a", STANDARD)
    assert told(told.machine.set("/a")) == [("c", _CHANGED, "/a")]
    assert told(told.machine.set("/a")) == [("c", _CHANGED, "/a")]


def test_22_60_a_recursive_watch_hears_of_the_subtree_but_not_of_children(told: Told) -> None:
    told.machine.create("/p")
    told.table.add("c", WATCH_DATA, b"/p", RECURSIVE)
    assert told(told.machine.create("/p/a")) == [("c", _CREATED, "/p/a")]
    assert told(told.machine.create("/p/a/b")) == [("c", _CREATED, "/p/a/b")]
    assert told(told.machine.set("/p/a/b")) == [("c", _CHANGED, "/p/a/b")]
    assert told(told.machine.set("/p")) == [("c", _CHANGED, "/p")]
    assert told(told.machine.create("/pa")) == []


def test_22_60_a_recursive_watch_on_the_root(told: Told) -> None:
    told.table.add("c", WATCH_DATA, b"/", RECURSIVE)
    assert told(told.machine.create("/a")) == [("c", _CREATED, "/a")]
    assert told(told.machine.create("/a/b")) == [("c", _CREATED, "/a/b")]


def test_9_2_one_event_per_connection_and_call(told: Told) -> None:
    told.machine.create("/p")
    told.machine.create("/p/c")
    told.table.add("c", WATCH_DATA, b"/p", RECURSIVE)
    told.table.add("c", WATCH_DATA, b"/p/c")
    told.table.add("c", WATCH_CHILD, b"/p/c")
    assert told(told.machine.delete("/p/c")) == [("c", _DELETED, "/p/c")]


def test_9_2_persistent_and_recursive_on_one_path(told: Told) -> None:
    told.machine.create("/p")
    for table in (WATCH_DATA, WATCH_CHILD):
        told.table.add("c", table, b"/p", PERSISTENT)
    told.table.add("c", WATCH_DATA, b"/p", RECURSIVE)
    assert told(told.machine.create("/p/c")) == [("c", _CREATED, "/p/c"), ("c", _CHILDREN, "/p")]


def test_6_7_a_watch_on_the_empty_path_never_fires(told: Told) -> None:
    told.table.add("c", WATCH_DATA, b"")
    told.table.add("c", WATCH_CHILD, b"")
    assert told(told.machine.set("/")) == []
    assert told(told.machine.create("/a")) == []


def test_22_62_nothing_is_left_of_a_connection_that_ended(told: Told) -> None:
    for bits in (STANDARD, PERSISTENT, RECURSIVE):
        told.table.add("gone", WATCH_DATA, b"/a", bits)
        told.table.add("stays", WATCH_DATA, b"/a", bits)
    told.table.add("gone", WATCH_CHILD, b"/b")
    told.table.remove_connection("gone")
    told.table.remove_connection("gone")
    assert told.table.count == 1
    assert told(told.machine.create("/a")) == [("stays", _CREATED, "/a")]
    told.table.remove_connection("stays")
    assert (told.table.count, told.table.data_paths) == (0, {})


def test_9_3_who_may_not_know_is_not_told_and_its_watch_is_spent(told: Told) -> None:
    told.machine.create("/a", acl=((31, "ip", "127.0.0.1"),))  # type: ignore[arg-type]
    for who in ("friend", "stranger"):
        told.table.add(who, WATCH_DATA, b"/a")
    told.machine.set("/a")
    asked: list[tuple[object, int]] = []

    def may_know(who: object, acl: int) -> bool:
        asked.append((who, acl))
        return who == "friend"

    assert [who for who, _ in told.table.fire(told.machine.context.events, 1, may_know)] == ["friend"]
    assert [who for who, _ in asked] == ["friend", "stranger"]
    assert told.table.count == 0


def test_9_3_childrenchanged_is_judged_by_the_parent(told: Told) -> None:
    told.machine.create("/p")
    told.machine.create("/p/c", acl=((0, "world", "anyone"),))  # type: ignore[arg-type]
    told.table.add("c", WATCH_CHILD, b"/p")
    told.table.add("c", WATCH_DATA, b"/p/c")
    told.machine.delete("/p/c")
    frames = told.table.fire(told.machine.context.events, told.machine.zxid, lambda who, acl: False)
    assert [_event(frame, told.machine.zxid) for _, frame in frames] == [(_CHILDREN, "/p")]


def _set_watches(
    zxid: int, data: Sequence[bytes] = (), exist: Sequence[bytes] = (), child: Sequence[bytes] = ()
) -> bytes:
    return encode_long(zxid) + encode_strings(data) + encode_strings(exist) + encode_strings(child)


def test_9_6_setwatches_tells_what_was_missed_in_list_order(told: Told) -> None:
    machine = told.machine
    machine.create("/old")
    machine.create("/changed")
    machine.create("/parent")
    seen = machine.zxid
    machine.set("/changed")
    machine.create("/parent/new")
    body = _set_watches(
        seen,
        [b"/gone", b"/changed", b"/old"],
        [b"/parent/new", b"/not-yet"],
        [b"/parent", b"/old", b"/gone"],
    )
    err, frames = set_watches(told.table, machine.tree, "c", body)
    assert err == 0
    assert [_event(frame, -1) for frame in frames] == [
        (_DELETED, "/gone"),
        (_CHANGED, "/changed"),
        (_CREATED, "/parent/new"),
        (_CHILDREN, "/parent"),
        (_DELETED, "/gone"),
    ]
    assert told.table.count == 3
    assert told(machine.set("/old")) == [("c", _CHANGED, "/old")]
    assert told(machine.create("/not-yet")) == [("c", _CREATED, "/not-yet")]
    assert told(machine.create("/old/k")) == [("c", _CHILDREN, "/old")]


@pytest.mark.parametrize("body", [b"", _set_watches(1)[:-1]])
def test_9_6_a_setwatches_that_ends_early_registers_nothing(body: bytes) -> None:
    table = WatchTable()
    with pytest.raises(DecodeError):
        set_watches(table, Machine().tree, "c", body)
    assert table.count == 0


@pytest.mark.parametrize("null", [encode_int(-1), encode_int(2) + encode_int(-1) + encode_text("/behind")])
def test_9_6_a_null_list_or_path_is_refused_where_it_stands(null: bytes) -> None:
    """As 3.9.5 does it: what stands before is told and registered, what stands behind is not."""
    machine = Machine()
    machine.create("/n")
    table = WatchTable()
    body = encode_long(0) + encode_strings([b"/n", b"/gone"]) + null + encode_strings([b"/n"])
    err, frames = set_watches(table, machine.tree, "c", body)
    assert err == o.MARSHALLING_ERROR
    assert [_event(frame, -1) for frame in frames] == [(_CHANGED, "/n"), (_DELETED, "/gone")]
    assert table.count == 0


def test_9_6_the_empty_path_is_the_root(told: Told) -> None:
    """Specification 6.7: an alias in reads."""
    told.machine.create("/n")
    body = _set_watches(told.machine.zxid - 1, [b""], [b""], [b""])
    err, frames = set_watches(told.table, told.machine.tree, "c", body)
    assert (err, [_event(frame, -1) for frame in frames]) == (0, [(_CREATED, ""), (_CHILDREN, "")])
