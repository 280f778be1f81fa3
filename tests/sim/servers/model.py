"""What the ensemble's state must be: a second, plain execution of the requests that clients here use, which
keeps every version of every node, and says who must be told of each change.

It shares no code with `coord.tree`; its rules are those of the specification's chapters 4.6, 6, 8.4, 9, 10.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coord.protocol import opcodes
from coord.protocol.jute import Reader
from coord.protocol.records import read_multi_header
from tests.sim.servers.ensemble import Configuration, roles_in

CONFIG = "/zookeeper/config"
CREATES = (opcodes.CREATE, opcodes.CREATE2, opcodes.CREATE_CONTAINER, opcodes.CREATE_TTL)


Entry = tuple[int, str, str]
"""Permissions, scheme and id of an access control list."""
OPEN: tuple[Entry, ...] = ((opcodes.PERM_ALL, "world", "anyone"),)


class Version(NamedTuple):
    """A node as of some zxid."""

    data: bytes
    version: int
    czxid: int
    mzxid: int
    pzxid: int
    owner: int
    created: int
    """Children ever made, which numbers sequential ones."""
    children: frozenset[str]
    lasts_ms: int | None = None
    """Of a node that goes by itself: how long it may live unwritten; 0: a container."""
    mtime_ms: int = 0
    acl: tuple[Entry, ...] = OPEN
    aversion: int = 0

    def is_due(self, wall_ms: int, never_used_ms: int) -> bool:
        """It has had its time (8.3)."""
        if self.lasts_ms is None or self.children:
            return False
        if not self.lasts_ms and self.created:
            return True
        return wall_ms - self.mtime_ms > (self.lasts_ms or never_used_ms)


class Event(NamedTuple):
    """One event: a kind of the protocol, and the path that it names."""

    kind: int
    path: str


class RefusedError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(slots=True)
class Executed:
    """One request after its execution."""

    zxid: int
    session_id: int
    xid: int
    op: int
    error: int
    created: list[str] = field(default_factory=list)
    """Paths that it made, in order."""
    changes: list[Event] = field(default_factory=list)


def _read_acl(reader: Reader) -> list[Entry]:
    count = reader.read_count() or 0
    return [(reader.read_int(), reader.read_text() or "", reader.read_text() or "") for _ in range(count)]


def parent_of(path: str) -> str:
    return path.rpartition("/")[0] or "/"


class Model:
    """The state after each request, in the one order of the ensemble."""

    def __init__(self, identity_of: Callable[[int], str | None], *, skips_acl: bool) -> None:
        self.zxid = 0
        self._wall_ms = 0
        self._is_local = False
        self._identity_of = identity_of
        """Of a session's client: its digest, whatever connection it has."""
        self._skips_acl = skips_acl
        self.sessions: dict[int, int] = {}
        """Living sessions and the zxids that began them."""
        self.ended: dict[int, int] = {}
        """Sessions that are over, and the zxids that ended them."""
        self.executed: dict[int, Executed] = {}
        self._zxids: list[int] = []
        self._now: dict[str, Version] = {}
        self._past: dict[str, tuple[list[int], list[Version | None]]] = {}
        self._put("/", Version(b"", 0, 0, 0, 0, 0, 0, frozenset(("zookeeper",))))
        self._put(CONFIG, Version(b"", 0, 0, 0, 0, 0, 0, frozenset(), aversion=-1))
        self.configurations: list[Configuration] = []
        """Since the ensemble's first leader has written it down."""

    # What it was at some zxid.

    def find(self, path: str, zxid: int) -> Version | None:
        past = self._past.get(path)
        if past is None:
            return None
        place = bisect_right(past[0], zxid) - 1
        return past[1][place] if place >= 0 else None

    def configurations_at(self, zxid: int) -> Configuration:
        """The one in force as of a zxid."""
        return [each for each in self.configurations if each.zxid <= zxid][-1]

    def between(self, after: int, until: int) -> Iterator[Executed]:
        """What was executed above one zxid, up to another."""
        first, last = bisect_right(self._zxids, after), bisect_right(self._zxids, until)
        for zxid in self._zxids[first:last]:
            yield self.executed[zxid]

    @property
    def nodes(self) -> dict[str, Version]:
        """As of now."""
        return self._now

    def ephemerals(self) -> dict[int, set[str]]:
        """As of now, by session."""
        found: dict[int, set[str]] = {}
        for path, node in self._now.items():
            if node.owner:
                found.setdefault(node.owner, set()).add(path)
        return found

    # Execution.

    def execute(
        self,
        zxid: int,
        session_id: int,
        xid: int,
        op: int,
        body: bytes,
        wall_ms: int = 0,
        *,
        is_local: bool = False,
    ) -> Executed:
        """`op` 0 is a request that its server refused: the body is its error. `is_local`: its server vouches
        for the session, which nobody else knows.
        """
        self.zxid = zxid
        self._wall_ms = wall_ms
        self._is_local = is_local
        done = Executed(zxid, session_id, xid, op, 0)
        self.executed[zxid] = done
        self._zxids.append(zxid)
        if op == 0:
            done.error = Reader(body).read_int()
        elif op == opcodes.CREATE_SESSION:
            self.sessions.setdefault(session_id, zxid)
        elif op == opcodes.CLOSE_SESSION:
            self._close(session_id, done)
        elif op == opcodes.MULTI:
            done.error = self._multi(session_id, done, body)
        elif op == opcodes.CHANGE_MEMBERSHIP:
            self._change(done, body)
        elif op == opcodes.DELETE_CONTAINER:
            self._reap(done, Reader(body))
        elif op in (*CREATES, opcodes.DELETE, opcodes.SET_DATA, opcodes.SET_ACL):
            done.error = self._alone(session_id, done, op, body)
        return done

    def _change(self, done: Executed, body: bytes) -> None:
        version, text = int.from_bytes(body[:8], "big"), body[8:]
        self.configurations.append(Configuration(done.zxid, version, roles_in(text.decode()), text.decode()))
        self._put(CONFIG, Version(text, -1, 0, version, 0, 0, 0, frozenset(), aversion=-1))
        done.changes.append(Event(opcodes.NODE_DATA_CHANGED, CONFIG))

    def _reap(self, done: Executed, reader: Reader) -> None:
        path = reader.read_text() or ""
        node = self._now.get(path)
        if node is not None and node.is_due(self._wall_ms, reader.read_long()):
            self._remove(done, path)

    def _alone(self, session_id: int, done: Executed, op: int, body: bytes) -> int:
        if session_id not in self.sessions and not self._is_local:
            return opcodes.SESSION_EXPIRED
        try:
            self._one(session_id, done, op, Reader(body))
        except RefusedError as refusal:
            return refusal.code
        return 0

    def _multi(self, session_id: int, done: Executed, body: bytes) -> int:
        """All or nothing; the error is that of the first operation that failed."""
        if session_id not in self.sessions and not self._is_local:
            return opcodes.SESSION_EXPIRED
        before = dict(self._now)
        reader = Reader(body)
        try:
            while True:
                op, is_end, _ = read_multi_header(reader)
                if is_end:
                    return 0
                self._one(session_id, done, op, reader)
        except RefusedError as refusal:
            for path in before.keys() | self._now.keys():
                if before.get(path) is not self._now.get(path):
                    self._put(path, before.get(path))
            done.created.clear()
            done.changes.clear()
            return refusal.code

    def _one(self, session_id: int, done: Executed, op: int, reader: Reader) -> None:
        path = reader.read_text() or ""
        if op in CREATES:
            data, entries = reader.read_buffer() or b"", _read_acl(reader)
            flags, lasts_ms = reader.read_int(), None
            if op == opcodes.CREATE_CONTAINER:
                flags, lasts_ms = 0, 0
            elif op == opcodes.CREATE_TTL:
                flags = opcodes.FLAG_SEQUENTIAL if flags == opcodes.FLAG_TTL_SEQUENTIAL else 0
                lasts_ms = reader.read_long()
            if flags & opcodes.FLAG_EPHEMERAL and session_id not in self.sessions:
                raise RefusedError(opcodes.EPHEMERAL_ON_LOCAL_SESSION)
            acl = self._resolved(session_id, entries)
            self._create(session_id, done, path, data, acl, flags, lasts_ms)
        elif op == opcodes.DELETE:
            self._delete(session_id, done, path, reader.read_int())
        elif op == opcodes.SET_DATA:
            data = reader.read_buffer() or b""
            self._set(session_id, done, path, data, reader.read_int())
        elif op == opcodes.SET_ACL:
            acl = self._resolved(session_id, _read_acl(reader))
            node = self._allowed(session_id, path, opcodes.PERM_ADMIN)
            self._put(path, node._replace(acl=acl, aversion=node.aversion + 1))
        elif op == opcodes.CHECK:
            self._checked(path, reader.read_int())
        else:
            raise AssertionError(f"clients here ask nothing of kind {op}")

    def may(self, session_id: int, node: Version, permission: int) -> bool:
        """Whether the session's client has it (11.2)."""
        identity = self._identity_of(session_id)
        return self._skips_acl or any(
            perms & permission and (scheme == "world" or (scheme, name) == ("digest", identity))
            for perms, scheme, name in node.acl
        )

    def _allowed(self, session_id: int, path: str, permission: int) -> Version:
        node = self._now.get(path)
        if node is None:
            raise RefusedError(opcodes.NO_NODE)
        if not self.may(session_id, node, permission):
            raise RefusedError(opcodes.NO_AUTH)
        return node

    def _resolved(self, session_id: int, entries: list[Entry]) -> tuple[Entry, ...]:
        """Entries for whoever asks, with its name (11.3)."""
        identity = self._identity_of(session_id)
        resolved = []
        for perms, scheme, name in entries:
            if scheme == "auth" and identity is None:
                raise RefusedError(opcodes.INVALID_ACL)
            resolved.append((perms, "digest", identity or "") if scheme == "auth" else (perms, scheme, name))
        return tuple(resolved)

    def _create(
        self,
        session_id: int,
        done: Executed,
        path: str,
        data: bytes,
        acl: tuple[Entry, ...],
        flags: int,
        lasts_ms: int | None,
    ) -> None:
        above = parent_of(path)
        parent = self._allowed(session_id, above, opcodes.PERM_CREATE)
        if flags & opcodes.FLAG_SEQUENTIAL:
            path += f"{parent.created:010d}"
        if path in self._now:
            raise RefusedError(opcodes.NODE_EXISTS)
        if parent.owner:
            raise RefusedError(opcodes.NO_CHILDREN_FOR_EPHEMERALS)
        zxid = done.zxid
        owner = session_id if flags & opcodes.FLAG_EPHEMERAL else 0
        self._put(
            path, Version(data, 0, zxid, zxid, zxid, owner, 0, frozenset(), lasts_ms, self._wall_ms, acl)
        )
        name = path.rpartition("/")[2]
        children = parent.children | {name}
        self._put(above, parent._replace(children=children, created=parent.created + 1, pzxid=zxid))
        done.created.append(path)
        done.changes.append(Event(opcodes.NODE_CREATED, path))
        done.changes.append(Event(opcodes.NODE_CHILDREN_CHANGED, above))

    def _delete(self, session_id: int, done: Executed, path: str, version: int) -> None:
        self._allowed(session_id, parent_of(path), opcodes.PERM_DELETE)
        if self._checked(path, version).children:
            raise RefusedError(opcodes.NOT_EMPTY)
        self._remove(done, path)

    def _remove(self, done: Executed, path: str) -> None:
        above, _, name = path.rpartition("/")
        above = above or "/"
        self._put(path, None)
        parent = self._now[above]
        self._put(above, parent._replace(children=parent.children - {name}, pzxid=done.zxid))
        done.changes.append(Event(opcodes.NODE_DELETED, path))
        done.changes.append(Event(opcodes.NODE_CHILDREN_CHANGED, above))

    def _set(self, session_id: int, done: Executed, path: str, data: bytes, version: int) -> None:
        self._allowed(session_id, path, opcodes.PERM_WRITE)
        node = self._checked(path, version)
        version, mtime_ms = node.version + 1, self._wall_ms
        self._put(path, node._replace(data=data, version=version, mzxid=done.zxid, mtime_ms=mtime_ms))
        done.changes.append(Event(opcodes.NODE_DATA_CHANGED, path))

    def _checked(self, path: str, version: int) -> Version:
        node = self._now.get(path)
        if node is None:
            raise RefusedError(opcodes.NO_NODE)
        if version not in (-1, node.version):
            raise RefusedError(opcodes.BAD_VERSION)
        return node

    def _close(self, session_id: int, done: Executed) -> None:
        if self.sessions.pop(session_id, None) is None:
            return
        self.ended[session_id] = done.zxid
        for path in sorted(path for path, node in self._now.items() if node.owner == session_id):
            self._remove(done, path)

    def _put(self, path: str, node: Version | None) -> None:
        if node is None:
            self._now.pop(path, None)
        else:
            self._now[path] = node
        zxids, versions = self._past.setdefault(path, ([], []))
        if zxids and zxids[-1] == self.zxid:
            versions[-1] = node
        else:
            zxids.append(self.zxid)
            versions.append(node)


@dataclass(slots=True)
class Watches:
    """What one connection watches (chapter 9), and what it must therefore be told."""

    data: set[str] = field(default_factory=set)
    exist: set[str] = field(default_factory=set)
    child: set[str] = field(default_factory=set)
    persistent: set[str] = field(default_factory=set)
    recursive: set[str] = field(default_factory=set)

    @property
    def is_empty(self) -> bool:
        return not (self.data or self.exist or self.child or self.persistent or self.recursive)

    def events_of(self, changes: Sequence[Event]) -> list[Event]:
        """The events that these changes cause, in order (9.2); standard watches are spent."""
        return [change for change in changes if self._hears(change)]

    def _hears(self, change: Event) -> bool:
        kind, path = change
        hears = path in self.persistent
        if kind == opcodes.NODE_CHILDREN_CHANGED:
            hears |= _spend(self.child, path)
            return hears
        hears |= _spend(self.data, path) | _spend(self.exist, path)
        if kind == opcodes.NODE_DELETED:
            hears |= _spend(self.child, path)
        return hears or any(path == top or path.startswith(top.rstrip("/") + "/") for top in self.recursive)

    def catch_up(self, model: Model, seen: int, zxid: int) -> list[Event]:
        """What a setWatches of a client that has seen `seen` brings, executed at `zxid` (9.6); in order."""
        events: list[Event] = []
        for path in sorted(self.data):
            node = model.find(path, zxid)
            if node is None:
                events.append(Event(opcodes.NODE_DELETED, path))
            elif node.mzxid > seen:
                events.append(Event(opcodes.NODE_DATA_CHANGED, path))
            else:
                continue
            self.data.discard(path)
        for path in sorted(self.exist):
            if model.find(path, zxid) is not None:
                events.append(Event(opcodes.NODE_CREATED, path))
                self.exist.discard(path)
        for path in sorted(self.child):
            node = model.find(path, zxid)
            if node is None:
                events.append(Event(opcodes.NODE_DELETED, path))
            elif node.pzxid > seen:
                events.append(Event(opcodes.NODE_CHILDREN_CHANGED, path))
            else:
                continue
            self.child.discard(path)
        return events


def _spend(watched: set[str], path: str) -> bool:
    if path in watched:
        watched.discard(path)
        return True
    return False
