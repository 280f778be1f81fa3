"""zoolog's coordination core: a Zab ensemble and a znode tree that speak ZooKeeper's client protocol.

    async with coord.connect("host1:2181,host2:2181/chroot") as zk:
        path = await zk.create("/jobs/job-", b"...", sequential=True, ephemeral=True)
        data, stat = await zk.get(path)
        async with zk.watch("/jobs", children=True) as events:
            async for event in events: ...

This is the public face; other packages import only it and the foundations (`coord.clock`, `coord.rpc`, ...).
"""

from coord.client.client import Client, connect
from coord.client.election import Leadership, ensure_path, lead
from coord.client.hosts import Hosts, HostsError, format_address, parse_address, parse_hosts
from coord.client.session import State
from coord.client.transaction import Check, Create, Delete, Operation, SetData
from coord.client.watch import EventKind, Watch, WatchEvent
from coord.errors import (
    AuthFailedError,
    BadArgumentsError,
    BadVersionError,
    ConnectionLossError,
    CoordError,
    InvalidAclError,
    NoAuthError,
    NoChildrenForEphemeralsError,
    NodeExistsError,
    NoNodeError,
    NotConnectedError,
    NotEmptyError,
    ProtocolError,
    RolledBackError,
    SessionExpiredError,
)
from coord.protocol.records import OPEN_ACL, Acl, Stat
from coord.server.config import write_ensemble_secret

__all__ = [
    "OPEN_ACL",
    "Acl",
    "AuthFailedError",
    "BadArgumentsError",
    "BadVersionError",
    "Check",
    "Client",
    "ConnectionLossError",
    "CoordError",
    "Create",
    "Delete",
    "EventKind",
    "Hosts",
    "HostsError",
    "InvalidAclError",
    "Leadership",
    "NoAuthError",
    "NoChildrenForEphemeralsError",
    "NoNodeError",
    "NodeExistsError",
    "NotConnectedError",
    "NotEmptyError",
    "Operation",
    "ProtocolError",
    "RolledBackError",
    "SessionExpiredError",
    "SetData",
    "Stat",
    "State",
    "Watch",
    "WatchEvent",
    "connect",
    "ensure_path",
    "format_address",
    "lead",
    "parse_address",
    "parse_hosts",
    "write_ensemble_secret",
]
