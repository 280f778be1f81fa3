"""Whatever bytes a client sends, execute and read answer a code: nothing is raised, nothing half done."""

import struct

from hypothesis import example, given, settings
from hypothesis import strategies as st

from coord.protocol import opcodes as o
from coord.protocol.jute import encode_int, encode_text
from coord.protocol.records import (
    MULTI_END,
    OPEN_ACL,
    Acl,
    encode_acl,
    encode_create,
    encode_multi,
    encode_path_version,
    encode_set_data,
)
from coord.tree import WATCH_OPS, answer_watch_request
from tests.coord.tree.machine import Machine, dump

_WRITES = st.sampled_from(sorted(o.WRITES | {o.CREATE_SESSION, o.CREATE_TTL, o.DELETE_CONTAINER, 0, 77}))
_READS = st.sampled_from(
    [
        *(o.EXISTS, o.GET_DATA, o.GET_CHILDREN, o.GET_CHILDREN2, o.GET_ACL, o.SYNC, o.MULTI_READ),
        *(o.GET_EPHEMERALS, o.GET_ALL_CHILDREN_NUMBER, o.WHO_AM_I),
    ]
)
_TEMPLATES = st.sampled_from(
    [
        encode_create("/a/b", b"data", OPEN_ACL, 3),
        encode_set_data("/a", b"data", 0),
        encode_path_version("/a", -1),
        encode_create("/zookeeper/quota/a/zookeeper_limits", b"count=1,bytes=1", OPEN_ACL, 0),
        encode_create("/t", b"", OPEN_ACL, 5) + struct.pack(">q", 1000),
        encode_text("/a")
        + encode_acl((Acl(31, "ip", "10.0.0.0/8"), Acl(1, "digest", "u:h")))
        + encode_int(0),
        encode_text("/a") + struct.pack(">?", True),
        encode_multi(
            [
                (o.CREATE, encode_create("/m", b"d", OPEN_ACL, 1)),
                (o.SET_DATA, encode_set_data("/a", b"x", -1)),
                (o.CHECK, encode_path_version("/nowhere", 0)),
            ]
        ),
    ]
)


@st.composite
def _bodies(draw: st.DrawFn) -> bytes:
    """A valid record with some bytes changed, or cut, or plain noise."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=80))
    body = bytearray(draw(_TEMPLATES))
    for _ in range(draw(st.integers(0, 4))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body[: draw(st.integers(0, len(body)))] if draw(st.booleans()) else body)


@settings(max_examples=600)
@given(_WRITES, _bodies())
@example(o.SET_DATA, b"\x7f\xff\xff\xff" + bytes(8))
@example(o.CREATE, b"\0\0\0\1/\x7f\xff\xff\xff")
@example(o.CREATE, b"\0\0\0\2/x\0\0\0\0\x7f\xff\xff\xff" + bytes(12))
def test_execute_answers_whatever_comes(op: int, body: bytes) -> None:
    machine = Machine()
    machine.create("/a")
    before, zxid = dump(machine.tree), machine.zxid
    err, answer = machine.run(op, body)
    assert machine.zxid == zxid + 1
    if err:
        assert answer == b""
        assert dump(machine.tree) == before
        assert machine.events == []
    assert machine.tree.undo is None
    assert machine.tree.digest == machine.tree.recompute_digest()


@settings(max_examples=600)
@given(_READS, _bodies())
def test_read_answers_whatever_comes(op: int, body: bytes) -> None:
    machine = Machine()
    digest = machine.tree.state_digest()
    err, answer = machine.read(op, body)
    assert not err or answer == b"" or (op, answer) == (o.MULTI_READ, MULTI_END)
    assert machine.tree.state_digest() == digest


@settings(max_examples=300)
@given(st.sampled_from(sorted(WATCH_OPS)), _bodies())
def test_requests_about_watches_answer_whatever_comes(op: int, body: bytes) -> None:
    machine = Machine()
    err, answer, frames = answer_watch_request(machine.watches, machine.tree, "c", op, body)
    if err:
        assert (answer, frames, machine.watches.count) == (b"", [], 0)
    machine.watches.remove_connection("c")
    assert machine.watches.data_paths == {}
