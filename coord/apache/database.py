"""ZooKeeper's tree and sessions as a snapshot and the transactions after it make them.

A snapshot of ZooKeeper's is *fuzzy*: it is written while transactions go on, so it holds some of what the
transactions behind its zxid did. Replaying them all over it must end in the right tree, hence what looks lax
here: a create that finds its node still raises the parent's counters, a delete that finds none still sets the
parent's pzxid, and versions are set from the transaction, never counted. This is what ZooKeeper does
(`DataTree.processTxn`), rule by rule, and its digest over all nodes proves the result.

Paths are bytes; the root is the empty path, as in ZooKeeper's files.
"""

import struct
import zlib
from collections.abc import Iterable
from typing import Final, NamedTuple

from coord.protocol.records import OPEN_ACL, Acl
from coord.tree.node import CONTAINER_OWNER, wrap

ROOT: Final = b""
CONFIG: Final = b"/zookeeper/config"
DIGEST_MASK: Final = (1 << 64) - 1
_NOT_IN_DIGEST: Final = b"/zookeeper/"
#: Owners with this top byte are no sessions: TTL nodes (specification 8.3).
_EXTENDED: Final = 0xFF

_DIGEST_STAT = struct.Struct(">qqqqqiiiq")
_STAT = struct.Struct(">qqqqiiiqq")


class PersistedStat(NamedTuple):
    """StatPersisted, in the order of the file; `cversion` counts the children ever created."""

    czxid: int
    mzxid: int
    ctime: int
    mtime: int
    version: int
    cversion: int
    aversion: int
    ephemeral_owner: int
    pzxid: int


class ApacheNode:
    """One node; `acl` is None while the snapshot names a list that it does not hold (a fuzzy one may).

    Its Stat is kept as bytes: of a million nodes they take 100 MB, and nine numbers each would take 270.
    """

    __slots__ = ("_stat", "acl", "children", "data")

    def __init__(self, data: bytes | None, acl: tuple[Acl, ...] | None, stat: PersistedStat) -> None:
        self.data = data
        self.acl = acl
        self._stat = _STAT.pack(*stat)
        self.children: set[bytes] | None = None

    @property
    def stat(self) -> PersistedStat:
        return PersistedStat._make(_STAT.unpack(self._stat))

    @stat.setter
    def stat(self, stat: PersistedStat) -> None:
        self._stat = _STAT.pack(*stat)


class Database:
    """The state, and its digest as ZooKeeper counts it.

    Attributes:
        nodes: by path.
        sessions: timeout in milliseconds by session id.
        digest: sum over all nodes, modulo 2**64 (ZooKeeper's digest version 2).
    """

    def __init__(self) -> None:
        self.nodes: dict[bytes, ApacheNode] = {}
        self.sessions: dict[int, int] = {}
        self.ephemerals: dict[int, set[bytes]] = {}
        self.digest = 0

    @classmethod
    def fresh(cls) -> "Database":
        """What ZooKeeper starts with, before any snapshot."""
        database = cls()
        empty = PersistedStat(0, 0, 0, 0, 0, 0, 0, 0, 0)
        database.restore(ROOT, ApacheNode(b"", OPEN_ACL, empty))
        for path in (b"/zookeeper", b"/zookeeper/quota"):
            database.restore(path, ApacheNode(b"", OPEN_ACL, empty))
        config_acl = (Acl(1, "world", "anyone"),)
        database.restore(CONFIG, ApacheNode(b"", config_acl, empty._replace(version=-1, aversion=-1)))
        return database

    def restore(self, path: bytes, node: ApacheNode) -> bool:
        """Puts a node of a snapshot in its place; False where its parent is missing."""
        if path != ROOT:
            parent = self.nodes.get(path.rpartition(b"/")[0])
            if parent is None:
                return False
            _add_child(parent, path)
        self._own(path, node.stat.ephemeral_owner)
        self.nodes[path] = node
        self.digest = self.digest + _node_digest(path, node) & DIGEST_MASK
        return True

    # -- transactions --------------------------------------------------------------------------------------

    def create_session(self, session_id: int, timeout_ms: int) -> None:
        self.sessions[session_id] = timeout_ms

    def close_session(self, session_id: int, zxid: int, paths: Iterable[bytes]) -> None:
        """Ends a session and its ephemerals; `paths` are those that the transaction names."""
        self.sessions.pop(session_id, None)
        owned = self.ephemerals.pop(session_id, set())
        for path in dict.fromkeys((*paths, *sorted(owned))):
            self.delete(path, zxid)

    def create(
        self,
        path: bytes,
        data: bytes | None,
        acl: tuple[Acl, ...],
        owner: int,
        parent_cversion: int,
        zxid: int,
        time_ms: int,
    ) -> None:
        """Creates a node, or only counts it in its parent where a fuzzy snapshot has it already."""
        parent_path = path.rpartition(b"/")[0]
        parent = self.nodes.get(parent_path)
        if parent is None:
            return
        if parent_cversion == -1:
            parent_cversion = wrap(parent.stat.cversion + 1)
        if parent_cversion > parent.stat.cversion:
            self._change(parent_path, parent, parent.stat._replace(cversion=parent_cversion, pzxid=zxid))
        found = self.nodes.get(path)
        if found is not None:
            # Without its parent's knowledge it is left from a parent that was deleted and came again.
            if parent.children and path in parent.children:
                if found.acl is None:
                    found.acl = acl
                return
            self._take_out(path, found)
        _add_child(parent, path)
        self._own(path, owner)
        node = ApacheNode(data, acl, PersistedStat(zxid, zxid, time_ms, time_ms, 0, 0, 0, owner, zxid))
        self.nodes[path] = node
        self.digest = self.digest + _node_digest(path, node) & DIGEST_MASK

    def delete(self, path: bytes, zxid: int) -> None:
        parent_path = path.rpartition(b"/")[0]
        parent = self.nodes.get(parent_path)
        if parent is not None:
            if parent.children:
                parent.children.discard(path)
            if zxid > parent.stat.pzxid:
                self._change(parent_path, parent, parent.stat._replace(pzxid=zxid))
        node = self.nodes.get(path)
        if node is not None:
            self._take_out(path, node)

    def set_data(self, path: bytes, data: bytes | None, version: int, zxid: int, time_ms: int) -> None:
        node = self.nodes.get(path)
        if node is not None:
            stat = node.stat._replace(mzxid=zxid, mtime=time_ms, version=version)
            self._change(path, node, stat, data, change_data=True)

    def set_acl(self, path: bytes, acl: tuple[Acl, ...], version: int) -> None:
        node = self.nodes.get(path)
        if node is not None:
            node.acl = acl
            self._change(path, node, node.stat._replace(aversion=version))

    # -- parts ---------------------------------------------------------------------------------------------

    def _change(
        self,
        path: bytes,
        node: ApacheNode,
        stat: PersistedStat,
        data: bytes | None = None,
        *,
        change_data: bool = False,
    ) -> None:
        before = _node_digest(path, node)
        node.stat = stat
        if change_data:
            node.data = data
        self.digest = self.digest - before + _node_digest(path, node) & DIGEST_MASK

    def _take_out(self, path: bytes, node: ApacheNode) -> None:
        del self.nodes[path]
        self.digest = self.digest - _node_digest(path, node) & DIGEST_MASK
        owned = self.ephemerals.get(node.stat.ephemeral_owner)
        if owned is not None:
            owned.discard(path)

    def _own(self, path: bytes, owner: int) -> None:
        if is_session(owner):
            self.ephemerals.setdefault(owner, set()).add(path)


def is_session(owner: int) -> bool:
    """Whether the owner of a node is a session, so that the node is an ephemeral."""
    return owner not in (0, CONTAINER_OWNER) and owner >> 56 & 0xFF != _EXTENDED


def _add_child(parent: ApacheNode, path: bytes) -> None:
    if parent.children is None:
        parent.children = set()
    parent.children.add(path)


def _node_digest(path: bytes, node: ApacheNode) -> int:
    """CRC-32 over path, data and Stat; nodes below /zookeeper do not count, as their data is local."""
    if path.startswith(_NOT_IN_DIGEST):
        return 0
    czxid, mzxid, ctime, mtime, version, cversion, aversion, owner, pzxid = node.stat
    crc = zlib.crc32(node.data or b"", zlib.crc32(path))
    stat = _DIGEST_STAT.pack(czxid, mzxid, pzxid, ctime, mtime, version, cversion, aversion, owner)
    return zlib.crc32(stat, crc)
