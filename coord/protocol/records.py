"""Records of the client protocol that more than one side needs: Stat, ACL, and the requests as clients
write them.

Field order is wire order (spec 3). Servers decode request bodies where they execute them (`coord.tree`);
what is here is shared by our client, the tree and the tests.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from coord.protocol.jute import DecodeError, Reader, encode_buffer, encode_int, encode_long, encode_text
from coord.protocol.opcodes import PERM_ALL

STAT = struct.Struct(">qqqqiiiqiiq")
STAT_BYTES = STAT.size


class Stat(NamedTuple):
    """A node's Stat as clients see it (spec 8.2); times in milliseconds since 1970."""

    czxid: int
    mzxid: int
    ctime: int
    mtime: int
    version: int
    cversion: int
    aversion: int
    ephemeral_owner: int
    data_length: int
    num_children: int
    pzxid: int


class Acl(NamedTuple):
    """One entry of an access control list: permission bits for an id of a scheme."""

    perms: int
    scheme: str
    id: str


class Identity(NamedTuple):
    """Who a connection has shown to be, such as ("ip", "127.0.0.1"); ("super", "") passes every check."""

    scheme: str
    id: str


OPEN_ACL = (Acl(PERM_ALL, "world", "anyone"),)


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """The first frame of a connection; `read_only` is None where the client did not send the byte (spec
    4.1)."""

    last_zxid_seen: int
    timeout_ms: int
    session_id: int
    password: bytes
    read_only: bool | None


_CONNECT = struct.Struct(">iqiq")
_CONNECTED = struct.Struct(">iiqi16s")
PASSWORD_BYTES = 16


def decode_connect_request(body: bytes) -> ConnectRequest:
    """Reads a ConnectRequest; bytes behind the read-only flag are ignored.

    Raises:
        DecodeError: it ends before the password is complete.
    """
    if len(body) < _CONNECT.size:
        raise DecodeError(f"expected a ConnectRequest of at least {_CONNECT.size} bytes, got {len(body)}")
    _, last_zxid, timeout_ms, session_id = _CONNECT.unpack_from(body)
    reader = Reader(body, _CONNECT.size)
    password = reader.read_buffer() or b""
    read_only = reader.read_bool() if reader.remaining else None
    return ConnectRequest(last_zxid, timeout_ms, session_id, password, read_only)


def encode_connect_response(
    timeout_ms: int, session_id: int, password: bytes, *, flag: bool | None, read_only: bool = False
) -> bytes:
    """The whole frame of a ConnectResponse; `flag` is the request's `read_only`: None leaves the byte out."""
    body = _CONNECTED.pack(0, timeout_ms, session_id, PASSWORD_BYTES, password)
    if flag is not None:
        body += b"\x01" if read_only else b"\x00"
    return encode_int(len(body)) + body


def encode_expired_response(flag: bool | None, *, read_only: bool = False) -> bytes:
    """The frame that tells a client that its session is over (spec 4.1)."""
    return encode_connect_response(0, 0, bytes(PASSWORD_BYTES), flag=flag, read_only=read_only)


def encode_acl(acl: Sequence[Acl]) -> bytes:
    parts = [encode_int(len(acl))]
    for perms, scheme, identity in acl:
        parts += (encode_int(perms), encode_text(scheme), encode_text(identity))
    return b"".join(parts)


def encode_create(path: str, data: bytes | None, acl: Sequence[Acl], flags: int) -> bytes:
    """CreateRequest, the body of create, create2 and createContainer."""
    return encode_text(path) + encode_buffer(data) + encode_acl(acl) + encode_int(flags)


def encode_create_ttl(path: str, data: bytes | None, acl: Sequence[Acl], flags: int, ttl_ms: int) -> bytes:
    """CreateTTLRequest."""
    return encode_create(path, data, acl, flags) + encode_long(ttl_ms)


def encode_path_version(path: str, version: int) -> bytes:
    """DeleteRequest and CheckVersionRequest."""
    return encode_text(path) + encode_int(version)


def encode_set_data(path: str, data: bytes | None, version: int) -> bytes:
    return encode_text(path) + encode_buffer(data) + encode_int(version)


def encode_path_watch(path: str, watch: bool) -> bytes:
    """ExistsRequest, GetDataRequest, GetChildrenRequest and GetChildren2Request."""
    return encode_text(path) + (b"\x01" if watch else b"\x00")


def encode_auth(scheme: str, credentials: bytes | str) -> bytes:
    """AuthPacket."""
    secret = credentials.encode() if isinstance(credentials, str) else credentials
    return encode_int(0) + encode_text(scheme) + encode_buffer(secret)


def read_stat(reader: Reader) -> Stat:
    """Reads a Stat.

    Raises:
        DecodeError: fewer than 68 bytes are left.
    """
    if reader.remaining < STAT_BYTES:
        raise DecodeError(f"expected a Stat of {STAT_BYTES} bytes, got {reader.remaining}")
    stat = Stat._make(STAT.unpack_from(reader.data, reader.offset))
    reader.offset += STAT_BYTES
    return stat


class WatcherEvent(NamedTuple):
    """What a server tells a watcher."""

    type: int
    state: int
    path: str


def decode_watcher_event(body: bytes) -> WatcherEvent:
    reader = Reader(body)
    return WatcherEvent(reader.read_int(), reader.read_int(), reader.read_text() or "")


_MULTI_HEADER = struct.Struct(">i?i")
MULTI_END = _MULTI_HEADER.pack(-1, True, -1)


def encode_multi(operations: Sequence[tuple[int, bytes]]) -> bytes:
    """The body of a multi from (operation code, request body) pairs (spec 10.1)."""
    parts: list[bytes] = []
    for op, body in operations:
        parts += (_MULTI_HEADER.pack(op, False, -1), body)
    parts.append(MULTI_END)
    return b"".join(parts)


def read_multi_header(reader: Reader) -> tuple[int, bool, int]:
    """Type, done and error of the next MultiHeader."""
    op = reader.read_int()
    done = reader.read_bool()
    return op, done, reader.read_int()
