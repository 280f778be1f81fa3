"""What quotas do to writes (spec 12): refuse them beyond a hard limit, and keep account of what there is.

Only the nearest quota at or above a path counts. The usage stands in the stats node and is rewritten there as
part of the write that changes it: nothing of its Stat changes but dataLength, and nobody is told. A tree
without quotas pays one test per write.
"""

import struct

from coord.protocol import opcodes
from coord.protocol.jute import DecodeError, encode_buffer
from coord.tree.context import Context, QuotaExcess, RefusedError
from coord.tree.node import Node
from coord.tree.policy import POLICY_ENFORCE_QUOTA
from coord.tree.quota import LIMITS_NAME, STATS_NAME, Quota, Usage, limited_path
from coord.tree.tree import DataTree

_INT = struct.Struct(">i")


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

    Raises:
        DecodeError: the limits or the usage cannot be read; a multi is then refused whole (as by 3.9.5).
        RefusedError: beyond a hard limit.
    """
    found = _find_texts(tree, path)
    if found is None:
        return
    quota, limits_data, stats_data = found
    enforced = context.policy & POLICY_ENFORCE_QUOTA
    limits = quota.limits(limits_data)
    if limits is None:
        if enforced:
            raise DecodeError("limits of the quota cannot be read")
        return
    watched_count = count and (limits.count >= 0 or limits.count_hard >= 0)
    watched_size = size and (limits.size >= 0 or limits.size_hard >= 0)
    if stats_data is None or not (watched_count or watched_size):
        return
    usage = quota.usage(stats_data)
    if usage is None:
        if enforced:
            raise DecodeError("usage of the quota cannot be read")
        return
    if watched_count:
        _compare(context, quota, "count", usage.count + count, limits.count, limits.count_hard)
    if watched_size:
        _compare(context, quota, "bytes", usage.size + size, limits.size, limits.size_hard)


def _find_texts(tree: DataTree, path: bytes) -> tuple[Quota, bytes, bytes | None] | None:
    """The nearest quota with the data of its two nodes; within a multi as it was before (spec 10.4)."""
    if not tree.quotas_before:
        quota = find_quota(tree, path)
        return None if quota is None else (quota, *_texts_of(tree, quota))
    while path:
        if path in tree.quotas_before:
            before = tree.quotas_before[path]
            if before is not None:
                return Quota(path), *before
        elif path in tree.quotas:
            quota = tree.quotas[path]
            return quota, *_texts_of(tree, quota)
        path = path[: path.rindex(b"/")]
    return None


def _texts_of(tree: DataTree, quota: Quota) -> tuple[bytes, bytes | None]:
    stats = tree.nodes.get(quota.stats_path)
    return tree.nodes[quota.limits_path].data, None if stats is None else stats.data


def _remember(tree: DataTree, path: bytes) -> None:
    """Within a multi, before anything about the quota on `path` changes."""
    if tree.undo is not None and path not in tree.quotas_before:
        quota = tree.quotas.get(path)
        tree.quotas_before[path] = None if quota is None else _texts_of(tree, quota)


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
    if quota is None or stats is None or not (count or size):
        return
    usage = quota.usage(stats.data)
    if usage is None:
        return  # a client has written something else there; it stays
    _remember(tree, quota.path)
    usage = usage.changed(count, size)
    _write(tree, quota.stats_path, stats, usage)
    quota.note_usage(stats.data, usage)


def note_change(tree: DataTree, path: bytes) -> None:
    """Before a node below /zookeeper/quota comes, changes or goes."""
    parent, _, name = path.rpartition(b"/")
    limited = limited_path(parent)
    if limited is not None and name in (LIMITS_NAME, STATS_NAME):
        _remember(tree, limited)


def note_created(tree: DataTree, path: bytes, node: Node, parent: bytes, name: bytes) -> None:
    """After a node was created below /zookeeper/quota: its limits put a quota in force, its stats are
    computed.
    """
    limited = limited_path(parent)
    if limited is None:
        return
    if name == LIMITS_NAME:
        tree.add_quota(limited)
    elif name == STATS_NAME:
        _write(tree, path, node, measure(tree, limited))


def note_removed(tree: DataTree, path: bytes) -> None:
    """After a node was deleted below /zookeeper/quota: without its limits a quota is in force no longer."""
    parent, _, name = path.rpartition(b"/")
    limited = limited_path(parent)
    if limited is not None and name == LIMITS_NAME:
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
