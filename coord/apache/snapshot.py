"""ZooKeeper's snapshot files, read and written.

    file     := header | sessions | acls | node* | end | seal | (digest | seal)? | (last zxid | seal)?
    header   := "ZKSN" | version i32 = 2 | database id i64 = -1
    sessions := count i32 | (session id i64 | timeout ms i32)*
    acls     := count i32 | (number i64 | entries i32 | (perms i32 | scheme | id)*)*
    node     := path | data | ACL number i64 | czxid mzxid ctime mtime i64 | version cversion aversion i32
                | owner i64 | pzxid i64                          parents before their children, the root is ""
    end      := the string "/"
    digest   := zxid i64 | digest version i32 | digest i64, or a hexadecimal string below version 2
    seal     := Adler-32 of everything before it i64 | the string "/"

Big-endian; a string or data is a length i32 (-1: null) and its bytes. ACL number -1 is open to the world.
Files of releases before 3.6 end with the first seal.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from coord.apache.compression import decompress
from coord.apache.database import ApacheNode, Database, PersistedStat
from coord.apache.errors import DamagedApacheFileError
from coord.protocol.jute import DecodeError, Reader, encode_buffer
from coord.protocol.records import OPEN_ACL, Acl, encode_acl

MAGIC: Final = 0x5A4B534E
VERSION: Final = 2
DATABASE_ID: Final = -1
DIGEST_VERSION: Final = 2
OPEN_ACL_NUMBER: Final = -1
TELL_EVERY: Final = 4096
"""Nodes, or transactions, after which who waits is told."""

_HEADER = struct.Struct(">iiq")
_SESSION = struct.Struct(">qi")
_STAT = struct.Struct(">qqqqqiiiqq")
_SEAL = struct.Struct(">qi1s")
_DIGEST = struct.Struct(">qiq")
_DIGEST_BEFORE_2 = struct.Struct(">qi")
_END: Final = b"/"


@dataclass(frozen=True, slots=True)
class SnapshotDigest:
    """What the snapshot says of the tree as of `zxid`, which may be after the snapshot's own."""

    zxid: int
    version: int
    value: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot's content; `database` is fuzzy until the transactions behind it are replayed."""

    database: Database
    digest: SnapshotDigest | None


def is_complete(path: str, data: bytes) -> bool:
    """Whether the file was written to its end: a server that stops while it writes one leaves a part, which
    ZooKeeper passes over. Compressed files show it when they are read.
    """
    return path.endswith((".gz", ".snappy")) or data.endswith(encode_buffer(_END))


def read_snapshot(path: str, data: bytes, tell: Callable[[int], None] = lambda count: None) -> Snapshot:
    """Reads a whole file; `tell` hears of so many nodes more, now and then.

    Raises:
        DamagedApacheFileError: it does not hold what ZooKeeper wrote.
    """
    content = decompress(path, data)
    reader = Reader(content)
    try:
        return _read(path, content, reader, tell)
    except (ValueError, struct.error) as error:
        raise DamagedApacheFileError(path, reader.offset, str(error)) from error


def _read(path: str, content: bytes, reader: Reader, tell: Callable[[int], None]) -> Snapshot:
    magic, version, _ = reader.read_int(), reader.read_int(), reader.read_long()
    if magic != MAGIC or version != VERSION:
        raise DamagedApacheFileError(path, 0, f"no snapshot of version {VERSION}")
    database = Database()
    for _ in range(reader.read_count() or 0):
        session_id = reader.read_long()
        database.sessions[session_id] = reader.read_int()
    acls: dict[int, tuple[Acl, ...]] = {OPEN_ACL_NUMBER: OPEN_ACL}
    for _ in range(max(0, reader.read_int())):
        number = reader.read_long()
        acls[number] = read_acl(reader)
    while True:
        offset = reader.offset
        name = reader.read_buffer()
        if name == _END:
            break
        if name is None or (name and not name.startswith(b"/")):
            raise DamagedApacheFileError(path, offset, f"{name!r} is no path of a node")
        node = _read_node(content, reader, acls)
        if not database.restore(name, node):
            raise DamagedApacheFileError(path, offset, f"node {name!r} comes before its parent")
        if len(database.nodes) % TELL_EVERY == 0:
            tell(TELL_EVERY)
    if not database.nodes:
        raise DamagedApacheFileError(path, reader.offset, "no nodes")
    _check_seal(path, content, reader)
    digest = None
    if reader.remaining:
        digest = _read_digest(reader)
        _check_seal(path, content, reader)
    if reader.remaining:
        reader.read_long()  # the last zxid processed; with a fuzzy snapshot the log says it better
        _check_seal(path, content, reader)
    if reader.remaining:
        raise DamagedApacheFileError(path, reader.offset, f"{reader.remaining} bytes behind the end")
    return Snapshot(database, digest)


def read_acl(reader: Reader) -> tuple[Acl, ...]:
    """A list; ZooKeeper treats an empty one as open. Raises: DecodeError."""
    entries = [
        Acl(reader.read_int(), reader.read_text() or "", reader.read_text() or "")
        for _ in range(max(0, reader.read_int()))
    ]
    return tuple(entries) or OPEN_ACL


def _read_node(content: bytes, reader: Reader, acls: dict[int, tuple[Acl, ...]]) -> ApacheNode:
    data = reader.read_buffer()
    if reader.remaining < _STAT.size:
        raise DecodeError(f"expected a node's {_STAT.size} bytes, got {reader.remaining}")
    acl, *stat = _STAT.unpack_from(content, reader.offset)
    reader.offset += _STAT.size
    return ApacheNode(data, acls.get(acl), PersistedStat._make(stat))


def _read_digest(reader: Reader) -> SnapshotDigest:
    zxid, version = reader.read_long(), reader.read_int()
    if version >= DIGEST_VERSION:
        return SnapshotDigest(zxid, version, reader.read_long())
    return SnapshotDigest(zxid, version, int(reader.read_text() or "0", 16))


def _check_seal(path: str, content: bytes, reader: Reader) -> None:
    offset = reader.offset
    expected = zlib.adler32(memoryview(content)[:offset])
    got, end = reader.read_long(), reader.read_buffer()
    if got != expected or end != _END:
        raise DamagedApacheFileError(path, offset, f"expected checksum {expected:#x}, got {got:#x}")


def write_snapshot(database: Database, zxid: int) -> Iterator[bytes]:
    """The parts of a snapshot file of exactly `zxid`, with its digest."""
    crc = 1
    for part in _parts(database):
        crc = zlib.adler32(part, crc)
        yield part
    seal = _SEAL.pack(crc, 1, _END)
    digest = _signed(database.digest)
    behind = _DIGEST.pack(zxid, DIGEST_VERSION, digest)
    yield seal + behind
    yield _SEAL.pack(zlib.adler32(seal + behind, crc), 1, _END)


def _parts(database: Database) -> Iterator[bytes]:
    yield _HEADER.pack(MAGIC, VERSION, DATABASE_ID)
    yield struct.pack(">i", len(database.sessions))
    for session_id, timeout_ms in sorted(database.sessions.items()):
        yield _SESSION.pack(session_id, timeout_ms)
    numbers: dict[tuple[Acl, ...], int] = {OPEN_ACL: OPEN_ACL_NUMBER}
    lists = {node.acl: None for node in database.nodes.values() if node.acl not in (None, OPEN_ACL)}
    yield struct.pack(">i", len(lists))
    for number, acl in enumerate(lists, 1):
        assert acl is not None
        numbers[acl] = number
        yield struct.pack(">q", number) + encode_acl(acl)
    # A path sorts behind its parent's, which is its beginning.
    for path in sorted(database.nodes):
        node = database.nodes[path]
        assert node.acl is not None
        yield encode_buffer(path) + encode_buffer(node.data) + _STAT.pack(numbers[node.acl], *node.stat)
    yield encode_buffer(_END)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
