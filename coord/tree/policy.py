"""The policy word of a stamp, as far as the tree reads it: settings that can change an outcome, logged with
each batch, so that replay decides as the leader did. ACLs have bits of their own (`coord.tree.acl`).
"""

from typing import Final

#: TTL nodes may be created (`extendedTypesEnabled`).
POLICY_EXTENDED_TYPES: Final = 1 << 8
#: Hard quotas refuse writes (`enforceQuota`).
POLICY_ENFORCE_QUOTA: Final = 1 << 9
#: Clients may reconfigure the ensemble (`reconfigEnabled`).
POLICY_RECONFIG_ENABLED: Final = 1 << 10
