"""Recipes: what ZooKeeper's recipes page describes, built on the client alone."""

from coord.client.recipes.barriers import Barrier, double_barrier
from coord.client.recipes.cache import Cache, CachedNode, cache_children, cache_tree
from coord.client.recipes.commitment import Decision, abort, coordinate, vote, wait_decision
from coord.client.recipes.contention import Held, ensure_path
from coord.client.recipes.counter import Counter
from coord.client.recipes.election import Leadership, lead
from coord.client.recipes.group import get_members, join_group, watch_members
from coord.client.recipes.locks import RevocableHeld, lock, read_lock, revocable_lock, revoke, write_lock
from coord.client.recipes.queue import Queue
from coord.client.recipes.semaphore import semaphore

__all__ = [
    "Barrier",
    "Cache",
    "CachedNode",
    "Counter",
    "Decision",
    "Held",
    "Leadership",
    "Queue",
    "RevocableHeld",
    "abort",
    "cache_children",
    "cache_tree",
    "coordinate",
    "double_barrier",
    "ensure_path",
    "get_members",
    "join_group",
    "lead",
    "lock",
    "read_lock",
    "revocable_lock",
    "revoke",
    "semaphore",
    "vote",
    "wait_decision",
    "watch_members",
    "write_lock",
]
