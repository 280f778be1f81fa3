"""One znode, kept as the bytes that clients are sent.

`data` is the length-prefixed data field and `stat` the 68-byte wire Stat, each once: a getData reply is a
header and these two. Changing a field of the Stat means packing the parts that change around the parts that
stay.

A million nodes are six million slots, so what can be derived has none: names of children are the ends of
their paths (the same bytes as the keys of the tree), and the digest is computed anew when a node changes.
"""

import struct
from typing import Final

import google_crc32c

from coord.protocol.records import STAT

NULL_DATA: Final = struct.pack(">i", -1)
EMPTY_DATA: Final = struct.pack(">i", 0)
#: Raw owner of a container (spec 8.3); the wire Stat shows 0.
CONTAINER_OWNER: Final = -0x8000000000000000
#: The longest time to live: 40 bits of milliseconds.
TTL_MS_MAX: Final = (1 << 40) - 1
#: Raw owner of a TTL node: 0xff on top, 16 bits of feature id (0), the time to live in the low 40 bits.
_TTL_OWNER: Final = -1 << 56

_INT = struct.Struct(">i")
_LONG = struct.Struct(">q")

#: The Stat for who changes the data: czxid, mzxid, ctime, mtime, version | cversion, aversion, owner |
#: dataLength | numChildren, pzxid; and what stays of it: czxid, ctime, version and the two runs.
pack_data_change = struct.Struct(">qqqqi16si12s").pack
unpack_kept_by_set_data = struct.Struct(">q8xq8xi16s4x12s").unpack
#: The Stat of a new node that nobody owns: czxid, mzxid, ctime, mtime | dataLength | pzxid.
pack_new = struct.Struct(">qqqq20xi4xq").pack
#: The Stat for who changes the children: all before | cversion | aversion, owner, dataLength | numChildren,
#: pzxid.
_pack_child_change = struct.Struct(">36si16siq").pack
_unpack_kept_by_child_change = struct.Struct(">36si16s4xq").unpack
OWNER_AT: Final = 44
NO_OWNER: Final = bytes(8)
VERSION_MAX: Final = 0x7FFFFFFF

_crc32c, _extend = google_crc32c.value, google_crc32c.extend
_CREATED_FACTOR = 0x9E3779B1
_NO_REST = 1 << 32


class Node:
    """A znode.

    Attributes:
        data: the data field as on the wire, 4-byte length (-1: null) and bytes.
        stat: the wire Stat.
        acl: number of its ACL in the tree's table; 0 is open to the world.
        created: how many children were ever created, 32 bits; the next sequential child's number.
        children: paths of the children in order of creation; None while there are none.
        number: given at creation, never reused; the key in checkpoints.
    """

    __slots__ = ("acl", "children", "created", "data", "number", "stat")

    def __init__(self, number: int, data: bytes, stat: bytes, acl: int, created: int = 0) -> None:
        self.number = number
        self.data = data
        self.stat = stat
        self.acl = acl
        self.created = created
        self.children: dict[bytes, None] | None = None

    @property
    def kind(self) -> int:
        """Raw owner of containers and TTL nodes (spec 8.3), else 0."""
        return 0

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
        czxid, ctime, version, middle, end = unpack_kept_by_set_data(self.stat)
        version = version + 1 if -1 <= version < VERSION_MAX else next_version(version)
        self.data = data
        self.stat = pack_data_change(czxid, zxid, ctime, wall_ms, version, middle, length, end)

    def add_child(self, child: bytes, zxid: int) -> None:
        """Notes a created child: create counter, cversion, numChildren, pzxid."""
        if self.children is None:
            self.children = {child: None}
        else:
            self.children[child] = None
        created = self.created
        self.created = created + 1 if created < VERSION_MAX else -VERSION_MAX - 1
        self.note_child_change(zxid)

    def note_child_change(self, zxid: int) -> None:
        """After a child came or went: cversion, numChildren, pzxid (spec 8.2).

        cversion is creates + deletes, which is 2 * created - numChildren in 32 bits.
        """
        head, cversion, middle, pzxid = _unpack_kept_by_child_change(self.stat)
        cversion = cversion + 1 if cversion < VERSION_MAX else -VERSION_MAX - 1
        count = len(self.children) if self.children else 0
        self.stat = _pack_child_change(head, cversion, middle, count, zxid if zxid > pzxid else pzxid)

    def set_acl(self, acl: int) -> None:
        """Replaces the ACL: aversion + 1, nothing else of the Stat."""
        self.acl = acl
        version = next_version(self.aversion)
        self.stat = self.stat[:40] + _INT.pack(version) + self.stat[44:]

    def digest_of(self, path: bytes) -> int:
        """What the node adds to the tree's digest: all that replicas must agree on about it, mixed so that
        an exchange between two nodes shows.
        """
        head: int = _crc32c(path + self.stat)
        tail: int = _extend(head, self.data)
        rest = self.acl + self.created * _CREATED_FACTOR
        return (head + (self.number << 32)) * (tail + (rest + 1 << 32 if rest else _NO_REST))


class OwnedNode(Node):
    """A container or TTL node: the few that have a raw owner."""

    __slots__ = ("_kind",)

    def __init__(
        self, number: int, data: bytes, stat: bytes, acl: int, created: int = 0, *, kind: int
    ) -> None:
        super().__init__(number, data, stat, acl, created)
        self._kind = kind

    @property
    def kind(self) -> int:
        return self._kind

    def digest_of(self, path: bytes) -> int:
        """As of any node, with the raw owner under the checksum: its high bits would not survive a sum."""
        head: int = _crc32c(path + self.stat + _LONG.pack(self._kind))
        tail: int = _extend(head, self.data)
        rest = self.acl + self.created * _CREATED_FACTOR
        return (head + (self.number << 32)) * (tail + (rest + 1 << 32))


def make_node(number: int, data: bytes, stat: bytes, acl: int, created: int = 0, kind: int = 0) -> Node:
    """A node of whatever kind."""
    if kind:
        return OwnedNode(number, data, stat, acl, created, kind=kind)
    return Node(number, data, stat, acl, created)


def ttl_owner(ttl_ms: int) -> int:
    """The raw owner of a TTL node."""
    return _TTL_OWNER | ttl_ms


def ttl_ms_of(kind: int) -> int:
    """The time to live of a raw owner; 0 for every other kind of node."""
    return kind & TTL_MS_MAX if kind >> 40 == _TTL_OWNER >> 40 else 0


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
