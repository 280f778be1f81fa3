"""Names in the coordination service, and registrations (2.2)."""

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookie.ledger import layout
from bookie.ledger.errors import IncorrectParameterError, MetadataError
from bookie.ledger.extent import SealKind
from bookie.ledger.keys import master_key, sealer_of
from bookie.ledger.layout import Registration


@given(st.integers(0, 2**63 - 1))
def test_a_ledger_id_is_spelled_by_its_path(ledger_id: int) -> None:
    path = layout.ledger_path(ledger_id)
    names = path.split("/")[2:]
    assert layout.ledger_id_of(names) == ledger_id
    for level, name in enumerate(names):
        assert layout.level_children([name, "available", "cookies", "idgen", "L1"], level) == [name]
    assert layout.parent_paths(ledger_id)[-1] == path.rpartition("/")[0]


def test_a_path() -> None:
    assert layout.ledger_path(1234) == "/ledgers/000/0000/0000/0000/L1234"
    assert layout.parent_paths(0) == [
        "/ledgers/000",
        "/ledgers/000/0000",
        "/ledgers/000/0000/0000",
        "/ledgers/000/0000/0000/0000",
    ]
    for bad in (-1, 2**63):
        with pytest.raises(IncorrectParameterError):
            layout.ledger_path(bad)


@pytest.mark.parametrize("name", ["", "readonly", ".", "..", "a/b", "ä", "a b", "x" * 256])
def test_bad_bookie_ids(name: str) -> None:
    """13: must not collide with "readonly"."""
    with pytest.raises(IncorrectParameterError):
        layout.check_bookie_id(name)


def test_good_bookie_ids() -> None:
    assert layout.check_bookie_id("host-1.example:3181") == "host-1.example:3181"


@given(st.text(min_size=1, max_size=20), st.integers(0, 65535), st.integers(0, 2**64 - 1))
def test_a_registration_comes_back(host: str, port: int, incarnation: int) -> None:
    registration = Registration(host, port, incarnation, 7, {"rack": "r1"})
    assert Registration.decode(registration.encode()) == registration


@pytest.mark.parametrize(
    "record",
    [
        [], {}, {"host": "", "port": 1, "incarnation": 1}, {"host": "h", "port": 70000, "incarnation": 1},
        {"host": "h", "port": True, "incarnation": 1}, {"host": "h", "port": 1},
        {"host": "h", "port": 1, "incarnation": -1},
        {"host": "h", "port": 1, "incarnation": 1, "properties": 3},
    ],
)  # fmt: skip
def test_a_bad_registration_is_refused(record: object) -> None:
    with pytest.raises(MetadataError):
        Registration.decode(cbor2.dumps(record))


@given(st.binary(max_size=30))
def test_garbage_is_no_registration(data: bytes) -> None:
    with pytest.raises(MetadataError):
        Registration.decode(data)


def test_keys_depend_on_the_password_and_on_their_use() -> None:
    """1.4: one-way, 20 bytes; an empty password gives a well-known key."""
    assert len(master_key(b"")) == 20
    assert master_key(b"a") != master_key(b"b")
    assert sealer_of(SealKind.HMAC_SHA256, b"a").key[:20] != master_key(b"a")
    assert sealer_of(SealKind.CRC32C, b"a").key == b""
