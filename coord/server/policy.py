"""What a server's configuration says about executing requests, as the leader stamps it on every batch."""

from coord.server.config.nodes import NodesConfig
from coord.server.reaper import ReaperSettings
from coord.tree.policy import POLICY_EXTENDED_TYPES


def policy_of(nodes: NodesConfig) -> int:
    """The bits of the policy word that are about nodes (`coord.tree.policy`)."""
    return POLICY_EXTENDED_TYPES if nodes.extended_types else 0


def reaper_settings(nodes: NodesConfig) -> ReaperSettings:
    return ReaperSettings(
        nodes.container_check_ms, nodes.container_deletions_per_minute, nodes.container_never_used_ms
    )
