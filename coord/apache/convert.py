"""Between ZooKeeper's database and our tree.

What a client sees of a node is the same on both sides. `/zookeeper/config` describes the ensemble that
serves, so its content stays behind; its ACL, which says who may reconfigure, comes along.
"""

from collections.abc import Iterator

from coord.apache.database import CONFIG, ApacheNode, Database, PersistedStat, is_session
from coord.apache.passwords import session_password
from coord.protocol.jute import encode_buffer
from coord.protocol.records import OPEN_ACL, STAT, Stat
from coord.tree import DataTree
from coord.tree.acl_table import AclTable
from coord.tree.image import Facts
from coord.tree.node import NULL_DATA, Node, make_node, wrap

_FEATURE_LEVEL = 1


def tree_of(database: Database, zxid: int, *, consume: bool = False) -> DataTree:
    """The same state as a tree of ours as of `zxid`, the same on every server that converts it; sessions have
    the passwords that ZooKeeper gave them.

    Args:
        consume: the database's nodes are taken out of it one by one, so that there is never room needed for
            all of both trees. Nothing but its sessions is left of it.
    """
    nodes = database.nodes if consume else dict(database.nodes)
    for path, node in Database.fresh().nodes.items():
        nodes.setdefault(path, node)
    acls = AclTable()
    # Numbers follow creation, parents before their children: so children are listed in order of creation.
    order = sorted(nodes, key=lambda path: (nodes[path].stat.czxid, path))
    for path in order:
        acls.take(nodes[path].acl or OPEN_ACL)
    facts = Facts(
        zxid=zxid,
        feature_level=_FEATURE_LEVEL,
        next_number=len(order) + 1,
        next_acl=acls.next_number,
        digest=0,
        node_count=len(order),
        sessions=[(one, database.sessions[one], session_password(one)) for one in sorted(database.sessions)],
        acls=[(number, acl) for number, (acl, _) in acls.lists.items()],
    )
    return DataTree.assemble(facts, _converted(nodes, order, acls))


def _converted(
    nodes: dict[bytes, ApacheNode], order: list[bytes], acls: AclTable
) -> Iterator[tuple[bytes, Node]]:
    for number, path in enumerate(order, 1):
        node = nodes.pop(path)
        yield path or b"/", _node_of(number, path, node, acls.take(node.acl or OPEN_ACL))


def database_of(tree: DataTree) -> Database:
    """The same state as ZooKeeper keeps it."""
    database = Database()
    for path in sorted(tree.nodes):
        node = tree.nodes[path]
        stat = Stat._make(STAT.unpack(node.stat))
        persisted = PersistedStat(
            czxid=stat.czxid,
            mzxid=stat.mzxid,
            ctime=stat.ctime,
            mtime=stat.mtime,
            version=stat.version,
            cversion=node.created,
            aversion=stat.aversion,
            ephemeral_owner=node.kind or stat.ephemeral_owner,
            pzxid=stat.pzxid,
        )
        data = None if node.data == NULL_DATA else node.data[4:]
        database.restore(b"" if path == b"/" else path, ApacheNode(data, tree.acl_of(node.acl), persisted))
    database.sessions = {session_id: session.timeout_ms for session_id, session in tree.sessions.items()}
    return database


def _node_of(number: int, path: bytes, node: ApacheNode, acl: int) -> Node:
    stat, data = node.stat, node.data
    if path == CONFIG:
        data = b""
        stat = PersistedStat(0, 0, 0, 0, 0, stat.cversion, stat.aversion, 0, 0)
    children = len(node.children) if node.children else 0
    owner = stat.ephemeral_owner
    kind = 0 if is_session(owner) else owner
    wire = STAT.pack(
        stat.czxid,
        stat.mzxid,
        stat.ctime,
        stat.mtime,
        stat.version,
        wrap(2 * stat.cversion - children),
        stat.aversion,
        0 if kind else owner,
        len(data or b""),
        children,
        stat.pzxid,
    )
    return make_node(number, encode_buffer(data), wire, acl, stat.cversion, kind)
