"""What each type of transaction in ZooKeeper's log does to the database (`SerializeUtils.deserializeTxn`,
`DataTree.processTxn`).
"""

import struct
from typing import Final

from coord.apache.database import Database
from coord.apache.errors import DamagedApacheFileError
from coord.apache.snapshot import DIGEST_VERSION, read_acl
from coord.apache.txnlog import Transaction
from coord.protocol import opcodes as op
from coord.protocol.jute import DecodeError, Reader
from coord.tree.node import CONTAINER_OWNER, ttl_owner

ERROR: Final = -1

_DIGEST = struct.Struct(">iq")
_PARTS_MAX: Final = 1 << 22


def apply_transaction(database: Database, transaction: Transaction, path: str) -> tuple[int, int] | None:
    """Carries out one transaction.

    Returns:
        Digest version and digest of the tree after it, where the log says them.

    Raises:
        DamagedApacheFileError: the body is not that of its type, or the type is not known.
    """
    reader = Reader(transaction.body)
    try:
        _apply(database, transaction, transaction.type, reader)
    except (DecodeError, struct.error) as error:
        raise DamagedApacheFileError(path, transaction.offset, f"type {transaction.type}: {error}") from error
    if reader.remaining == 0:
        return None
    if reader.remaining != _DIGEST.size:
        raise DamagedApacheFileError(
            path, transaction.offset, f"type {transaction.type}: {reader.remaining} bytes behind it"
        )
    version, digest = _DIGEST.unpack_from(transaction.body, reader.offset)
    return version, digest & (1 << 64) - 1


def _apply(database: Database, txn: Transaction, kind: int, reader: Reader) -> None:
    match kind:
        case op.CREATE | op.CREATE2 | op.CREATE_CONTAINER | op.CREATE_TTL:
            _create(database, txn, kind, reader)
        case op.DELETE | op.DELETE_CONTAINER:
            database.delete(_path(reader), txn.zxid)
        case op.SET_DATA | op.RECONFIG:
            path, data = _path(reader), reader.read_buffer()
            database.set_data(path, data, reader.read_int(), txn.zxid, txn.time_ms)
        case op.SET_ACL:
            path, acl = _path(reader), read_acl(reader)
            database.set_acl(path, acl, reader.read_int())
        case op.CHECK:
            _path(reader)
            reader.read_int()
        case op.MULTI:
            _multi(database, txn, reader)
        case op.CREATE_SESSION:
            database.create_session(txn.session_id, reader.read_int())
        case op.CLOSE_SESSION:
            paths = (reader.read_strings() or []) if _names_paths(reader) else []
            database.close_session(txn.session_id, txn.zxid, [path for path in paths if path is not None])
        case -1:  # a request that failed took a zxid
            reader.read_int()
        case _:
            raise DecodeError(f"transactions of type {kind} are not known")


def _create(database: Database, txn: Transaction, kind: int, reader: Reader) -> None:
    path, data, acl = _path(reader), reader.read_buffer(), read_acl(reader)
    owner = 0
    parent_cversion = -1
    if kind in (op.CREATE, op.CREATE2):
        if reader.read_bool():
            owner = txn.session_id
        # Before 3.4 there was no counter of the parent behind it.
        if reader.remaining not in (0, _DIGEST.size):
            parent_cversion = reader.read_int()
    else:
        parent_cversion = reader.read_int()
        owner = CONTAINER_OWNER if kind == op.CREATE_CONTAINER else ttl_owner(reader.read_long())
    database.create(path, data, acl, owner, parent_cversion, txn.zxid, txn.time_ms)


def _multi(database: Database, txn: Transaction, reader: Reader) -> None:
    """All parts, or none: the log of a multi that failed has an error in it (or in place of each part)."""
    count = reader.read_int()
    if not 0 <= count <= _PARTS_MAX:
        raise DecodeError(f"a multi of {count} parts")
    parts = [(reader.read_int(), reader.read_buffer() or b"") for _ in range(count)]
    if any(kind == ERROR for kind, _ in parts):
        return
    for kind, body in parts:
        part = Reader(body)
        if kind in (op.MULTI, op.SET_ACL, op.CREATE_SESSION, op.CLOSE_SESSION):
            raise DecodeError(f"a multi with a part of type {kind}")
        _apply(database, txn, kind, part)
        if part.remaining:
            raise DecodeError(f"a part of type {kind} with {part.remaining} bytes behind it")


def _path(reader: Reader) -> bytes:
    path = reader.read_buffer()
    if path is None or (path and not path.startswith(b"/")):
        raise DecodeError(f"expected a path, got {path!r}")
    return b"" if path == b"/" else path


def _names_paths(reader: Reader) -> bool:
    """Since 3.6 a closeSession names its ephemerals, unless that is switched off; a digest may follow either
    form. A digest alone is twelve bytes that begin with its version; a vector of twelve bytes has one path.
    """
    if reader.remaining == _DIGEST.size:
        version: int = _DIGEST.unpack_from(reader.data, reader.offset)[0]
        return version != DIGEST_VERSION
    return reader.remaining > 0
