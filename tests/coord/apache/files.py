"""Directories of ZooKeeper's for tests: copies of real files, and logs made by hand."""

import shutil
import struct
from collections.abc import Iterable
from pathlib import Path

from coord.apache import txnlog
from coord.protocol.jute import encode_buffer
from coord.protocol.records import OPEN_ACL, encode_acl

GOLDEN = Path(__file__).parent / "golden"
LOG, SNAPSHOT, NEXT_LOG = "log.100000001", "snapshot.100000028", "log.200000001"
LAST_ZXID = 0x100000028
SESSIONS = {
    0x1000017D37E0000: bytes.fromhex("20dc680a2dab7f1efe1ba32bbe6763c7"),
    0x1000017D37E0001: bytes.fromhex("33fd620acdf65e63f35e0a5792f07794"),
}
"""The sessions that are open in the golden files, and the passwords that their clients were given."""


def golden_directory(directory: Path, *names: str) -> Path:
    """A dataDir with these golden files."""
    versioned = directory / "version-2"
    versioned.mkdir(parents=True)
    for name in names:
        shutil.copy(GOLDEN / name, versioned)
    return directory


def log_file(directory: Path, first_zxid: int, records: Iterable[bytes]) -> Path:
    """A log of these records, in the `version-2` of a dataDir."""
    path = directory / "version-2" / f"log.{first_zxid:x}"
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">iiq", txnlog.MAGIC, txnlog.VERSION, 0)
    path.write_bytes(header + b"".join(records) + bytes(64))
    return path


def create_body(path: str, data: bytes | None = b"", *, ephemeral: bool = False, cversion: int = 1) -> bytes:
    """CreateTxn."""
    return (
        encode_buffer(path.encode())
        + encode_buffer(data)
        + encode_acl(OPEN_ACL)
        + struct.pack(">?i", ephemeral, cversion)
    )


def create_record(zxid: int, path: str, *, session_id: int = 1, ephemeral: bool = False) -> bytes:
    body = create_body(path, ephemeral=ephemeral, cversion=zxid & 0xFFFF)
    return txnlog.encode_transaction(session_id, zxid, 1000 + zxid, 1, body)
