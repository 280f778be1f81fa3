"""What most writes are, carried out in one loop: setData and create of znodes that are open to the world and
that nobody here watches.

Half of what a server does under load is this. With a call for each request, which looks everything up anew,
it takes twice as long. Whatever is out of the ordinary, an error too, is left to `coord.tree.execute`: what
is plain here and refused there would set replicas apart, for one of them has a watcher or an audit log.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final

from coord.protocol import opcodes
from coord.tree.create import OPEN_ACL_BYTES
from coord.tree.node import Node, new_stat
from coord.tree.path import CONFIG, QUOTA, ROOT, is_valid_name
from coord.tree.tree import OPEN_ACL_ID, TOUCHED_MAX, DataTree
from coord.tree.watches import WatchTable

_INT = struct.Struct(">i")
_unpack_int, _pack_int = _INT.unpack_from, _INT.pack
_ANY_VERSION: Final = _pack_int(-1)
#: What stands behind the data of a create that asks for nothing special → whether it is sequential.
_CREATE_TAILS: Final = {OPEN_ACL_BYTES + _pack_int(0): False, OPEN_ACL_BYTES + _pack_int(2): True}
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
        if (
            (op != _SET_DATA and op != _CREATE)
            or watches.recursive_count
            or tree.quotas
            or session_id not in live
        ):
            yield None
            continue
        try:
            at = 4 + _unpack_int(body)[0]
            data_size: int = _unpack_int(body, at)[0]
        except struct.error:
            yield None
            continue
        if at < 4 or data_size < 0:  # a length below zero would count from the end of the body
            yield None
            continue
        end = at + 4 + data_size
        path = body[4:at]
        if op == _CREATE:
            yield _create(tree, watches, path, body, at, end, zxid, wall_ms)
            continue
        node = find(path)
        if (
            node is None
            or node.acl
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
        node.set_data(body[at:end], data_size, zxid, wall_ms)
        yield node.stat


def _create(
    tree: DataTree,
    watches: WatchTable,
    path: bytes,
    body: bytes,
    at: int,
    end: int,
    zxid: int,
    wall_ms: int,
) -> bytes | None:
    """A create whose data field is `body[at:end]`."""
    is_sequential = _CREATE_TAILS.get(body[end:])
    parent_path, slash, name = path.rpartition(b"/")
    if is_sequential is None or not slash or parent_path == ROOT:
        return None
    parent_path = parent_path or ROOT
    parent = tree.nodes.get(parent_path)
    if parent is None or parent.acl or parent_path.startswith(QUOTA):
        return None
    if is_sequential:
        suffix = b"%010d" % parent.created
        path, name = path + suffix, name + suffix
    if (
        path in tree.nodes
        or parent.ephemeral_owner
        or not is_valid_name(name)
        or path in watches.watched_data
        or parent_path in watches.watched_children
    ):
        return None
    if len(tree.touched) > TOUCHED_MAX:
        tree.fold()
    tree.last_zxid = zxid
    stat = new_stat(zxid, wall_ms, 0, end - at - 4)
    tree.insert(path, Node(tree.take_number(), body[at:end], stat, OPEN_ACL_ID))
    tree.add_child(parent_path, parent, path, zxid)
    return _pack_int(len(path)) + path
