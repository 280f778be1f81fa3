"""The peers' messages on the wire: both directions, and what a damaged or hostile one does."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord.message import MessageError, Protocol
from coord.zab import WIRE_MESSAGES, Proposal, from_wire, make_zxid, to_wire
from coord.zab.messages import EPOCH_MAX, Commit, LeaderInfo, Message, Notification, Propose, ProposeHeader

ZAB = Protocol("zab", list(WIRE_MESSAGES))
ZXIDS = st.integers(0, (1 << 63) - 1)
SMALL = st.integers(0, EPOCH_MAX)


def _field(field: dataclasses.Field[object]) -> st.SearchStrategy[object]:
    if field.type in (bool, "bool"):
        return st.booleans()
    if field.name == "role":
        return st.integers(0, 2)
    if field.name == "membership":
        return st.text(max_size=20)
    return SMALL if "epoch" in field.name else ZXIDS


def _records(cls: type) -> st.SearchStrategy[object]:
    return st.builds(cls, *[_field(field) for field in dataclasses.fields(cls)])


PROPOSES = st.builds(
    lambda epoch, previous, committed, counter, count, payload: Propose(
        epoch,
        previous,
        committed,
        Proposal(make_zxid(epoch, counter), make_zxid(epoch, counter + count), payload),
    ),
    SMALL,
    ZXIDS,
    ZXIDS,
    st.integers(1, 1 << 31),
    st.integers(0, 1 << 30),
    st.binary(max_size=100),
)
MESSAGES = st.one_of(PROPOSES, *[_records(cls) for cls in WIRE_MESSAGES if cls is not ProposeHeader])


@given(MESSAGES)
def test_every_message_survives_the_wire(message: Message) -> None:
    record, body = to_wire(message)
    code, header = ZAB.encode(record)
    assert from_wire(ZAB.decode(code, header), body) == message  # type: ignore[arg-type]


def test_payload_is_the_body_itself() -> None:
    """One payload, never copied, serves every follower."""
    payload = bytes(1000)
    record, body = to_wire(Propose(1, 0, 0, Proposal(make_zxid(1, 1), make_zxid(1, 1), payload)))
    assert body is payload
    assert isinstance(record, ProposeHeader)


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (make_zxid(1, 0), make_zxid(1, 1)),
        (make_zxid(1, 2), make_zxid(1, 1)),
        (make_zxid(1, 2), make_zxid(2, 1)),
    ],
)
def test_a_batch_is_within_one_epoch(first: int, last: int) -> None:
    with pytest.raises(MessageError, match="within one epoch"):
        from_wire(ProposeHeader(1, 0, 0, first, last), b"")


@pytest.mark.parametrize(
    "record",
    [
        Commit(1, -1),
        Commit(-1, 1),
        LeaderInfo(1, EPOCH_MAX + 1),
        Notification(3, 1, 1, 1, 1, 1, 1),
        Notification(0, 1, 1, 1, 1 << 63, 1, 1),
    ],
)
def test_numbers_out_of_range_are_refused(record: Commit | LeaderInfo | Notification) -> None:
    with pytest.raises(MessageError):
        from_wire(record)


def test_the_worked_example_of_the_formats_page_is_what_is_sent() -> None:
    text = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
    block = text.split("<!-- propose example -->")[1].split("```")[1]
    data = bytes.fromhex("".join(line[6:53] for line in block.strip().splitlines()))
    batch = Proposal(make_zxid(3, 1), make_zxid(3, 3), b"x")
    expected = Propose(3, make_zxid(2, 7), make_zxid(2, 5), batch)
    assert from_wire(ZAB.decode(12, data), b"x") == expected  # type: ignore[arg-type]
    assert ZAB.encode(to_wire(expected)[0]) == (12, data)
