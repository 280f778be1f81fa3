"""Simulated clients: sessions that ask, watch, fall silent, move between servers, and check what they see.

A client speaks the protocol's bytes. It knows the law of everything that it gets, since `Model` knows the
state as of each zxid, and `Watches` what its connection watches.
"""

from base64 import b64encode
from collections import deque
from dataclasses import dataclass
from hashlib import sha1
from typing import TYPE_CHECKING, NamedTuple

from coord.protocol import opcodes
from coord.protocol.jute import Reader, encode_int, encode_long, encode_strings, encode_text
from coord.protocol.records import (
    OPEN_ACL,
    Acl,
    decode_watcher_event,
    encode_acl,
    encode_create,
    encode_create_ttl,
    encode_multi,
    encode_path_version,
    encode_path_watch,
    encode_set_data,
    read_multi_header,
    read_stat,
)
from tests.sim.servers.ensemble import Change
from tests.sim.servers.machine import Link
from tests.sim.servers.model import CREATES, Event, Version, Watches

if TYPE_CHECKING:
    from tests.sim.servers.world import ServersWorld

XID_PING, XID_SET_WATCHES = opcodes.XID_PING, opcodes.XID_SET_WATCHES
SET_WATCHES_2 = 105
GET_CHILDREN_2 = 12
CONFIG = "/zookeeper/config"
TOPS = ("/a", "/b", "/c")
PENDING_MAX = 6
PROTECTED = (
    Acl(opcodes.PERM_READ, "world", "anyone"),
    Acl(opcodes.PERM_WRITE | opcodes.PERM_CREATE | opcodes.PERM_DELETE | opcodes.PERM_ADMIN, "auth", ""),
)
CONNECT_MS_MAX = 400


class Asked(NamedTuple):
    """A request under way."""

    xid: int
    op: int
    path: str
    watches: bool
    acknowledged_zxid: int
    """The last zxid that was acknowledged to anybody when it was asked."""
    server: int


@dataclass(slots=True)
class Expected:
    """The events of one request that are still to come; those of a close in any order."""

    zxid: int
    changes: list[Event]
    in_order: bool


class SimClient:
    """One client, through all its sessions."""

    def __init__(self, world: "ServersWorld", number: int) -> None:
        self.world = world
        self.number = number
        self.timeout_ms = world.random.choice((1_000, 2_000, 4_000))
        self.is_silent = False
        """It stands still, as a process that is stopped does."""
        self.is_done = False
        """No requests of its own any more, but it keeps its session."""
        self.is_gone = False
        """It will never say anything again."""
        self.link: Link | None = None
        self._credentials = f"u{number}:secret" if number % 2 else ""
        """Every second client proves who it is, on each connection before anything else."""
        self.identity = digest_of(self._credentials) if self._credentials else None
        self._ports = 0
        self._forget_session()

    def _forget_session(self) -> None:
        self.session_id = 0
        self._password = bytes(16)
        self._xid = 0
        self.seen_zxid = 0
        self._watches = Watches()
        self._forget_connection()

    def _forget_connection(self) -> None:
        self.is_connected = False
        self._pending: deque[Asked] = deque()
        self._buffer = b""
        self._told_zxid = self.seen_zxid
        self._expected: deque[Expected] = deque()
        self._caught_up: list[Event] = []
        self._setting = False
        self._last_write = 0
        self._heard_us = self._said_us = self.world.now_us

    # Life.

    def start(self) -> None:
        self._live()

    def _live(self) -> None:
        """Again and again: connects, asks, pings, gives up a server that says nothing."""
        if self.is_gone:
            return
        world = self.world
        if not self.is_silent:
            self._act()
        pause_us = world.profile.ask_every_us if self.is_connected else 40_000
        world.later(world.random.randrange(2 * pause_us) + 1, self._live)

    def _act(self) -> None:
        world = self.world
        if self.link is None:
            self._connect()
            return
        patience_ms = self.timeout_ms * 2 // 3 if self.is_connected else CONNECT_MS_MAX
        if world.now_us - self._heard_us > patience_ms * 1000:
            self.leave()
            return
        if not self.is_connected:
            return
        if not self.is_done and len(self._pending) < PENDING_MAX:
            self._ask()
        elif world.now_us - self._said_us > self.timeout_ms * 250:
            self._say(encode_int(XID_PING) + encode_int(opcodes.PING))

    def leave(self) -> None:
        """Ends the connection, and tries another server soon."""
        if self.link is not None:
            self.link.hang_up()
            self.link = None
            self._forget_connection()

    def on_lost(self, link: Link) -> None:
        if link is self.link:
            self.link = None
            self._forget_connection()

    def _connect(self) -> None:
        world = self.world
        server = world.random.choice(list(world.nodes.values()))
        self._ports += 1
        address = (f"10.0.1.{self.number}", 1000 + self._ports)
        self.link = server.connect(self, address, world.client_delay_us)
        if self.link is None:
            return
        self._forget_connection()
        request = encode_int(0) + encode_long(self.seen_zxid) + encode_int(self.timeout_ms)
        request += encode_long(self.session_id) + encode_int(16) + self._password + b"\0"
        self._say(request)

    def _say(self, body: bytes) -> None:
        assert self.link is not None
        self._said_us = self.world.now_us
        self.link.say(encode_int(len(body)) + body)

    # What it asks.

    def _ask(self) -> None:
        draw = self.world.random
        kind = draw.choices(*self.world.profile.requests)[0]
        path = draw.choice(TOPS) if draw.random() < 0.3 else f"{draw.choice(TOPS)}/{draw.randrange(5)}"
        watches = draw.random() < 0.5
        if kind in ("get", "exists") and self.world.changes_members and draw.random() < 0.1:
            path = CONFIG
        match kind:
            case "create":
                self._request(opcodes.CREATE, path, encode_create(path, self._data(), self._acl(), 0))
            case "ephemeral":
                self._request(opcodes.CREATE, path, encode_create(path, self._data(), OPEN_ACL, 1))
            case "sequential":
                flags = draw.choice((2, 3))
                name = f"{draw.choice(TOPS)}/s"
                self._request(opcodes.CREATE, name, encode_create(name, self._data(), OPEN_ACL, flags))
            case "container":
                flags = opcodes.FLAG_CONTAINER
                self._request(
                    opcodes.CREATE_CONTAINER, path, encode_create(path, self._data(), OPEN_ACL, flags)
                )
            case "ttl":
                flags, lasts_ms = opcodes.FLAG_TTL, draw.choice((300, 3_000))
                self._request(
                    opcodes.CREATE_TTL, path, encode_create_ttl(path, self._data(), OPEN_ACL, flags, lasts_ms)
                )
            case "set":
                version = draw.choice((-1, -1, 0, 1))
                self._request(opcodes.SET_DATA, path, encode_set_data(path, self._data(), version))
            case "delete":
                self._request(opcodes.DELETE, path, encode_path_version(path, -1))
            case "multi":
                self._request(opcodes.MULTI, path, self._multi(path))
            case "set_acl":
                body = encode_text(path) + encode_acl(self._acl()) + encode_int(-1)
                self._request(opcodes.SET_ACL, path, body)
            case "get_acl":
                self._request(opcodes.GET_ACL, path, encode_text(path))
            case "get":
                self._request(opcodes.GET_DATA, path, encode_path_watch(path, watches), watches)
            case "exists":
                self._request(opcodes.EXISTS, path, encode_path_watch(path, watches), watches)
            case "children":
                self._request(GET_CHILDREN_2, path, encode_path_watch(path, watches), watches)
            case "watch":
                mode = draw.choice((0, 1))
                kind_of = "recursive" if mode else "persistent"
                self._request(opcodes.ADD_WATCH, f"{kind_of} {path}", _add_watch(path, mode), True)
            case "sync":
                self._request(opcodes.SYNC, path, encode_int(len(path)) + path.encode())
            case "change":
                self._ask_for_change()
            case "close":
                self._request(opcodes.CLOSE_SESSION, "", b"")

    def _acl(self) -> tuple[Acl, ...]:
        """Everybody may read everything, so that all hear of the same events."""
        return self.world.random.choice((OPEN_ACL, OPEN_ACL, PROTECTED))

    def _ask_for_change(self) -> None:
        world = self.world
        if world.changes_members:
            model = world.laws.model
            version = model.configurations[-1].version if model.configurations else 0
            change = Change.draw(world.random, list(world.nodes), version)
            world.laws.asked_changes[self.session_id, self._xid + 1] = change
            self._request(opcodes.RECONFIG, CONFIG, change.encode())

    def _data(self) -> bytes:
        return b"%d.%d" % (self.number, self._xid)

    def _multi(self, path: str) -> bytes:
        draw = self.world.random
        operations = [(opcodes.CHECK, encode_path_version(path, -1))] if draw.random() < 0.3 else []
        for _ in range(draw.randint(1, 3)):
            other = f"{draw.choice(TOPS)}/{draw.randrange(5)}"
            operations.append(
                draw.choice(
                    (
                        (
                            opcodes.CREATE,
                            encode_create(other, self._data(), self._acl(), draw.choice((0, 1, 2))),
                        ),
                        (opcodes.SET_DATA, encode_set_data(other, self._data(), -1)),
                        (opcodes.DELETE, encode_path_version(other, -1)),
                    )
                )
            )
        return encode_multi(operations)

    def _request(self, op: int, path: str, body: bytes, watches: bool = False) -> None:
        laws = self.world.laws
        self._xid += 1
        if op in opcodes.WRITES or op == opcodes.CLOSE_SESSION:
            laws.predecessors[self.session_id, self._xid] = self._last_write
            self._last_write = self._xid
        assert self.link is not None
        asked = Asked(self._xid, op, path, watches, laws.acknowledged_zxid, self.link.server.sid)
        self._pending.append(asked)
        self.world.trace("asks", self.link.server.sid, (self.number, self._xid, op, path))
        self._say(encode_int(self._xid) + encode_int(op) + body)

    # What it gets.

    def on_bytes(self, link: Link, data: bytes) -> None:
        if link is not self.link or self.is_gone:
            return
        self._heard_us = self.world.now_us
        self._buffer += data
        while link is self.link and len(self._buffer) >= 4:
            length = int.from_bytes(self._buffer[:4], "big")
            if len(self._buffer) < 4 + length:
                return
            frame, self._buffer = self._buffer[4 : 4 + length], self._buffer[4 + length :]
            if self.is_connected:
                self._take(frame)
            else:
                self._connected(frame)

    def _connected(self, frame: bytes) -> None:
        assert self.link is not None
        reader = Reader(frame)
        _, timeout_ms, session_id = reader.read_int(), reader.read_int(), reader.read_long()
        if not session_id:
            self.world.laws.told_expired(self.link.server, self.session_id)
            self.leave()
            self._forget_session()
            return
        self.is_connected = True
        assert timeout_ms == self.timeout_ms
        self.session_id, self._password = session_id, frame[20:36]
        self.world.owners[session_id] = self
        self.world.trace("session", self.link.server.sid, (self.number, hex(session_id)))
        if self._credentials:
            body = encode_int(0) + encode_text("digest") + encode_text(self._credentials)
            self._say(encode_int(opcodes.XID_AUTH) + encode_int(opcodes.AUTH) + body)
        if not self._watches.is_empty:
            self._set_watches()

    def _set_watches(self) -> None:
        """On a new connection, before anything else: what was watched on the old one."""
        watches = self._watches
        lists = (watches.data, watches.exist, watches.child, watches.persistent, watches.recursive)
        body = encode_long(self.seen_zxid)
        for paths in lists:
            body += encode_strings([path.encode() for path in sorted(paths)])
        self._setting = True
        self._say(encode_int(XID_SET_WATCHES) + encode_int(SET_WATCHES_2) + body)

    def _take(self, frame: bytes) -> None:
        assert self.link is not None
        reader = Reader(frame)
        xid, zxid, error = reader.read_int(), reader.read_long(), reader.read_int()
        self.world.trace("gets", self.link.server.sid, (self.number, xid, zxid, error))
        if xid == opcodes.XID_EVENT:
            event = decode_watcher_event(frame[16:])
            self._on_event(zxid, Event(event.type, event.path))
            return
        if xid == opcodes.XID_AUTH:
            if error:
                self._violated("AnswerTrue", f"is not {self._credentials}: {error}")
            return
        if zxid < self.seen_zxid:
            self._violated("MonotoneReads", f"got {zxid:#x} after {self.seen_zxid:#x}")
        if xid == XID_SET_WATCHES:
            self._on_watches_set(zxid)
        self._advance(zxid)
        if self._expected:
            missing = self._expected[0]
            self._violated("WatchKept", f"got an answer as of {zxid:#x} before {missing}")
        if xid in (XID_PING, XID_SET_WATCHES):
            self.seen_zxid = zxid
            return
        asked = self._pending.popleft() if self._pending else None
        if asked is None or asked.xid != xid:
            self._violated("SessionOrder", f"got the answer to {xid}, expected that to {asked}")
        self._on_answer(asked, zxid, error, reader)
        self.seen_zxid = zxid

    def _violated(self, law: str, text: str) -> None:
        server = self.link.server if self.link is not None else None
        self.world.laws.violated(law, server, f"client {self.number}: {text}")

    # Watches.

    def _advance(self, zxid: int) -> None:
        """What is executed up to `zxid` is seen from now on: its events must have come."""
        model = self.world.laws.model
        if zxid > model.zxid:
            self._violated("ReadTrue", f"was shown {zxid:#x}, which nobody has executed")
        if zxid <= self._told_zxid:
            return
        if not self._watches.is_empty:
            for done in model.between(self._told_zxid, zxid):
                events = self._watches.events_of(done.changes)
                if events:
                    in_order = done.op != opcodes.CLOSE_SESSION
                    self._expected.append(Expected(done.zxid, events, in_order))
        self._told_zxid = zxid

    def _on_event(self, zxid: int, change: Event) -> None:
        self.world.laws.events += 1
        if zxid == -1:
            self._caught_up.append(change)
            return
        self._advance(zxid)
        expected = self._expected[0] if self._expected else None
        if expected is None or expected.zxid != zxid:
            law = "WatchKept" if expected is not None and expected.zxid < zxid else "WatchCause"
            self._violated(law, f"told of {change} at {zxid:#x}, expected {expected}")
            return
        if change not in (expected.changes[:1] if expected.in_order else expected.changes):
            law = "WatchKept" if change in expected.changes else "WatchCause"
            self._violated(law, f"told of {change} at {zxid:#x}, expected {expected}")
        expected.changes.remove(change)
        if not expected.changes:
            self._expected.popleft()

    def _on_watches_set(self, zxid: int) -> None:
        self._setting = False
        expected = self._watches.catch_up(self.world.laws.model, self.seen_zxid, zxid)
        if self._caught_up != expected:
            missing = [change for change in expected if change not in self._caught_up]
            self._violated(
                "WatchKept" if missing else "WatchCause",
                f"set its watches again: {self._caught_up}, not {expected}",
            )
        self._caught_up.clear()
        self._told_zxid = zxid  # what happened meanwhile has been caught up with

    # Answers.

    def _on_answer(self, asked: Asked, zxid: int, error: int, reader: Reader) -> None:
        laws = self.world.laws
        if asked.op in opcodes.WRITES or asked.op == opcodes.CLOSE_SESSION:
            self._on_written(asked, zxid, error, reader)
            laws.acknowledged += 1
            laws.acknowledged_zxid = max(laws.acknowledged_zxid, zxid)
            return
        if asked.op == opcodes.SYNC:
            if error == 0 and zxid < asked.acknowledged_zxid:
                self._violated(
                    "SyncLinearizable",
                    f"is synchronized as of {zxid:#x}, acknowledged was {asked.acknowledged_zxid:#x}",
                )
        elif asked.op == opcodes.ADD_WATCH:
            kind, _, path = asked.path.partition(" ")
            (self._watches.recursive if kind == "recursive" else self._watches.persistent).add(path)
        else:
            self._on_read(asked, zxid, error, reader)

    def _on_written(self, asked: Asked, zxid: int, error: int, reader: Reader) -> None:
        model = self.world.laws.model
        is_known = self.session_id in model.sessions or self.session_id in model.ended
        if asked.op == opcodes.CLOSE_SESSION and self.world.local_sessions and not is_known:
            self.leave()  # only its server knew it
            self._forget_session()
            return
        done = model.executed.get(zxid)
        if done is None or (done.session_id, done.xid) != (self.session_id, asked.xid):
            self._violated("AnswerTrue", f"told that {asked} is {zxid:#x}, which is {done}")
            return
        created: list[str] = []
        if asked.op == opcodes.MULTI and error == 0:
            error, created = _read_multi(reader)
        elif asked.op in CREATES and error == 0:
            created = [reader.read_text() or ""]
        elif asked.op == opcodes.RECONFIG and error == 0:
            text = (reader.read_buffer() or b"").decode()
            if text != self.world.laws.model.configurations_at(zxid).text:
                self._violated("AnswerTrue", f"told that {asked} has led to {text}")
        if error == opcodes.EPHEMERAL_ON_LOCAL_SESSION and self.world.upgrades_sessions:
            self._violated("SessionUpgraded", f"was refused {asked}")
        if error != done.error or (error == 0 and created != done.created):
            self._violated("AnswerTrue", f"told that {asked} ended with {error} {created}, it is {done}")
        if asked.op == opcodes.CLOSE_SESSION:
            self.leave()
            self._forget_session()

    def _on_read(self, asked: Asked, zxid: int, error: int, reader: Reader) -> None:
        node = self.world.laws.model.find(asked.path, zxid)
        if (error == 0) != (node is not None) or error not in (0, opcodes.NO_NODE):
            self._violated("ReadTrue", f"{asked} as of {zxid:#x} ended with {error}, there is {node}")
        if node is not None:
            self._check_content(asked, node, reader)
        if asked.watches:
            if asked.op == GET_CHILDREN_2 and node is not None:
                self._watches.child.add(asked.path)
            elif asked.op != GET_CHILDREN_2 and node is not None:
                self._watches.data.add(asked.path)
            elif asked.op == opcodes.EXISTS:
                self._watches.exist.add(asked.path)

    def _check_acl(self, asked: Asked, node: Version, reader: Reader) -> None:
        """Whoever may not administer a node sees no digests (6.8)."""
        is_open = self.world.laws.model.may(self.session_id, node, opcodes.PERM_ADMIN)
        count = reader.read_count() or 0
        shown = [(reader.read_int(), reader.read_text(), reader.read_text()) for _ in range(count)]
        wanted = [
            (perms, scheme, name if is_open or scheme != "digest" else name.partition(":")[0] + ":x")
            for perms, scheme, name in node.acl
        ]
        if shown != wanted:
            self._violated("ReadTrue", f"{asked} gave {shown}, not {wanted}")

    def _check_content(self, asked: Asked, node: Version, reader: Reader) -> None:
        if asked.op == opcodes.GET_ACL:
            self._check_acl(asked, node, reader)
        if asked.op == opcodes.GET_DATA and (reader.read_buffer() or b"") != node.data:
            self._violated("ReadTrue", f"{asked} gave other data than {node.data!r}")
        if asked.op == GET_CHILDREN_2:
            names = {(name or b"").decode() for name in reader.read_strings() or ()}
            if names != node.children:
                self._violated(
                    "ReadTrue", f"{asked} gave children {sorted(names)}, not {sorted(node.children)}"
                )
        stat = read_stat(reader)
        shown = (
            stat.aversion,
            stat.czxid,
            stat.mzxid,
            stat.pzxid,
            stat.version,
            stat.ephemeral_owner,
            stat.num_children,
        )
        wanted = (
            node.aversion,
            node.czxid,
            node.mzxid,
            node.pzxid,
            node.version,
            node.owner,
            len(node.children),
        )
        if shown != wanted:
            self._violated("ReadTrue", f"{asked} gave {stat}, not {wanted}")


def digest_of(credentials: str) -> str:
    """The id of the scheme digest (11.4)."""
    name = credentials.partition(":")[0]
    return f"{name}:{b64encode(sha1(credentials.encode()).digest()).decode()}"


def _add_watch(path: str, mode: int) -> bytes:
    return encode_int(len(path)) + path.encode() + encode_int(mode)


def _read_multi(reader: Reader) -> tuple[int, list[str]]:
    """The error that ended a multi, or 0 and the paths that it made."""
    created: list[str] = []
    failed = 0
    while True:
        op, is_end, _ = read_multi_header(reader)
        if is_end:
            return failed, [] if failed else created
        if op == -1:
            error = reader.read_int()
            if error not in (0, opcodes.RUNTIME_INCONSISTENCY) and not failed:
                failed = error
        elif op == opcodes.CREATE:
            created.append(reader.read_text() or "")
        elif op == opcodes.SET_DATA:
            read_stat(reader)
