"""A server's state as JSON and back: the same state, to the last bit."""

import json
from pathlib import Path

import pytest

from coord.inspection import JsonStateError, NoStateError, json_to_state, state_to_json
from coord.protocol import opcodes
from coord.protocol.records import Acl
from coord.server.json_state import decode_state, encode_state
from coord.storage import Epochs
from coord.tree import DataTree
from tests.coord.tree.machine import DIGEST_ID, SESSION, Machine

EPOCHS = Epochs(accepted=7, current=6)


def varied_tree() -> DataTree:
    """A tree with every kind of node, ACLs, two sessions, a quota and a null value."""
    machine = Machine()
    codes = [
        machine.create("/plain", b"x" * 1000),
        machine.create("/plain/child-", flags=opcodes.FLAG_SEQUENTIAL),
        machine.create("/e", b"\x00\xff", flags=opcodes.FLAG_EPHEMERAL),
        machine.create("/container", flags=opcodes.FLAG_CONTAINER, op=opcodes.CREATE_CONTAINER),
        machine.create("/own", acl=(Acl(31, "digest", DIGEST_ID),)),
        machine.create("/null", None),
        machine.create_ttl("/ttl", 5000),
        machine.create("/zookeeper/quota/plain"),
        machine.create("/zookeeper/quota/plain/zookeeper_limits", b"count=10,bytes=-1"),
        machine.set("/plain", b"y" * 1000),
    ]
    assert codes == [0] * len(codes)
    machine.tree.fold()
    return machine.tree


def test_a_state_comes_back_to_the_last_bit() -> None:
    tree = varied_tree()
    text = "".join(encode_state(tree, EPOCHS))
    again, epochs = decode_state(text)
    assert epochs == EPOCHS
    assert again.state_digest() == tree.state_digest()
    assert again.ephemerals == tree.ephemerals
    assert (again.data_bytes, again.sessions) == (tree.data_bytes, tree.sessions)
    assert "".join(encode_state(again, EPOCHS)) == text


def test_the_text_is_json_with_a_node_a_line() -> None:
    text = "".join(encode_state(varied_tree(), EPOCHS))
    found = json.loads(text)
    assert len(found["nodes"]) == len([line for line in text.splitlines() if line.startswith('{"path"')])
    (node,) = [node for node in found["nodes"] if node["path"] == "/e"]
    assert node["data"] == "AP8="
    assert node["stat"]["ephemeral_owner"] == SESSION
    assert found["sessions"][0]["timeout_ms"] == 10_000


def edited(**changes: object) -> str:
    found = json.loads("".join(encode_state(varied_tree(), EPOCHS)))
    for node in found["nodes"]:
        if node["path"] == "/plain":
            node.update(changes)
    return json.dumps(found)


def test_a_text_that_was_changed_needs_its_digest_taken_out() -> None:
    text = edited(data="bmV3")
    with pytest.raises(JsonStateError, match="take its digest out"):
        decode_state(text)
    tree, _ = decode_state(json.dumps({**json.loads(text), "digest": None}))
    assert tree.nodes[b"/plain"].data[4:] == b"new"


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "null", '{"format": "other", "version": 1}'),
        edited(data="not base64!"),
        edited(number="5"),
        edited(stat={"czxid": 1}),
        edited(acl=99),
        edited(path="/nowhere/child"),
    ],
)
def test_a_text_that_is_no_state_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(JsonStateError) as caught:
        decode_state(text)
    assert "\n" not in str(caught.value)


def test_directories_are_written_and_read(tmp_path: Path) -> None:
    text = "".join(encode_state(varied_tree(), EPOCHS))
    report = json_to_state(text, str(tmp_path / "data"))
    assert report.digest == varied_tree().state_digest()
    assert "".join(state_to_json(str(tmp_path / "data"))) == text
    with pytest.raises(JsonStateError, match="has a state already"):
        json_to_state(text, str(tmp_path / "data"))
    with pytest.raises(NoStateError, match="holds no state"):
        state_to_json(str(tmp_path))
