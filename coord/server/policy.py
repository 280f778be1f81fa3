"""What a server's configuration says about executing requests, as the leader stamps it on every batch."""

from coord.server.config import ServerConfig
from coord.server.config.nodes import NodesConfig
from coord.server.reaper import ReaperSettings
from coord.tree.acl import POLICY_NO_DIGEST, POLICY_SKIP_ACL, POLICY_X509
from coord.tree.policy import POLICY_ENFORCE_QUOTA, POLICY_EXTENDED_TYPES, POLICY_RECONFIG_ENABLED


def policy_word(config: ServerConfig) -> int:
    """Every setting that can change what execution does."""
    reconfig = POLICY_RECONFIG_ENABLED if config.ensemble.reconfig_enabled else 0
    return policy_of(config.nodes) | _acl_policy(config) | reconfig


def policy_of(nodes: NodesConfig) -> int:
    """The bits of the policy word that are about nodes (`coord.tree.policy`)."""
    extended_types = POLICY_EXTENDED_TYPES if nodes.extended_types else 0
    return extended_types | (POLICY_ENFORCE_QUOTA if nodes.enforce_quota else 0)


def _acl_policy(config: ServerConfig) -> int:
    """The bits that are about ACLs (`coord.tree.acl`)."""
    security = config.security
    policy = POLICY_SKIP_ACL if security.skip_acl else 0
    policy |= 0 if security.digest_enabled else POLICY_NO_DIGEST
    has_x509 = config.tls.is_wanted or "x509" in dict(security.providers).values()
    return policy | (POLICY_X509 if has_x509 else 0)


def reaper_settings(nodes: NodesConfig) -> ReaperSettings:
    return ReaperSettings(
        nodes.container_check_ms, nodes.container_deletions_per_minute, nodes.container_never_used_ms
    )
