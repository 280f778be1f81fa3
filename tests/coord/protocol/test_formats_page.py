"""The examples of docs/formats.md for batch, node and facts are what the code reads and writes."""

import re
from pathlib import Path

from coord.protocol import opcodes
from coord.protocol.batch import NO_AUTH_INDEX, Stamp, decode_batch, encode_batch, encode_block
from coord.protocol.records import Acl, Identity, encode_path_version, encode_set_data
from coord.tree.image import Facts, decode_facts, decode_node, encode_facts, encode_node
from coord.tree.node import Node, new_stat

_WALL_MS = 1_700_000_000_000
_ZXID = 0x100000005
_SESSIONS = (0x0100000000000001, 0x0100000000000002)


def _example(name: str) -> bytes:
    text = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
    block = text.split(f"<!-- {name} example -->")[1].split("```")[1]
    data = b""
    for line in block.strip().splitlines():
        match = re.match(r"([0-9a-f]{4})  ((?:[0-9a-f]{2} ?){1,16})", line)
        assert match is not None, line
        assert int(match[1], 16) == len(data)
        data += bytes.fromhex(match[2])
    return data


def test_the_batch_example() -> None:
    stamp, (block,) = decode_batch(_example("batch"))
    assert stamp == Stamp(1, _WALL_MS, _ZXID, 2, 0)
    assert block.owner == 1
    assert tuple(block.sessions) == _SESSIONS
    assert list(block.xids) == [7, 1]
    assert list(block.ops) == [opcodes.SET_DATA, opcodes.DELETE]
    assert list(block.auth) == [(Identity("ip", "10.0.0.1"),), ()]
    bodies = [encode_set_data("/a", b"hi", -1), encode_path_version("/b", 3)]
    assert list(block.bodies) == bodies
    table = ((Identity("ip", "10.0.0.1"),),)
    encoded = encode_block(1, _SESSIONS, [7, 1], block.ops, [0, NO_AUTH_INDEX], table, bodies)
    assert encode_batch(stamp, [encoded]) == _example("batch")


def test_the_node_example() -> None:
    path, node = decode_node(5, _example("node"))
    expected = Node(5, b"\0\0\0\2hi", new_stat(_ZXID, _WALL_MS, 0, 2), 0)
    assert path == b"/a"
    assert (node.data, node.stat, node.acl, node.created, node.kind) == (
        *(expected.data, expected.stat),
        *(0, 0, 0),
    )
    assert encode_node(b"/a", expected) == _example("node")
    assert node.digest_of(b"/a") & (2**64 - 1) == 0xC20B4F65019FA4E0


def test_the_facts_example() -> None:
    sessions = [(_SESSIONS[0], 10_000, bytes(range(16)))]
    acls = [(1, (Acl(1, "world", "anyone"),))]
    facts = Facts(_ZXID, 1, 6, 2, 0x1122334455667788, 5, sessions, acls)
    assert decode_facts(_example("facts")) == facts
    assert encode_facts(facts) == _example("facts")
