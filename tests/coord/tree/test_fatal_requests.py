"""Requests that end or stop Apache's own server (spec 2.5, 6.3, 12.4), each executed here: an error or an
ordinary node, and the next request is answered as if nothing had been.
"""

from collections.abc import Iterator

import pytest

from coord.protocol import opcodes as o
from coord.protocol.jute import encode_buffer, encode_int, encode_long
from coord.protocol.records import (
    OPEN_ACL,
    encode_acl,
    encode_create,
    encode_multi,
    encode_path_version,
    encode_set_data,
)
from coord.tree.policy import POLICY_EXTENDED_TYPES
from tests.coord.tree.machine import Machine, dump

NULL_PATH = encode_int(-1)
RECONFIG_BODY = encode_buffer(b"server.4=h:1:2;3") + encode_int(-1) * 2 + encode_long(-1)
WRITES = {
    o.CREATE: encode_create("/x", b"data", OPEN_ACL, 0),
    o.DELETE: encode_path_version("/a", -1),
    o.SET_DATA: encode_set_data("/a", b"data", -1),
    o.SET_ACL: encode_buffer(b"/a") + encode_acl(OPEN_ACL) + encode_int(-1),
    o.CREATE2: encode_create("/x", b"data", OPEN_ACL, 0),
    o.RECONFIG: RECONFIG_BODY,
    o.CREATE_CONTAINER: encode_create("/x", b"data", OPEN_ACL, 0),
    o.CREATE_TTL: encode_create("/x", b"data", OPEN_ACL, 5) + encode_long(1000),
}


@pytest.fixture
def machine() -> Machine:
    made = Machine()
    made.create("/a")
    return made


def goes_on(machine: Machine) -> None:
    assert machine.create("/next", b"x") == 0
    assert machine.data("/next") == b"x"
    assert machine.tree.digest == machine.tree.recompute_digest()


def cuts() -> Iterator[tuple[int, bytes]]:
    """Every write, cut at every place."""
    for op, body in WRITES.items():
        for size in range(len(body)):
            yield op, body[:size]


def test_2_5_a_write_cut_anywhere_is_a_marshalling_error(machine: Machine) -> None:
    before = dump(machine.tree)
    for op, body in cuts():
        assert machine.run(op, body) == (o.MARSHALLING_ERROR, b""), (op, len(body))
        assert machine.events == []
    assert dump(machine.tree) == before
    goes_on(machine)


@pytest.mark.parametrize("op", sorted({o.DELETE, o.CREATE, o.CREATE2, o.CREATE_CONTAINER, o.CREATE_TTL}))
def test_2_5_a_null_path_is_a_marshalling_error(machine: Machine, op: int) -> None:
    path_bytes = 4 + int.from_bytes(WRITES[op][:4], "big")
    assert machine.run(op, NULL_PATH + WRITES[op][path_bytes:]) == (o.MARSHALLING_ERROR, b"")
    goes_on(machine)


@pytest.mark.parametrize("op", [o.SET_DATA, o.SET_ACL])
def test_2_2_setdata_and_setacl_find_a_null_path_illegal(machine: Machine, op: int) -> None:
    assert machine.run(op, NULL_PATH + WRITES[op][6:]) == (o.BAD_ARGUMENTS, b"")
    goes_on(machine)


def test_2_5_a_multi_cut_anywhere_is_a_marshalling_error(machine: Machine) -> None:
    items = [(op, body) for op, body in WRITES.items() if op not in (o.SET_ACL, o.RECONFIG)]
    whole = encode_multi(items)
    before = dump(machine.tree)
    for size in range(len(whole)):
        assert machine.run(o.MULTI, whole[:size]) == (o.MARSHALLING_ERROR, b""), size
    assert dump(machine.tree) == before
    goes_on(machine)


@pytest.mark.parametrize("flags", [0, 1, 2, 3, 4])
def test_6_3_createttl_with_a_wrong_mode_and_ttl_minus_one(machine: Machine, flags: int) -> None:
    before = dump(machine.tree)
    assert machine.create_ttl("/t", -1, flags=flags) == o.BAD_ARGUMENTS
    assert dump(machine.tree) == before
    goes_on(machine)


@pytest.mark.parametrize("name", ["zookeeper_stats", "zookeeper_limits"])
def test_12_4_a_quota_on_the_root(machine: Machine, name: str) -> None:
    assert machine.create(f"/zookeeper/quota/{name}", b"count=1,bytes=1") == 0
    assert machine.tree.quotas == {}
    goes_on(machine)


def test_12_4_statistics_that_are_no_statistics() -> None:
    """Apache stops at the first write below the quota, where quotas are not enforced."""
    machine = Machine(policy=POLICY_EXTENDED_TYPES)
    machine.create("/a")
    machine.create("/zookeeper/quota/a")
    machine.create("/zookeeper/quota/a/zookeeper_limits", b"count=5")
    machine.create("/zookeeper/quota/a/zookeeper_stats")
    assert machine.set("/zookeeper/quota/a/zookeeper_stats", b"nonsense") == 0
    assert machine.create("/a/k") == 0
    assert machine.set("/a/k", b"x") == 0
    assert machine.delete("/a/k") == 0
    goes_on(machine)


@pytest.mark.parametrize(("policy", "code"), [(0, o.RECONFIG_DISABLED), (-1, o.UNIMPLEMENTED)])
def test_19_4_a_server_by_itself_is_not_reconfigured(policy: int, code: int) -> None:
    machine = Machine(policy=policy & 0xFFFF)
    assert machine.run(o.RECONFIG, RECONFIG_BODY) == (code, b"")
    assert machine.run(o.RECONFIG, RECONFIG_BODY, session_id=99)[0] == (
        o.RECONFIG_DISABLED if not policy else o.SESSION_EXPIRED
    )
