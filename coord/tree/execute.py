"""Execution of replicated requests: the one place where a tree changes, the same on every replica.

    err, body = execute(tree, context, op, request_body)

reads nothing but its arguments: zxid, time, identities and policy come from the batch's stamp and block. A
request that fails has changed nothing; it has used its zxid all the same. `context.events` receives what
watchers are told, in order. Check orders are those of spec chapter 6; each function below is one list of
checks followed by its effect.
"""

import struct
from collections.abc import Callable, Sequence

from coord.protocol import opcodes
from coord.protocol.jute import DecodeError, Reader
from coord.protocol.records import PASSWORD_BYTES
from coord.tree.accounting import charge, check_quota, note_change, note_removed
from coord.tree.acl import process_acl, read_acl
from coord.tree.context import Context, RefusedError, check_acl, check_session
from coord.tree.create import create, create2, create_container, create_ttl
from coord.tree.membership import change_membership, raise_level
from coord.tree.multi import execute_multi
from coord.tree.node import Node
from coord.tree.path import CONFIG, QUOTA, SPECIAL, is_valid_path, split_path
from coord.tree.policy import POLICY_RECONFIG_ENABLED
from coord.tree.reaping import check_reapable
from coord.tree.tree import OPEN_ACL_ID, TOUCHED_MAX, DataTree, Session

_unpack_int = struct.Struct(">i").unpack_from
_SESSION_BODY = struct.Struct(f">i{PASSWORD_BYTES}s")


def execute(tree: DataTree, context: Context, op: int, body: bytes) -> tuple[int, bytes]:
    """Executes one request as `context.zxid`; returns the error code and the reply's body (empty on
    errors)."""
    tree.last_zxid = context.zxid
    if tree.acls.released:
        tree.acls.released.clear()
    if len(tree.touched) > TOUCHED_MAX:
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
    except RefusedError as refusal:
        return refusal.code, b""
    except (struct.error, DecodeError):
        return opcodes.MARSHALLING_ERROR, b""


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
    return _write_data(tree, context, body[4:at], body[at:end], version)


def _write_data(tree: DataTree, context: Context, path: bytes, data: bytes, version: int) -> bytes:
    """The rest of a setData; `data` is the data field."""
    if context.session_id not in tree.sessions and not context.is_local:
        raise RefusedError(opcodes.SESSION_EXPIRED)
    node = tree.nodes.get(path)
    if node is None:
        raise RefusedError(opcodes.NO_NODE if is_valid_path(path) else opcodes.BAD_ARGUMENTS)
    if node.acl != OPEN_ACL_ID:
        check_acl(tree, context, node, opcodes.PERM_WRITE)
    if path == CONFIG:
        raise RefusedError(opcodes.BAD_ARGUMENTS)  # it changes by reconfiguration only
    quotas = tree.quotas
    if quotas or tree.quotas_before:
        check_quota(tree, context, path, 0, len(data) - len(node.data))
    if version != -1 and version != node.version:
        raise RefusedError(opcodes.BAD_VERSION)
    if path not in tree.touched or tree.undo is not None:
        tree.touch(path, node)
    if quotas and path.startswith(QUOTA):
        note_change(tree, path)
    growth = len(data) - len(node.data)
    tree.data_bytes += growth
    node.set_data(data, len(data) - 4, context.zxid, context.wall_ms)
    context.events.append((opcodes.NODE_DATA_CHANGED, path, node.acl))
    if quotas:
        charge(tree, path, 0, growth)
    return node.stat


# delete


def _delete(tree: DataTree, context: Context, body: bytes) -> bytes:
    """Spec 6.4."""
    reader = Reader(body)
    path = reader.read_string()
    version = reader.read_int()
    if path is None:
        raise DecodeError("null path")
    check_session(tree, context)
    if b"/" not in path or b"\0" in path or path in SPECIAL:
        raise RefusedError(opcodes.BAD_ARGUMENTS)
    parent_path = split_path(path)[0]
    parent = tree.nodes.get(parent_path)
    if parent is None:
        raise RefusedError(opcodes.NO_NODE)
    check_acl(tree, context, parent, opcodes.PERM_DELETE)
    node = tree.nodes.get(path)
    if node is None:
        raise RefusedError(opcodes.NO_NODE)
    if version != -1 and version != node.version:
        raise RefusedError(opcodes.BAD_VERSION)
    if node.children:
        raise RefusedError(opcodes.NOT_EMPTY)
    _remove_node(tree, context, path, node, parent_path, parent)
    return b""


def _delete_container(tree: DataTree, context: Context, body: bytes) -> bytes:
    path, node = check_reapable(tree, context, body)
    parent_path = split_path(path)[0]
    _remove_node(tree, context, path, node, parent_path, tree.nodes[parent_path])
    return b""


def _remove_node(
    tree: DataTree, context: Context, path: bytes, node: Node, parent_path: bytes, parent: Node
) -> None:
    in_quota = bool(tree.quotas) and path.startswith(QUOTA)
    if in_quota:
        note_change(tree, path)
    tree.remove(path, node)
    tree.drop_child(parent_path, parent, path, context.zxid)
    context.events += (
        (opcodes.NODE_DELETED, path, node.acl),
        (opcodes.NODE_CHILDREN_CHANGED, parent_path, parent.acl),
    )
    if in_quota:
        note_removed(tree, path)
    if tree.quotas:
        charge(tree, path, -1, 4 - len(node.data))


# setACL, check


def _set_acl(tree: DataTree, context: Context, body: bytes) -> bytes:
    """Spec 6.8."""
    reader = Reader(body)
    path = reader.read_string() or b""
    entries = read_acl(reader)
    version = reader.read_int()
    check_session(tree, context)
    if not is_valid_path(path):
        raise RefusedError(opcodes.BAD_ARGUMENTS)
    acl = process_acl(entries, context.identities, context.policy)
    if acl is None:
        raise RefusedError(opcodes.INVALID_ACL)
    node = tree.nodes.get(path)
    if node is None:
        raise RefusedError(opcodes.NO_NODE)
    check_acl(tree, context, node, opcodes.PERM_ADMIN)
    if version != -1 and version != node.aversion:
        raise RefusedError(opcodes.BAD_VERSION)
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
    check_session(tree, context)
    if not is_valid_path(path):
        raise RefusedError(opcodes.BAD_ARGUMENTS)
    node = tree.nodes.get(path)
    if node is None:
        raise RefusedError(opcodes.NO_NODE)
    check_acl(tree, context, node, opcodes.PERM_READ)
    if version != -1 and version != node.version:
        raise RefusedError(opcodes.BAD_VERSION)
    return b""


# reconfig


def _reconfig(tree: DataTree, context: Context, body: bytes) -> bytes:
    """Spec 19.4, as a server by itself answers it; a reconfiguration of an ensemble never comes here."""
    reader = Reader(body)
    for _ in range(3):
        reader.read_string()
    reader.read_long()
    if not context.policy & POLICY_RECONFIG_ENABLED:
        raise RefusedError(opcodes.RECONFIG_DISABLED)
    check_session(tree, context)
    raise RefusedError(opcodes.UNIMPLEMENTED)


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


def _multi(tree: DataTree, context: Context, body: bytes) -> bytes:
    return execute_multi(tree, context, body, _MULTI_OPERATIONS, _write_data)


_OPERATIONS: dict[int, Callable[[DataTree, Context, bytes], bytes]] = {
    opcodes.CREATE: create,
    opcodes.CREATE2: create2,
    opcodes.CREATE_CONTAINER: create_container,
    opcodes.CREATE_TTL: create_ttl,
    opcodes.DELETE: _delete,
    opcodes.DELETE_CONTAINER: _delete_container,
    opcodes.SET_DATA: _set_data,
    opcodes.SET_ACL: _set_acl,
    opcodes.MULTI: _multi,
    opcodes.RECONFIG: _reconfig,
    opcodes.CHANGE_MEMBERSHIP: change_membership,
    opcodes.RAISE_LEVEL: raise_level,
    opcodes.CREATE_SESSION: _create_session,
    opcodes.CLOSE_SESSION: _close_session,
}

_MULTI_OPERATIONS: dict[int, Callable[[DataTree, Context, bytes], bytes]] = {
    opcodes.CREATE: create,
    opcodes.CREATE2: create2,
    opcodes.CREATE_CONTAINER: create_container,
    opcodes.CREATE_TTL: create_ttl,
    opcodes.DELETE: _delete,
    opcodes.CHECK: _check,
}
