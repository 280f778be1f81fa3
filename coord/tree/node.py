"""One znode, kept as the bytes that clients are sent.

`data` is the length-prefixed data field and `stat` the 68-byte wire Stat, each once: a getData reply is a
header and these two. Changing a field of the Stat means packing the parts that change around the parts that
stay.
"""

import struct
from typing import Final

import google_crc32c

from coord.protocol.records import STAT

NULL_DATA: Final = struct.pack(">i", -1)
EMPTY_DATA: Final = struct.pack(">i", 0)
#: Raw owner of a container (spec 8.3); the wire Stat shows 0.
CONTAINER_OWNER: Final = -0x8000000000000000

_LONG = struct.Struct(">q")
_VERSIONS = struct.Struct(">qqi")
_CHILDREN = struct.Struct(">iq")
_INT = struct.Struct(">i")
_MZXID = struct.Struct(">qqqi")

_crc32c = google_crc32c.value
_extend = google_crc32c.extend


class Node:
    """A znode.

    Attributes:
        data: the data field as on the wire, 4-byte length (-1: null) and bytes.
        stat: the wire Stat.
        acl: number of its ACL in the tree's table; 0 is open to the world.
        created: how many children were ever created; the next sequential child's number.
        children: names of the children in order of creation; None while there are none.
        number: given at creation, never reused; the key in checkpoints.
        kind: raw owner of containers and TTL nodes (spec 8.3), else 0.
        digest: this node's part of the tree's digest.
    """

    __slots__ = ("acl", "children", "created", "data", "digest", "kind", "number", "stat")

    def __init__(
        self, number: int, data: bytes, stat: bytes, acl: int, created: int = 0, kind: int = 0
    ) -> None:
        self.number = number
        self.data = data
        self.stat = stat
        self.acl = acl
        self.created = created
        self.kind = kind
        self.children: dict[bytes, None] | None = None
        self.digest = 0

    @property
    def version(self) -> int:
        version: int = _INT.unpack_from(self.stat, 32)[0]
        return version

    @property
    def aversion(self) -> int:
        version: int = _INT.unpack_from(self.stat, 40)[0]
        return version

    @property
    def ephemeral_owner(self) -> int:
        """The session that owns the node; 0 for every other kind."""
        owner: int = _LONG.unpack_from(self.stat, 44)[0]
        return owner

    @property
    def mzxid(self) -> int:
        zxid: int = _LONG.unpack_from(self.stat, 8)[0]
        return zxid

    @property
    def pzxid(self) -> int:
        zxid: int = _LONG.unpack_from(self.stat, 60)[0]
        return zxid

    def set_data(self, data: bytes, length: int, zxid: int, wall_ms: int) -> None:
        """Replaces the data: version + 1 (-1 is skipped), mzxid, mtime, dataLength."""
        stat = self.stat
        version: int = _INT.unpack_from(stat, 32)[0]
        version = next_version(version)
        self.data = data
        self.stat = b"".join(
            (
                stat[:8],
                _LONG.pack(zxid),
                stat[16:24],
                _LONG.pack(wall_ms),
                _INT.pack(version),
                stat[36:52],
                _INT.pack(length),
                stat[56:],
            )
        )

    def set_children_stat(self, zxid: int) -> None:
        """After a child came or went: cversion, numChildren, pzxid (spec 8.2)."""
        stat = self.stat
        count = len(self.children) if self.children else 0
        pzxid: int = _LONG.unpack_from(stat, 60)[0]
        self.stat = b"".join(
            (
                stat[:36],
                _INT.pack(wrap(2 * self.created - count)),
                stat[40:56],
                _CHILDREN.pack(count, zxid if zxid > pzxid else pzxid),
            )
        )

    def set_acl(self, acl: int) -> None:
        """Replaces the ACL: aversion + 1, nothing else of the Stat."""
        self.acl = acl
        version = next_version(self.aversion)
        self.stat = self.stat[:40] + _INT.pack(version) + self.stat[44:]

    def compute_digest(self, path: bytes) -> int:
        """A 64-bit hash of everything that replicas must agree on about this node."""
        head: int = _crc32c(
            path
            + self.stat
            + self.number.to_bytes(8, "big")
            + b"%d,%d,%d" % (self.acl, self.created, self.kind)
        )
        tail: int = _extend(head, self.data)
        return (head << 32) | tail


def new_stat(zxid: int, wall_ms: int, owner: int, length: int) -> bytes:
    """The Stat of a node that has just been created."""
    return STAT.pack(zxid, zxid, wall_ms, wall_ms, 0, 0, 0, owner, length, 0, zxid)


def wrap(value: int) -> int:
    """Counters are 32 bits wide and wrap."""
    return (value + 0x80000000 & 0xFFFFFFFF) - 0x80000000


def next_version(version: int) -> int:
    """The version behind `version`; -1 is skipped, as it means "any" in a request."""
    version = wrap(version + 1)
    return 0 if version == -1 else version
