"""Requests of sessions that live at one server only: spec 4.7, 22.15."""

import pytest

from coord.protocol import opcodes as o
from coord.protocol.records import (
    OPEN_ACL,
    encode_create,
    encode_multi,
    encode_path_version,
    encode_set_data,
)
from coord.tree.ephemeral import makes_ephemeral
from tests.coord.tree.machine import Machine, dump

LOCAL_SESSION = 0x0300000000000009
EPHEMERAL, EPHEMERAL_SEQUENTIAL = 1, 3


@pytest.fixture
def machine() -> Machine:
    """A replica that is asked by a session which only its owner knows."""
    made = Machine()
    made.session_id = LOCAL_SESSION
    made.context.is_local = True
    return made


def test_a_session_its_owner_vouches_for_may_write(machine: Machine) -> None:
    assert machine.create("/a") == 0
    assert machine.set("/a", b"x") == 0
    assert machine.set_acl("/a", OPEN_ACL) == 0
    assert machine.multi(
        (o.CHECK, encode_path_version("/a", 1)), (o.DELETE, encode_path_version("/a", 1))
    ) == [
        None,
        None,
    ]


def test_without_the_owners_word_it_is_expired(machine: Machine) -> None:
    machine.context.is_local = False
    assert machine.create("/a") == o.SESSION_EXPIRED
    assert machine.set("/", b"x") == o.SESSION_EXPIRED
    assert machine.delete("/a") == o.SESSION_EXPIRED


@pytest.mark.parametrize("flags", [EPHEMERAL, EPHEMERAL_SEQUENTIAL])
@pytest.mark.parametrize("op", [o.CREATE, o.CREATE2])
def test_22_15_it_makes_no_ephemeral(machine: Machine, op: int, flags: int) -> None:
    before = dump(machine.tree)
    assert machine.create("/e", flags=flags, op=op) == o.EPHEMERAL_ON_LOCAL_SESSION == -120
    assert dump(machine.tree) == before


def test_22_15_in_a_multi_the_slot_says_so(machine: Machine) -> None:
    create = (o.CREATE, encode_create("/a", b"", OPEN_ACL, 0))
    ephemeral = (o.CREATE, encode_create("/e", b"", OPEN_ACL, EPHEMERAL))
    assert machine.multi(create, ephemeral, create) == [0, -120, o.RUNTIME_INCONSISTENCY]
    assert machine.create("/a") == 0


@pytest.mark.parametrize("flags", range(8))
def test_which_creates_make_an_ephemeral(flags: int) -> None:
    body = encode_create("/e", b"data", OPEN_ACL, flags)
    expected = flags in (EPHEMERAL, EPHEMERAL_SEQUENTIAL)
    assert makes_ephemeral(o.CREATE, body) == makes_ephemeral(o.CREATE2, body) == expected
    assert not makes_ephemeral(o.SET_DATA, body)


def test_a_multi_makes_one_if_one_of_its_creates_does() -> None:
    others = [
        (o.CHECK, encode_path_version("/a", 1)),
        (o.SET_DATA, encode_set_data("/a", b"d", 1)),
        (o.DELETE, encode_path_version("/a", 1)),
        (o.CREATE_CONTAINER, encode_create("/c", b"", OPEN_ACL, 4)),
        (o.CREATE_TTL, encode_create("/t", b"", OPEN_ACL, 5) + bytes(8)),
    ]
    ephemeral = (o.CREATE2, encode_create("/e", None, OPEN_ACL, EPHEMERAL))
    assert not makes_ephemeral(o.MULTI, encode_multi(others))
    for position in range(len(others) + 1):
        assert makes_ephemeral(o.MULTI, encode_multi([*others[:position], ephemeral, *others[position:]]))


@pytest.mark.parametrize("op", [o.CREATE, o.MULTI])
def test_a_body_that_ends_early_makes_none(op: int) -> None:
    create = (o.CREATE, encode_create("/e", b"data", OPEN_ACL, EPHEMERAL))
    body = create[1] if op == o.CREATE else encode_multi([create])
    assert not any(makes_ephemeral(op, body[:end]) for end in range(len(body)))
