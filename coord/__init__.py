"""zoolog's coordination core: a Zab ensemble and a znode tree that speak ZooKeeper's client protocol.

    async with coord.connect("host1:2181,host2:2181/chroot") as zk:
        path = await zk.create("/jobs/job-", b"...", sequential=True, ephemeral=True)
        data, stat = await zk.get(path)
        async with zk.watch("/jobs", children=True) as events:
            async for event in events: ...

This is the public face; other packages import only it and the foundations (`coord.clock`, `coord.rpc`, ...).
"""

from coord.client.acl import (
    CREATOR_ACL,
    READ_ACL,
    acl,
    digest_acl,
    digest_id,
    format_acl,
    format_perms,
    parse_acl,
    parse_perms,
)
from coord.client.client import Client
from coord.client.connect import connect
from coord.client.election import Leadership, ensure_path, lead
from coord.client.hosts import Hosts, HostsError, format_address, parse_address, parse_hosts
from coord.client.persistent import NodeEvent, PersistentWatch
from coord.client.replies import ClientStatistics, Config
from coord.client.states import State, States
from coord.client.transaction import (
    Check,
    Create,
    Created,
    Delete,
    GetChildren,
    GetData,
    Operation,
    OperationResult,
    Pending,
    Read,
    ReadResult,
    SetData,
    Transaction,
)
from coord.client.trees import delete_tree, walk
from coord.client.watch import EventKind, Watch, WatchEvent
from coord.client.watches import WatcherKind
from coord.errors import (
    AuthFailedError,
    AuthRequiredError,
    BadArgumentsError,
    BadVersionError,
    ConnectionLossError,
    CoordError,
    EphemeralOnLocalSessionError,
    InvalidAclError,
    MarshallingError,
    NewConfigNoQuorumError,
    NoAuthError,
    NoChildrenForEphemeralsError,
    NodeExistsError,
    NoNodeError,
    NotConnectedError,
    NotEmptyError,
    NotReadOnlyError,
    NotTriedError,
    NoWatcherError,
    ProtocolError,
    QuotaExceededError,
    ReconfigDisabledError,
    ReconfigInProgressError,
    RolledBackError,
    SessionExpiredError,
    ThrottledOpError,
    UnimplementedError,
)
from coord.protocol.records import OPEN_ACL, Acl, Identity, Stat
from coord.server.config import write_ensemble_secret

__all__ = [
    "CREATOR_ACL",
    "OPEN_ACL",
    "READ_ACL",
    "Acl",
    "AuthFailedError",
    "AuthRequiredError",
    "BadArgumentsError",
    "BadVersionError",
    "Check",
    "Client",
    "ClientStatistics",
    "Config",
    "ConnectionLossError",
    "CoordError",
    "Create",
    "Created",
    "Delete",
    "EphemeralOnLocalSessionError",
    "EventKind",
    "GetChildren",
    "GetData",
    "Hosts",
    "HostsError",
    "Identity",
    "InvalidAclError",
    "Leadership",
    "MarshallingError",
    "NewConfigNoQuorumError",
    "NoAuthError",
    "NoChildrenForEphemeralsError",
    "NoNodeError",
    "NoWatcherError",
    "NodeEvent",
    "NodeExistsError",
    "NotConnectedError",
    "NotEmptyError",
    "NotReadOnlyError",
    "NotTriedError",
    "Operation",
    "OperationResult",
    "Pending",
    "PersistentWatch",
    "ProtocolError",
    "QuotaExceededError",
    "Read",
    "ReadResult",
    "ReconfigDisabledError",
    "ReconfigInProgressError",
    "RolledBackError",
    "SessionExpiredError",
    "SetData",
    "Stat",
    "State",
    "States",
    "ThrottledOpError",
    "Transaction",
    "UnimplementedError",
    "Watch",
    "WatchEvent",
    "WatcherKind",
    "acl",
    "connect",
    "delete_tree",
    "digest_acl",
    "digest_id",
    "ensure_path",
    "format_acl",
    "format_address",
    "format_perms",
    "lead",
    "parse_acl",
    "parse_address",
    "parse_hosts",
    "parse_perms",
    "walk",
    "write_ensemble_secret",
]
