"""What the quotas' statistics nodes say. They are local to each server of ZooKeeper's, changed without a
transaction, and counted anew when it starts (`DataTree.setupQuota`): so they are here.
"""

from typing import Final

from coord.apache.database import Database

_QUOTA: Final = b"/zookeeper/quota"
_LIMITS: Final = b"/zookeeper_limits"
_STATS: Final = b"/zookeeper_stats"


def count_quotas(database: Database) -> None:
    """Sets the data of each statistics node that stands beside limits."""
    for path in list(database.nodes):
        if path.startswith(_QUOTA) and path.endswith(_LIMITS):
            quota = path.removesuffix(_LIMITS)
            stats = database.nodes.get(quota + _STATS)
            if stats is not None:
                stats.data = b"count=%d,bytes=%d" % _count(database, quota.removeprefix(_QUOTA))


def _count(database: Database, path: bytes) -> tuple[int, int]:
    """Nodes and bytes of data from a path down."""
    count = size = 0
    waiting = [path]
    while waiting:
        node = database.nodes.get(waiting.pop())
        if node is not None:
            count += 1
            size += len(node.data or b"")
            waiting += node.children or ()
    return count, size
