"""What most writes are, carried out in one loop: setData and create of znodes that are open to the world and
that nobody here watches.

Half of what a server does under load is this. With a call for each request, which looks everything up anew,
it takes twice as long. Whatever is out of the ordinary, an error too, is left to `coord.tree.execute`.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final

from coord.protocol import opcodes
from coord.protocol.records import STAT
from coord.tree.create import OPEN_ACL_BYTES
from coord.tree.node import VERSION_MAX, Node, next_version, pack_data_change, unpack_data_change, wrap
from coord.tree.path import CONFIG, QUOTA, ROOT, is_valid_name
from coord.tree.tree import TOUCHED_MAX, DataTree
from coord.tree.watches import WatchTable

_INT = struct.Struct(">i")
_unpack_int, _pack_int = _INT.unpack_from, _INT.pack
_ANY_VERSION: Final = b"\xff\xff\xff\xff"
#: What stands behind the data of a create that asks for nothing special → whether it is sequential.
_CREATE_TAILS: Final = {OPEN_ACL_BYTES + _pack_int(0): False, OPEN_ACL_BYTES + _pack_int(2): True}
#: cversion, aversion, owner, dataLength, numChildren, pzxid: the end of a Stat.
_PARENT = struct.Struct(">iiqiiq")
_PARENT_AT: Final = 36
_SET_DATA: Final = opcodes.SET_DATA
_CREATE: Final = opcodes.CREATE


def plain_writes(
    tree: DataTree,
    watches: WatchTable,
    sessions: Sequence[int],
    ops: Sequence[int],
    bodies: Sequence[bytes],
    first_zxid: int,
    wall_ms: int,
) -> Iterator[bytes | None]:
    """Carries out one request of a block for each item asked for, if it is a plain one.

    Yields:
        The body of its answer; or None where it is not plain: nothing has changed then, and it is to be
        executed (`coord.tree.execute`) before the next is asked for. Plain are, in a tree without quotas,
        setData with any version, and create of a persistent node with the open ACL.
    """
    find, touched, live = tree.nodes.get, tree.touched, tree.sessions
    watched = watches.watched_data
    zxid = first_zxid - 1
    for session_id, op, body in zip(sessions, ops, bodies, strict=True):
        zxid += 1
        if watches.recursive_count or tree.quotas or session_id not in live:
            yield None
            continue
        if op != _SET_DATA:
            yield _create(tree, watches, body, zxid, wall_ms) if op == _CREATE else None
            continue
        try:
            at = 4 + _unpack_int(body)[0]
            data_size: int = _unpack_int(body, at)[0]
        except struct.error:
            yield None
            continue
        end = at + 4 + data_size
        path = body[4:at]
        node = find(path)
        if (
            node is None
            or node.acl
            or data_size < 0
            or len(body) != end + 4
            or not body.endswith(_ANY_VERSION)
            or path in watched
            or path == CONFIG
        ):
            yield None
            continue
        tree.last_zxid = zxid
        if path not in touched:
            if len(touched) > TOUCHED_MAX:
                tree.fold()
            tree.touch(path, node)
        tree.data_bytes += data_size + 4 - len(node.data)
        node.data = body[at:end]
        # As `Node.set_data`.
        czxid, _, ctime, _, version, middle, _, rest = unpack_data_change(node.stat)
        version = version + 1 if -1 <= version < VERSION_MAX else next_version(version)
        node.stat = stat = pack_data_change(czxid, zxid, ctime, wall_ms, version, middle, data_size, rest)
        yield stat


def _create(tree: DataTree, watches: WatchTable, body: bytes, zxid: int, wall_ms: int) -> bytes | None:
    """As `coord.tree.create`, in one function."""
    try:
        at = 4 + _unpack_int(body)[0]
        data_size: int = _unpack_int(body, at)[0]
    except struct.error:
        return None
    end = at + 4 + data_size
    is_sequential = _CREATE_TAILS.get(body[end:])
    path = body[4:at]
    parent_path, slash, name = path.rpartition(b"/")
    if is_sequential is None or data_size < 0 or not slash or parent_path == ROOT:
        return None
    parent_path = parent_path or ROOT
    nodes = tree.nodes
    parent = nodes.get(parent_path)
    if parent is None or parent.acl or parent_path.startswith(QUOTA):
        return None
    if is_sequential:
        suffix = b"%010d" % parent.created
        path, name = path + suffix, name + suffix
    cversion, aversion, owner, length, _, pzxid = _PARENT.unpack_from(parent.stat, _PARENT_AT)
    if (
        path in nodes
        or owner
        or not is_valid_name(name)
        or path in watches.watched_data
        or parent_path in watches.watched_children
    ):
        return None
    touched = tree.touched
    if len(touched) > TOUCHED_MAX:
        tree.fold()
    tree.last_zxid = zxid
    number = tree.next_number
    tree.next_number = number + 1
    stat = STAT.pack(zxid, zxid, wall_ms, wall_ms, 0, 0, 0, 0, data_size, 0, zxid)
    nodes[path] = Node(number, body[at:end], stat, 0)
    touched[path] = None
    tree.data_bytes += len(path) + data_size
    # As `DataTree.add_child` and `Node.note_child_change`.
    if parent_path not in touched:
        tree.touch(parent_path, parent)
    children = parent.children
    if children is None:
        parent.children = children = {path: None}
    else:
        children[path] = None
    parent.created = wrap(parent.created + 1)
    cversion = cversion + 1 if cversion < VERSION_MAX else -VERSION_MAX - 1
    pzxid = max(zxid, pzxid)
    parent.stat = parent.stat[:_PARENT_AT] + _PARENT.pack(
        cversion, aversion, owner, length, len(children), pzxid
    )
    return _pack_int(len(path)) + path
