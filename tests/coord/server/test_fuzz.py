"""A live server under bytes that hypothesis makes: they cost their own connections, it serves everybody else.

Each example is a server of its own on loopback with some hostile connections, plain and through TLS; after
each of them a witness writes and reads.
"""

import io
import struct
import tempfile
from functools import partial
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coord import eventlog
from coord.protocol import opcodes as o
from coord.protocol.jute import encode_buffer, encode_int, encode_strings, encode_text
from coord.protocol.records import (
    MULTI_END,
    OPEN_ACL,
    encode_acl,
    encode_create,
    encode_multi,
    encode_path_version,
    encode_path_watch,
    encode_set_data,
)
from coord.server import ServerConfig, serve
from coord.server.config import WORDS_ALL
from coord.server.config.security import SecurityConfig
from coord.server.config.tls import TlsConfig
from tests.coord.certificates import Authority
from tests.coord.server.test_server import wait_serving
from tests.coord.server.wire_client import (
    CREATE,
    EXISTS,
    SET_DATA,
    Wire,
    connect_request,
    create,
    request,
    set_data,
)

SECONDS_MAX = 60
CONNECTIONS_MAX = 6

_EMPTY_WATCHES = encode_strings([]) * 3
TEMPLATES: dict[int, bytes] = {
    o.CREATE: encode_create("/a", b"x", OPEN_ACL, 3),
    o.CREATE2: encode_create("/a/b", b"x", OPEN_ACL, 0),
    o.CREATE_CONTAINER: encode_create("/c", b"", OPEN_ACL, 4),
    o.CREATE_TTL: encode_create("/t", b"", OPEN_ACL, 5) + struct.pack(">q", 1),
    o.DELETE: encode_path_version("/a", -1),
    o.DELETE_CONTAINER: encode_text("/c"),
    o.SET_DATA: encode_set_data("/a", b"y", 0),
    o.EXISTS: encode_path_watch("/a", True),
    o.GET_DATA: encode_path_watch("/a", True),
    o.GET_CHILDREN: encode_path_watch("/", True),
    o.GET_CHILDREN2: encode_path_watch("/", False),
    o.GET_ACL: encode_text("/a"),
    o.SET_ACL: encode_text("/a") + encode_acl(OPEN_ACL) + encode_int(-1),
    o.SYNC: encode_text("/"),
    o.PING: b"",
    o.CHECK: encode_path_version("/a", 0),
    o.MULTI: encode_multi(
        [(o.CREATE, encode_create("/m", b"", OPEN_ACL, 1)), (o.CHECK, encode_path_version("/m", 0))]
    ),
    o.MULTI_READ: struct.pack(">i?i", o.GET_DATA, False, -1) + encode_path_watch("/", False) + MULTI_END,
    o.RECONFIG: encode_text("server.1=a:1:2") + encode_text("") + encode_text("") + struct.pack(">q", -1),
    o.AUTH: encode_int(0) + encode_text("digest") + encode_buffer(b"u:p"),
    o.SASL: encode_buffer(b""),
    o.SET_WATCHES: struct.pack(">q", 0) + _EMPTY_WATCHES,
    o.SET_WATCHES2: struct.pack(">q", 0) + _EMPTY_WATCHES + encode_strings([b"/a"]) * 2,
    o.ADD_WATCH: encode_text("/a") + encode_int(1),
    o.CHECK_WATCHES: encode_text("/a") + encode_int(3),
    o.REMOVE_WATCHES: encode_text("/a") + encode_int(3),
    o.GET_EPHEMERALS: encode_text("/"),
    o.GET_ALL_CHILDREN_NUMBER: encode_text("/"),
    o.WHO_AM_I: b"",
    o.CREATE_SESSION: encode_int(5000) + bytes(16),
    o.CLOSE_SESSION: b"",
    0: b"",
    77: b"noise",
}
QUOTA_PATHS = (
    "/zookeeper/quota",
    "/zookeeper/quota/zookeeper_limits",
    "/zookeeper/config",
    "/",
    "/a\0b",
    "a",
    "//",
)
SPLICES = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\0", b"\xff\xfe\xfd")


def mutate(data: bytes, changes: list[tuple[int, bytes]]) -> bytes:
    """Bytes put over others, anywhere."""
    changed = bytearray(data)
    for position, piece in changes:
        at = position % (len(changed) + 1)
        changed[at : at + len(piece)] = piece
    return bytes(changed)


pieces = st.one_of(st.binary(min_size=1, max_size=4), st.sampled_from(SPLICES))
changes = st.lists(st.tuples(st.integers(0, 400), pieces), max_size=3)
requests = st.builds(
    lambda xid, item, damage: request(xid, item[0], mutate(item[1], damage)),
    st.integers(-9, 1 << 30),
    st.sampled_from(sorted(TEMPLATES.items())),
    changes,
)
on_paths = st.builds(
    lambda op, path, data: request(1, op, encode_text(path) + data),
    st.sampled_from(sorted(TEMPLATES)),
    st.sampled_from(QUOTA_PATHS),
    st.binary(max_size=60),
)
frames = st.one_of(
    requests,
    requests,
    on_paths,
    st.builds(lambda op, body: request(1, op, body), st.integers(-32768, 32767), st.binary(max_size=60)),
    st.builds(lambda data, damage: mutate(data, damage), requests, changes),
    st.binary(max_size=40),
)
greetings = st.one_of(
    st.just(connect_request()),
    st.just(connect_request()),
    st.just(connect_request()),
    st.builds(lambda damage: mutate(connect_request(), damage), changes),
    st.sampled_from([b"", b"ruok", b"mntr\0\0", b"GET / HTTP/1.1\r\n\r\n", bytes.fromhex("160301020001")]),
)
attacks = st.tuples(st.sampled_from(["plain", "plain", "tls"]), greetings, st.lists(frames, max_size=8))


async def attack(port: int, context: object, kind: str, greeting: bytes, sent: list[bytes]) -> None:
    stream: trio.abc.Stream = await trio.open_tcp_stream("127.0.0.1", port)
    if kind == "tls":
        stream = trio.SSLStream(stream, context, server_hostname="localhost")  # type: ignore[arg-type]
    try:
        await stream.send_all(greeting + b"".join(sent))
        with trio.move_on_after(0.02):
            while await stream.receive_some(65536):
                pass
    except trio.BrokenResourceError:
        pass
    finally:
        await trio.aclose_forcefully(stream)


async def survive(authority: Authority, store: Path, assaults: list[tuple[str, bytes, list[bytes]]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        config = ServerConfig(
            data_dir=directory,
            data_log_dir=directory,
            client_port=0,
            client_address="127.0.0.1",
            tick_ms=100,
            words=WORDS_ALL,
            tls=TlsConfig(port_unification=True, key_store=str(store), client_auth="none"),
            security=SecurityConfig(sasl_users=(("u", "p"),)),
        )
        context = authority.client_context()
        async with trio.open_nursery() as nursery:
            _, port = await nursery.start(partial(serve, config))
            with trio.fail_after(SECONDS_MAX):
                await wait_serving(port)
                async with await Wire.session(port) as witness:
                    await witness.call(1, CREATE, create(b"/witness"))
                    for number, (kind, greeting, sent) in enumerate(assaults, 2):
                        await attack(port, context, kind, greeting, sent)
                        written = await witness.call(number, SET_DATA, set_data(b"/witness", b"%d" % number))
                        assert written[0] == 0
                async with await Wire.session(port) as newcomer:
                    assert (await newcomer.call(1, EXISTS, encode_path_watch("/witness", False)))[0] == 0
            nursery.cancel_scope.cancel()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(scope="module")
def store(authority: Authority) -> Path:
    return authority.issue("server")


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(assaults=st.lists(attacks, min_size=1, max_size=CONNECTIONS_MAX))
def test_a_server_outlives_whatever_its_clients_send(
    authority: Authority,
    store: Path,
    assaults: list[tuple[str, bytes, list[bytes]]],
) -> None:
    written = io.StringIO()
    eventlog.configure(stream=written)
    try:
        trio.run(survive, authority, store, assaults)
    finally:
        eventlog.configure()
    assert "report this" not in written.getvalue(), "the service must not fail, even on one connection"
