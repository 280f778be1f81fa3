"""What most writes are, carried out in one loop: setData of a znode open to the world that nobody watches.

Half of what a server does under load is this. With a call for each request, which looks everything up anew,
it takes twice as long.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final

from coord.protocol import opcodes
from coord.tree.node import VERSION_MAX, next_version, pack_data_change, unpack_data_change
from coord.tree.path import CONFIG
from coord.tree.tree import TOUCHED_MAX, DataTree
from coord.tree.watches import WatchTable

_unpack_int = struct.Struct(">i").unpack_from
_ANY_VERSION: Final = b"\xff\xff\xff\xff"
_SET_DATA: Final = opcodes.SET_DATA


def plain_sets(
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
        The new Stat; or None where it is none of these: nothing has changed then, and it is to be executed
        (`coord.tree.execute`) before the next is asked for. Plain are those with any version, of a znode that
        is open to the world and not watched, in a tree without quotas.
    """
    nodes, touched, live = tree.nodes, tree.touched, tree.sessions
    find, watched = nodes.get, watches.watched_data
    zxid = first_zxid - 1
    for session_id, op, body in zip(sessions, ops, bodies, strict=True):
        zxid += 1
        if op != _SET_DATA or watches.recursive_count or tree.quotas or session_id not in live:
            yield None
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
            or body[end : end + 4] != _ANY_VERSION
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
