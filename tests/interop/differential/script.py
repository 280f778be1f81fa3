"""Random scripts: all operations of specification 6.1 by several sessions on a small tree, so that they meet.

A script is a list of steps that make sense in any selection, so that a failing one can be made short:

* `Burst`: requests of one session, sent in one piece;
* `Handshake`: a session's connection is dropped and taken up again, or somebody tries to;
* `Stray`: one request on a connection of its own, for those that end it;
* `Restart`: the servers are killed and started again (no random step).

Left out is what ends or stops Apache's own process (specification 6.3, 12.4), and what the two servers
order differently on purpose: nothing follows a setACL, a failing auth or a closeSession in one burst (5.3,
6.8, 4.5).
"""

import base64
import hashlib
import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coord.protocol import opcodes
from tests.coord_raw import buffer

SESSIONS = 4
OPEN = [(31, b"world", b"anyone")]
CREDENTIALS = (b"u1:p1", b"u2:p2")
U1, U2 = (
    user[:3] + base64.b64encode(hashlib.sha1(user, usedforsecurity=False).digest()) for user in CREDENTIALS
)
CONFIG = b"/zookeeper/config"
FAR_TTL_MS = 3_600_000

Body = bytes
Acl = Sequence[tuple[int, bytes | None, bytes | None]] | None


@dataclass(frozen=True, slots=True)
class Request:
    """`zxid_back`: the body begins with the zxid this session saw that many replies ago."""

    op: int
    body: Body
    zxid_back: int | None = None

    def __str__(self) -> str:
        back = "" if self.zxid_back is None else f"zxid{-self.zxid_back} + "
        return f"op {self.op} {back}{self.body!r}"


@dataclass(frozen=True, slots=True)
class Burst:
    session: int
    requests: tuple[Request, ...]

    def __str__(self) -> str:
        return f"session {self.session} sends " + "; ".join(map(str, self.requests))


@dataclass(frozen=True, slots=True)
class Handshake:
    """`kind` is one of `HANDSHAKES`; `short` is without the read-only byte."""

    session: int
    kind: str
    timeout_ms: int

    def __str__(self) -> str:
        return f"session {self.session} shakes hands: {self.kind}, {self.timeout_ms} ms"


@dataclass(frozen=True, slots=True)
class Stray:
    request: Request

    def __str__(self) -> str:
        return f"a stranger sends {self.request}"


@dataclass(frozen=True, slots=True)
class Restart:
    def __str__(self) -> str:
        return "the servers are killed and started again"


Step = Burst | Handshake | Stray | Restart
HANDSHAKES = (
    "drop",
    "drop",
    "drop",
    "wrong-password",
    "unknown",
    "ahead",
    "second",
    "short",
    "null-password",
)


def make_script(
    rng: random.Random, root: str, steps: int, *, quotas: bool = False, with_config: bool = True
) -> list[Step]:
    """`steps` random steps on the tree below `root`, which exists.

    Args:
        quotas: nodes below /zookeeper/quota are made and changed, too, and no burst has two requests: Apache
            judges by the usage and limits that are applied, we by those that the request before has left.
        with_config: /zookeeper/config is read and changed, too; an ensemble's holds its members.
    """
    writer = Writer(rng, root.encode(), quotas, with_config)
    first = writer.first_quota() if quotas else []
    return [*first, *(writer.step() for _ in range(steps - len(first)))]


def text(value: bytes | None) -> bytes:
    return struct.pack(">i", -1) if value is None else buffer(value)


def acl_bytes(acl: Acl) -> bytes:
    if acl is None:
        return struct.pack(">i", -1)
    parts = [struct.pack(">i", len(acl))]
    for perms, scheme, name in acl:
        parts += (struct.pack(">i", perms), text(scheme), text(name))
    return b"".join(parts)


def multi_bytes(operations: Sequence[tuple[int, bytes]]) -> bytes:
    head = struct.Struct(">i?i")
    parts = [head.pack(op, False, -1) + body for op, body in operations]
    return b"".join(parts) + head.pack(-1, True, -1)


class Writer:
    """Draws requests; `likely` are paths that earlier requests may have made."""

    def __init__(self, rng: random.Random, root: bytes, quotas: bool, with_config: bool) -> None:
        self.rng = rng
        self.root = root
        self.quotas = quotas
        self.shared = [b"/", b"/zookeeper", b"/zookeeper/quota", b"/none/a"]
        if with_config:
            self.shared.append(CONFIG)
        self.likely: list[bytes] = [root]
        self.makers: list[tuple[int, int, Callable[[], bytes]]] = [
            (14, opcodes.CREATE, self.create),
            (6, opcodes.CREATE2, self.create),
            (3, opcodes.CREATE_CONTAINER, self.create),
            (4, opcodes.CREATE_TTL, self.create_ttl),
            (9, opcodes.DELETE, self.delete),
            (10, opcodes.SET_DATA, self.set_data),
            (4, opcodes.SET_ACL, self.set_acl),
            (9, opcodes.MULTI, self.multi),
            (9, opcodes.EXISTS, self.path_watch),
            (9, opcodes.GET_DATA, self.path_watch),
            (7, opcodes.GET_CHILDREN, self.path_watch),
            (7, opcodes.GET_CHILDREN2, self.path_watch),
            (4, opcodes.GET_ACL, self.path_alone),
            (2, opcodes.SYNC, self.path_alone),
            (2, opcodes.PING, self.nothing),
            (4, opcodes.CHECK_WATCHES, self.path_kind),
            (4, opcodes.REMOVE_WATCHES, self.path_kind),
            (6, opcodes.ADD_WATCH, self.add_watch),
            (3, opcodes.SET_WATCHES, self.set_watches),
            (3, opcodes.SET_WATCHES2, self.set_watches2),
            (3, opcodes.GET_EPHEMERALS, self.path_alone),
            (3, opcodes.GET_ALL_CHILDREN_NUMBER, self.path_alone),
            (2, opcodes.WHO_AM_I, self.nothing),
            (4, opcodes.MULTI_READ, self.multi_read),
            (1, opcodes.CLOSE_SESSION, self.nothing),
            (1, opcodes.RECONFIG, self.reconfig),
        ]
        if quotas:
            self.makers += [
                (14, opcodes.CREATE, self.create_quota),
                (5, opcodes.SET_DATA, self.set_quota),
                (2, opcodes.DELETE, lambda: text(self.quota_path()) + struct.pack(">i", -1)),
                (6, opcodes.GET_DATA, lambda: text(self.quota_path()) + b"\1"),
            ]
        self.weights = [weight for weight, _, _ in self.makers]

    # -- steps

    def step(self) -> Step:
        chance = self.rng.random()
        if chance < 0.03:
            return Stray(self.stray())
        if chance < 0.07:
            timeout_ms = self.rng.choice([10_000, 10_000, 10_000, 4321, 0, -1, 1 << 30])
            return Handshake(self.session(), self.rng.choice(HANDSHAKES), timeout_ms)
        if chance < 0.11:
            return Burst(self.session(), self.auth())
        requests: list[Request] = []
        for _ in range(self.rng.choice([1, 1, 1, 2, 3, 5, 8]) if not self.quotas else 1):
            requests.append(self.request())
            if requests[-1].op in (opcodes.SET_ACL, opcodes.CLOSE_SESSION):
                break
        if requests[-1].op == opcodes.CLOSE_SESSION and len(requests) > 1:
            # Apache deletes a container made with an ephemeral flag if its create is still under way.
            requests = [one for one in requests if one.op not in (opcodes.CREATE_CONTAINER, opcodes.MULTI)]
        return Burst(self.session(), tuple(requests))

    def session(self) -> int:
        return self.rng.randrange(SESSIONS)

    def request(self) -> Request:
        ((_, op, make),) = self.rng.choices(self.makers, self.weights)
        body = make()
        chance = self.rng.random()
        if chance < 0.015 and body:
            body = body[: self.rng.randrange(len(body))]
        elif chance < 0.03:
            body += b"\0\0\0\1more"
        if op in (opcodes.SET_WATCHES, opcodes.SET_WATCHES2):
            return Request(op, body, self.rng.randrange(12))
        return Request(op, body)

    def auth(self) -> tuple[Request, ...]:
        """Credentials, with requests right behind them where they are good ones."""
        good = [(b"digest", b"u1:p1"), (b"digest", b"u2:p2"), (b"digest", b"super:test"), (b"ip", b"")]
        bad: list[tuple[bytes | None, bytes | None]] = [
            (b"nope", b"x"),
            (b"world", b"anyone"),
            (b"digest", None),
            (b"", b"x"),
            (None, b"x"),
            (b"sasl", b"wire"),
            (b"super", b""),
            (b"auth", b""),
        ]
        if self.rng.random() < 0.8:
            scheme, data = self.rng.choices(good, [6, 6, 1, 1])[0]
            following = [self.request() for _ in range(self.rng.choice([0, 0, 1]) if not self.quotas else 0)]
            return (Request(opcodes.AUTH, struct.pack(">i", 0) + text(scheme) + text(data)), *following)
        scheme_or_null, data_or_null = self.rng.choice(bad)
        return (Request(opcodes.AUTH, struct.pack(">i", 0) + text(scheme_or_null) + text(data_or_null)),)

    def stray(self) -> Request:
        op = self.rng.choice(
            [0, 10, opcodes.CHECK, 23, 99, 108, 12345, -2, -100, opcodes.DELETE_CONTAINER, opcodes.ADD_WATCH]
        )
        if op == opcodes.DELETE_CONTAINER:
            return Request(op, text(self.root + b"/no/such/container"))
        if op == opcodes.ADD_WATCH:
            return Request(op, text(None) + struct.pack(">i", 0))
        return Request(op, self.check() if op == opcodes.CHECK else b"")

    # -- what requests are made of

    def path(self) -> bytes | None:
        chance = self.rng.random()
        if chance < 0.60:
            return self.rng.choice(self.likely)
        if chance < 0.86:
            return self.new_path()
        if chance < 0.92:
            return self.rng.choice(self.shared)
        if chance < 0.985:
            return self.odd_path()
        return None

    def new_path(self) -> bytes:
        parent = self.rng.choice(self.likely) if self.rng.random() < 0.5 else self.root
        if parent.count(b"/") > 4:
            parent = self.root
        return (
            parent
            + b"/"
            + self.rng.choice([b"a", b"b", b"c", b"d-", b"s-000000000" + b"%d" % self.rng.randrange(6)])
        )

    def odd_path(self) -> bytes:
        r = self.root
        odd = [
            b"",
            b"abc",
            b"a/b",
            r + b"/",
            b"/" + r,
            r + b"//a",
            r + b"/./a",
            r + b"/..",
            r + b"/a/..",
            r + b"/.a",
        ]
        odd += [r + b"/..b", r + b"/n\0l", r + b"/\x1f", r + b"/\x7f", r + b"/\x9f", r + b"/ ", r + b"/a b"]
        odd += [
            r + b"/" + name.encode()
            for name in ("\ue000", "\uf8ff", "\ud7ff", "\ufff0", "\uffef", "é", "日本", "😀")
        ]
        odd += [r + b"/\xff", b"/zookeeper/", b"/zookeeper/quota/"]
        return self.rng.choice(odd)

    def data(self) -> bytes | None:
        return self.rng.choice([None, b"", b"x", b"some data", bytes(range(256)), b"\xff" * 3000])

    def version(self) -> int:
        return self.rng.choice([-1, -1, -1, 0, 0, 1, 2, 3, -2, 99, 2**31 - 1, -(2**31)])

    def acl(self) -> Acl:
        if self.rng.random() < 0.72:
            return OPEN
        local, far = b"127.0.0.1", b"10.0.0.0/8"
        lists: list[Acl] = [
            None,
            [],
            [(1, b"world", b"anyone")],
            [(3, b"world", b"anyone"), (31, b"digest", U1)],
            [(31, b"digest", U1)],
            [(31, b"digest", U1), (31, b"digest", U1), (5, b"digest", U2)],
            [(31, b"auth", b"")],
            [(31, b"auth", None)],
            [(9, b"auth", b"u1:x"), (1, b"world", b"anyone")],
            [(31, b"ip", local)],
            [(31, b"ip", b"127.0.0.0/8")],
            [(31, b"ip", far), (1, b"ip", local)],
            [(31, b"ip", b"::1/128"), (15, b"world", b"anyone")],
            [(0, b"world", b"anyone")],
            [(16, b"digest", U2), (7, b"world", b"anyone")],
            [(-1, b"world", b"anyone")],
            [(64, b"world", b"anyone")],
            [(31, b"sasl", b"wire")],
            [(31, b"sasl", b"wire/host@REALM"), (31, b"world", b"anyone")],
            [(31, b"world", b"somebody")],
            [(31, b"super", b"")],
            [(31, b"nope", b"x")],
            [(31, None, b"x")],
            [(31, b"", b"")],
            [(31, b"world", None)],
            [(31, b"digest", None)],
            [(31, b"digest", b"u1")],
            [(31, b"digest", b"u1:")],
            [(31, b"digest", b":h"), (31, b"world", b"anyone")],
            [(31, b"digest", b"a:b:c")],
            [(31, b"ip", b"1.2.3.4/33")],
            [(31, b"ip", b"1.2.3.4/")],
            [(31, b"ip", b"1.2.3")],
            [(31, b"ip", b"localhost")],
            [(31, b"ip", b"1.2.3.4/x")],
            [(31, b"ip", b"01.2.3.4/08"), (31, b"world", b"anyone")],
            [(31, b"x509", b"CN=me")],
        ]
        return self.rng.choice(lists)

    # -- bodies

    def nothing(self) -> bytes:
        return b""

    def path_alone(self) -> bytes:
        return text(self.path())

    def path_watch(self) -> bytes:
        return text(self.path()) + bytes([self.rng.random() < 0.4])

    def path_kind(self) -> bytes:
        return text(self.path()) + struct.pack(">i", self.rng.choice([1, 2, 3, 3, 4, 5, 0, 6, -1]))

    def add_watch(self) -> bytes:
        # A null path is asked for by strangers only: Apache remembers it, we refuse it (specification 2.2).
        return text(self.path() or self.root) + struct.pack(">i", self.rng.choice([0, 0, 0, 1, 1, 2, -1]))

    def create_path(self) -> bytes | None:
        path = self.new_path() if self.rng.random() < 0.7 else self.path()
        if path is not None and path.startswith(self.root) and len(self.likely) < 40:
            self.likely.append(path)
        return path

    def create(self) -> bytes:
        flags = self.rng.choices([0, 1, 2, 3, 4, 5, 6, 7, -1, 256], [50, 12, 14, 8, 5, 1, 1, 1, 1, 1])[0]
        return self.create_bytes(flags)

    def create_bytes(self, flags: int) -> bytes:
        path = self.create_path()
        return text(path) + text(self.data()) + acl_bytes(self.acl()) + struct.pack(">i", flags)

    def create_ttl(self) -> bytes:
        if self.rng.random() < 0.85:
            flags = self.rng.choice([5, 5, 6])
            ttl = self.rng.choice([FAR_TTL_MS, FAR_TTL_MS, 2**40 - 1, 2**40, 0, -1, -2, 2**62])
        else:
            # A mode without TTL and a negative one would end Apache's process (specification 6.3).
            flags = self.rng.choice([0, 1, 2, 3, 4, 7, -1])
            ttl = self.rng.choice([0, 1, FAR_TTL_MS, 2**40])
        return self.create_bytes(flags) + struct.pack(">q", ttl)

    def quota_path(self) -> bytes:
        """A node of a quota; never on the root: statistics there end Apache's process (spec 12.4)."""
        node = self.root + self.rng.choice([b"", b"/a", b"/b", b"/a/b"])
        return b"/zookeeper/quota" + node + self.rng.choice([b"", b"/zookeeper_limits", b"/zookeeper_stats"])

    def quota(self, path: bytes) -> bytes:
        """Limits or statistics; unreadable or null statistics end Apache's process at the next change."""
        limits = [
            b"count=3,bytes=-1",
            b"count=5,bytes=10",
            b"count=-1,bytes=-1=;countHardLimit=6",
            b"count=-1,bytes=-1=;byteHardLimit=900",
            b"count=1,bytes=1=;byteHardLimit=3500;countHardLimit=12",
        ]
        if path.endswith(b"_limits"):
            limits += [b"", b"nonsense"]
        return self.rng.choice(limits)

    def first_quota(self) -> list[Step]:
        """Hard limits on the root of the script."""
        top = b"/zookeeper/quota" + self.root
        limits = b"count=-1,bytes=-1=;byteHardLimit=5000;countHardLimit=8"
        nodes = ((top, b""), (top + b"/zookeeper_limits", limits), (top + b"/zookeeper_stats", b""))
        tail = acl_bytes(OPEN) + struct.pack(">i", 0)
        return [Burst(0, (Request(opcodes.CREATE, text(path) + text(data) + tail),)) for path, data in nodes]

    def create_quota(self) -> bytes:
        path = self.quota_path()
        return text(path) + text(self.quota(path)) + acl_bytes(OPEN) + struct.pack(">i", 0)

    def set_quota(self) -> bytes:
        path = self.quota_path()
        return text(path) + text(self.quota(path)) + struct.pack(">i", -1)

    def delete(self) -> bytes:
        return text(self.path()) + struct.pack(">i", self.version())

    check = delete

    def changed_path(self) -> bytes | None:
        """Not the configuration: a super user may change it there, and not here (specification 24)."""
        path = self.path()
        return self.root if path == CONFIG else path

    def set_data(self) -> bytes:
        return text(self.changed_path()) + text(self.data()) + struct.pack(">i", self.version())

    def set_acl(self) -> bytes:
        path = self.path()
        if path in self.shared:
            path = self.root + b"/a"  # scripts share these with those that follow
        return text(path) + acl_bytes(self.acl()) + struct.pack(">i", self.version())

    def multi(self) -> bytes:
        makers = [
            (opcodes.CREATE, self.create),
            (opcodes.CREATE2, self.create),
            (opcodes.CREATE_CONTAINER, self.create),
            (opcodes.CREATE_TTL, self.create_ttl),
            (opcodes.DELETE, self.delete),
            (opcodes.SET_DATA, self.set_data),
            (opcodes.CHECK, self.check),
            (opcodes.GET_DATA, self.path_watch),
            (opcodes.SET_ACL, self.set_acl),
        ]
        chosen = self.rng.choices(
            makers, [30, 10, 4, 4, 20, 20, 20, 1, 1], k=self.rng.choice([0, 1, 2, 2, 3, 4])
        )
        if self.rng.random() < 0.5:
            return self.likely_multi(len(chosen))
        return multi_bytes([(op, make()) for op, make in chosen])

    def likely_multi(self, count: int) -> bytes:
        """A chain that may well succeed: nodes made, changed, checked and deleted again."""
        path = self.new_path()
        self.likely.append(path)
        version = struct.pack(">i", -1)
        node = text(path) + text(self.data()) + acl_bytes(OPEN)
        chain = [
            (
                self.rng.choice([opcodes.CREATE, opcodes.CREATE2]),
                node + struct.pack(">i", self.rng.choice([0, 0, 1, 2, 4])),
            ),
            (opcodes.SET_DATA, text(path) + text(self.data()) + version),
            (opcodes.CHECK, text(path) + struct.pack(">i", self.rng.choice([-1, 1, 1, 0]))),
            (
                opcodes.CREATE,
                text(path + b"/s-") + text(self.data()) + acl_bytes(OPEN) + struct.pack(">i", 2),
            ),
            (opcodes.DELETE, text(path) + version),
        ]
        return multi_bytes(chain[: count + 1])

    def multi_read(self) -> bytes:
        makers = [
            (opcodes.GET_DATA, 20),
            (opcodes.GET_CHILDREN, 20),
            (opcodes.EXISTS, 1),
            (opcodes.SET_DATA, 1),
        ]
        chosen = self.rng.choices(
            [op for op, _ in makers], [weight for _, weight in makers], k=self.rng.choice([0, 1, 2, 3])
        )
        return multi_bytes(
            [(op, self.set_data() if op == opcodes.SET_DATA else self.path_watch()) for op in chosen]
        )

    def paths(self) -> bytes:
        count = self.rng.choice([0, 0, 0, 1, 1, 2, 3, 3, -1, -2])
        return struct.pack(">i", count) + b"".join(text(self.path()) for _ in range(count))

    def set_watches(self) -> bytes:
        return b"".join(self.paths() for _ in range(3))

    def set_watches2(self) -> bytes:
        persistent = [self.path() or self.root for _ in range(self.rng.randrange(3))]
        lists = struct.pack(">i", len(persistent)) + b"".join(map(text, persistent))
        return self.set_watches() + lists + self.rng.choice([lists, struct.pack(">i", -1)])

    def reconfig(self) -> bytes:
        return text(b"server.9=127.0.0.1:1:2") + text(None) + text(None) + struct.pack(">q", -1)
