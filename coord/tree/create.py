"""Creating nodes of every kind: spec 6.3, the checks in its order, and what a create changes (spec 8)."""

import struct

from coord.protocol import opcodes
from coord.protocol.jute import DecodeError, Reader
from coord.tree.accounting import charge, check_quota, note_change, note_created
from coord.tree.acl import process_acl, read_acl
from coord.tree.context import Context, RefusedError, check_acl
from coord.tree.node import CONTAINER_OWNER, TTL_MS_MAX, Node, OwnedNode, new_stat, ttl_owner
from coord.tree.path import QUOTA, ROOT, is_valid_name
from coord.tree.policy import POLICY_EXTENDED_TYPES
from coord.tree.tree import OPEN_ACL_ID, DataTree

_INT = struct.Struct(">i")
_unpack_int = _INT.unpack_from

#: The usual ACL of a create, as bytes: one entry, all permissions, world:anyone.
OPEN_ACL_BYTES = struct.pack(">iii5si6s", 1, 31, 5, b"world", 6, b"anyone")
OPEN_ACL_SIZE = len(OPEN_ACL_BYTES)
_EPHEMERAL_FLAGS = frozenset({1, 3})
_SEQUENTIAL_FLAGS = frozenset({2, 3, 6})
_OWNED_OPS = frozenset({opcodes.CREATE_CONTAINER, opcodes.CREATE_TTL})
_TTL_FLAGS = frozenset({opcodes.FLAG_TTL, opcodes.FLAG_TTL_SEQUENTIAL})


def create(tree: DataTree, context: Context, body: bytes) -> bytes:
    path, _ = _create_node(tree, context, body, opcodes.CREATE)
    return _INT.pack(len(path)) + path


def create2(tree: DataTree, context: Context, body: bytes) -> bytes:
    path, stat = _create_node(tree, context, body, opcodes.CREATE2)
    return b"".join((_INT.pack(len(path)), path, stat))


def create_container(tree: DataTree, context: Context, body: bytes) -> bytes:
    path, stat = _create_node(tree, context, body, opcodes.CREATE_CONTAINER)
    return b"".join((_INT.pack(len(path)), path, stat))


def create_ttl(tree: DataTree, context: Context, body: bytes) -> bytes:
    path, stat = _create_node(tree, context, body, opcodes.CREATE_TTL)
    return b"".join((_INT.pack(len(path)), path, stat))


def _create_node(tree: DataTree, context: Context, body: bytes, op: int) -> tuple[bytes, bytes]:
    """Spec 6.3, checks in its order; returns the path with its number and the Stat."""
    path, data, acl_bytes, flags, end = _decode_create(body)
    ttl_ms = 0
    if op == opcodes.CREATE_TTL or (flags and not 0 < flags < opcodes.FLAG_TTL):
        ttl_ms = Reader(body, end).read_long() if op == opcodes.CREATE_TTL else -1
        _check_ttl(context, flags, ttl_ms)
    if context.session_id not in tree.sessions:
        if not context.is_local:
            raise RefusedError(opcodes.SESSION_EXPIRED)
        if flags in _EPHEMERAL_FLAGS:
            raise RefusedError(opcodes.EPHEMERAL_ON_LOCAL_SESSION)
    if path is None:
        raise DecodeError("null path")
    if b"/" not in path or b"\0" in path:
        raise RefusedError(opcodes.BAD_ARGUMENTS)
    acl = None
    if acl_bytes is not None:
        acl = process_acl(read_acl(Reader(acl_bytes)), context.identities, context.policy)
        if acl is None:
            raise RefusedError(opcodes.INVALID_ACL)
    parent_path, _, name = path.rpartition(b"/")
    parent = tree.nodes.get(parent_path or ROOT)
    if parent is None:
        raise RefusedError(opcodes.NO_NODE)
    if parent.acl != OPEN_ACL_ID:
        check_acl(tree, context, parent, opcodes.PERM_CREATE)
    if flags in _SEQUENTIAL_FLAGS:
        suffix = b"%010d" % parent.created
        path, name = path + suffix, name + suffix
    if path in tree.nodes:
        raise RefusedError(opcodes.NODE_EXISTS)
    # The parent exists and so is legal, but for one: "/" under its other name, as in "//a".
    if parent_path == ROOT or not is_valid_name(name):
        raise RefusedError(opcodes.BAD_ARGUMENTS)
    if parent.ephemeral_owner:
        raise RefusedError(opcodes.NO_CHILDREN_FOR_EPHEMERALS)

    size = len(data) - 4
    if tree.quotas or tree.quotas_before:
        check_quota(tree, context, path, 1, size)

    in_quota = parent_path.startswith(QUOTA)
    if in_quota:
        note_change(tree, path)

    zxid = context.zxid
    acl_number = OPEN_ACL_ID if acl is None else tree.number_of_acl(acl)
    number = tree.take_number()
    if op in _OWNED_OPS:
        kind = CONTAINER_OWNER if op == opcodes.CREATE_CONTAINER else ttl_owner(ttl_ms)
        stat = new_stat(zxid, context.wall_ms, 0, size)
        node: Node = OwnedNode(number, data, stat, acl_number, kind=kind)
        tree.insert_reapable(path, node)
    elif flags in _EPHEMERAL_FLAGS:
        owner = context.session_id
        stat = new_stat(zxid, context.wall_ms, owner, size)
        node = Node(number, data, stat, acl_number)
        tree.insert_ephemeral(path, node, owner)
    else:
        stat = new_stat(zxid, context.wall_ms, 0, size)
        node = Node(number, data, stat, acl_number)
        tree.insert(path, node)
    parent_path = parent_path or ROOT
    tree.add_child(parent_path, parent, path, zxid)
    context.events += (
        (opcodes.NODE_CREATED, path, acl_number),
        (opcodes.NODE_CHILDREN_CHANGED, parent_path, parent.acl),
    )
    if in_quota:
        note_created(tree, path, node, parent_path, name)
    if tree.quotas:
        charge(tree, path, 1, size)
    return path, stat


def _check_ttl(context: Context, flags: int, ttl_ms: int) -> None:
    """The first three checks of spec 6.3, for what is no create of a plain mode.

    createTTL with another mode has no meaning: ttl -1 passes Apache's checks and ends its process.
    """
    if flags not in _TTL_FLAGS:
        raise RefusedError(opcodes.BAD_ARGUMENTS)
    if not context.policy & POLICY_EXTENDED_TYPES:
        raise RefusedError(opcodes.UNIMPLEMENTED)
    if not 0 < ttl_ms <= TTL_MS_MAX:
        raise RefusedError(opcodes.BAD_ARGUMENTS)


def _decode_create(body: bytes) -> tuple[bytes | None, bytes, bytes | None, int, int]:
    """(path, data field, ACL vector as bytes or None for the open one, flags, end of the record).

    A null path is one of None: the flags are judged before it.
    """
    path_size: int = _unpack_int(body, 0)[0]
    at = 4 + path_size
    if path_size < 0:
        if path_size < -1:
            raise DecodeError("negative length")
        at = 4
    data_size: int = _unpack_int(body, at)[0]
    if data_size < -1:
        raise DecodeError("negative length")
    end = at + 4 + data_size if data_size > 0 else at + 4
    acl_end = end + OPEN_ACL_SIZE
    acl: bytes | None = None
    if body[end:acl_end] != OPEN_ACL_BYTES:
        reader = Reader(body, end)
        read_acl(reader)
        acl_end = reader.offset
        acl = body[end:acl_end]
    flags: int = _unpack_int(body, acl_end)[0]
    return body[4:at] if path_size >= 0 else None, body[at:end], acl, flags, acl_end + 4
