"""Execution of replicated requests: the one place where a tree changes, the same on every replica.

    err, body = execute(tree, context, op, request_body)

reads nothing but its arguments: zxid, time, identities and policy come from the batch's stamp and block. A
request that fails has changed nothing; it has used its zxid all the same. `context.events` receives what
watchers are told, in order. Check orders are those of spec chapter 6; each function below is one list of
checks followed by its effect.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from coord.protocol import opcodes
from coord.protocol.jute import DecodeError, Reader, encode_buffer
from coord.protocol.records import MULTI_END, PASSWORD_BYTES, Identity
from coord.tree.acl import POLICY_SKIP_ACL, is_allowed, process_acl, read_acl
from coord.tree.node import CONTAINER_OWNER, Node, OwnedNode, new_stat
from coord.tree.path import ROOT, SPECIAL, is_valid_name, is_valid_path, split_path
from coord.tree.tree import OPEN_ACL_ID, DataTree, Session

_INT = struct.Struct(">i")
_unpack_int = _INT.unpack_from
_MULTI_HEADER = struct.Struct(">i?i")
_SESSION_BODY = struct.Struct(f">i{PASSWORD_BYTES}s")

#: Nodes that wait for `DataTree.fold` at most, so that no fold takes long (0.6 µs for a node).
_TOUCHED_MAX = 512
#: The usual ACL of a create, as bytes: one entry, all permissions, world:anyone.
_OPEN_ACL_BYTES = struct.pack(">iii5si6s", 1, 31, 5, b"world", 6, b"anyone")
_OPEN_ACL_SIZE = len(_OPEN_ACL_BYTES)
_EPHEMERAL_FLAGS = frozenset({1, 3})
_SEQUENTIAL_FLAGS = frozenset({2, 3, 6})
_TTL_FLAGS = frozenset({opcodes.FLAG_TTL, opcodes.FLAG_TTL_SEQUENTIAL})


#: A change as watchers may be told of it: type, path, and the number of the list that says who may know
#: (spec 9.3), which `DataTree.acl_of` knows until the next request. A plain tuple, as every write makes some.
TreeEvent = tuple[int, bytes, int]


@dataclass(slots=True)
class Context:
    """What a request is executed with, beside its body; one object serves a whole batch.

    `is_local`: the session is no part of the state; the server that has it vouches for it (spec 4.7).
    """

    zxid: int = 0
    wall_ms: int = 0
    session_id: int = 0
    identities: tuple[Identity, ...] = ()
    policy: int = 0
    is_local: bool = False
    events: list[TreeEvent] = field(default_factory=list)


class _RefusedError(Exception):
    """A check has failed; nothing was changed."""

    def __init__(self, code: int) -> None:
        self.code = code


def execute(tree: DataTree, context: Context, op: int, body: bytes) -> tuple[int, bytes]:
    """Executes one request as `context.zxid`; returns the error code and the reply's body (empty on
    errors)."""
    tree.last_zxid = context.zxid
    if tree.acls.released:
        tree.acls.released.clear()
    if len(tree.touched) > _TOUCHED_MAX:
        tree.fold()
    if op == opcodes.SET_DATA:
        operation: Callable[[DataTree, Context, bytes], bytes] = _set_data
    else:
        found = _OPERATIONS.get(op)
        if found is None:
            return opcodes.UNIMPLEMENTED, b""
        operation = found
    try:
        return 0, operation(tree, context, body)
    except _RefusedError as refusal:
        return refusal.code, b""
    except (struct.error, DecodeError):
        return opcodes.MARSHALLING_ERROR, b""


def _check_session(tree: DataTree, context: Context) -> None:
    if context.session_id not in tree.sessions and not context.is_local:
        raise _RefusedError(opcodes.SESSION_EXPIRED)


def _check_acl(tree: DataTree, context: Context, node: Node, want: int) -> None:
    if node.acl == OPEN_ACL_ID or context.policy & POLICY_SKIP_ACL:
        return
    if not is_allowed(tree.acl_of(node.acl), want, context.identities):
        raise _RefusedError(opcodes.NO_AUTH)


# setData


def _set_data(tree: DataTree, context: Context, body: bytes) -> bytes:
    """Spec 6.6. On the hot path: the record is taken apart by hand, and a path that is found is a legal
    one."""
    path_size: int = _unpack_int(body, 0)[0]
    at = 4 + path_size if path_size >= 0 else 4
    data_size: int = _unpack_int(body, at)[0]
    end = at + 4 + data_size if data_size >= 0 else at + 4
    version: int = _unpack_int(body, end)[0]
    if path_size < -1 or data_size < -1:
        raise DecodeError("negative length")
    path = body[4:at]
    if context.session_id not in tree.sessions and not context.is_local:
        raise _RefusedError(opcodes.SESSION_EXPIRED)
    node = tree.nodes.get(path)
    if node is None:
        raise _RefusedError(opcodes.NO_NODE if is_valid_path(path) else opcodes.BAD_ARGUMENTS)
    if node.acl != OPEN_ACL_ID:
        _check_acl(tree, context, node, opcodes.PERM_WRITE)
    if version != -1 and version != node.version:
        raise _RefusedError(opcodes.BAD_VERSION)
    if path not in tree.touched or tree.undo is not None:
        tree.touch(path, node)
    data = body[at:end]
    tree.data_bytes += len(data) - len(node.data)
    node.set_data(data, data_size if data_size > 0 else 0, context.zxid, context.wall_ms)
    context.events.append((opcodes.NODE_DATA_CHANGED, path, node.acl))
    return node.stat


# create


def _create(tree: DataTree, context: Context, body: bytes) -> bytes:
    path, _ = _create_node(tree, context, body, opcodes.CREATE)
    return _INT.pack(len(path)) + path


def _create2(tree: DataTree, context: Context, body: bytes) -> bytes:
    path, node = _create_node(tree, context, body, opcodes.CREATE2)
    return b"".join((_INT.pack(len(path)), path, node.stat))


def _create_container(tree: DataTree, context: Context, body: bytes) -> bytes:
    path, node = _create_node(tree, context, body, opcodes.CREATE_CONTAINER)
    return b"".join((_INT.pack(len(path)), path, node.stat))


def _create_ttl(tree: DataTree, context: Context, body: bytes) -> bytes:
    """Extended types are not enabled; the other modes have no business here (spec 6.3)."""
    *_, flags, end = _decode_create(body)
    Reader(body, end).read_long()
    raise _RefusedError(opcodes.UNIMPLEMENTED if flags in _TTL_FLAGS else opcodes.BAD_ARGUMENTS)


def _create_node(tree: DataTree, context: Context, body: bytes, op: int) -> tuple[bytes, Node]:
    """Spec 6.3, checks in its order; returns the path with its number and the node."""
    path, data, acl_bytes, flags, _ = _decode_create(body)
    if flags:
        if not 0 <= flags <= opcodes.FLAG_TTL_SEQUENTIAL:
            raise _RefusedError(opcodes.BAD_ARGUMENTS)
        if flags in _TTL_FLAGS:
            raise _RefusedError(opcodes.UNIMPLEMENTED)  # extended types are not enabled (spec 8.3)
    if context.session_id not in tree.sessions:
        if not context.is_local:
            raise _RefusedError(opcodes.SESSION_EXPIRED)
        if flags in _EPHEMERAL_FLAGS:
            raise _RefusedError(opcodes.EPHEMERAL_ON_LOCAL_SESSION)
    if b"/" not in path or b"\0" in path:
        raise _RefusedError(opcodes.BAD_ARGUMENTS)
    acl = None
    if acl_bytes is not None:
        acl = process_acl(read_acl(Reader(acl_bytes)), context.identities, context.policy)
        if acl is None:
            raise _RefusedError(opcodes.INVALID_ACL)
    parent_path, _, name = path.rpartition(b"/")
    parent = tree.nodes.get(parent_path or ROOT)
    if parent is None:
        raise _RefusedError(opcodes.NO_NODE)
    if parent.acl != OPEN_ACL_ID:
        _check_acl(tree, context, parent, opcodes.PERM_CREATE)
    if flags in _SEQUENTIAL_FLAGS:
        suffix = b"%010d" % parent.created
        path, name = path + suffix, name + suffix
    if path in tree.nodes:
        raise _RefusedError(opcodes.NODE_EXISTS)
    # The parent exists and so is legal, but for one: "/" under its other name, as in "//a".
    if parent_path == ROOT or not is_valid_name(name):
        raise _RefusedError(opcodes.BAD_ARGUMENTS)
    if parent.ephemeral_owner:
        raise _RefusedError(opcodes.NO_CHILDREN_FOR_EPHEMERALS)

    zxid = context.zxid
    acl_number = OPEN_ACL_ID if acl is None else tree.number_of_acl(acl)
    number = tree.take_number()
    if op == opcodes.CREATE_CONTAINER:
        stat = new_stat(zxid, context.wall_ms, 0, len(data) - 4)
        node: Node = OwnedNode(number, data, stat, acl_number, kind=CONTAINER_OWNER)
        tree.insert(path, node)
    elif flags in _EPHEMERAL_FLAGS:
        owner = context.session_id
        node = Node(number, data, new_stat(zxid, context.wall_ms, owner, len(data) - 4), acl_number)
        tree.insert_ephemeral(path, node, owner)
    else:
        node = Node(number, data, new_stat(zxid, context.wall_ms, 0, len(data) - 4), acl_number)
        tree.insert(path, node)
    parent_path = parent_path or ROOT
    tree.add_child(parent_path, parent, path, zxid)
    context.events += (
        (opcodes.NODE_CREATED, path, acl_number),
        (opcodes.NODE_CHILDREN_CHANGED, parent_path, parent.acl),
    )
    return path, node


def _decode_create(body: bytes) -> tuple[bytes, bytes, bytes | None, int, int]:
    """(path, data field, ACL vector as bytes or None for the open one, flags, end of the record).

    A null path is a DecodeError (spec 2.2).
    """
    path_size: int = _unpack_int(body, 0)[0]
    at = 4 + path_size
    if path_size < 0:
        raise DecodeError("null path")
    data_size: int = _unpack_int(body, at)[0]
    if data_size < -1:
        raise DecodeError("negative length")
    end = at + 4 + data_size if data_size > 0 else at + 4
    acl_end = end + _OPEN_ACL_SIZE
    acl: bytes | None = None
    if body[end:acl_end] != _OPEN_ACL_BYTES:
        reader = Reader(body, end)
        read_acl(reader)
        acl_end = reader.offset
        acl = body[end:acl_end]
    flags: int = _unpack_int(body, acl_end)[0]
    return body[4:at], body[at:end], acl, flags, acl_end + 4


# delete


def _delete(tree: DataTree, context: Context, body: bytes) -> bytes:
    """Spec 6.4."""
    reader = Reader(body)
    path = reader.read_string()
    version = reader.read_int()
    if path is None:
        raise DecodeError("null path")
    _check_session(tree, context)
    if b"/" not in path or b"\0" in path or path in SPECIAL:
        raise _RefusedError(opcodes.BAD_ARGUMENTS)
    parent_path = split_path(path)[0]
    parent = tree.nodes.get(parent_path)
    if parent is None:
        raise _RefusedError(opcodes.NO_NODE)
    _check_acl(tree, context, parent, opcodes.PERM_DELETE)
    node = tree.nodes.get(path)
    if node is None:
        raise _RefusedError(opcodes.NO_NODE)
    if version != -1 and version != node.version:
        raise _RefusedError(opcodes.BAD_VERSION)
    if node.children:
        raise _RefusedError(opcodes.NOT_EMPTY)
    _remove_node(tree, context, path, node, parent_path, parent)
    return b""


def _remove_node(
    tree: DataTree, context: Context, path: bytes, node: Node, parent_path: bytes, parent: Node
) -> None:
    tree.remove(path, node)
    tree.drop_child(parent_path, parent, path, context.zxid)
    context.events += (
        (opcodes.NODE_DELETED, path, node.acl),
        (opcodes.NODE_CHILDREN_CHANGED, parent_path, parent.acl),
    )


# setACL, check


def _set_acl(tree: DataTree, context: Context, body: bytes) -> bytes:
    """Spec 6.8."""
    reader = Reader(body)
    path = reader.read_string() or b""
    entries = read_acl(reader)
    version = reader.read_int()
    _check_session(tree, context)
    if not is_valid_path(path):
        raise _RefusedError(opcodes.BAD_ARGUMENTS)
    acl = process_acl(entries, context.identities, context.policy)
    if acl is None:
        raise _RefusedError(opcodes.INVALID_ACL)
    node = tree.nodes.get(path)
    if node is None:
        raise _RefusedError(opcodes.NO_NODE)
    _check_acl(tree, context, node, opcodes.PERM_ADMIN)
    if version != -1 and version != node.aversion:
        raise _RefusedError(opcodes.BAD_VERSION)
    tree.touch(path, node)
    number = tree.number_of_acl(acl)
    tree.release_acl(node.acl)
    node.set_acl(number)
    return node.stat


def _check(tree: DataTree, context: Context, body: bytes) -> bytes:
    """Spec 6.11; only inside a multi."""
    reader = Reader(body)
    path = reader.read_string()
    version = reader.read_int()
    if path is None:
        raise DecodeError("null path")
    _check_session(tree, context)
    if not is_valid_path(path):
        raise _RefusedError(opcodes.BAD_ARGUMENTS)
    node = tree.nodes.get(path)
    if node is None:
        raise _RefusedError(opcodes.NO_NODE)
    _check_acl(tree, context, node, opcodes.PERM_READ)
    if version != -1 and version != node.version:
        raise _RefusedError(opcodes.BAD_VERSION)
    return b""


# multi


def _multi(tree: DataTree, context: Context, body: bytes) -> bytes:
    """Spec 10: all or nothing. The operations run on the tree itself; a failure takes them back."""
    operations = _decode_multi(body)
    parts: list[bytes] = []
    events = context.events
    kept = len(events)
    tree.begin()
    for position, (op, item) in enumerate(operations):
        try:
            result = _MULTI_OPERATIONS[op](tree, context, item)
        except (_RefusedError, DecodeError, struct.error) as failure:
            tree.rollback()
            del events[kept:]
            if not isinstance(failure, _RefusedError):
                raise
            return _failed_multi(len(operations), position, failure.code)
        parts.append(_MULTI_HEADER.pack(_RESULT_TYPES.get(op, op), False, 0))
        parts.append(result)
    tree.commit()
    parts.append(MULTI_END)
    return b"".join(parts)


def _decode_multi(body: bytes) -> list[tuple[int, bytes]]:
    """The operations with their records as bytes.

    Raises:
        DecodeError: an operation that a multi may not hold, or a record that ends early.
    """
    reader = Reader(body)
    operations: list[tuple[int, bytes]] = []
    while True:
        op = reader.read_int()
        done = reader.read_bool()
        reader.read_int()
        if done:
            return operations
        start = reader.offset
        skip = _MULTI_SKIPS.get(op)
        if skip is None:
            raise DecodeError(f"operation {op} cannot be part of a multi")
        flags = skip(reader)
        if flags == opcodes.FLAG_CONTAINER:
            op = opcodes.CREATE_CONTAINER  # any create with this flag makes a container here (spec 10.2)
        operations.append((op, body[start : reader.offset]))


def _skip_create(reader: Reader) -> int:
    """Moves past a CreateRequest; returns its flags."""
    if reader.read_string() is None:
        raise DecodeError("null path")
    reader.read_buffer()
    read_acl(reader)
    flags = reader.read_int()
    if not 0 <= flags <= opcodes.FLAG_CONTAINER:
        raise DecodeError(f"unknown create flag {flags}")
    return flags


def _skip_path_version(reader: Reader) -> int:
    if reader.read_string() is None:
        raise DecodeError("null path")
    reader.read_int()
    return 0


def _skip_set_data(reader: Reader) -> int:
    if reader.read_string() is None:
        raise DecodeError("null path")
    reader.read_buffer()
    reader.read_int()
    return 0


def _failed_multi(count: int, failed: int, code: int) -> bytes:
    """Every operation gets an error: 0 before the failed one, RuntimeInconsistency behind it (spec 10.3)."""
    parts: list[bytes] = []
    for position in range(count):
        err = 0 if position < failed else code if position == failed else opcodes.RUNTIME_INCONSISTENCY
        parts.append(_MULTI_HEADER.pack(-1, False, err) + _INT.pack(err))
    parts.append(MULTI_END)
    return b"".join(parts)


# sessions


def _create_session(tree: DataTree, context: Context, body: bytes) -> bytes:
    """The body is our own: timeout in ms and the 16 random bytes of the password."""
    timeout_ms, password = _SESSION_BODY.unpack(body)
    tree.add_session(context.session_id, Session(timeout_ms, password))
    return b""


def _close_session(tree: DataTree, context: Context, body: bytes) -> bytes:
    """Spec 4.6: the session and, in order of their creation, its ephemerals."""
    owned: Sequence[bytes] = [path for _, path in sorted(tree.ephemerals.get(context.session_id, {}).items())]
    for path in owned:
        parent_path = split_path(path)[0]
        _remove_node(tree, context, path, tree.nodes[path], parent_path, tree.nodes[parent_path])
    tree.remove_session(context.session_id)
    return b""


def encode_create_session(timeout_ms: int, password: bytes) -> bytes:
    """The body of a createSession request."""
    return _SESSION_BODY.pack(timeout_ms, password)


def encode_sync_path(path: bytes | None) -> bytes:
    """The reply to a sync echoes its path."""
    return encode_buffer(path)


_OPERATIONS: dict[int, Callable[[DataTree, Context, bytes], bytes]] = {
    opcodes.CREATE: _create,
    opcodes.CREATE2: _create2,
    opcodes.CREATE_CONTAINER: _create_container,
    opcodes.CREATE_TTL: _create_ttl,
    opcodes.DELETE: _delete,
    opcodes.SET_DATA: _set_data,
    opcodes.SET_ACL: _set_acl,
    opcodes.MULTI: _multi,
    opcodes.CREATE_SESSION: _create_session,
    opcodes.CLOSE_SESSION: _close_session,
}

_MULTI_OPERATIONS: dict[int, Callable[[DataTree, Context, bytes], bytes]] = {
    opcodes.CREATE: _create,
    opcodes.CREATE2: _create2,
    opcodes.CREATE_CONTAINER: _create_container,
    opcodes.DELETE: _delete,
    opcodes.SET_DATA: _set_data,
    opcodes.CHECK: _check,
}

_MULTI_SKIPS: dict[int, Callable[[Reader], int]] = {
    opcodes.CREATE: _skip_create,
    opcodes.CREATE2: _skip_create,
    opcodes.CREATE_CONTAINER: _skip_create,
    opcodes.DELETE: _skip_path_version,
    opcodes.SET_DATA: _skip_set_data,
    opcodes.CHECK: _skip_path_version,
}

#: Creates that answer with a Stat have one result type (spec 10.2).
_RESULT_TYPES = {opcodes.CREATE_CONTAINER: opcodes.CREATE2}
