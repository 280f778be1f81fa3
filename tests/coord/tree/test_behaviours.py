"""Behaviours that clients' tests check (spec 22.2, 22.4, 22.5, 22.7) and that no other page is about."""

import struct

import pytest

from coord.protocol import opcodes as o
from coord.protocol.jute import Reader, encode_long, encode_strings
from coord.protocol.records import (
    MULTI_END,
    OPEN_ACL,
    decode_watcher_event,
    encode_create,
    encode_multi,
    encode_path_version,
    encode_set_data,
)
from coord.tree import WATCH_DATA, set_watches
from tests.coord.tree.machine import Machine


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_22_24_numbers_go_on_after_deletes_and_are_shared_by_all_creates(machine: Machine) -> None:
    machine.create("/q")
    assert machine.created("/q/a-", flags=2) == "/q/a-0000000000"
    machine.create("/q/plain")
    machine.delete("/q/a-0000000000")
    machine.delete("/q/plain")
    assert machine.created("/q/b-", flags=3) == "/q/b-0000000002"
    machine.delete("/q/b-0000000002")
    machine.delete("/q")
    machine.create("/q")
    assert machine.created("/q/a-", flags=2) == "/q/a-0000000000"


def test_8_4_the_number_behind_the_largest_is_negative_as_documented(machine: Machine) -> None:
    """Spec 24: Apache stays at 2147483647, and every further create is NodeExists."""
    machine.create("/q")
    machine.tree.nodes[b"/q"].created = 0x7FFFFFFF
    assert machine.created("/q/n", flags=2) == "/q/n2147483647"
    assert machine.created("/q/n", flags=2) == "/q/n-2147483648"
    assert machine.created("/q/n", flags=2) == "/q/n-2147483647"


def test_22_25_whoever_makes_a_path_second_is_told_exactly_so(machine: Machine) -> None:
    for _ in range(2):
        codes = [machine.create(path) for path in ("/a", "/a/b", "/a/b/c")]
        assert codes in ([0, 0, 0], [o.NODE_EXISTS] * 3)
    assert machine.create("/a/x/y") == o.NO_NODE


@pytest.mark.parametrize("path", ["/", "", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"])
def test_22_26_and_22_27_what_is_built_in_cannot_be_deleted(machine: Machine, path: str) -> None:
    assert machine.delete(path) == o.BAD_ARGUMENTS


def test_22_26_what_has_children_is_an_ephemeral_or_of_another_version_stays(machine: Machine) -> None:
    machine.create("/e", flags=1)
    machine.create("/p")
    machine.create("/p/k")
    assert machine.create("/e/k") == o.NO_CHILDREN_FOR_EPHEMERALS
    assert machine.delete("/p") == o.NOT_EMPTY
    assert machine.delete("/p", version=1) == o.BAD_VERSION
    assert machine.delete("/p/k", version=0) == 0
    assert machine.delete("/p/k") == o.NO_NODE


def at_version(machine: Machine, version: int) -> None:
    node = machine.tree.nodes[b"/a"]
    node.stat = node.stat[:32] + struct.pack(">i", version) + node.stat[36:]


@pytest.mark.parametrize(("before", "after"), [(0x7FFFFFFF, -0x80000000), (-3, -2), (-2, 0), (-1, 0)])
def test_22_30_the_version_wraps_and_skips_minus_one(machine: Machine, before: int, after: int) -> None:
    machine.create("/a")
    at_version(machine, before)
    assert machine.set("/a", b"x", version=before) == 0
    assert machine.stat("/a").version == after
    assert machine.set("/a", b"x", version=after) == 0


def test_22_35_a_hundred_thousand_children_are_listed(machine: Machine) -> None:
    machine.create("/big")
    for number in range(100_000):
        machine.create(f"/big/{number}")
    assert machine.children("/big") == [str(number) for number in range(100_000)]
    assert machine.stat("/big").num_children == 100_000


def test_22_49_a_multi_of_nothing_succeeds(machine: Machine) -> None:
    assert machine.run(o.MULTI, MULTI_END) == (0, MULTI_END)


@pytest.mark.parametrize("read", [o.GET_DATA, o.GET_CHILDREN, o.EXISTS, o.SET_ACL, o.DELETE_CONTAINER, 0, -1])
def test_22_49_what_is_no_write_of_a_multi_refuses_all_of_it(machine: Machine, read: int) -> None:
    create = (o.CREATE, encode_create("/a", b"", OPEN_ACL, 0))
    for items in ([(read, b"\0\0\0\1/\0")], [create, (read, b"\0\0\0\1/\0")]):
        assert machine.run(o.MULTI, encode_multi(items)) == (o.MARSHALLING_ERROR, b"")
    assert machine.get("/a") == o.NO_NODE


def test_22_50_results_have_the_types_that_kazoo_knows(machine: Machine) -> None:
    items = [
        (o.CREATE, encode_create("/a", b"", OPEN_ACL, 0)),
        (o.SET_DATA, encode_set_data("/a", b"", -1)),
        (o.CHECK, encode_path_version("/a", 1)),
        (o.DELETE, encode_path_version("/a", -1)),
    ]
    _, body = machine.run(o.MULTI, encode_multi(items))
    reader = Reader(body)
    kinds: list[int] = []
    for skipped in (2 + 4, 68, 0, 0):
        kinds.append(reader.read_int())
        reader.offset += 5 + skipped
    assert kinds == [1, 5, 13, 2]
    assert body[reader.offset :] == MULTI_END


def test_22_56_more_than_128_kib_of_watches_are_taken_up_again_in_several_requests(machine: Machine) -> None:
    paths = [b"/some/rather/long/path/%06d" % number for number in range(6000)]
    for start in range(0, len(paths), 3000):
        body = encode_long(0) + encode_strings([]) + encode_strings(paths[start : start + 3000])
        assert set_watches(machine.watches, machine.tree, "c", body + encode_strings([])) == (0, [])
    assert machine.watches.count == len(paths)


def test_22_56_what_was_missed_is_told_exactly_once(machine: Machine) -> None:
    machine.create("/a")
    seen = machine.zxid
    machine.set("/a", b"1")
    machine.set("/a", b"2")
    body = encode_long(seen) + encode_strings([b"/a"]) + encode_strings([]) * 2
    _, frames = set_watches(machine.watches, machine.tree, "c", body)
    assert [decode_watcher_event(frame[20:]) for frame in frames] == [(3, 3, "/a")]
    assert machine.watches.count == 0
    later = encode_long(machine.zxid) + encode_strings([b"/a"]) + encode_strings([]) * 2
    assert set_watches(machine.watches, machine.tree, "c", later) == (0, [])
    assert machine.watches.bits_of("c", WATCH_DATA, b"/a") == 1


def test_22_82_the_usage_of_a_quota_is_never_stale(machine: Machine) -> None:
    stats = "/zookeeper/quota/q/zookeeper_stats"
    for path in ("/q", "/zookeeper/quota/q", "/zookeeper/quota/q/zookeeper_limits", stats):
        machine.create(path)
    seen = []
    for number in range(3):
        machine.create(f"/q/{number}", b"x")
        seen.append(machine.data(stats))
    assert seen == [b"count=2,bytes=1", b"count=3,bytes=2", b"count=4,bytes=3"]
