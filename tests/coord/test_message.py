"""Messages as CBOR arrays: both directions, growth, and bytes that are not what they should be."""

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import NewType

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord.message import (
    DEPTH_MAX,
    MessageError,
    Protocol,
    UnknownMessageError,
    decode_message,
    encode_message,
    message,
)

LedgerId = NewType("LedgerId", int)


class Color(IntEnum):
    RED = 1
    GREEN = 2


class Mode(Enum):
    FAST = "fast"


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int


@message(1)
@dataclass(frozen=True, slots=True)
class Plain:
    ledger_id: LedgerId
    key: bytes
    name: str
    is_last: bool
    weight: float


@message(2)
@dataclass(frozen=True, slots=True)
class Rich:
    maybe: int | None
    either: int | str
    numbers: list[int]
    points: tuple[Point, ...]
    pair: tuple[int, bytes]
    table: dict[str, Point]
    color: Color
    mode: Mode | None
    anything: object


@message(3)
@dataclass(frozen=True, slots=True)
class Grown:
    first: int
    second: int = 7
    third: list[int] = field(default_factory=list)


@message(4)
class Short:
    number: int


@dataclass(frozen=True, slots=True)
class Empty:
    pass


@dataclass(frozen=True, slots=True)
class Tree:
    children: tuple["Tree", ...]


ALL = Protocol("test", [Plain, Rich, Grown, Short])

int64s = st.integers(-(2**64), 2**64 - 1)
points = st.builds(Point, int64s, int64s)
plain_values = st.recursive(
    st.none() | st.booleans() | int64s | st.text(max_size=10) | st.binary(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
plains = st.builds(Plain, int64s, st.binary(), st.text(), st.booleans(), st.floats(allow_nan=False))
riches = st.builds(
    Rich,
    st.none() | int64s,
    int64s | st.text(),
    st.lists(int64s),
    st.lists(points).map(tuple),
    st.tuples(int64s, st.binary()),
    st.dictionaries(st.text(), points),
    st.sampled_from(Color),
    st.sampled_from([None, Mode.FAST]),
    plain_values,
)


@given(plains | riches | st.builds(Grown, int64s, int64s, st.lists(int64s)))
def test_what_is_encoded_is_decoded(sent: object) -> None:
    code, header = ALL.encode(sent)
    assert ALL.decode(code, header) == sent


@given(st.binary(max_size=60), st.integers(0, 5))
def test_arbitrary_bytes_are_a_message_or_a_message_error(data: bytes, code: int) -> None:
    try:
        decoded = ALL.decode(code, data)
    except MessageError:
        return
    assert repr(ALL.decode(*ALL.encode(decoded))) == repr(decoded)  # NaN is not equal to itself


@given(riches, st.data())
def test_a_damaged_message_is_a_message_or_a_message_error(sent: Rich, data: st.DataObject) -> None:
    damaged = bytearray(encode_message(sent))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode_message(Rich, bytes(damaged))
    except MessageError:
        pass


@pytest.mark.parametrize(
    "values",
    [
        [True, b"", "", True, 0.5],
        [1, "", "", True, 0.5],
        [1, b"", b"", True, 0.5],
        [1, b"", "", 1, 0.5],
        [1, b"", "", True, 0],
        [None, b"", "", True, 0.5],
        [1, b"", "", True],
        {0: 1},
        7,
    ],
)
def test_fields_of_another_type_are_refused(values: object) -> None:
    with pytest.raises(MessageError):
        ALL.decode(1, cbor2.dumps(values))


def test_an_error_names_the_field() -> None:
    with pytest.raises(MessageError, match=r"Plain\.key: expected bytes, got str"):
        ALL.decode(1, cbor2.dumps([1, "", "", True, 0.5]))


def test_fields_of_a_newer_sender_are_ignored() -> None:
    assert ALL.decode(4, cbor2.dumps([5, "new", [1]])) == Short(5)


def test_fields_an_older_sender_did_not_know_take_their_defaults() -> None:
    assert ALL.decode(3, cbor2.dumps([1])) == Grown(1, 7, [])
    assert ALL.decode(3, cbor2.dumps([1, 2])) == Grown(1, 2, [])


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("an array of indefinite length", b"\x9f\x01\xff"),
        ("a string of indefinite length", b"\x81\x5f\x41a\xff"),
        ("a claim of 2^64 - 1 items", b"\x9b" + b"\xff" * 8),
        ("a claim of 2^32 - 1 items", b"\x9a" + b"\xff" * 4),
        ("a claim of 2^63 bytes", b"\x81\x5b\x80" + bytes(7)),
        ("a big number by tag", b"\x81\xc2\x41\x05"),
        ("a regular expression by tag", b"\x81\xd8\x23\x61a"),
        ("a decimal of 2^56 digits by tag", b"\x81\xc4\x82\x1b\x00" + b"\xff" * 7 + b"\x01"),
        ("a cycle by shared references", b"\xd8\x1c\x81\xd8\x1d\x00"),
        ("an unknown tag", b"\x81\xd9\xff\xff\x01"),
        ("an undefined value", b"\x81\xf7"),
        ("a simple value", b"\x81\xf0"),
        ("a string that is no UTF-8", b"\x81\x62\xff\xff"),
        ("nothing", b""),
        ("too deep an array", b"\x81" * (DEPTH_MAX + 1) + b"\x01"),
    ],
)
def test_cbor_we_do_not_use_is_refused(what: str, data: bytes) -> None:
    for code in (2, 3, 4):
        with pytest.raises(MessageError):
            ALL.decode(code, data)


def test_keys_may_not_repeat() -> None:
    with pytest.raises(MessageError):
        decode_message(Holder, b"\x81\xa2\x61a\x01\x61a\x02")


@dataclass(frozen=True, slots=True)
class Holder:
    table: dict[str, int]


def test_a_message_over_the_limit_is_refused_unread() -> None:
    small = Protocol("small", {1: Point}, message_bytes_max=2)
    with pytest.raises(MessageError, match="at most 2 bytes of message, got 3"):
        small.decode(1, b"\x82\x01\x02")


def test_an_unknown_code_is_its_own_error() -> None:
    with pytest.raises(UnknownMessageError, match="test has no message 99"):
        ALL.decode(99, b"\x80")


def test_classes_of_pure_cores_get_their_codes_from_the_protocol() -> None:
    votes = Protocol("votes", {10: Point, 11: Empty})
    assert votes.encode(Point(1, 2)) == (10, b"\x82\x01\x02")
    assert votes.encode(Empty()) == (11, b"\x80")
    assert votes.decode(11, b"\x80") == Empty()
    assert Point in votes
    assert Tree not in votes


def test_classes_may_contain_themselves_up_to_the_depth() -> None:
    tree = Tree((Tree(()), Tree((Tree(()),))))
    assert decode_message(Tree, encode_message(tree)) == tree


def test_a_message_of_another_protocol_is_our_mistake() -> None:
    with pytest.raises(TypeError, match="Point is no message of test"):
        ALL.encode(Point(1, 2))


def test_two_messages_may_not_share_a_code() -> None:
    @message(1)
    class Other:
        number: int

    with pytest.raises(ValueError, match="both have code 1"):
        Protocol("test", [Plain, Other])


def test_types_without_a_place_in_cbor_are_refused_when_declared() -> None:
    @message(1)
    class Bad:
        numbers: set[int]

    with pytest.raises(TypeError, match=r"Bad\.numbers"):
        Protocol("test", [Bad])


def test_a_class_that_checks_itself_refuses_as_a_message() -> None:
    with pytest.raises(MessageError, match="positive"):
        decode_message(Positive, b"\x81\x20")


@dataclass(frozen=True, slots=True)
class Positive:
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError("expected a positive number")
