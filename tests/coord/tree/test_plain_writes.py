"""The short way of plain writes does what `execute` does, or nothing at all."""

import struct
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord.protocol import opcodes
from coord.protocol.bodies import Bodies
from coord.protocol.records import OPEN_ACL, Acl, encode_create, encode_path_version, encode_set_data
from coord.tree import WATCH_CHILD, WATCH_DATA
from coord.tree.create import OPEN_ACL_BYTES
from coord.tree.plain_writes import plain_writes
from coord.tree.watches import RECURSIVE, STANDARD
from tests.coord.tree.machine import LOCAL, OTHER_SESSION, SESSION, SUPER, WALL_MS, Machine

UNKNOWN_SESSION = 99
LIMITS = b"count=-1,bytes=-1=;byteHardLimit=20;countHardLimit=-1"
CONFIG = "/zookeeper/config"
PATHS = ("/a", "/a/b", "/guarded", "/missing", "/", "", "bad", "/a//b", CONFIG)
NEW_PATHS = (
    *("/new", "/new/new", "/a/new", "/guarded/new", "/owned/new", "/missing/new", "/zookeeper/quota/a"),
    *("/a/b/..", "/a/", "a", "x/a", "//a", "/a/\1", "/a/é"),
)
READ_ONLY = (Acl(1, "world", "anyone"),)


def make_machine(*, quota: bool) -> Machine:
    machine = Machine()
    machine.identities = SUPER
    machine.set_acl(CONFIG, OPEN_ACL)
    machine.identities = LOCAL
    machine.create("/a", b"one")
    machine.create("/a/b", None)
    machine.create("/guarded", b"", acl=READ_ONLY)
    machine.create("/owned", b"", flags=1)
    if quota:
        for path, data in (("", b""), ("/zookeeper_limits", LIMITS), ("/zookeeper_stats", b"")):
            machine.create("/zookeeper/quota/a" + path, data)
    return machine


bodies = st.builds(
    encode_set_data, st.sampled_from(PATHS), st.none() | st.binary(max_size=20), st.integers(-2, 3)
)
cut_bodies = st.tuples(bodies, st.integers(0, 40)).map(lambda pair: pair[0][: pair[1]])
long_bodies = st.tuples(bodies, st.binary(max_size=4)).map(b"".join)
sessions = st.sampled_from((SESSION, OTHER_SESSION, UNKNOWN_SESSION))


create_bodies = st.builds(
    encode_create,
    st.sampled_from((*PATHS, *NEW_PATHS)),
    st.none() | st.binary(max_size=20),
    st.sampled_from((OPEN_ACL, READ_ONLY, ())),
    st.sampled_from((0, 0, 0, 1, 2, 2, 3, 4, 5, 9, -1)),
)


def delete_body(path: str) -> bytes:
    return encode_path_version(path, -1)


requests = st.one_of(
    st.tuples(
        st.just(opcodes.SET_DATA), bodies | cut_bodies | long_bodies | st.binary(max_size=30), sessions
    ),
    st.tuples(st.just(opcodes.DELETE), st.sampled_from(PATHS).map(delete_body), sessions),
    st.tuples(
        st.sampled_from((opcodes.CREATE, opcodes.CREATE2)),
        create_bodies | st.tuples(create_bodies, st.integers(0, 80)).map(lambda pair: pair[0][: pair[1]]),
        sessions,
    ),
)
#: Between two requests reads are answered, which may watch.
watches = st.none() | st.tuples(
    st.sampled_from((WATCH_DATA, WATCH_CHILD)),
    st.sampled_from((*PATHS, *NEW_PATHS)),
    st.sampled_from((STANDARD, RECURSIVE)),
)


def write(
    machine: Machine,
    ops: Sequence[int],
    bodies: Sequence[bytes],
    owners: Sequence[int] | None = None,
    *,
    answers: bool = True,
) -> Iterator[bytes | int]:
    """These requests as a block, its bodies in the middle of other bytes."""
    data = b"".join((b"\xff\xff", *bodies, b"\xff" * 80))
    owners = owners or [SESSION] * len(bodies)
    places = Bodies(data, 2, map(len, bodies))
    first = machine.zxid + 1
    return plain_writes(machine.tree, machine.watches, owners, ops, places, first, WALL_MS, answers=answers)


def take_all(machine: Machine, *bodies: bytes) -> list[bytes | int]:
    return list(write(machine, [opcodes.SET_DATA] * len(bodies), bodies))


@given(st.lists(st.tuples(requests, watches), max_size=12), st.booleans())
def test_both_ways_answer_the_same_and_leave_the_same_tree(
    steps: list[tuple[tuple[int, bytes, int], tuple[int, str, int] | None]], quota: bool
) -> None:
    general, short = make_machine(quota=quota), make_machine(quota=quota)
    ops, bodies, owners = ([request[column] for request, _ in steps] for column in range(3))
    shortened = write(short, ops, bodies, owners)
    for number, ((op, body, session_id), watch) in enumerate(steps):
        if watch is not None:
            table, path, bits = watch
            for machine in (general, short):
                machine.watches.add("watcher", table, path.encode(), bits)
        expected = general.run(op, body, session_id=session_id)
        done = next(shortened)
        if type(done) is int:
            assert done == number
            assert short.run(op, body, session_id=session_id) == expected
        else:
            assert (0, done) == expected
            assert not general.watches.fire(general.context.events, general.zxid, lambda watcher, acl: True)
        assert short.tree.state_digest() == general.tree.state_digest()
        assert short.tree.data_bytes == general.tree.data_bytes
    assert list(shortened) == []


@given(st.lists(requests, max_size=12), st.booleans())
def test_who_wants_no_answers_gets_what_is_not_plain(
    steps: list[tuple[int, bytes, int]], quota: bool
) -> None:
    general, short = make_machine(quota=quota), make_machine(quota=quota)
    first = short.zxid + 1
    ops, bodies, owners = ([request[column] for request in steps] for column in range(3))
    for number in write(short, ops, bodies, owners, answers=False):
        assert type(number) is int
        short.tree.last_zxid = first + number - 1
        short.run(ops[number], bodies[number], session_id=owners[number])
    for op, body, session_id in steps:
        general.run(op, body, session_id=session_id)
    assert short.tree.last_zxid == general.tree.last_zxid
    assert short.tree.state_digest() == general.tree.state_digest()
    assert short.tree.data_bytes == general.tree.data_bytes


def test_a_watched_node_is_left_to_the_general_way() -> None:
    machine = make_machine(quota=False)
    body = encode_set_data("/a", b"two", -1)
    before = machine.tree.state_digest()
    machine.watches.add("watcher", WATCH_DATA, b"/a", STANDARD)
    assert take_all(machine, body) == [0]
    assert machine.tree.state_digest() == before
    machine.watches.remove_connection("watcher")
    machine.watches.add("watcher", WATCH_DATA, b"/a/b", STANDARD)
    first, second = take_all(machine, body, body)
    assert type(first) is bytes
    assert type(second) is bytes
    assert struct.unpack_from(">i", first, 32) == (1,)
    assert struct.unpack_from(">i", second, 32) == (2,)


def test_plain_creates_are_taken_and_those_somebody_waits_for_are_not() -> None:
    machine = make_machine(quota=False)
    bodies = [
        encode_create(path, b"", OPEN_ACL, flags) for path, flags in (("/p", 0), ("/p/q-", 2), ("/e", 1))
    ]
    taken = write(machine, [opcodes.CREATE] * 3, bodies)
    assert list(taken) == [b"\0\0\0\2/p", b"\0\0\0\x0f/p/q-0000000000", 2]
    for table, path in ((WATCH_DATA, b"/w"), (WATCH_CHILD, b"/")):
        machine.watches.add("watcher", table, path, STANDARD)
        body = encode_create("/w", b"", OPEN_ACL, 0)
        assert list(write(machine, [opcodes.CREATE], [body])) == [0]
        machine.watches.remove_connection("watcher")


def test_more_nodes_than_wait_for_the_digest_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coord.tree.plain_writes.TOUCHED_MAX", 1)
    machine = make_machine(quota=False)
    paths = [f"/n{number}" for number in range(5)]
    for path in paths:
        machine.create(path, b"one")
    machine.tree.fold()
    taken = take_all(machine, *(encode_set_data(path, b"two", -1) for path in paths))
    assert all(type(done) is bytes for done in taken)
    assert len(machine.tree.touched) <= 2
    assert machine.tree.digest == machine.tree.recompute_digest()


def test_a_negative_path_length_is_nobodys_plain_write() -> None:
    """Counted from the end of the body it would find a path, and data without its length's bytes: taken here
    and refused where somebody watches, it would tear replicas apart.
    """
    set_data = struct.pack(">i2sii", -12, b"/a", 14, -1)
    tail = OPEN_ACL_BYTES + struct.pack(">i", 0)
    size = 4 + 2 + 4 + len(tail)
    create = struct.pack(">i2si", 2 - size, b"/n", size) + tail
    for op, body in ((opcodes.SET_DATA, set_data), (opcodes.CREATE, create)):
        machine = make_machine(quota=False)
        before = machine.tree.state_digest()
        assert list(write(machine, [op], [body])) == [0]
        assert machine.tree.state_digest() == before
        assert machine.run(op, body) == (opcodes.MARSHALLING_ERROR, b"")
