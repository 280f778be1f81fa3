"""Authentication byte for byte: the same exchanges with Apache ZooKeeper 3.9 and us (specification 11)."""

import re
import socket
import ssl
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coord.protocol import opcodes as o
from coord.protocol.digest_md5 import DigestMd5Client
from coord.protocol.jute import encode_buffer, encode_int, encode_text
from coord.protocol.records import Acl, encode_acl
from tests.coord.certificates import Authority
from tests.coord.server.wire_client import buffer, connect_request, request, watched
from tests.coord_servers import CoordServers, free_ports
from tests.interop.apache import ApacheServers, zookeeper_jars

pytestmark = pytest.mark.interop

SECONDS_MAX = 60
QUIET_SECONDS, QUIET_SECONDS_MAX = 0.25, 10.0
"""A connection that is silent for so long stays open; for so long, where two servers seem to differ."""
OURS = "sasl.digest.user.wire=wirepw\nsasl.digest.user.super=test\nsuperUser=super\n"

Talk = Callable[[int], list[object]]


class Wire:
    """A blocking connection with a session."""

    quiet_seconds = QUIET_SECONDS

    def __init__(
        self, port: int, context: ssl.SSLContext | None = None, *, first: bytes | None = None
    ) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), SECONDS_MAX)
        try:
            if context is not None:
                self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
            self.socket.sendall(connect_request() if first is None else first)
            if first is None:
                self.frame()
        except OSError:
            self.socket.close()
            raise

    def frame(self) -> bytes | None:
        """The next frame; None at the end."""
        head = self.exactly(4)
        return None if head is None else self.exactly(struct.unpack(">i", head)[0])

    def exactly(self, count: int) -> bytes | None:
        data = b""
        while len(data) < count:
            part = self.receive()
            if not part:
                return None
            data += part
        return data

    def receive(self) -> bytes:
        try:
            return self.socket.recv(1)
        except ConnectionResetError:
            return b""

    def rest(self) -> bytes:
        """Everything up to the end, or up to a silence."""
        self.socket.settimeout(self.quiet_seconds)
        data = b""
        try:
            while part := self.receive():
                data += part
        except TimeoutError:
            return data + b" and stays open"
        return data + b" and ends"

    def call(self, xid: int, op: int, body: bytes) -> object:
        """Error and body of a reply, without zxid and Stat."""
        self.socket.sendall(request(xid, op, body))
        frame = self.frame()
        if frame is None:
            return None
        answer = frame[16:-68] if op == o.GET_ACL else frame[16:]
        return frame[:4], frame[12:16], re.sub(rb'nonce="[^"]*"', b'nonce=""', answer)

    def close(self) -> None:
        self.socket.close()


def auth_packet(scheme: str | None, credentials: bytes | None, xid: int = -4) -> bytes:
    return request(xid, o.AUTH, encode_int(0) + encode_text(scheme) + encode_buffer(credentials))


def own_list(wire: Wire, path: bytes) -> list[object]:
    """What `auth` stands for on this connection."""
    body = buffer(path) + buffer(b"") + encode_acl([Acl(31, "auth", "")]) + encode_int(0)
    answers = [wire.call(50, o.CREATE, body), wire.call(51, o.GET_ACL, buffer(path))]
    return [*answers, wire.call(52, o.DELETE, buffer(path) + encode_int(-1))]


def after(sent: bytes) -> Talk:
    """What comes back for some bytes."""

    def talk(port: int) -> list[object]:
        with closing(Wire(port)) as wire:
            wire.socket.sendall(sent)
            return [wire.rest()]

    return talk


def login(user: str, password: str, change: tuple[bytes, bytes] = (b"", b"")) -> Talk:
    def talk(port: int) -> list[object]:
        with closing(Wire(port)) as wire:
            client = DigestMd5Client(user, password, "cnonce")
            wire.socket.sendall(request(1, o.SASL, encode_buffer(b"")))
            challenge = wire.frame()
            assert challenge is not None
            response = client.step(challenge[20:])
            assert response is not None
            wire.socket.sendall(request(2, o.SASL, encode_buffer(response.replace(*change))))
            final = wire.frame()
            assert final is not None
            answers: list[object] = [final[:20]]
            if final[12:16] == bytes(4):
                client.step(final[20:])
                answers += own_list(wire, b"/sasl")
                answers.append(wire.call(4, o.SASL, encode_buffer(b"")))
            return [*answers, wire.rest()]

    return talk


AUTHENTICATION: dict[str, Talk] = {
    f"auth {scheme} {credentials!r}": after(auth_packet(scheme, credentials))
    for scheme, credentials in [
        *(
            ("digest", b"u:p"),
            ("digest", b"nocolon"),
            ("digest", None),
            ("digest", b""),
            ("digest", b"\xff:\xfe"),
        ),
        *((None, b"x"), ("", b"x"), ("ip", b"1.2.3.4"), ("ip", None), ("world", b"anyone"), ("super", b"")),
        *(("sasl", b"x"), ("auth", b"x"), ("weird", b"x"), ("x509", b""), ("ensemble", b"x")),
    ]
} | {
    "auth with another xid": after(auth_packet("digest", b"u:p", 5)),
    "auth that ends early": after(request(-4, o.AUTH, b"\0\0\0\0\0\0")),
    "sasl null": after(request(1, o.SASL, encode_buffer(None))),
    "sasl without a token": after(request(1, o.SASL)),
    "sasl garbage": after(request(1, o.SASL, b"\0\0\0\0") + request(2, o.SASL, encode_buffer(b"x=y"))),
    "sasl": login("wire", "wirepw"),
    "sasl super": login("super", "test"),
    "sasl wrong password": login("wire", "guessed"),
    "sasl unknown user": login("nobody", "wirepw"),
    "sasl other service": login("wire", "wirepw", (b"zookeeper/", b"other/")),
    "sasl without qop": login("wire", "wirepw", (b",qop=auth", b"")),
    "sasl with integrity": login("wire", "wirepw", (b"qop=auth", b"qop=auth-int")),
    "sasl without realm": login("wire", "wirepw", (b'realm="zk-sasl-md5",', b"")),
    "sasl without charset": login("wire", "wirepw", (b"charset=utf-8,", b"")),
}


def differences(exchanges: dict[str, Talk], apache: int, ours: int) -> dict[str, tuple[object, object]]:
    def differ(name: str) -> dict[str, tuple[object, object]]:
        theirs, mine = exchanges[name](apache), exchanges[name](ours)
        if "garbage" in name:  # the challenge comes first
            theirs, mine = [theirs[0][-30:]], [mine[0][-30:]]  # type: ignore[index]
        return {} if theirs == mine else {name: (theirs, mine)}

    differing = [name for name in exchanges if differ(name)]
    # One may only have been slow to speak or to close, on a busy machine.
    Wire.quiet_seconds = QUIET_SECONDS_MAX
    try:
        return {name: both for again in map(differ, differing) for name, both in again.items()}
    finally:
        Wire.quiet_seconds = QUIET_SECONDS


def test_22_65_to_76_auth_packets_and_logins_are_answered_as_apache_answers_them(tmp_path: Path) -> None:
    with ApacheServers(tmp_path / "apache") as apache, CoordServers(tmp_path / "ours", extra=OURS) as ours:
        assert differences(AUTHENTICATION, apache.servers[0].port, ours.servers[0].port) == {}


NETTY = """
serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory
ssl.keyStore.type=PEM
ssl.trustStore.type=PEM
"""


class Certificates:
    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        self.server = self.authority.issue("server")
        self.client = self.authority.client_context(self.authority.issue('cli, ent+"x"'))
        self.boss = self.authority.client_context(self.authority.issue("boss"))
        self.nobody = self.authority.client_context()

    def config(self, port: int) -> str:
        return (
            f"secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\nclient.portUnification=true\n"
            f"ssl.keyStore.location={self.server}\nssl.trustStore.location={self.authority.path}\n"
            "X509AuthenticationProvider.superUser=CN=boss,O=Acme\n"
            "enforce.auth.enabled=true\nenforce.auth.schemes=digest,x509\n"
        )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def identities(context: ssl.SSLContext) -> Talk:
    def talk(port: int) -> list[object]:
        try:
            with closing(Wire(port, context)) as wire:
                wire.socket.sendall(request(1, o.WHO_AM_I))
                who = wire.frame()
                if who is None:
                    return ["refused"]
                words = sorted(re.findall(rb"[ -~]{3,}", who[16:]))
                wire.socket.sendall(auth_packet("x509", b""))
                return [words, wire.frame(), *own_list(wire, b"/mine")]
        except (ssl.SSLError, ConnectionError):
            return ["refused"]

    return talk


def words_over_tls(context: ssl.SSLContext) -> Talk:
    def talk(port: int) -> list[object]:
        with closing(Wire(port, context, first=b"ruok")) as wire:
            return [wire.rest()]

    return talk


def plain(first: bytes) -> Talk:
    def talk(port: int) -> list[object]:
        with closing(Wire(port, first=first)) as wire:
            return [wire.rest()]

    return talk


def guarded() -> Iterator[tuple[str, Talk]]:
    for op in (0, 1, 3, 4, 9, o.PING, o.CHECK, 77, o.SET_WATCHES, o.WHO_AM_I, o.CLOSE_SESSION):
        yield f"operation {op} before authentication", after(request(5, op, watched(b"/")))
    behind = request(1, o.EXISTS, watched(b"/"))
    yield "behind scheme ip", after(auth_packet("ip", b"") + behind)


def test_22_78_and_80_tls_and_enforcement_are_as_apache_has_them(
    tmp_path: Path, certificates: Certificates
) -> None:
    ports = free_ports(2)
    theirs, mine = (certificates.config(port) for port in ports)
    over_tls = {
        "client": identities(certificates.client),
        "boss": identities(certificates.boss),
        "nobody": identities(certificates.nobody),
        "word": words_over_tls(certificates.client),
    }
    with (
        ApacheServers(tmp_path / "apache", extra=NETTY + theirs) as apache,
        CoordServers(tmp_path / "ours", extra=mine) as ours,
    ):
        both = (apache.servers[0].port, ours.servers[0].port)
        assert differences(over_tls, *ports) == {}
        assert differences(over_tls, *both) == {}
        bare = {"connect": plain(connect_request()), "word": plain(b"ruok")}
        assert differences(bare, *ports) == {}
        assert differences({"word": plain(b"ruok")} | dict(guarded()), *both) == {}


def zkcli(hosts: str, *properties: str) -> str:
    """What Java's client answers when it makes a node that only its own identities may use."""
    commands = "create /java x auth::cdrwa\nget /java\nwhoami\ndelete /java\nquit\n"
    command = ["java", *(f"-D{one}" for one in properties), "-cp", f"{zookeeper_jars()}/*"]
    done = subprocess.run(
        [*command, "org.apache.zookeeper.ZooKeeperMain", "-server", hosts],
        input=commands,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout + done.stderr


def test_22_76_javas_client_logs_in_by_sasl(tmp_path: Path) -> None:
    jaas = tmp_path / "jaas.conf"
    module = "org.apache.zookeeper.server.auth.DigestLoginModule"
    jaas.write_text(f'Client {{\n {module} required username="wire" password="wirepw";\n}};\n')
    with CoordServers(tmp_path, extra=OURS) as servers:
        login_options = (f"java.security.auth.login.config={jaas}", "zookeeper.fips-mode=false")
        answer = zkcli(servers.hosts, *login_options)
    assert "state:SaslAuthenticated" in answer
    assert "Created /java" in answer
    assert "sasl: wire" in answer


def test_22_78_javas_client_is_known_by_its_certificate(tmp_path: Path, certificates: Certificates) -> None:
    (port,) = free_ports(1)
    client, authority = certificates.authority.issue("java"), certificates.authority
    with CoordServers(tmp_path, extra=certificates.config(port)):
        answer = zkcli(
            f"localhost:{port}",
            "zookeeper.client.secure=true",
            "zookeeper.clientCnxnSocket=org.apache.zookeeper.ClientCnxnSocketNetty",
            f"zookeeper.ssl.keyStore.location={client}",
            "zookeeper.ssl.keyStore.type=PEM",
            f"zookeeper.ssl.trustStore.location={authority.path}",
            "zookeeper.ssl.trustStore.type=PEM",
        )
    assert "Created /java" in answer
    assert "x509: CN=java,O=Acme" in answer
