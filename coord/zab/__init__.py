"""Zab: how the coordination servers agree on one order of batches. A pure core: no clock, chance, disk or
network.

Start at `coord.zab.ready` for how a server drives a `Peer`, at `coord.zab.peer` for the theory.
"""

from coord.zab.detection import Detection
from coord.zab.digests import Mismatch
from coord.zab.errors import FeatureLevelError, HistoryConflictError, NotLeadingError
from coord.zab.membership import Membership
from coord.zab.messages import (
    WIRE_MESSAGES,
    Message,
    Proposal,
    Role,
    Sid,
    WireMessage,
    counter_of,
    epoch_of,
    from_wire,
    make_zxid,
    to_wire,
)
from coord.zab.peer import Peer
from coord.zab.quorum import Hierarchical, Joint, Majority, Quorum
from coord.zab.ready import Config, Epochs, Ready, Recovered, SnapshotOrder, Status

__all__ = [
    "WIRE_MESSAGES",
    "Config",
    "Detection",
    "Epochs",
    "FeatureLevelError",
    "Hierarchical",
    "HistoryConflictError",
    "Joint",
    "Majority",
    "Membership",
    "Message",
    "Mismatch",
    "NotLeadingError",
    "Peer",
    "Proposal",
    "Quorum",
    "Ready",
    "Recovered",
    "Role",
    "Sid",
    "SnapshotOrder",
    "Status",
    "WireMessage",
    "counter_of",
    "epoch_of",
    "from_wire",
    "make_zxid",
    "to_wire",
]
