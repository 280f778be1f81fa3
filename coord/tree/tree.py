"""The state that replicas agree on: nodes, sessions, ACLs and counters, with one digest over all of it.

Only `coord.tree.execute` changes a tree, through the few primitives here. Each existing node is `touch`ed
before it changes or goes; the first touch since the last `fold` takes the node's old part out of the digest
and, where a checkpoint still has to write it, encodes it as it was (the write barrier). `fold`, once per
batch, adds the parts of all that was touched and hands the paths to the next checkpoint. So a parent that
gets a thousand children in a batch is paid for once, and a multi that is taken back needs no account of
either.

Checkpoints. A `freeze` takes the paths changed since the one before, as of one zxid; their nodes are encoded
a slice at a time (`encode_some`) while execution goes on behind the barrier (`coord.tree.freeze`). So what is
written is the tree as of exactly that zxid. `thaw` ends it, in slices too.
"""

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import google_crc32c

from coord.protocol.jute import DecodeError
from coord.protocol.records import STAT, Acl
from coord.tree.acl_table import OPEN_ACL_ID, AclTable, digest_of_acl
from coord.tree.freeze import Freeze
from coord.tree.image import Facts, decode_facts, decode_node, encode_facts
from coord.tree.node import EMPTY_DATA, Node
from coord.tree.path import CONFIG, QUOTA, ROOT, ZOOKEEPER, split_path
from coord.tree.quota import LIMITS_NAME, Quota, limited_path

__all__ = ["OPEN_ACL_ID", "DataTree", "Session", "TreeLoader"]

DIGEST_MASK = (1 << 64) - 1
CONFIG_ACL = (Acl(1, "world", "anyone"),)

_SESSION = struct.Struct(">qi")


#: Nodes that wait for `DataTree.fold` at most, so that no fold takes long (0.6 µs for a node).
TOUCHED_MAX: Final = 4096
#: A node that a multi has changed, with its data, Stat, ACL and create counter from before.
_AsItWas = tuple[Node, bytes, bytes, int, int]


@dataclass(frozen=True, slots=True)
class Session:
    """A global session: its negotiated timeout and the password that re-attaches it."""

    timeout_ms: int
    password: bytes


class DataTree:
    """The replicated tree.

    Attributes:
        nodes: path as on the wire → node.
        sessions: id → session.
        ephemerals: session id → paths it owns, by node number.
        reapable: containers and TTL nodes, number → path: those that may go by themselves one day.
        quotas: those in force, by the path they are about; what their nodes say stands in the nodes.
        quotas_before: inside a multi, the data of the two nodes of each quota it has changed, as it was; None
            where there was no quota.
        acls: the access control lists.
        last_zxid: the last request executed.
        data_bytes: bytes of paths and data (the `approximate_data_size` of ZooKeeper).
        touched: paths whose nodes came, changed or went since the last `fold`.
        undo: inside a multi, how to take back what it did, last first; else None.
    """

    def __init__(self) -> None:
        self.nodes: dict[bytes, Node] = {}
        self.sessions: dict[int, Session] = {}
        self.ephemerals: dict[int, dict[int, bytes]] = {}
        self.reapable: dict[int, bytes] = {}
        self.quotas: dict[bytes, Quota] = {}
        self.quotas_before: dict[bytes, tuple[bytes, bytes | None] | None] = {}
        self.acls = AclTable()
        self.last_zxid = 0
        self.feature_level = 1
        self.next_number = 1
        self.data_bytes = 0
        self.ephemeral_count = 0
        self.touched: dict[bytes, None] = {}
        self.undo: list[Callable[[], None] | _AsItWas] | None = None
        self.freeze_in_progress: Freeze | None = None
        self._sum = 0  # of nodes and sessions; without those in `touched`, not reduced to 64 bits
        #: Changed since the last checkpoint → its part of the digest (None: see `Freeze`).
        self._dirty: dict[bytes, int | None] = {}
        self._removed: set[int] = set()
        self._written_below = 0  # nodes with lower numbers may be in the last checkpoint

    @classmethod
    def fresh(cls) -> "DataTree":
        """The tree of a new ensemble: the four built-in nodes, whose Stats are as in ZooKeeper (spec 8.2)."""
        tree = cls()
        config_acl = tree.number_of_acl(CONFIG_ACL)
        for path, cversion, aversion, children, acl in (
            (ROOT, -1, 0, 1, OPEN_ACL_ID),
            (ZOOKEEPER, -2, 0, 2, OPEN_ACL_ID),
            (QUOTA, 0, 0, 0, OPEN_ACL_ID),
            (CONFIG, 0, -1, 0, config_acl),
        ):
            stat = STAT.pack(0, 0, 0, 0, 0, cversion, aversion, 0, 0, children, 0)
            tree.insert(path, Node(tree.take_number(), EMPTY_DATA, stat, acl))
        for path in (ZOOKEEPER, QUOTA, CONFIG):
            _put_child(tree.nodes[split_path(path)[0]], path)
        return tree

    # Primitives of execution.

    def take_number(self) -> int:
        number = self.next_number
        self.next_number = number + 1
        return number

    def touch(self, path: bytes, node: Node) -> None:
        """Must be called before an existing node changes or goes."""
        if path not in self.touched:
            self.touched[path] = None
            part = self._dirty.get(path)
            self._sum -= node.digest_of(path) if part is None else part
            freeze = self.freeze_in_progress
            if freeze is not None and freeze.changed.get(path) is not None:
                freeze.encode(path, node)
        if self.undo is not None:
            self.undo.append((node, node.data, node.stat, node.acl, node.created))

    def insert(self, path: bytes, node: Node) -> None:
        """Adds a new node (not yet to its parent)."""
        self.nodes[path] = node
        self.touched[path] = None
        self.data_bytes += len(path) + len(node.data) - 4
        if self.undo is not None:
            self.undo.append(lambda: self._take_out(path, node))

    def insert_ephemeral(self, path: bytes, node: Node, owner: int) -> None:
        """Adds a new node that goes with the session `owner`."""
        self.insert(path, node)
        self.ephemerals.setdefault(owner, {})[node.number] = path
        self.ephemeral_count += 1

    def insert_reapable(self, path: bytes, node: Node) -> None:
        """Adds a new container or TTL node."""
        self.insert(path, node)
        self.reapable[node.number] = path

    def remove(self, path: bytes, node: Node) -> None:
        """Takes a node out, and its use of an ACL (not yet its path from the parent)."""
        self.touch(path, node)
        self._take_out(path, node)
        self.release_acl(node.acl)
        if node.number < self._written_below:
            self._removed.add(node.number)
        if self.undo is not None:
            self.undo.append(lambda: self._put_back(path, node))

    def _take_out(self, path: bytes, node: Node) -> None:
        del self.nodes[path]
        self.data_bytes -= len(path) + len(node.data) - 4
        owner = node.ephemeral_owner
        if owner:
            owned = self.ephemerals[owner]
            del owned[node.number]
            if not owned:
                del self.ephemerals[owner]
            self.ephemeral_count -= 1
        elif node.kind:
            del self.reapable[node.number]

    def _put_back(self, path: bytes, node: Node) -> None:
        self._removed.discard(node.number)
        owner = node.ephemeral_owner
        if owner:
            self.insert_ephemeral(path, node, owner)
        elif node.kind:
            self.insert_reapable(path, node)
        else:
            self.insert(path, node)

    def add_child(self, path: bytes, parent: Node, child: bytes, zxid: int) -> None:
        """Notes a created child in its parent: create counter, cversion, numChildren, pzxid."""
        if path not in self.touched or self.undo is not None:
            self.touch(path, parent)
            if self.undo is not None:
                self.undo.append(lambda: _drop_child(parent, child))
        parent.add_child(child, zxid)

    def drop_child(self, path: bytes, parent: Node, child: bytes, zxid: int) -> None:
        """Notes a deleted child in its parent."""
        if path not in self.touched or self.undo is not None:
            self.touch(path, parent)
            if self.undo is not None:
                self.undo.append(lambda: _put_child(parent, child))
        _drop_child(parent, child)
        parent.note_child_change(zxid)

    def add_quota(self, path: bytes) -> None:
        """From now on there are limits for what is at and below `path`."""
        self.quotas[path] = Quota(path)
        if self.undo is not None:
            self.undo.append(lambda: self.drop_quota(path))

    def drop_quota(self, path: bytes) -> None:
        quota = self.quotas.pop(path)
        if self.undo is not None:
            self.undo.append(lambda: self.quotas.__setitem__(path, quota))

    def acl_of(self, number: int) -> tuple[Acl, ...]:
        """The list of a node, or of an event until the next request."""
        return self.acls.find(number)

    def number_of_acl(self, acl: tuple[Acl, ...]) -> int:
        """The number of a list, with one user more."""
        number = self.acls.take(acl)
        if self.undo is not None:
            self.undo.append(lambda: self.acls.release(number))
        return number

    def release_acl(self, number: int) -> None:
        """One user less; the last one takes the list out of the table."""
        if number == OPEN_ACL_ID:
            return
        acl = self.acls.find(number)
        self.acls.release(number)
        if self.undo is not None:

            def restore() -> None:
                self.acls.restore(number, acl)
                self.acls.add_user(number)

            self.undo.append(restore)

    def add_session(self, session_id: int, session: Session) -> None:
        """Adds a session, or gives it another timeout and password."""
        self.remove_session(session_id)
        self.sessions[session_id] = session
        self._sum += _digest_of_session(session_id, session)

    def remove_session(self, session_id: int) -> None:
        session = self.sessions.pop(session_id, None)
        if session is not None:
            self._sum -= _digest_of_session(session_id, session)

    # The way back of a multi.

    def begin(self) -> None:
        """Changes from here on can be taken back by `rollback`, until `commit`."""
        assert self.undo is None
        next_number, next_acl = self.next_number, self.acls.next_number

        def restore_counters() -> None:
            self.next_number, self.acls.next_number = next_number, next_acl

        self.undo = [restore_counters]

    def commit(self) -> None:
        self.undo = None
        if self.quotas_before:
            self.quotas_before.clear()

    def rollback(self) -> None:
        """Takes back everything since `begin`; numbers and digest are as they were."""
        undo, self.undo = self.undo, None
        assert undo is not None
        while undo:
            step = undo.pop()
            if isinstance(step, tuple):
                node, data, stat, acl, created = step
                self.data_bytes += len(data) - len(node.data)
                node.data, node.stat, node.acl, node.created = data, stat, acl, created
            else:
                step()
        if self.quotas_before:
            self.quotas_before.clear()

    # Digest.

    def fold(self) -> None:
        """Accounts for what has changed, in the digest and for the next checkpoint; once per batch."""
        nodes, dirty, total = self.nodes, self._dirty, self._sum
        for path in self.touched:
            node = nodes.get(path)
            if node is None:
                dirty.pop(path, None)
            else:
                dirty[path] = part = node.digest_of(path)
                total += part
        self.touched.clear()
        self._sum = total & DIGEST_MASK

    @property
    def digest(self) -> int:
        """Sum of the parts of nodes, sessions and ACLs, modulo 2**64."""
        if self.touched:
            self.fold()
        return (self._sum + self.acls.digest) & DIGEST_MASK

    def state_digest(self) -> int:
        """One 64-bit number that replicas at the same zxid agree on."""
        counters = (self.last_zxid, self.next_number, self.acls.next_number, self.feature_level)
        mixed: int = google_crc32c.value(b"%d,%d,%d,%d" % counters)
        return (self.digest + (mixed << 32 | mixed)) & DIGEST_MASK

    def recompute_digest(self) -> int:
        """`digest` from nothing but the state; takes time in proportion to the tree."""
        total = sum(node.digest_of(path) for path, node in self.nodes.items())
        total += sum(_digest_of_session(number, session) for number, session in self.sessions.items())
        total += sum(digest_of_acl(number, acl) for number, (acl, _) in self.acls.lists.items())
        return total & DIGEST_MASK

    # Checkpoints.

    def _facts(self) -> bytes:
        return encode_facts(
            Facts(
                self.last_zxid,
                self.feature_level,
                self.next_number,
                self.acls.next_number,
                self.digest,
                len(self.nodes),
                [(number, s.timeout_ms, s.password) for number, s in self.sessions.items()],
                [(number, acl) for number, (acl, _) in self.acls.lists.items()],
            )
        )

    def freeze(self) -> Freeze:
        """Begins a checkpoint of the tree as it is now, between two batches; `thaw` must follow before the
        next.
        """
        assert self.freeze_in_progress is None
        assert self.undo is None
        self.fold()
        self.freeze_in_progress = Freeze(
            self.last_zxid, self._facts(), len(self.nodes), self._dirty, self._removed
        )
        self._dirty, self._removed = {}, set()
        self._written_below = self.next_number
        return self.freeze_in_progress

    def encode_some(self, count: int) -> list[tuple[int, bytes | None]] | None:
        """Up to `count` records of the checkpoint, as `Freeze.encode_some` says; None once all were taken."""
        assert self.freeze_in_progress is not None
        return self.freeze_in_progress.encode_some(self.nodes, count)

    def thaw(self, count: int, *, written: bool) -> bool:
        """Ends the checkpoint, `count` entries of it at a time; True once that is done. What was in one that
        failed is in the next.
        """
        freeze = self.freeze_in_progress
        assert freeze is not None
        nodes, dirty = self.nodes, self._dirty
        changed, removed = freeze.changed, freeze.removed
        for _ in range(min(count, len(changed))):
            path, _ = changed.popitem()
            if not written and path in nodes and path not in dirty:
                dirty[path] = nodes[path].digest_of(path)
        for _ in range(min(count, len(removed))):
            number = removed.pop()
            if not written:
                self._removed.add(number)
        if changed or removed:
            return False
        self.freeze_in_progress = None
        return True

    @classmethod
    def restore(cls, facts: Facts, nodes: Iterable[tuple[bytes, Node]]) -> "DataTree":
        """The tree that a checkpoint holds, nodes in any order, proved against the stored digest.

        Raises:
            DecodeError: a node without parent or ACL, or another digest: nothing of it may be served.
        """
        tree = cls._link_all(facts, nodes)
        tree._sum = tree.recompute_digest() - tree.acls.digest
        tree._written_below = tree.next_number
        if tree.digest != facts.digest or len(tree.nodes) != facts.node_count:
            raise DecodeError(
                f"expected {facts.node_count} nodes with digest {facts.digest:016x}, got {len(tree.nodes)} "
                f"with {tree.digest:016x}"
            )
        return tree

    @classmethod
    def assemble(cls, facts: Facts, nodes: Iterable[tuple[bytes, Node]]) -> "DataTree":
        """The tree of these nodes, in any order, and facts; nothing proves it: digest and count are not read.
        No checkpoint holds any of it yet.

        Raises:
            DecodeError: a node without parent or ACL.
        """
        tree = cls._link_all(facts, nodes)
        tree.touched.update(dict.fromkeys(tree.nodes))
        tree.fold()
        return tree

    @classmethod
    def _link_all(cls, facts: Facts, nodes: Iterable[tuple[bytes, Node]]) -> "DataTree":
        """The tree without the nodes' parts of the digest."""
        tree = cls()
        tree.last_zxid, tree.feature_level = facts.zxid, facts.feature_level
        tree.next_number, tree.acls.next_number = facts.next_number, facts.next_acl
        for session_id, timeout_ms, password in facts.sessions:
            tree.add_session(session_id, Session(timeout_ms, password))
        for number, acl in facts.acls:
            tree.acls.restore(number, acl)
        tree.nodes.update(nodes)
        # In order of their numbers, children and ephemerals come in the order of their creation.
        for path, node in sorted(tree.nodes.items(), key=lambda item: item[1].number):
            tree._link(path, node)
        tree._find_quotas()
        return tree

    def _find_quotas(self) -> None:
        """Puts the quotas of a restored tree in force."""
        waiting = [QUOTA]
        while waiting:
            path = waiting.pop()
            for child in self.nodes[path].children or () if path in self.nodes else ():
                waiting.append(child)
                limited = limited_path(path)
                if limited is not None and child == b"%b/%b" % (path, LIMITS_NAME):
                    self.add_quota(limited)

    def _link(self, path: bytes, node: Node) -> None:
        """Connects a restored node to its parent, its ACL and its owner."""
        self.data_bytes += len(path) + len(node.data) - 4
        if not self.acls.add_user(node.acl):
            raise DecodeError(f"node {path!r} has ACL {node.acl}, which is not in the table")
        owner = node.ephemeral_owner
        if owner:
            self.ephemerals.setdefault(owner, {})[node.number] = path
            self.ephemeral_count += 1
        elif node.kind:
            self.reapable[node.number] = path
        if path != ROOT:
            parent = self.nodes.get(split_path(path)[0])
            if parent is None or not path.startswith(b"/"):
                raise DecodeError(f"node {path!r} has no parent")
            _put_child(parent, path)


class TreeLoader:
    """Builds a tree from a checkpoint: the facts first, then every node in any order, then `finish`.

    Raises:
        DecodeError: from each step, where the bytes are not what they should be.
    """

    def __init__(self, facts: bytes) -> None:
        self._facts = decode_facts(facts)
        self._nodes: list[tuple[bytes, Node]] = []

    def add(self, items: Iterable[tuple[int, bytes]]) -> None:
        """Takes (number, encoded node) pairs."""
        self._nodes += [decode_node(number, value) for number, value in items]

    def finish(self) -> DataTree:
        """The tree, proved against its digest."""
        nodes, self._nodes = self._nodes, []
        return DataTree.restore(self._facts, nodes)


def _put_child(parent: Node, child: bytes) -> None:
    if parent.children is None:
        parent.children = {}
    parent.children[child] = None


def _drop_child(parent: Node, child: bytes) -> None:
    assert parent.children is not None
    del parent.children[child]
    if not parent.children:
        parent.children = None


def _digest_of_session(session_id: int, session: Session) -> int:
    packed = _SESSION.pack(session_id, session.timeout_ms) + session.password
    head: int = google_crc32c.value(packed)
    tail: int = google_crc32c.value(b"session" + packed)
    return (head << 32) | tail
