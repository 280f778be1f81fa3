"""The transactions of a log, for people: a row for each request of a batch, from the columns of its blocks.

What a request led to is in no log: it is executed anew by whoever reads it. So a row says what was asked
for; `error` is there only where the leader had refused it before it was executed.
"""

import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from coord.protocol import opcodes
from coord.protocol.batch import OP_REFUSED, Block, Stamp, decode_batch
from coord.protocol.jute import DecodeError, Reader
from coord.server.audit import printable
from coord.storage import TxnRow
from coord.tree.multi import decode_multi

__all__ = ["transaction_rows"]

_TYPES: Final = {
    OP_REFUSED: "refused",
    opcodes.CREATE: "create",
    opcodes.CREATE2: "create2",
    opcodes.CREATE_CONTAINER: "createContainer",
    opcodes.CREATE_TTL: "createTTL",
    opcodes.DELETE: "delete",
    opcodes.DELETE_CONTAINER: "deleteContainer",
    opcodes.SET_DATA: "setData",
    opcodes.SET_ACL: "setACL",
    opcodes.CHECK: "check",
    opcodes.MULTI: "multi",
    opcodes.RECONFIG: "reconfig",
    opcodes.CREATE_SESSION: "createSession",
    opcodes.CLOSE_SESSION: "closeSession",
    opcodes.CHANGE_MEMBERSHIP: "changeMembership",
    opcodes.RAISE_LEVEL: "raiseLevel",
}
_WITH_DATA: Final = frozenset(
    {
        opcodes.CREATE,
        opcodes.CREATE2,
        opcodes.CREATE_CONTAINER,
        opcodes.CREATE_TTL,
        opcodes.SET_DATA,
    }
)
_WITH_PATH: Final = _WITH_DATA | {opcodes.DELETE, opcodes.DELETE_CONTAINER, opcodes.SET_ACL, opcodes.CHECK}


def transaction_rows(row: TxnRow) -> Iterator[TxnRow]:
    """A row of kind "transaction" for each request of a batch's row, its `length` that of the request's body;
    of any other row that row.
    """
    if row.kind != "batch":
        yield row
        return
    try:
        stamp, blocks = decode_batch(row.payload)
    except DecodeError as error:
        yield TxnRow("damage", row.offset, row.length, {"problem": f"no batch: {error}"})
        return
    zxid = stamp.first_zxid
    for block in blocks:
        for index, body in enumerate(block.bodies):
            yield TxnRow("transaction", row.offset, len(body), _facts(stamp, block, index, zxid), body)
            zxid += 1


def _facts(stamp: Stamp, block: Block, index: int, zxid: int) -> dict[str, str]:
    op, body = block.ops[index], block.bodies[index]
    facts = {
        "zxid": f"{zxid:#x}",
        "time": _time_text(stamp.wall_ms),
        "session": f"0x{block.sessions[index] & (1 << 64) - 1:x}",
        "owner": str(block.owner),
        "type": _TYPES.get(op, str(op)),
    }
    try:
        if op == OP_REFUSED:
            facts["error"] = str(Reader(body).read_int())
        elif op == opcodes.MULTI:
            facts["operations"] = ", ".join(_operation_text(*operation) for operation in decode_multi(body))
        elif op in _WITH_PATH:
            facts |= _path_facts(op, body)
    except (DecodeError, struct.error):
        facts["undecodable"] = body.hex()
    return facts


def _path_facts(op: int, body: bytes) -> dict[str, str]:
    reader = Reader(body)
    facts = {"path": _path_text(reader.read_buffer() or b"")}
    if op in _WITH_DATA:
        facts["data_bytes"] = str(len(reader.read_buffer() or b""))
    return facts


def _operation_text(op: int, item: bytes | tuple[bytes, bytes, int]) -> str:
    path = _path_text(item[0]) if isinstance(item, tuple) else _path_facts(op, item)["path"]
    return f"{_TYPES[op]} {path}"


def _path_text(path: bytes) -> str:
    return printable(path.decode("utf-8", "backslashreplace"))


def _time_text(wall_ms: int) -> str:
    """In UTC, as long as the calendar goes."""
    try:
        return datetime.fromtimestamp(wall_ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return f"{wall_ms} ms"
