"""Numbers of ZooKeeper's client protocol: operations, error codes, events, permissions (spec 6.1, 7)."""

from typing import Final

CREATE: Final = 1
DELETE: Final = 2
EXISTS: Final = 3
GET_DATA: Final = 4
SET_DATA: Final = 5
GET_ACL: Final = 6
SET_ACL: Final = 7
GET_CHILDREN: Final = 8
SYNC: Final = 9
PING: Final = 11
GET_CHILDREN2: Final = 12
CHECK: Final = 13
MULTI: Final = 14
CREATE2: Final = 15
RECONFIG: Final = 16
CHECK_WATCHES: Final = 17
REMOVE_WATCHES: Final = 18
CREATE_CONTAINER: Final = 19
DELETE_CONTAINER: Final = 20
CREATE_TTL: Final = 21
MULTI_READ: Final = 22
AUTH: Final = 100
SET_WATCHES: Final = 101
SASL: Final = 102
GET_EPHEMERALS: Final = 103
GET_ALL_CHILDREN_NUMBER: Final = 104
SET_WATCHES2: Final = 105
ADD_WATCH: Final = 106
WHO_AM_I: Final = 107
CREATE_SESSION: Final = -10
CLOSE_SESSION: Final = -11
#: Our own, never from a client: the leader has decided on a reconfiguration, and this is what it leads to.
CHANGE_MEMBERSHIP: Final = -16
#: Our own too: the leader has found that all servers know this feature level.
RAISE_LEVEL: Final = -17

#: Operations that change the tree and so go through the log, as clients may send them.
WRITES: Final = frozenset(
    {CREATE, DELETE, SET_DATA, SET_ACL, MULTI, CREATE2, CREATE_CONTAINER, CREATE_TTL, RECONFIG, CLOSE_SESSION}
)

OK: Final = 0
RUNTIME_INCONSISTENCY: Final = -2
MARSHALLING_ERROR: Final = -5
NEW_CONFIG_NO_QUORUM: Final = -13
RECONFIG_IN_PROGRESS: Final = -14
UNIMPLEMENTED: Final = -6
BAD_ARGUMENTS: Final = -8
NO_NODE: Final = -101
NO_AUTH: Final = -102
BAD_VERSION: Final = -103
NO_CHILDREN_FOR_EPHEMERALS: Final = -108
NODE_EXISTS: Final = -110
NOT_EMPTY: Final = -111
SESSION_EXPIRED: Final = -112
INVALID_ACL: Final = -114
AUTH_FAILED: Final = -115
SESSION_MOVED: Final = -118
NOT_READ_ONLY: Final = -119
EPHEMERAL_ON_LOCAL_SESSION: Final = -120
NO_WATCHER: Final = -121
RECONFIG_DISABLED: Final = -123
SESSION_CLOSED_REQUIRE_SASL_AUTH: Final = -124
QUOTA_EXCEEDED: Final = -125
THROTTLED_OP: Final = -127

NODE_CREATED: Final = 1
NODE_DELETED: Final = 2
NODE_DATA_CHANGED: Final = 3
NODE_CHILDREN_CHANGED: Final = 4
SYNC_CONNECTED: Final = 3

#: What removeWatches and checkWatches look for (spec 9.5).
WATCHER_CHILDREN: Final = 1
WATCHER_DATA: Final = 2
WATCHER_ANY: Final = 3
WATCHER_PERSISTENT: Final = 4
WATCHER_RECURSIVE: Final = 5

PERM_READ: Final = 1
PERM_WRITE: Final = 2
PERM_CREATE: Final = 4
PERM_DELETE: Final = 8
PERM_ADMIN: Final = 16
PERM_ALL: Final = 31

#: CreateMode flags (spec 6.1); bit 0 makes an ephemeral, bit 1 a sequential of the plain modes.
FLAG_EPHEMERAL: Final = 1
FLAG_SEQUENTIAL: Final = 2
FLAG_CONTAINER: Final = 4
FLAG_TTL: Final = 5
FLAG_TTL_SEQUENTIAL: Final = 6

#: Modes of addWatch (spec 6.1).
ADD_WATCH_PERSISTENT: Final = 0
ADD_WATCH_PERSISTENT_RECURSIVE: Final = 1

XID_EVENT: Final = -1
XID_PING: Final = -2
XID_AUTH: Final = -4
XID_SET_WATCHES: Final = -8
