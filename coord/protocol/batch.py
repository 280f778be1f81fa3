"""The batch: what servers propose, log, commit and execute as one unit. Columns, not records.

The server that owns the clients (the owner) makes a block of the writes of one tick; the leader puts a stamp
before the blocks of several owners and never touches their bodies.

    batch  = magic | u32 stamp bytes | stamp | u32 block count | block …           all integers big-endian
    stamp  = CBOR array [feature level, wall ms, first zxid, request count, policy word]
    block  = u32 bytes of what follows | u16 kind | u16 owner sid | u32 count | u32 auth table bytes
             | u32 body bytes
             | session ids i64[count] | xids i32[count] | ops i16[count] | auth indices u16[count]
             | body lengths u32[count] | auth table | bodies run together
    auth table = CBOR array of arrays of [scheme, id]: the identities of the connection at receipt, resolved
             (a super user is ["super", ""]); index 0xffff is none

magic: "zlb1", or "zlc1" for a batch that is nothing but one change of the ensemble's membership, which the
protocol must tell from others before it executes it (`change_in`).

kind: 0 for requests of global sessions; 1 for those of sessions that live at the owner only and are in no
replica's state: the owner vouches for them (specification 4.7).

Request k of the batch, counted over its blocks in order, has zxid first + k. Ops are the protocol's, with
createSession and closeSession for sessions, and 0 for a request that was refused before it was executed: it
keeps its place and its zxid and changes nothing; its body is one i32, the error its owner answers.
"""

import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cbor2

from coord.protocol.bodies import Bodies
from coord.protocol.jute import DecodeError
from coord.protocol.records import Identity

MAGIC = b"zlb1"
CHANGE_MAGIC = b"zlc1"
FEATURE_LEVEL = 2
"""The highest that this release knows. A batch is executed by the rules of the level in its stamp."""
SEALED_LOG_LEVEL = 2
"""From which on the groups of the log have seals (`coord.log.format`)."""
#: Requests and bytes that one batch may hold; the leader cuts what is more into several.
BATCH_REQUESTS_MAX = 16_384
BATCH_BYTES_MAX = 8 * 1024 * 1024
#: One block with one request of the largest frame must fit with room for its auth table.
BLOCK_BYTES_MAX = BATCH_BYTES_MAX
NO_AUTH_INDEX = 0xFFFF
OP_REFUSED = 0
GLOBAL_SESSIONS = 0
LOCAL_SESSIONS = 1

#: Auth tables are the same from block to block, and cost as much as all else in a small one: these are kept.
KEPT_TABLES_MAX = 256
KEPT_TABLE_BYTES_MAX = 1024

_U32 = struct.Struct(">I")
_BLOCK = struct.Struct(">IHHIII")
_I64_MAX = 0x7FFFFFFFFFFFFFFF
_U32_MAX = 0xFFFFFFFF
_SWAP = sys.byteorder == "little"
_encoded_tables: dict[tuple[tuple[Identity, ...], ...], bytes] = {}


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the leader adds to the requests of a batch; execution reads nothing else but tree and request."""

    feature_level: int
    wall_ms: int
    first_zxid: int
    count: int
    policy: int = 0


class Block(NamedTuple):
    """The writes of one owner, decoded: equal-length columns.

    `bodies` are the request records as clients sent them; `auth` holds the identities of each request;
    `is_local` says that the owner vouches for the sessions.
    """

    owner: int
    sessions: Sequence[int]
    xids: Sequence[int]
    ops: Sequence[int]
    auth: Sequence[tuple[Identity, ...]]
    bodies: Bodies
    is_local: bool = False


def _read_column(code: str, data: bytes, offset: int, count: int) -> tuple[Sequence[int], int]:
    column = array(code)
    end = offset + count * column.itemsize
    column.frombytes(data[offset:end])
    if _SWAP:
        column.byteswap()
    return column, end


def encode_block(
    owner: int,
    sessions: Sequence[int],
    xids: Sequence[int],
    ops: Sequence[int],
    auth_indices: Sequence[int],
    auth_table: Sequence[tuple[Identity, ...]],
    bodies: Sequence[bytes],
    *,
    is_local: bool = False,
) -> bytes:
    """Encodes the writes of one owner; all columns have the length of `bodies`."""
    table = _encode_auth(tuple(auth_table))
    count = len(bodies)
    lengths = list(map(len, bodies))
    columns = struct.pack(
        f">{count}q{count}i{count}h{count}H{count}I", *sessions, *xids, *ops, *auth_indices, *lengths
    )
    body_bytes = sum(lengths)
    size = 16 + len(columns) + len(table) + body_bytes
    head = _BLOCK.pack(size, int(is_local), owner, count, len(table), body_bytes)
    return b"".join((head, columns, table, *bodies))


def block_count(block: bytes) -> int:
    """The number of requests in an encoded block."""
    count: int = _U32.unpack_from(block, 8)[0]
    return count


def encode_batch(stamp: Stamp, blocks: Sequence[bytes], *, is_change: bool = False) -> bytes:
    """Encodes a batch; `stamp.count` must be the sum of the blocks' counts. `is_change`: its only request
    changes the membership.
    """
    head = cbor2.dumps([stamp.feature_level, stamp.wall_ms, stamp.first_zxid, stamp.count, stamp.policy])
    magic = CHANGE_MAGIC if is_change else MAGIC
    return b"".join((magic, _U32.pack(len(head)), head, _U32.pack(len(blocks)), *blocks))


def change_in(data: bytes) -> tuple[int, bytes] | None:
    """The zxid and the body of the change of membership that a batch is; None for any other batch, told by
    its first bytes alone.

    Raises:
        DecodeError: bytes that are no batch.
    """
    if not data.startswith(CHANGE_MAGIC):
        return None
    stamp, blocks = decode_batch(data)
    if stamp.count != 1:
        raise DecodeError(f"expected a change alone in its batch, got {stamp.count} requests")
    return stamp.first_zxid, blocks[0].bodies[0]


def check_level(level: int) -> None:
    """Raises: DecodeError, for a level of later releases: what it means is not known here."""
    if level > FEATURE_LEVEL:
        raise DecodeError(
            f"feature level {level}, and this release knows up to {FEATURE_LEVEL}: run a later release"
        )


def decode_batch(data: bytes) -> tuple[Stamp, list[Block]]:
    """Decodes and checks a whole batch.

    Raises:
        DecodeError: bytes that are no batch; nothing of it may be executed.
    """
    if len(data) < 12 or data[:4] not in (MAGIC, CHANGE_MAGIC):
        raise DecodeError(f"expected a batch that begins with {MAGIC!r}, got {data[:4]!r}")
    head_size: int = _U32.unpack_from(data, 4)[0]
    if head_size > len(data) - 12:
        raise DecodeError(f"expected a stamp of at most {len(data) - 12} bytes, got {head_size}")
    stamp = _decode_stamp(data[8 : 8 + head_size])
    check_level(stamp.feature_level)
    offset = 8 + head_size
    number: int = _U32.unpack_from(data, offset)[0]
    offset += 4
    blocks: list[Block] = []
    total = 0
    while offset < len(data):
        block, offset = decode_block(data, offset)
        blocks.append(block)
        total += len(block.bodies)
    if len(blocks) != number or total != stamp.count:
        raise DecodeError(
            f"expected {number} blocks with {stamp.count} requests, got {len(blocks)} with {total}"
        )
    return stamp, blocks


def _decode_stamp(data: bytes) -> Stamp:
    try:
        fields = cbor2.loads(data)
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DecodeError(f"expected a stamp in CBOR: {error}") from error
    if not isinstance(fields, list) or len(fields) < 5 or not all(type(field) is int for field in fields[:5]):
        raise DecodeError(f"expected a stamp of five integers, got {fields!r}")
    stamp = Stamp(*fields[:5])
    # What execution packs into Stats must fit there: a failure halfway would leave replicas different.
    if not (
        0 <= stamp.wall_ms <= _I64_MAX
        and 0 <= stamp.first_zxid <= _I64_MAX - stamp.count
        and 0 <= stamp.count <= _U32_MAX
        and 0 <= stamp.feature_level <= _U32_MAX
        and 0 <= stamp.policy <= _I64_MAX
    ):
        raise DecodeError(f"expected a stamp in range, got {stamp}")
    return stamp


def decode_block(data: bytes, offset: int = 0) -> tuple[Block, int]:
    """Decodes the block at `offset`; returns it and where the next begins.

    Raises:
        DecodeError: sizes that do not fit each other or the bytes.
    """
    if len(data) - offset < _BLOCK.size:
        raise DecodeError(f"expected a block of at least {_BLOCK.size} bytes at {offset}")
    size, kind, owner, count, table_size, body_size = _BLOCK.unpack_from(data, offset)
    end = offset + 4 + size
    if end > len(data) or size != 16 + 20 * count + table_size + body_size or not count:
        raise DecodeError(f"sizes of the block at {offset} do not fit: {size} bytes, {count} requests")
    if kind not in (GLOBAL_SESSIONS, LOCAL_SESSIONS):
        raise DecodeError(f"expected a block of kind 0 or 1 at {offset}, got {kind}")
    at = offset + _BLOCK.size
    sessions, at = _read_column("q", data, at, count)
    xids, at = _read_column("i", data, at, count)
    ops, at = _read_column("h", data, at, count)
    indices, at = _read_column("H", data, at, count)
    lengths, at = _read_column("I", data, at, count)
    if sum(lengths) != body_size:
        raise DecodeError(
            f"expected bodies of {sum(lengths)} bytes in the block at {offset}, got {body_size}"
        )
    auth = _decode_auth(data[at : at + table_size], indices)
    bodies = Bodies(data, at + table_size, lengths)
    return Block(owner, sessions, xids, ops, auth, bodies, kind == LOCAL_SESSIONS), end


def _encode_auth(table: tuple[tuple[Identity, ...], ...]) -> bytes:
    encoded = _encoded_tables.get(table)
    if encoded is None:
        encoded = cbor2.dumps([[list(identity) for identity in identities] for identities in table])
        if len(encoded) <= KEPT_TABLE_BYTES_MAX:
            if len(_encoded_tables) >= KEPT_TABLES_MAX:
                _encoded_tables.clear()
            _encoded_tables[table] = encoded
    return encoded


def _decode_auth(data: bytes, indices: Sequence[int]) -> list[tuple[Identity, ...]]:
    decode = _decode_table_once if len(data) <= KEPT_TABLE_BYTES_MAX else _decode_table
    try:
        table = decode(data)
        return [() if index == NO_AUTH_INDEX else table[index] for index in indices]
    except (cbor2.CBORDecodeError, ValueError, TypeError, IndexError, OverflowError, RecursionError) as error:
        raise DecodeError(f"expected an auth table in CBOR: {error}") from error


def _decode_table(data: bytes) -> tuple[tuple[Identity, ...], ...]:
    return tuple([tuple(map(_identity, identities)) for identities in cbor2.loads(data)])


_decode_table_once = lru_cache(KEPT_TABLES_MAX)(_decode_table)


def _identity(item: object) -> Identity:
    if type(item) is not list or len(item) != 2 or not all(type(part) is str for part in item):
        raise TypeError(f"expected [scheme, id], got {item!r}")
    return Identity(item[0], item[1])
