"""Replay over fuzzy snapshots, and transactions of older releases."""

import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coord.apache.convert import tree_of
from coord.apache.database import ApacheNode, Database
from coord.apache.directory import load_state
from coord.apache.replay import apply_transaction
from coord.apache.snapshot import write_snapshot
from coord.apache.txnlog import Transaction, encode_transaction
from coord.protocol import opcodes as op
from coord.protocol.jute import encode_buffer, encode_strings
from coord.protocol.records import OPEN_ACL, Acl, encode_acl
from tests.coord.apache.files import create_body, golden_directory, log_file

NAMES = (b"/a", b"/b", b"/a/x", b"/a/y", b"/a/x/1", b"/b/z")


class Writer:
    """A server of ZooKeeper's that does random things: what it has, and what it logs."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.database = Database.fresh()
        self.transactions: list[Transaction] = []
        self.newest_session = 6

    def step(self) -> None:
        zxid = len(self.transactions) + 1
        session_id, kind, body = self._choose()
        body += struct.pack(">iq", 2, 0)
        txn = Transaction(0, session_id, zxid, 1000 + zxid, kind, body)
        apply_transaction(self.database, txn, "live")
        digest = self.database.digest
        signed = digest - (1 << 64) if digest >> 63 else digest
        self.transactions.append(
            Transaction(0, session_id, zxid, 1000 + zxid, kind, body[:-12] + struct.pack(">iq", 2, signed))
        )

    def _choose(self) -> tuple[int, int, bytes]:
        nodes, chance = self.database.nodes, self.chance
        if len(self.database.sessions) < 2:
            self.newest_session += 1
            return self.newest_session, op.CREATE_SESSION, struct.pack(">i", 5000)
        session_id = chance.choice(sorted(self.database.sessions))
        if chance.random() < 0.05:
            owned = sorted(self.database.ephemerals.get(session_id, ()))
            return session_id, op.CLOSE_SESSION, encode_strings(owned)
        path = chance.choice(NAMES)
        parent = nodes.get(path.rpartition(b"/")[0])
        if path not in nodes and parent is not None and parent.stat.ephemeral_owner == 0:
            ephemeral = path.count(b"/") == 2 and chance.random() < 0.5
            cversion = parent.stat.cversion + 1
            return (
                session_id,
                op.CREATE,
                create_body(path.decode(), b"c", ephemeral=ephemeral, cversion=cversion),
            )
        if path not in nodes:
            return session_id, -1, struct.pack(">i", -101)
        if not nodes[path].children and chance.random() < 0.4:
            return session_id, op.DELETE, encode_buffer(path)
        if chance.random() < 0.3:
            acl = (Acl(31, "digest", f"u:{chance.randrange(3)}"),)
            version = nodes[path].stat.aversion + 1
            return session_id, op.SET_ACL, encode_buffer(path) + encode_acl(acl) + struct.pack(">i", version)
        data = b"%d" % chance.randrange(100)
        version = nodes[path].stat.version + 1
        return session_id, op.SET_DATA, encode_buffer(path) + encode_buffer(data) + struct.pack(">i", version)


def copy_into(target: Database, path: bytes, source: Database) -> None:
    """One node of a fuzzy snapshot, as it is at this moment."""
    node = source.nodes.get(path)
    if node is not None and (path == b"" or path.rpartition(b"/")[0] in target.nodes):
        target.restore(path, ApacheNode(node.data, node.acl, node.stat))


@settings(max_examples=60)
@given(seed=st.integers(0, 1 << 32), before=st.integers(0, 60), during=st.integers(0, 60))
def test_a_fuzzy_snapshot_and_the_log_end_in_the_tree_of_the_server(
    tmp_path_factory: pytest.TempPathFactory, seed: int, before: int, during: int
) -> None:
    """Sessions first, then the nodes depth first, while transactions go on: so ZooKeeper writes it."""
    server = Writer(seed)
    for _ in range(before):
        server.step()
    fuzzy = Database()
    fuzzy.sessions = dict(server.database.sessions)
    waiting = [b""]
    left = during
    while waiting:
        path = waiting.pop()
        # The children are those of this moment, their content that of a later one.
        node = server.database.nodes.get(path)
        copy_into(fuzzy, path, server.database)
        waiting += sorted(node.children or ()) if node is not None else ()
        steps = server.chance.randrange(left + 1) if left else 0
        for _ in range(steps):
            server.step()
        left -= steps
    last = len(server.transactions)
    fuzzy.digest = server.database.digest  # what the server writes behind it, as of `last`
    directory = golden_directory(tmp_path_factory.mktemp("fuzzy"))
    parts = b"".join(write_snapshot(fuzzy, last))
    (directory / "version-2" / f"snapshot.{before:x}").write_bytes(parts)
    records = [
        encode_transaction(txn.session_id, txn.zxid, txn.time_ms, txn.type, txn.body)
        for txn in server.transactions
    ]
    log_file(directory, 1, records)
    state = load_state(str(directory))
    assert state.zxid == last
    expected = tree_of(server.database, last).state_digest()
    assert tree_of(state.database, last).state_digest() == expected


def apply(database: Database, zxid: int, kind: int, body: bytes, session_id: int = 5) -> None:
    apply_transaction(database, Transaction(0, session_id, zxid, 50, kind, body), "log")


def test_a_create_of_before_3_4_counts_in_its_parent_by_itself() -> None:
    database = Database.fresh()
    body = create_body("/old")[:-4]
    apply(database, 1, op.CREATE, body)
    assert database.nodes[b"/old"].stat.czxid == 1
    assert database.nodes[b""].stat.cversion == 1


def test_a_close_of_before_3_6_takes_the_ephemerals_that_it_does_not_name() -> None:
    for body in (b"", struct.pack(">iq", 2, 99)):
        database = Database.fresh()
        apply(database, 1, op.CREATE_SESSION, struct.pack(">i", 5000))
        apply(database, 2, op.CREATE, create_body("/e", ephemeral=True))
        apply(database, 3, op.CLOSE_SESSION, body)
        assert b"/e" not in database.nodes
        assert database.sessions == {}


def test_a_close_with_a_path_of_four_bytes_is_not_taken_for_a_digest() -> None:
    database = Database.fresh()
    apply(database, 1, op.CREATE, create_body("/abc", ephemeral=True))
    apply(database, 2, op.CLOSE_SESSION, encode_strings([b"/abc"]))
    assert b"/abc" not in database.nodes


def test_a_multi_that_failed_changes_nothing() -> None:
    database = Database.fresh()
    parts = [(op.CREATE, create_body("/m")), (-1, struct.pack(">i", -101))]
    body = struct.pack(">i", len(parts)) + b"".join(
        struct.pack(">i", kind) + encode_buffer(part) for kind, part in parts
    )
    apply(database, 1, op.MULTI, body)
    assert b"/m" not in database.nodes


def test_a_reconfiguration_changes_the_stored_members() -> None:
    database = Database.fresh()
    body = encode_buffer(b"/zookeeper/config") + encode_buffer(b"server.1=x") + struct.pack(">i", -1)
    apply(database, 9, op.RECONFIG, body)
    assert database.nodes[b"/zookeeper/config"].data == b"server.1=x"


def test_a_node_whose_list_came_after_the_lists_gets_it_from_its_create(tmp_path: Path) -> None:
    """A fuzzy snapshot holds the lists of its beginning and nodes of its end."""
    database = Database.fresh()
    apply(database, 1, op.CREATE, create_body("/late"))
    database.nodes[b"/late"].acl = None
    apply(database, 1, op.CREATE, create_body("/late"))
    assert database.nodes[b"/late"].acl == OPEN_ACL


def test_a_counter_of_children_at_its_end_wraps_as_zookeepers_does() -> None:
    """Below /zookeeper, where no digest would have seen it first."""
    database = Database.fresh()
    quota = database.nodes[b"/zookeeper/quota"]
    quota.stat = quota.stat._replace(cversion=0x7FFFFFFF)
    database.create(b"/zookeeper/quota/a", b"", OPEN_ACL, 0, -1, 7, 0)
    assert quota.stat.cversion == 0x7FFFFFFF
    assert quota.children == {b"/zookeeper/quota/a"}


def test_a_tree_that_is_made_of_a_database_that_is_used_up_is_the_same() -> None:
    database = Database.fresh()
    for number in range(10):
        database.create(b"/n%d" % number, b"x", OPEN_ACL, 0, -1, number + 1, 0)
    kept = tree_of(database, 10)
    assert b"/n3" in database.nodes
    assert tree_of(database, 10, consume=True).state_digest() == kept.state_digest()
    assert database.nodes == {}
