"""ZooKeeper's rules once more, from chapters 6 to 10 of the specification, with nothing in mind but being
plain: dicts, whole copies, no bytes. The tree is compared with it.
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from coord.protocol import opcodes as o
from coord.protocol.records import Acl, Identity, Stat

SPECIAL = {"/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"}
OPEN = (Acl(31, "world", "anyone"),)


@dataclass
class ModelNode:
    """A node, field by field."""

    data: bytes | None
    acl: tuple[Acl, ...]
    czxid: int
    time: int
    owner: int = 0
    mzxid: int = 0
    mtime: int = 0
    version: int = 0
    aversion: int = 0
    pzxid: int = 0
    created: int = 0
    deleted: int = 0
    cversion_base: int = 0
    is_container: bool = False
    ttl_ms: int = 0


@dataclass
class Model:
    """The state and one method per request; each returns an error code and what clients learn."""

    nodes: dict[str, ModelNode] = field(default_factory=dict)
    sessions: set[int] = field(default_factory=set)
    events: list[tuple[int, str]] = field(default_factory=list)
    before_multi: "Model | None" = None
    made: Stat | None = None

    @classmethod
    def fresh(cls) -> "Model":
        model = cls()
        for path, base in (("/", -1), ("/zookeeper", -2), ("/zookeeper/quota", 0), ("/zookeeper/config", 0)):
            model.nodes[path] = ModelNode(b"", OPEN, 0, 0, cversion_base=base)
        model.nodes["/zookeeper/config"].acl = (Acl(1, "world", "anyone"),)
        model.nodes["/zookeeper/config"].aversion = -1
        return model

    def children(self, path: str) -> list[str]:
        start = path.rstrip("/") + "/"
        return [p for p in self.nodes if p != "/" and p.startswith(start) and "/" not in p[len(start) :]]

    def stat(self, path: str) -> Stat:
        n = self.nodes[path]
        return Stat(
            n.czxid,
            n.mzxid,
            n.time,
            n.mtime,
            n.version,
            n.cversion_base + n.created + n.deleted,
            n.aversion,
            n.owner,
            len(n.data or b""),
            len(self.children(path)),
            n.pzxid,
        )

    # Requests. `who` is the session and the identities, `at` is zxid and time.

    def create(
        self,
        path: str,
        data: bytes | None,
        acl: Sequence[Acl],
        flags: int,
        who: tuple[int, tuple[Identity, ...]],
        at: tuple[int, int],
        container: bool = False,
        ttl_ms: int | None = None,
    ) -> tuple[int, str]:
        if not 0 <= flags <= 6:
            return o.BAD_ARGUMENTS, ""
        if (flags in (5, 6)) != (ttl_ms is not None) or (ttl_ms is not None and not 0 < ttl_ms < 1 << 40):
            return o.BAD_ARGUMENTS, ""
        if who[0] not in self.sessions:
            return o.SESSION_EXPIRED, ""
        if "/" not in path or "\0" in path:
            return o.BAD_ARGUMENTS, ""
        stored = process(acl, who[1])
        if stored is None:
            return o.INVALID_ACL, ""
        text = path[: path.rindex("/")]
        parent = self.nodes.get(text or "/")
        if parent is None:
            return o.NO_NODE, ""
        if not allowed(parent.acl, o.PERM_CREATE, who[1]):
            return o.NO_AUTH, ""
        if flags in (2, 3, 6):
            path += f"{parent.created:010d}"
        if not valid(path):
            return o.BAD_ARGUMENTS, ""
        if path in self.nodes:
            return o.NODE_EXISTS, ""
        if parent.owner:
            return o.NO_CHILDREN_FOR_EPHEMERALS, ""
        err = self.check_quota(path, 1, len(data or b""))
        if err:
            return err, ""
        zxid, now = at
        owner = who[0] if flags in (1, 3) and not container else 0
        node = ModelNode(data, stored, zxid, now, owner, zxid, now, pzxid=zxid)
        node.is_container, node.ttl_ms = container, ttl_ms or 0
        self.nodes[path] = node
        parent.created += 1
        parent.pzxid = zxid
        self.made = self.stat(path)
        self.events += [(o.NODE_CREATED, path), (o.NODE_CHILDREN_CHANGED, text or "/")]
        if path.endswith("/zookeeper_stats") and text.startswith("/zookeeper/quota/"):
            limited = text.removeprefix("/zookeeper/quota")
            there = [n for p, n in self.nodes.items() if (p + "/").startswith(limited + "/")]
            size = sum(len(n.data or b"") for n in there) if limited in self.nodes else 0
            node.data = b"count=%d,bytes=%d" % (len(there) if limited in self.nodes else 0, size)
        self.charge(path, 1, len(data or b""))
        return 0, path

    def create_container(self, path, data, acl, flags, who, at):  # type: ignore[no-untyped-def]
        err, made = self.create(path, data, acl, flags, who, at, container=True)
        return err, None if err else (made, self.made)

    def create_ttl(self, path, data, acl, flags, ttl_ms, who, at):  # type: ignore[no-untyped-def]
        if flags not in (5, 6):
            if self.before_multi is None:
                return o.BAD_ARGUMENTS, None
            if flags == 4:
                return self.create_container(path, data, acl, flags, who, at)
            return self.create(path, data, acl, flags, who, at)
        err, made = self.create(path, data, acl, flags, who, at, ttl_ms=ttl_ms)
        return err, None if err else (made, self.made)

    def reap(self, path: str, never_used_ms: int, at: tuple[int, int]) -> int:
        """deleteContainer as the leader asks for it."""
        node = self.nodes.get(path)
        if node is None:
            return o.NO_NODE
        if self.children(path):
            return o.NOT_EMPTY
        age = at[1] - node.mtime
        unused = node.created == 0
        if not (
            (node.is_container and (not unused or 0 < never_used_ms < age))
            or (node.ttl_ms and node.ttl_ms < age)
        ):
            return o.BAD_VERSION
        self._remove(path, at)
        return 0

    # Quotas (spec 12), all enforced.

    def quota_of(self, path: str) -> str | None:
        """The nearest path at or above that has limits."""
        while path not in ("", "/"):
            if f"/zookeeper/quota{path}/zookeeper_limits" in self.nodes:
                return path
            path = path[: path.rindex("/")]
        return None

    def check_quota(self, path: str, count: int, size: int) -> int:
        judge = self.before_multi or self
        quota = judge.quota_of(path)
        if quota is None:
            return 0
        limits = numbers(judge.nodes[f"/zookeeper/quota{quota}/zookeeper_limits"].data)
        if limits is None:
            return o.MARSHALLING_ERROR
        asked = []
        for change, soft, hard in ((count, "count", "countHardLimit"), (size, "bytes", "byteHardLimit")):
            if change and max(limits.get(soft, -1), limits.get(hard, -1)) >= 0:
                asked.append((change, soft, limits.get(hard, -1)))
        stats = judge.nodes.get(f"/zookeeper/quota{quota}/zookeeper_stats")
        if stats is None or not asked:
            return 0
        usage = numbers(stats.data)
        if usage is None:
            return o.MARSHALLING_ERROR
        over = any(0 <= hard < usage.get(key, -1) + change for change, key, hard in asked)
        return o.QUOTA_EXCEEDED if over else 0

    def charge(self, path: str, count: int, size: int) -> None:
        quota = self.quota_of(path)
        stats = self.nodes.get(f"/zookeeper/quota{quota}/zookeeper_stats")
        usage = numbers(stats.data) if stats else None
        if stats and usage is not None and (count or size):
            count, size = usage.pop("count", -1) + count, usage.pop("bytes", -1) + size
            rest = "".join(f";{key}={usage[key]}" for key in sorted(usage))
            stats.data = f"count={count},bytes={size}{'=' if rest else ''}{rest}".encode()

    def delete(
        self, path: str, version: int, who: tuple[int, tuple[Identity, ...]], at: tuple[int, int]
    ) -> tuple[int, None]:
        if who[0] not in self.sessions:
            return o.SESSION_EXPIRED, None
        if "/" not in path or "\0" in path or path in SPECIAL:
            return o.BAD_ARGUMENTS, None
        parent = self.nodes.get(path[: path.rindex("/")] or "/")
        if parent is None:
            return o.NO_NODE, None
        if not allowed(parent.acl, o.PERM_DELETE, who[1]):
            return o.NO_AUTH, None
        node = self.nodes.get(path)
        if node is None:
            return o.NO_NODE, None
        if version not in (-1, node.version):
            return o.BAD_VERSION, None
        if self.children(path):
            return o.NOT_EMPTY, None
        self._remove(path, at)
        return 0, None

    def _remove(self, path: str, at: tuple[int, int]) -> None:
        above = path[: path.rindex("/")] or "/"
        node = self.nodes.pop(path)
        self.nodes[above].deleted += 1
        self.nodes[above].pzxid = at[0]
        self.events += [(o.NODE_DELETED, path), (o.NODE_CHILDREN_CHANGED, above)]
        self.charge(path, -1, -len(node.data or b""))

    def set_data(
        self,
        path: str,
        data: bytes | None,
        version: int,
        who: tuple[int, tuple[Identity, ...]],
        at: tuple[int, int],
    ) -> tuple[int, Stat | None]:
        err = self._find(path, -1, o.PERM_WRITE, who, lambda n: n.version)
        if not err and path == "/zookeeper/config":
            err = o.BAD_ARGUMENTS
        if err:
            return err, None
        node = self.nodes[path]
        growth = len(data or b"") - len(node.data or b"")
        err = self.check_quota(path, 0, growth) or (o.BAD_VERSION if version not in (-1, node.version) else 0)
        if err:
            return err, None
        node.data = data
        node.version += 1
        node.mzxid, node.mtime = at
        self.events.append((o.NODE_DATA_CHANGED, path))
        self.charge(path, 0, growth)
        return 0, self.stat(path)

    def check(
        self, path: str, version: int, who: tuple[int, tuple[Identity, ...]], at: tuple[int, int]
    ) -> tuple[int, None]:
        return self._find(path, version, o.PERM_READ, who, lambda n: n.version), None

    def set_acl(
        self,
        path: str,
        acl: Sequence[Acl],
        version: int,
        who: tuple[int, tuple[Identity, ...]],
        at: tuple[int, int],
    ) -> tuple[int, Stat | None]:
        stored = process(acl, who[1])
        if who[0] not in self.sessions:
            return o.SESSION_EXPIRED, None
        if not valid(path):
            return o.BAD_ARGUMENTS, None
        if stored is None:
            return o.INVALID_ACL, None
        err = self._find(path, version, o.PERM_ADMIN, who, lambda n: n.aversion)
        if err:
            return err, None
        self.nodes[path].acl = stored
        aversion = self.nodes[path].aversion + 1
        self.nodes[path].aversion = 0 if aversion == -1 else aversion
        return 0, self.stat(path)

    def _find(self, path, version, want, who, of):  # type: ignore[no-untyped-def]
        if who[0] not in self.sessions:
            return o.SESSION_EXPIRED
        if not valid(path):
            return o.BAD_ARGUMENTS
        node = self.nodes.get(path)
        if node is None:
            return o.NO_NODE
        if not allowed(node.acl, want, who[1]):
            return o.NO_AUTH
        return 0 if version in (-1, of(node)) else o.BAD_VERSION

    def multi(self, operations, who, at):  # type: ignore[no-untyped-def]
        """Operations are (method name, arguments); a failed one leaves a copy of the state behind."""
        before, results = copy.deepcopy(self), []
        self.before_multi = before
        for position, (name, arguments) in enumerate(operations):
            if name == "create" and arguments[3] == 4:
                name = "create_container"
            err, result = getattr(self, name)(*arguments, who, at)
            if err:
                self.nodes, self.sessions, self.events = before.nodes, before.sessions, before.events
                results = [0] * position + [err] + [-2] * (len(operations) - position - 1)
                break
            results.append(result)
        self.before_multi = None
        return results

    def close_session(self, session_id: int, at: tuple[int, int]) -> None:
        owned = [path for path, node in self.nodes.items() if node.owner == session_id]
        for path in owned:
            self._remove(path, at)
        self.sessions.discard(session_id)


def numbers(text: bytes | None) -> dict[str, int] | None:
    """A quota's text, of those that the histories write."""
    if text is None:
        return None
    if text == b"":
        return {}
    found = re.findall(rb"(\w+)=(-?\d+)", text)
    return {key.decode(): int(value) for key, value in found} or None


def valid(path: str) -> bool:
    """Spec 8.1, in UTF-16 terms."""
    if path == "/":
        return True
    if not path.startswith("/") or path.endswith("/"):
        return False
    if any(part in ("", ".", "..") for part in path[1:].split("/")):
        return False
    return not any(
        c <= 0x1F or 0x7F <= c <= 0x9F or 0xD800 <= c <= 0xF8FF or c >= 0xFFF0 for c in map(ord, path)
    )


def process(acl: Sequence[Acl], identities: tuple[Identity, ...]) -> tuple[Acl, ...] | None:
    """Spec 11.3 for the schemes world, digest, ip and auth."""
    stored: list[Acl] = []
    for entry in dict.fromkeys(acl):
        if entry.scheme == "auth":
            mine = [i for i in identities if i.scheme == "digest"]
            if not mine:
                return None
            stored += [Acl(entry.perms, i.scheme, i.id) for i in mine]
        elif (
            (entry.scheme == "world" and entry.id == "anyone")
            or (entry.scheme == "digest" and entry.id.count(":") == 1)
            or (entry.scheme == "ip" and entry.id.count(".") == 3)
        ):
            stored.append(entry)
        else:
            return None
    return tuple(stored) or None


def allowed(acl: Sequence[Acl], want: int, identities: tuple[Identity, ...]) -> bool:
    """Spec 11.2 with ip entries compared as text."""
    return any(i.scheme == "super" for i in identities) or any(
        e.perms & want and (e.scheme == "world" or Identity(e.scheme, e.id) in identities) for e in acl
    )
