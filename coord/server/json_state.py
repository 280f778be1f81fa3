"""A server's whole state as JSON, and back, exactly: for people, scripts and repairs.

    {"format": "zoolog-state", "version": 1, "zxid": "0x…",
     "feature_level": 1, "next_number": 12, "next_acl": 3,
     "epochs": {"accepted": 4, "current": 4}, "digest": "…",
     "sessions": [{"id": "0x…", "timeout_ms": 10000, "password": base64}, …],
     "acls": [{"number": 1, "entries": [{"perms": 31, "scheme": "world", "id": "anyone"}]}, …],
     "nodes": [{"path": "/a", "number": 5, "data": base64 or null, "acl": 0, "created": 0, "owner": 0,
                "stat": {"czxid": …, …}}, …]}

A node stands on a line of its own. `owner` is the raw owner of containers and TTL nodes (specification 8.3).
`digest` is that of the state: `decode_state` refuses a text whose state has another, but takes one without a
digest, as whoever has edited it cannot know the new one. Bytes of paths that are no UTF-8 stand as lone
surrogates. Quotas are nodes.
"""

import base64
import binascii
import json
import struct
from collections.abc import Iterator
from typing import Any, Final

from coord.protocol.jute import DecodeError
from coord.protocol.records import PASSWORD_BYTES, STAT, Acl, Stat
from coord.storage import Epochs
from coord.tree import DataTree, Node
from coord.tree.image import Facts
from coord.tree.node import make_node
from coord.tree.tree import Session

FORMAT: Final = "zoolog-state"
VERSION: Final = 1
NULL_LENGTH: Final = b"\xff\xff\xff\xff"


class JsonStateError(Exception):
    """The text is no state; the message is one line for the person who wrote it."""


def encode_state(tree: DataTree, epochs: Epochs) -> Iterator[str]:
    """The text, in pieces."""
    head = {
        "format": FORMAT,
        "version": VERSION,
        "zxid": f"0x{tree.last_zxid:x}",
        "feature_level": tree.feature_level,
        "next_number": tree.next_number,
        "next_acl": tree.acls.next_number,
        "epochs": {"accepted": epochs.accepted, "current": epochs.current},
        "digest": f"{tree.state_digest():016x}",
        "sessions": [_session(number, session) for number, session in tree.sessions.items()],
        "acls": [
            {"number": number, "entries": [_entry(entry) for entry in acl]}
            for number, (acl, _) in tree.acls.lists.items()
        ],
    }
    yield json.dumps(head, indent=1).removesuffix("\n}") + ',\n "nodes": ['
    separator = "\n"
    for path, node in sorted(tree.nodes.items(), key=lambda item: item[1].number):
        yield separator + json.dumps(_node(path, node))
        separator = ",\n"
    yield "\n]}\n"


def decode_state(text: str) -> tuple[DataTree, Epochs]:
    """The state of a text.

    Raises:
        JsonStateError: it is none, or its digest is another.
    """
    try:
        found = json.loads(text)
        if found["format"] != FORMAT or found["version"] != VERSION:
            got = f"{found['format']!r}, version {found['version']!r}"
            raise JsonStateError(f"expected format {FORMAT!r}, version {VERSION}, got {got}")
        facts = Facts(
            zxid=int(found["zxid"], 16),
            feature_level=_integer(found["feature_level"]),
            next_number=_integer(found["next_number"]),
            next_acl=_integer(found["next_acl"]),
            digest=0,
            node_count=0,
            sessions=[_read_session(one) for one in found["sessions"]],
            acls=[
                (_integer(one["number"]), tuple(_read_entry(entry) for entry in one["entries"]))
                for one in found["acls"]
            ],
        )
        tree = DataTree.assemble(facts, [_read_node(one) for one in found["nodes"]])
        epochs = Epochs(_integer(found["epochs"]["accepted"]), _integer(found["epochs"]["current"]))
        digest = found.get("digest")
    except (ValueError, TypeError, KeyError, DecodeError, AttributeError) as error:
        raise JsonStateError(f"expected the JSON of a state: {error!r}") from error
    if digest is not None and digest != f"{tree.state_digest():016x}":
        raise JsonStateError(
            f"expected a state with the digest {digest}, got {tree.state_digest():016x}; if the text was "
            "changed on purpose, take its digest out"
        )
    return tree, epochs


def _session(number: int, session: Session) -> dict[str, Any]:
    return {
        "id": f"0x{number & ((1 << 64) - 1):x}",
        "timeout_ms": session.timeout_ms,
        "password": base64.b64encode(session.password).decode("ascii"),
    }


def _read_session(found: dict[str, Any]) -> tuple[int, int, bytes]:
    number = int(found["id"], 16)
    password = _bytes(found["password"])
    if len(password) != PASSWORD_BYTES:
        raise ValueError(f"a password of {len(password)} bytes, expected {PASSWORD_BYTES}")
    signed = number - (1 << 64) if number >= 1 << 63 else number
    return signed, _integer(found["timeout_ms"]), password


def _entry(entry: Acl) -> dict[str, Any]:
    return {"perms": entry.perms, "scheme": entry.scheme, "id": entry.id}


def _read_entry(found: dict[str, Any]) -> Acl:
    return Acl(_integer(found["perms"]), str(found["scheme"]), str(found["id"]))


def _node(path: bytes, node: Node) -> dict[str, Any]:
    is_null = node.data == NULL_LENGTH
    return {
        "path": path.decode("utf-8", "surrogateescape"),
        "number": node.number,
        "data": None if is_null else base64.b64encode(node.data[4:]).decode("ascii"),
        "acl": node.acl,
        "created": node.created,
        "owner": node.kind,
        "stat": Stat._make(STAT.unpack(node.stat))._asdict(),
    }


def _read_node(found: dict[str, Any]) -> tuple[bytes, Node]:
    data = NULL_LENGTH
    if found["data"] is not None:
        content = _bytes(found["data"])
        data = len(content).to_bytes(4, "big") + content
    try:
        stat = STAT.pack(*Stat(**found["stat"]))
    except (TypeError, struct.error) as error:
        raise ValueError(f"the Stat of {found['path']!r}: {error}") from error
    path = found["path"].encode("utf-8", "surrogateescape")
    numbers = (_integer(found[name]) for name in ("acl", "created", "owner"))
    return path, make_node(_integer(found["number"]), data, stat, *numbers)


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"expected an integer, got {value!r}")
    return value


def _bytes(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"expected base64, got {text!r}") from error
