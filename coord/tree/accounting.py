"""What quotas do to writes (spec 12): refuse them beyond a hard limit, and keep account of what there is.

Only the nearest quota at or above a path counts. The usage stands in the stats node and is rewritten there as
part of the write that changes it: nothing of its Stat changes but dataLength, and nobody is told. A tree
without quotas pays one test per write.
"""

import struct

from coord.protocol import opcodes
from coord.protocol.jute import encode_buffer
from coord.tree.context import Context, QuotaExcess, RefusedError
from coord.tree.node import Node
from coord.tree.path import QUOTA
from coord.tree.policy import POLICY_ENFORCE_QUOTA
from coord.tree.quota import LIMITS_NAME, STATS_NAME, Quota, Usage, limited_path
from coord.tree.tree import DataTree

_INT = struct.Struct(">i")
_QUOTA_PREFIX = QUOTA + b"/"


def find_quota(tree: DataTree, path: bytes) -> Quota | None:
    """The nearest quota at or above `path`."""
    quotas = tree.quotas
    while path:
        quota = quotas.get(path)
        if quota is not None:
            return quota
        path = path[: path.rindex(b"/")]
    return None


def check_quota(tree: DataTree, context: Context, path: bytes, count: int, size: int) -> None:
    """Before a create (`count` 1) or setData (0) that adds `size` bytes of data: refuses what is beyond a
    hard limit where quotas are enforced, and notes every excess.

    Within a multi the usage is that before the multi (spec 10.4).
    """
    quota = find_quota(tree, path)
    if quota is None:
        return
    enforced = context.policy & POLICY_ENFORCE_QUOTA
    limits = quota.limits(tree.nodes[quota.limits_path].data)
    stats = tree.nodes.get(quota.stats_path)
    if limits is None:
        if enforced:
            raise RefusedError(opcodes.MARSHALLING_ERROR)
        return
    watched_count = count and (limits.count >= 0 or limits.count_hard >= 0)
    watched_size = size and (limits.size >= 0 or limits.size_hard >= 0)
    if stats is None or not (watched_count or watched_size):
        return
    usage = quota.usage(stats.data)
    if tree.undo is not None and quota.path in tree.usage_before:
        usage = tree.usage_before[quota.path]
        if usage is None:
            return
    if usage is None:
        if enforced:
            raise RefusedError(opcodes.MARSHALLING_ERROR)
        return
    if watched_count:
        _compare(context, quota, "count", usage.count + count, limits.count, limits.count_hard)
    if watched_size:
        _compare(context, quota, "bytes", usage.size + size, limits.size, limits.size_hard)


def _compare(context: Context, quota: Quota, what: str, value: int, soft: int, hard: int) -> None:
    limit = hard if hard >= 0 else soft
    if value <= limit:
        return
    refused = hard >= 0 and bool(context.policy & POLICY_ENFORCE_QUOTA)
    before = context.excesses.get(quota.path)
    times = 1 if before is None else before.times + 1
    context.excesses[quota.path] = QuotaExcess(what, value, limit, refused, times)
    if refused:
        raise RefusedError(opcodes.QUOTA_EXCEEDED)


def charge(tree: DataTree, path: bytes, count: int, size: int) -> None:
    """After nodes or bytes of data have come or gone at `path`: rewrites the usage of its quota."""
    quota = find_quota(tree, path)
    stats = None if quota is None else tree.nodes.get(quota.stats_path)
    if quota is None or stats is None:
        return
    usage = quota.usage(stats.data)
    if usage is None:
        return  # a client has written something else there; it stays
    if tree.undo is not None:
        tree.usage_before.setdefault(quota.path, usage)
    if count or size:
        usage = usage.changed(count, size)
        _write(tree, quota.stats_path, stats, usage)
        quota.note_usage(stats.data, usage)


def note_created(tree: DataTree, path: bytes, node: Node, parent: bytes, name: bytes) -> None:
    """After a node was created below /zookeeper/quota: its limits put a quota in force, its stats are
    computed.
    """
    limited = limited_path(parent)
    if limited is None:
        return
    if name == LIMITS_NAME:
        tree.add_quota(limited)
        if tree.undo is not None:
            tree.usage_before.setdefault(limited, None)
    elif name == STATS_NAME:
        if tree.undo is not None:
            tree.usage_before.setdefault(limited, None)
        _write(tree, path, node, measure(tree, limited))


def note_removed(tree: DataTree, parent: bytes, name: bytes) -> None:
    """After a node was deleted: without its limits a quota is in force no longer."""
    if name == LIMITS_NAME:
        limited = limited_path(parent)
        if limited is not None:
            tree.drop_quota(limited)


def measure(tree: DataTree, path: bytes) -> Usage:
    """The nodes and bytes of data there are at and below `path`."""
    root = tree.nodes.get(path)
    if root is None:
        return Usage(0, 0)
    count = size = 0
    waiting = [root]
    while waiting:
        node = waiting.pop()
        count += 1
        size += len(node.data) - 4
        if node.children:
            waiting += map(tree.nodes.__getitem__, node.children)
    return Usage(count, size)


def _write(tree: DataTree, path: bytes, node: Node, usage: Usage) -> None:
    """Rewrites a stats node in place."""
    tree.touch(path, node)
    text = usage.text()
    tree.data_bytes += len(text) + 4 - len(node.data)
    node.data = encode_buffer(text)
    node.stat = node.stat[:52] + _INT.pack(len(text)) + node.stat[56:]
