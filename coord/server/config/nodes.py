"""Keys of which nodes there may be, how many, and when they go by themselves."""

from dataclasses import dataclass
from typing import Final

from coord.server.config.keys import boolean, count, key, positive

SERVER_ID_MAX_WITH_TTL: Final = 254
"""The id 255 on top of a session id would mark a TTL node's owner in ZooKeeper's own files."""


@dataclass(frozen=True, slots=True)
class NodesConfig:
    """Quotas, and nodes that go by themselves.

    Only the leader's settings count: they travel with what it proposes.
    """

    extended_types: bool = key(
        "extendedTypesEnabled",
        boolean,
        False,
        "nodes with a time to live may be created; server ids then end at 254",
    )
    container_check_ms: int = key(
        "znode.container.checkIntervalMs",
        positive,
        60_000,
        "milliseconds between two searches for containers and TTL nodes that have had their time",
    )
    container_deletions_per_minute: int = key(
        "znode.container.maxPerMinute", positive, 10_000, "such nodes deleted in a minute, spread evenly"
    )
    container_never_used_ms: int = key(
        "znode.container.maxNeverUsedIntervalMs",
        count,
        0,
        "milliseconds after which a container goes that never had a child; 0 is never",
    )
    enforce_quota: bool = key(
        "enforceQuota",
        boolean,
        False,
        "hard quotas refuse writes; otherwise they only make warnings, as soft ones always do",
    )
