"""One replica without a server: a tree, the next zxid, a clock that stands still, and requests as calls."""

import struct
from collections.abc import Sequence

from coord.protocol import opcodes
from coord.protocol.jute import Reader, encode_long
from coord.protocol.records import (
    OPEN_ACL,
    Acl,
    Identity,
    Stat,
    encode_acl,
    encode_create,
    encode_multi,
    encode_path_version,
    encode_path_watch,
    encode_set_data,
    read_stat,
)
from coord.tree import Context, DataTree, WatchTable, execute, read
from coord.tree.execute import encode_create_session
from coord.tree.image import decode_facts, decode_node
from coord.tree.policy import POLICY_ENFORCE_QUOTA, POLICY_EXTENDED_TYPES
from coord.tree.reaping import encode_delete_container

SESSION = 0x0100000000000001
OTHER_SESSION = 0x0100000000000002
PASSWORD = bytes(range(16))
WALL_MS = 1_700_000_000_000
LOCAL = (Identity("ip", "127.0.0.1"),)
DIGEST_ID = "bob:D/InIHSb7yEEbrWz8b9l71RjZJU="
BOB = (*LOCAL, Identity("digest", DIGEST_ID))
SUPER = (*LOCAL, Identity("super", ""))


class Machine:
    """Executes requests one zxid after another; `events` are those of the last one."""

    def __init__(self, *, policy: int = POLICY_EXTENDED_TYPES | POLICY_ENFORCE_QUOTA) -> None:
        self.tree = DataTree.fresh()
        self.context = Context(wall_ms=WALL_MS, policy=policy)
        self.identities: tuple[Identity, ...] = LOCAL
        self.session_id = SESSION
        self.events: list[tuple[int, bytes]] = []
        self.watches = WatchTable()
        self.run(opcodes.CREATE_SESSION, encode_create_session(10_000, PASSWORD))
        self.run(opcodes.CREATE_SESSION, encode_create_session(20_000, PASSWORD), session_id=OTHER_SESSION)

    @property
    def zxid(self) -> int:
        return self.tree.last_zxid

    def run(self, op: int, body: bytes, *, session_id: int | None = None) -> tuple[int, bytes]:
        context = self.context
        context.zxid = self.tree.last_zxid + 1
        context.session_id = self.session_id if session_id is None else session_id
        context.identities = self.identities
        context.events.clear()
        answer = execute(self.tree, context, op, body)
        self.events = [(event[0], event[1]) for event in context.events]
        return answer

    def read(self, op: int, body: bytes) -> tuple[int, bytes]:
        err, answer, _ = read(self.tree, op, body, self.identities, self.session_id)
        return err, answer

    # Requests that return the error code alone.

    def create(
        self,
        path: str,
        data: bytes | None = b"",
        *,
        flags: int = 0,
        acl: Sequence[Acl] = OPEN_ACL,
        op: int = opcodes.CREATE,
    ) -> int:
        return self.run(op, encode_create(path, data, acl, flags))[0]

    def create_ttl(self, path: str, ttl_ms: int, *, flags: int = opcodes.FLAG_TTL) -> int:
        return self.run(opcodes.CREATE_TTL, encode_create(path, b"", OPEN_ACL, flags) + encode_long(ttl_ms))[
            0
        ]

    def reap(self, path: str, never_used_ms: int = 0) -> int:
        """As the leader asks for it."""
        body = encode_delete_container(path.encode(), never_used_ms)
        return self.run(opcodes.DELETE_CONTAINER, body, session_id=0)[0]

    def delete(self, path: str, version: int = -1) -> int:
        return self.run(opcodes.DELETE, encode_path_version(path, version))[0]

    def set(self, path: str, data: bytes | None = b"", version: int = -1) -> int:
        return self.run(opcodes.SET_DATA, encode_set_data(path, data, version))[0]

    def set_acl(self, path: str, acl: Sequence[Acl], version: int = -1) -> int:
        body = struct.pack(">i", len(path)) + path.encode() + encode_acl(acl) + struct.pack(">i", version)
        return self.run(opcodes.SET_ACL, body)[0]

    def get(self, path: str) -> int:
        return self.read(opcodes.GET_DATA, encode_path_watch(path, False))[0]

    def close_session(self, session_id: int = SESSION) -> int:
        return self.run(opcodes.CLOSE_SESSION, b"", session_id=session_id)[0]

    # Requests that return what they answer; they must succeed.

    def created(self, path: str, data: bytes | None = b"", *, flags: int = 0) -> str:
        err, body = self.run(opcodes.CREATE, encode_create(path, data, OPEN_ACL, flags))
        assert err == 0
        return Reader(body).read_text() or ""

    def stat(self, path: str) -> Stat:
        err, body = self.read(opcodes.EXISTS, encode_path_watch(path, False))
        assert err == 0
        return read_stat(Reader(body))

    def data(self, path: str) -> bytes | None:
        err, body = self.read(opcodes.GET_DATA, encode_path_watch(path, False))
        assert err == 0
        return Reader(body).read_buffer()

    def children(self, path: str) -> list[str]:
        err, body = self.read(opcodes.GET_CHILDREN, encode_path_watch(path, False))
        assert err == 0
        return [(name or b"").decode() for name in Reader(body).read_strings() or []]

    def multi(self, *operations: tuple[int, bytes]) -> list[object]:
        """Results in order: ("create", path), Stat, None, or an error code as int."""
        err, body = self.run(opcodes.MULTI, encode_multi(operations))
        assert err == 0
        return decode_results(body)


def decode_results(body: bytes) -> list[object]:
    """The results of a multi; checks the framing of spec 10.2 on the way."""
    reader = Reader(body)
    results: list[object] = []
    while True:
        kind, done, err = reader.read_int(), reader.read_bool(), reader.read_int()
        if done:
            assert (kind, err, reader.remaining) == (-1, -1, 0)
            return results
        if kind == -1:
            assert reader.read_int() == err
            results.append(err)
            continue
        assert err == 0
        if kind == opcodes.CREATE:
            results.append(reader.read_text())
        elif kind == opcodes.CREATE2:
            results.append((reader.read_text(), read_stat(reader)))
        elif kind == opcodes.SET_DATA:
            results.append(read_stat(reader))
        else:
            assert kind in (opcodes.DELETE, opcodes.CHECK)
            results.append(None)


def take_checkpoint(tree: DataTree, before: dict[int, bytes] | None = None) -> tuple[bytes, dict[int, bytes]]:
    """Facts and records of a checkpoint on top of another, taken at once."""
    frozen = tree.freeze()
    records = dict(before or {})
    while (some := tree.encode_some(7)) is not None:
        for number, value in some:
            if value is None:
                records.pop(number, None)
            else:
                records[number] = value
    while not tree.thaw(7, written=True):
        pass
    assert len(records) == frozen.nodes
    return frozen.facts, records


def load(facts: bytes, records: dict[int, bytes]) -> DataTree:
    """The tree of a checkpoint."""
    return DataTree.restore(
        decode_facts(facts), [decode_node(number, value) for number, value in records.items()]
    )


def dump(tree: DataTree) -> dict[bytes, tuple[object, ...]]:
    """Everything replicas must agree on, per node, with ACLs by their content."""
    return {
        path: (
            node.number,
            node.data,
            node.stat,
            tree.acl_of(node.acl),
            node.created,
            node.kind,
            frozenset(node.children or ()),
        )
        for path, node in tree.nodes.items()
    }
