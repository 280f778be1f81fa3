"""The znode tree: a value that executes replicated requests, the same on every replica.

path      which paths are legal            node      one znode, as the bytes clients get
tree      nodes, sessions, ACLs, digest, and what a checkpoint has to write
acl       who may do what                  execute   requests that change the tree
create    ... by new nodes                 multi     ... several at once
reaping   containers and TTL nodes         plain_writes   what most requests are, in one loop
read      requests that change nothing     watches   who is told what
watch_requests   who asks for it
"""

from coord.tree.context import Context
from coord.tree.execute import execute
from coord.tree.freeze import Freeze
from coord.tree.node import Node
from coord.tree.read import WATCH_CHILD, WATCH_DATA, read
from coord.tree.tree import DataTree, Session
from coord.tree.watch_requests import WATCH_OPS, answer_watch_request, set_watches
from coord.tree.watches import WatchTable, encode_event

__all__ = [
    "WATCH_CHILD",
    "WATCH_DATA",
    "WATCH_OPS",
    "Context",
    "DataTree",
    "Freeze",
    "Node",
    "Session",
    "WatchTable",
    "answer_watch_request",
    "encode_event",
    "execute",
    "read",
    "set_watches",
]
