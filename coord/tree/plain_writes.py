"""What most writes are, carried out in one loop: setData and create of znodes that are open to the world and
that nobody here watches.

Half of what a server does under load is this. With a call for each request, which looks everything up anew,
it takes twice as long. Whatever is out of the ordinary, an error too, is left to `coord.tree.execute`: what
is plain here and refused there would set replicas apart, for one of them has a watcher or an audit log.
"""

import struct
from collections.abc import Iterator, KeysView, Sequence
from itertools import islice
from typing import Final

from coord.protocol import opcodes
from coord.protocol.bodies import Bodies
from coord.tree.create import OPEN_ACL_BYTES
from coord.tree.node import (
    NO_OWNER,
    OWNER_AT,
    VERSION_MAX,
    Node,
    next_version,
    pack_data_change,
    pack_new,
    unpack_kept_by_set_data,
)
from coord.tree.path import CONFIG, QUOTA, ROOT, is_valid_name
from coord.tree.tree import OPEN_ACL_ID, TOUCHED_MAX, DataTree
from coord.tree.watches import WatchTable

_INT = struct.Struct(">i")
_unpack_int, _pack_int = _INT.unpack_from, _INT.pack
_ANY_VERSION: Final = _pack_int(-1)
#: What stands behind the data of a create that asks for nothing special → whether it is sequential.
_CREATE_TAILS: Final = {OPEN_ACL_BYTES + _pack_int(0): False, OPEN_ACL_BYTES + _pack_int(2): True}
_CREATE_TAIL_BYTES: Final = len(OPEN_ACL_BYTES) + 4
_SET_DATA: Final = opcodes.SET_DATA
_CREATE: Final = opcodes.CREATE


def plain_writes(
    tree: DataTree,
    watches: WatchTable,
    sessions: Sequence[int],
    ops: Sequence[int],
    bodies: Bodies,
    first_zxid: int,
    wall_ms: int,
    *,
    answers: bool,
) -> Iterator[bytes | int]:
    """Carries out the plain requests of a block, in a tree without quotas: setData with any version, and
    create of a persistent node with the open ACL. With `answers` it pauses after each, else only where it
    meets one that is not plain.

    Yields:
        The body of the answer to one that was carried out; or the number, from 0, of one that is not plain:
        nothing has changed then, and it is to be executed (`coord.tree.execute`) before the next is asked
        for.
    """
    find, touched, live = tree.nodes.get, tree.touched, tree.sessions
    watched, watched_children = watches.watched_data, watches.watched_children
    data, edges = bodies.data, bodies.edges
    is_plain = not (tree.quotas or watches.recursive_count)
    zxid, answer = first_zxid - 1, None
    for session_id, op, start, stop in zip(sessions, ops, edges, islice(edges, 1, None), strict=False):
        zxid += 1
        answer = None
        if is_plain and session_id in live:
            try:
                at = start + 4 + _unpack_int(data, start)[0]
                size: int = _unpack_int(data, at)[0]
            except struct.error:
                at, size = 0, -1
            end = at + 4 + size
            # A length below zero would count from the end. One that is too large leaves `end` beyond `stop`.
            if size < 0 or at < start + 4:
                pass
            elif op == _SET_DATA and end + 4 == stop and data.startswith(_ANY_VERSION, end):
                path = data[start + 4 : at]
                node = find(path)
                if node is not None and not node.acl and path not in watched and path != CONFIG:
                    if path not in touched:
                        if len(touched) > TOUCHED_MAX:
                            tree.fold()
                        tree.touch(path, node)
                    tree.data_bytes += size + 4 - len(node.data)
                    # As `Node.set_data`, without its call.
                    czxid, ctime, version, middle, rest = unpack_kept_by_set_data(node.stat)
                    version = version + 1 if -1 <= version < VERSION_MAX else next_version(version)
                    node.data = data[at:end]
                    node.stat = answer = pack_data_change(
                        czxid, zxid, ctime, wall_ms, version, middle, size, rest
                    )
            elif op == _CREATE and end + _CREATE_TAIL_BYTES == stop:
                answer = _create(tree, watched, watched_children, data, start + 4, at, end, zxid, wall_ms)
        if answer is None:
            yield zxid - first_zxid
        elif answers:
            tree.last_zxid = zxid
            yield answer
        else:
            continue
        is_plain = not (tree.quotas or watches.recursive_count)
    if answer is not None:
        tree.last_zxid = zxid


def _create(
    tree: DataTree,
    watched: KeysView[bytes],
    watched_children: KeysView[bytes],
    data: bytes,
    start: int,
    at: int,
    end: int,
    zxid: int,
    wall_ms: int,
) -> bytes | None:
    """A create whose path is `data[start:at]` and whose data field is `data[at:end]`."""
    is_sequential = _CREATE_TAILS.get(data[end : end + _CREATE_TAIL_BYTES])
    slash = data.rfind(b"/", start, at)
    if is_sequential is None or slash < 0:
        return None
    parent_path = data[start:slash]
    if parent_path == ROOT:
        return None
    parent_path = parent_path or ROOT
    nodes = tree.nodes
    parent = nodes.get(parent_path)
    if (
        parent is None
        or parent.acl
        or not parent.stat.startswith(NO_OWNER, OWNER_AT)
        or parent_path.startswith(QUOTA)
        or parent_path in watched_children
    ):
        return None
    path, name = data[start:at], data[slash + 1 : at]
    if is_sequential:
        suffix = b"%010d" % parent.created
        path += suffix
        name += suffix
    if path in nodes or path in watched or not is_valid_name(name):
        return None
    touched = tree.touched
    if len(touched) > TOUCHED_MAX:
        tree.fold()
    # As `DataTree.insert` and `add_child`, without their calls.
    number, size = tree.next_number, end - at
    tree.next_number = number + 1
    nodes[path] = Node(
        number, data[at:end], pack_new(zxid, zxid, wall_ms, wall_ms, size - 4, zxid), OPEN_ACL_ID
    )
    touched[path] = None
    tree.data_bytes += len(path) + size - 4
    if parent_path not in touched:
        tree.touch(parent_path, parent)
    parent.add_child(path, zxid)
    return _pack_int(len(path)) + path
