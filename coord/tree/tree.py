"""The state that replicas agree on: nodes, sessions, ACLs and counters, with one digest over all of it.

Only `coord.tree.execute` changes a tree, through the few primitives here; each keeps three things true at
once: the digest, the set of nodes a checkpoint has to write, and, inside a multi, the way back.

Checkpoints. `dirty` names every node changed since the last `freeze`. A freeze takes that set as of one
zxid; its nodes are encoded a slice at a time (`Freeze.encode_some`) while execution goes on, and a node
about to change that is still waiting is encoded first (the write barrier in `change` and `remove`). So what
is written is the tree as of exactly that zxid.
"""

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import google_crc32c

from coord.protocol.jute import DecodeError
from coord.protocol.records import OPEN_ACL, STAT, Acl
from coord.tree.image import Facts, decode_facts, decode_node, encode_facts, encode_node
from coord.tree.node import EMPTY_DATA, Node
from coord.tree.path import CONFIG, QUOTA, ROOT, ZOOKEEPER, split_path

DIGEST_MASK = (1 << 64) - 1
OPEN_ACL_ID = 0
CONFIG_ACL = (Acl(1, "world", "anyone"),)

_SESSION = struct.Struct(">qi")


@dataclass(frozen=True, slots=True)
class Session:
    """A global session: its negotiated timeout and the password that re-attaches it."""

    timeout_ms: int
    password: bytes


@dataclass(slots=True)
class Freeze:
    """A checkpoint in the making: the tree as of `zxid`.

    Attributes:
        pending: nodes not yet encoded, number → path.
        facts: everything beside the nodes, encoded at the freeze.
        encoded: (number, encoded node, or None where the node was deleted) not yet taken.
        whole: all nodes are in it, not only those changed since the checkpoint before.
    """

    zxid: int
    facts: bytes
    pending: dict[int, bytes]
    encoded: list[tuple[int, bytes | None]]
    whole: bool


class DataTree:
    """The replicated tree.

    Attributes:
        nodes: path as on the wire → node.
        sessions: id → session.
        ephemerals: session id → paths it owns, by node number.
        last_zxid: the last request executed.
        digest: sum of the parts of nodes, sessions and ACLs, modulo 2**64, with the counters mixed in by
            `state_digest`.
        data_bytes: bytes of paths and data (the `approximate_data_size` of ZooKeeper).
    """

    def __init__(self) -> None:
        self.nodes: dict[bytes, Node] = {}
        self.sessions: dict[int, Session] = {}
        self.ephemerals: dict[int, dict[int, bytes]] = {}
        self.acls: dict[int, tuple[tuple[Acl, ...], int]] = {}
        self.last_zxid = 0
        self.feature_level = 1
        self.next_number = 1
        self.next_acl = 1
        self.digest = 0
        self.data_bytes = 0
        self.ephemeral_count = 0
        self.dirty: dict[int, bytes | None] = {}
        self.freeze_in_progress: Freeze | None = None
        self._acl_numbers: dict[tuple[Acl, ...], int] = {}
        self._undo: list[Callable[[], None]] | None = None

    @classmethod
    def fresh(cls) -> "DataTree":
        """The tree of a new ensemble: the four built-in nodes, whose Stats are as in ZooKeeper (spec 8.2)."""
        tree = cls()
        zero = STAT.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        for path in (ROOT, ZOOKEEPER, QUOTA):
            tree._add_builtin(path, zero, OPEN_ACL_ID)
        config = STAT.pack(0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 0)
        tree._add_builtin(CONFIG, config, tree.number_of_acl(CONFIG_ACL))
        return tree

    def _add_builtin(self, path: bytes, stat: bytes, acl: int) -> None:
        node = Node(self.take_number(), EMPTY_DATA, stat, acl)
        self.insert(path, node)
        if path != ROOT:
            parent_path, name = split_path(path)
            parent = self.nodes[parent_path]
            if parent.children is None:
                parent.children = {}
            parent.children[name] = None
            parent.set_children_stat(0)
            self.seal(parent_path, parent)

    # Primitives of execution.

    def take_number(self) -> int:
        number = self.next_number
        self.next_number = number + 1
        return number

    def insert(self, path: bytes, node: Node) -> None:
        """Adds a new node (not its name in the parent)."""
        self.nodes[path] = node
        self.dirty[node.number] = path
        node.digest = digest = node.compute_digest(path)
        self.digest = (self.digest + digest) & DIGEST_MASK
        self.data_bytes += len(path) + len(node.data) - 4
        owner = node.ephemeral_owner
        if owner:
            self.ephemerals.setdefault(owner, {})[node.number] = path
            self.ephemeral_count += 1
        if self._undo is not None:
            self._undo.append(lambda: self._uninsert(path, node))

    def _uninsert(self, path: bytes, node: Node) -> None:
        del self.nodes[path]
        self.dirty[node.number] = None
        self._forget(path, node)

    def _forget(self, path: bytes, node: Node) -> None:
        self.digest = (self.digest - node.digest) & DIGEST_MASK
        self.data_bytes -= len(path) + len(node.data) - 4
        owner = node.ephemeral_owner
        if owner:
            owned = self.ephemerals[owner]
            del owned[node.number]
            if not owned:
                del self.ephemerals[owner]
            self.ephemeral_count -= 1

    def remove(self, path: bytes, node: Node) -> None:
        """Takes a node out (not its name in the parent, nor its ACL's reference)."""
        self._barrier(node, path)
        del self.nodes[path]
        self.dirty[node.number] = None
        self._forget(path, node)
        if self._undo is not None:
            self._undo.append(lambda: self.insert(path, node))

    def change(self, path: bytes, node: Node) -> None:
        """Must be called before a node changes in place; `seal` afterwards."""
        if self.freeze_in_progress is not None:
            self._barrier(node, path)
        if self._undo is not None:
            before = (node.data, node.stat, node.acl, node.created)

            def restore() -> None:
                self.data_bytes += len(before[0]) - len(node.data)
                node.data, node.stat, node.acl, node.created = before
                self.seal(path, node)

            self._undo.append(restore)

    def seal(self, path: bytes, node: Node) -> None:
        """Must be called after a node has changed in place."""
        old = node.digest
        node.digest = new = node.compute_digest(path)
        self.digest = (self.digest + new - old) & DIGEST_MASK
        self.dirty[node.number] = path

    def add_child(self, path: bytes, parent: Node, name: bytes, zxid: int) -> None:
        """Notes a created child in its parent: create counter, cversion, numChildren, pzxid."""
        self.change(path, parent)
        if parent.children is None:
            parent.children = {}
        parent.children[name] = None
        parent.created += 1
        parent.set_children_stat(zxid)
        self.seal(path, parent)
        if self._undo is not None:
            self._undo.append(lambda: self._drop_name(parent, name))

    def drop_child(self, path: bytes, parent: Node, name: bytes, zxid: int) -> None:
        """Notes a deleted child in its parent."""
        self.change(path, parent)
        self._drop_name(parent, name)
        parent.set_children_stat(zxid)
        self.seal(path, parent)
        if self._undo is not None:
            self._undo.append(lambda: self._put_name(parent, name))

    @staticmethod
    def _drop_name(parent: Node, name: bytes) -> None:
        assert parent.children is not None
        del parent.children[name]
        if not parent.children:
            parent.children = None

    @staticmethod
    def _put_name(parent: Node, name: bytes) -> None:
        if parent.children is None:
            parent.children = {}
        parent.children[name] = None

    # ACLs: each distinct list once, counted by its users.

    def acl_of(self, number: int) -> tuple[Acl, ...]:
        return OPEN_ACL if number == OPEN_ACL_ID else self.acls[number][0]

    def number_of_acl(self, acl: tuple[Acl, ...]) -> int:
        """The number of a list, with one user more."""
        if acl == OPEN_ACL:
            return OPEN_ACL_ID
        number = self._acl_numbers.get(acl)
        if number is None:
            number = self.next_acl
            self.next_acl += 1
            self._acl_numbers[acl] = number
            self.acls[number] = (acl, 0)
            self.digest = (self.digest + _acl_digest(number, acl)) & DIGEST_MASK
        self.acls[number] = (acl, self.acls[number][1] + 1)
        if self._undo is not None:
            self._undo.append(lambda: self._release(number))
        return number

    def release_acl(self, number: int) -> None:
        """One user less; the last one takes the list out of the table."""
        if number == OPEN_ACL_ID:
            return
        acl = self.acls[number][0]
        self._release(number)
        if self._undo is not None:
            self._undo.append(lambda: self._unrelease(number, acl))

    def _release(self, number: int) -> None:
        acl, users = self.acls[number]
        if users > 1:
            self.acls[number] = (acl, users - 1)
            return
        del self.acls[number]
        del self._acl_numbers[acl]
        self.digest = (self.digest - _acl_digest(number, acl)) & DIGEST_MASK

    def _unrelease(self, number: int, acl: tuple[Acl, ...]) -> None:
        if number not in self.acls:
            self._acl_numbers[acl] = number
            self.acls[number] = (acl, 0)
            self.digest = (self.digest + _acl_digest(number, acl)) & DIGEST_MASK
        self.acls[number] = (acl, self.acls[number][1] + 1)

    # Sessions.

    def add_session(self, session_id: int, session: Session) -> None:
        self.remove_session(session_id)
        self.sessions[session_id] = session
        self.digest = (self.digest + _session_digest(session_id, session)) & DIGEST_MASK

    def remove_session(self, session_id: int) -> None:
        session = self.sessions.pop(session_id, None)
        if session is not None:
            self.digest = (self.digest - _session_digest(session_id, session)) & DIGEST_MASK

    # The way back of a multi.

    def begin(self) -> None:
        """Changes from here on can be taken back by `rollback`, until `commit`."""
        assert self._undo is None
        self._undo = []
        next_number, next_acl = self.next_number, self.next_acl

        def restore_counters() -> None:
            self.next_number, self.next_acl = next_number, next_acl

        self._undo.append(restore_counters)

    def commit(self) -> None:
        self._undo = None

    def rollback(self) -> None:
        """Takes back everything since `begin`; numbers and digest are as they were."""
        undo, self._undo = self._undo, None
        assert undo is not None
        while undo:
            undo.pop()()

    # Digest.

    def state_digest(self) -> int:
        """One 64-bit number that replicas at the same zxid agree on."""
        counters = b"%d,%d,%d,%d" % (self.last_zxid, self.next_number, self.next_acl, self.feature_level)
        mixed: int = google_crc32c.value(counters)
        return (self.digest + mixed) & DIGEST_MASK

    def recompute_digest(self) -> int:
        """`digest` from nothing but the state; takes time in proportion to the tree."""
        total = sum(node.compute_digest(path) for path, node in self.nodes.items())
        total += sum(_session_digest(number, session) for number, session in self.sessions.items())
        total += sum(_acl_digest(number, acl) for number, (acl, _) in self.acls.items())
        return total & DIGEST_MASK

    # Checkpoints.

    def _facts(self) -> bytes:
        return encode_facts(
            Facts(
                self.last_zxid,
                self.feature_level,
                self.next_number,
                self.next_acl,
                self.digest,
                len(self.nodes),
                [(number, s.timeout_ms, s.password) for number, s in self.sessions.items()],
                [(number, acl) for number, (acl, _) in self.acls.items()],
            )
        )

    @classmethod
    def restore(cls, facts: Facts, nodes: Iterable[tuple[bytes, Node]]) -> "DataTree":
        """The tree that a checkpoint holds, nodes in any order, proved against the stored digest.

        Raises:
            DecodeError: a node without parent or ACL, or another digest: nothing of it may be served.
        """
        tree = cls()
        tree.last_zxid, tree.feature_level = facts.zxid, facts.feature_level
        tree.next_number, tree.next_acl = facts.next_number, facts.next_acl
        for session_id, timeout_ms, password in facts.sessions:
            tree.sessions[session_id] = Session(timeout_ms, password)
        for number, acl in facts.acls:
            tree.acls[number] = (acl, 0)
            tree._acl_numbers[acl] = number
        tree.nodes.update(nodes)
        # In order of their numbers, children and ephemerals come in the order of their creation.
        for path, node in sorted(tree.nodes.items(), key=lambda item: item[1].number):
            tree._link(path, node)
        tree.digest = tree.recompute_digest()
        if tree.digest != facts.digest or len(tree.nodes) != facts.node_count:
            raise DecodeError(
                f"expected {facts.node_count} nodes with digest {facts.digest:016x}, got {len(tree.nodes)} "
                f"with {tree.digest:016x}"
            )
        return tree

    def _link(self, path: bytes, node: Node) -> None:
        """Connects a restored node to its parent, its ACL and its owner."""
        node.digest = node.compute_digest(path)
        self.data_bytes += len(path) + len(node.data) - 4
        if node.acl != OPEN_ACL_ID:
            if node.acl not in self.acls:
                raise DecodeError(f"node {path!r} has ACL {node.acl}, which is not in the table")
            acl, users = self.acls[node.acl]
            self.acls[node.acl] = (acl, users + 1)
        owner = node.ephemeral_owner
        if owner:
            self.ephemerals.setdefault(owner, {})[node.number] = path
            self.ephemeral_count += 1
        if path != ROOT:
            parent_path, name = split_path(path)
            parent = self.nodes.get(parent_path)
            if parent is None:
                raise DecodeError(f"node {path!r} has no parent")
            self._put_name(parent, name)

    def _barrier(self, node: Node, path: bytes) -> None:
        freeze = self.freeze_in_progress
        if freeze is not None and freeze.pending.pop(node.number, None) is not None:
            freeze.encoded.append((node.number, encode_node(path, node)))

    def freeze(self, *, whole: bool = False) -> Freeze:
        """Begins a checkpoint of the tree as it is now; `end_freeze` must follow before the next.

        Args:
            whole: take all nodes, for a checkpoint into an empty environment.
        """
        assert self.freeze_in_progress is None
        if whole:
            pending = {node.number: path for path, node in self.nodes.items()}
            deleted: list[tuple[int, bytes | None]] = []
        else:
            pending = {number: path for number, path in self.dirty.items() if path is not None}
            deleted = [(number, None) for number, path in self.dirty.items() if path is None]
        self.dirty = {}
        freeze = Freeze(self.last_zxid, self._facts(), pending, deleted, whole)
        self.freeze_in_progress = freeze
        return freeze

    def encode_some(self, count: int) -> list[tuple[int, bytes | None]]:
        """Encodes up to `count` waiting nodes and takes what is encoded; empty once nothing is left."""
        freeze = self.freeze_in_progress
        assert freeze is not None
        while count > 0 and freeze.pending:
            number, path = freeze.pending.popitem()
            freeze.encoded.append((number, encode_node(path, self.nodes[path])))
            count -= 1
        encoded, freeze.encoded = freeze.encoded, []
        return encoded

    def end_freeze(self, *, written: bool) -> None:
        """Ends the checkpoint; one that failed leaves its nodes to the next, which must be `whole`."""
        self.freeze_in_progress = None


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


def _session_digest(session_id: int, session: Session) -> int:
    packed = _SESSION.pack(session_id, session.timeout_ms)
    head: int = google_crc32c.value(packed)
    tail: int = google_crc32c.value(packed + session.password)
    return (head << 32) | tail


def _acl_digest(number: int, acl: tuple[Acl, ...]) -> int:
    text = repr((number, [tuple(entry) for entry in acl])).encode()
    head: int = google_crc32c.value(text)
    tail: int = google_crc32c.value(b"acl" + text)
    return (head << 32) | tail
