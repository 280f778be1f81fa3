"""The short way of setData does what `execute` does, or nothing at all."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from coord.protocol import opcodes
from coord.protocol.records import OPEN_ACL, Acl, encode_set_data
from coord.tree.execute import set_plain_data
from tests.coord.tree.machine import LOCAL, OTHER_SESSION, SESSION, SUPER, WALL_MS, Machine

UNKNOWN_SESSION = 99
LIMITS = b"count=-1,bytes=-1=;byteHardLimit=20;countHardLimit=-1"
CONFIG = "/zookeeper/config"
PATHS = ("/a", "/a/b", "/guarded", "/missing", "/", "", "bad", "/a//b", CONFIG)
READ_ONLY = (Acl(1, "world", "anyone"),)


def make_machine(*, quota: bool) -> Machine:
    machine = Machine()
    machine.identities = SUPER
    machine.set_acl(CONFIG, OPEN_ACL)
    machine.identities = LOCAL
    machine.create("/a", b"one")
    machine.create("/a/b", None)
    machine.create("/guarded", b"", acl=READ_ONLY)
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


@given(
    st.lists(st.tuples(bodies | cut_bodies | long_bodies | st.binary(max_size=30), sessions), max_size=12),
    st.booleans(),
)
def test_both_ways_answer_the_same_and_leave_the_same_tree(
    requests: list[tuple[bytes, int]], quota: bool
) -> None:
    general, short = make_machine(quota=quota), make_machine(quota=quota)
    for body, session_id in requests:
        expected = general.run(opcodes.SET_DATA, body, session_id=session_id)
        stat = set_plain_data(short.tree, (), session_id, short.zxid + 1, WALL_MS, body)
        if stat is None:
            assert short.run(opcodes.SET_DATA, body, session_id=session_id) == expected
        else:
            assert (0, stat) == expected
        assert short.tree.state_digest() == general.tree.state_digest()
        assert short.tree.data_bytes == general.tree.data_bytes


def test_a_watched_node_is_left_to_the_general_way() -> None:
    machine = make_machine(quota=False)
    body = encode_set_data("/a", b"two", -1)
    before = machine.tree.state_digest()
    assert set_plain_data(machine.tree, {b"/a": None}, SESSION, machine.zxid + 1, WALL_MS, body) is None
    assert machine.tree.state_digest() == before
    stat = set_plain_data(machine.tree, {b"/b": None}, SESSION, machine.zxid + 1, WALL_MS, body)
    assert stat is not None
    assert struct.unpack_from(">i", stat, 32) == (1,)
