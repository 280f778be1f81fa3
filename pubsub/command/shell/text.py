"""What zkCli prints, to the letter where scripts read it."""

import time
from collections.abc import Sequence

import coord

EVENT_TYPES = {
    coord.EventKind.CREATED: "NodeCreated",
    coord.EventKind.DELETED: "NodeDeleted",
    coord.EventKind.CHANGED: "NodeDataChanged",
    coord.EventKind.CHILDREN: "NodeChildrenChanged",
    # Ours alone: Java's client does not tell that its persistent watches have missed something.
    coord.EventKind.MISSED: "EventsMissed",
}

STATES = {
    coord.State.CONNECTING: "Disconnected",
    coord.State.CONNECTED: "SyncConnected",
    coord.State.READ_ONLY: "ConnectedReadOnly",
    coord.State.SUSPENDED: "Disconnected",
    coord.State.EXPIRED: "Expired",
    coord.State.AUTH_FAILED: "AuthFailed",
    coord.State.CLOSED: "Closed",
}


def format_stat(stat: coord.Stat) -> str:
    return "\n".join(
        (
            f"cZxid = 0x{stat.czxid:x}",
            f"ctime = {format_time(stat.ctime)}",
            f"mZxid = 0x{stat.mzxid:x}",
            f"mtime = {format_time(stat.mtime)}",
            f"pZxid = 0x{stat.pzxid:x}",
            f"cversion = {stat.cversion}",
            f"dataVersion = {stat.version}",
            f"aclVersion = {stat.aversion}",
            f"ephemeralOwner = 0x{stat.ephemeral_owner & 0xFFFFFFFFFFFFFFFF:x}",
            f"dataLength = {stat.data_length}",
            f"numChildren = {stat.num_children}",
        )
    )


def format_time(ms: int) -> str:
    """As Java prints a date, in this machine's time zone."""
    return time.strftime("%a %b %d %H:%M:%S %Z %Y", time.localtime(ms // 1000))


def format_names(names: Sequence[str]) -> str:
    return f"[{', '.join(names)}]"


def format_acl(acl: Sequence[coord.Acl]) -> str:
    return "\n".join(f"'{scheme},'{name}\n: {coord.format_perms(perms)}" for perms, scheme, name in acl)


def format_event(kind: str, path: str, zxid: int) -> str:
    return f"\nWATCHER::\n\nWatchedEvent state:SyncConnected type:{kind} path:{path} zxid: {zxid}"


def format_state(state: coord.State) -> str:
    """The state of the session, as an event of its own."""
    return f"\nWATCHER::\n\nWatchedEvent state:{STATES[state]} type:None path:null zxid: -1"


def format_hex(data: bytes) -> str:
    """Bytes as Netty prints them, which zkCli has it from."""
    rule = "+--------+" + "-" * 49 + "+" + "-" * 16 + "+"
    lines = [
        " " * 9 + "+" + "-" * 49 + "+",
        " " * 9 + "| " + "".join(f" {column:x} " for column in range(16)) + "|",
        rule,
    ]
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        octets = "".join(f" {byte:02x}" for byte in row)
        text = "".join(chr(byte) if 0x1F < byte < 0x7F else "." for byte in row)
        lines.append(f"|{start:08x}|{octets:<48} |{text:<16}|")
    return "\n".join([*lines, rule])


def explain(error: coord.CoordError) -> str:
    """A failure in zkCli's words."""
    match error:
        case coord.NoNodeError():
            return f"Node does not exist: {error.path}"
        case coord.NodeExistsError():
            return f"Node already exists: {error.path}"
        case coord.NotEmptyError():
            return f"Node not empty: {error.path}"
        case coord.NoChildrenForEphemeralsError():
            return f"Ephemerals cannot have children: {error.path}"
        case coord.BadVersionError():
            return f"version No is not valid : {error.path}"
        case coord.InvalidAclError():
            return f"Acl is not valid : {error.path}"
        case coord.NoAuthError():
            return f"Insufficient permission : {error.path}"
        case coord.BadArgumentsError():
            return f"Arguments are not valid : {error.path}"
        case coord.QuotaExceededError():
            return f"Quota has exceeded : {error.path}"
        case coord.NoWatcherError():
            return f"KeeperErrorCode = No such watcher for {error.path}"
    return " ".join(str(error).split())
