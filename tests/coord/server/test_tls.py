"""TLS of the client ports (specification 1.1, 11.4, 22.78): what the keys mean, and a server on the wire."""

import os
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from coord.protocol import opcodes as o
from coord.protocol.jute import encode_buffer, encode_int
from coord.protocol.records import Acl, encode_acl
from coord.server.config import ConfigError, load_config, parse_config
from coord.server.config.security import SecurityConfig
from coord.server.config.tls import TlsConfig
from coord.server.strangers import spoken_without_tls
from coord.server.tls import ClientTls, make_context, openssl_name
from tests.coord.certificates import Authority
from tests.coord.server.test_server import Start, start
from tests.coord.server.wire_client import (
    CREATE,
    EXISTS,
    GET_DATA,
    Wire,
    buffer,
    connect_request,
    request,
    watched,
)
from tests.coord_servers import free_ports

__all__ = ["start"]

SECONDS_MAX = 60


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def key_store(authority: Authority) -> str:
    return str(authority.issue("server"))


@pytest.fixture
def config(authority: Authority, key_store: str) -> TlsConfig:
    return TlsConfig(port_unification=True, key_store=key_store, trust_store=str(authority.path))


@asynccontextmanager
async def secure(port: int, context: ssl.SSLContext) -> AsyncIterator[Wire]:
    """A connection with a session, through TLS."""
    plain = await trio.open_tcp_stream("127.0.0.1", port)
    stream = trio.SSLStream(plain, context, server_hostname="localhost", https_compatible=True)
    try:
        wire = Wire(stream)  # type: ignore[arg-type]
        await wire.send(connect_request())
        await wire.frame()
        yield wire
    finally:
        await trio.aclose_forcefully(stream)


async def whoami_acl(wire: Wire, path: bytes) -> bytes:
    """What `auth` stands for on this connection: the list of a node made with it, or the error."""
    body = buffer(path) + buffer(b"x") + encode_acl([Acl(31, "auth", "")]) + struct.pack(">i", 0)
    error, _ = await wire.call(1000, CREATE, body)
    if error:
        return encode_int(error)
    _, body = await wire.call(1001, o.GET_ACL, buffer(path))
    return body[:-68]


# on the wire


async def test_11_4_a_certificate_is_an_identity_on_the_unified_port(
    start: Start, authority: Authority, config: TlsConfig
) -> None:
    port = await start(tls=config)
    context = authority.client_context(authority.issue("client"))
    with trio.fail_after(SECONDS_MAX):
        async with secure(port, context) as wire:
            expected = encode_acl([Acl(31, "x509", "CN=client,O=Acme")])
            assert await whoami_acl(wire, b"/mine") == expected
            async with await Wire.session(port) as plain:
                assert (await plain.call(1, GET_DATA, watched(b"/mine")))[0] == o.NO_AUTH
                assert await whoami_acl(plain, b"/none") == encode_int(o.INVALID_ACL)
                auth = encode_int(0) + encode_buffer(b"x509") + encode_buffer(b"")
                await wire.send(request(-4, o.AUTH, auth))
                assert (await wire.reply())[::2] == (-4, 0)


async def test_11_4_a_super_user_by_certificate_passes_every_list(
    start: Start, authority: Authority, config: TlsConfig
) -> None:
    port = await start(tls=config, security=SecurityConfig(x509_super_user="CN=boss,O=Acme"))
    async with await Wire.session(port) as plain:
        closed = buffer(b"/closed") + buffer(b"x") + encode_acl([Acl(0, "world", "anyone")])
        assert (await plain.call(1, CREATE, closed + struct.pack(">i", 0)))[0] == 0
    with trio.fail_after(SECONDS_MAX):
        for name, error in (("boss", 0), ("other", o.NO_AUTH)):
            async with secure(port, authority.client_context(authority.issue(name))) as wire:
                assert (await wire.call(1, GET_DATA, watched(b"/closed")))[0] == error


async def test_1_1_the_secure_port_serves_tls_and_closes_plain_connections(
    start: Start, authority: Authority, key_store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (secure_port,) = free_ports(1)
    tls = TlsConfig(
        secure_port=secure_port, secure_address="127.0.0.1", key_store=key_store, client_auth="none"
    )
    port = await start(tls=tls)
    with trio.fail_after(SECONDS_MAX):
        async with secure(secure_port, authority.client_context()) as wire:
            assert (await wire.call(1, EXISTS, watched(b"/")))[0] == 0
        async with await Wire.open(secure_port) as plain:
            await plain.send(connect_request())
            assert await plain.rest() == b""
        assert "spoke plain ZooKeeper protocol" in capsys.readouterr().err
        with pytest.raises((trio.BrokenResourceError, EOFError)):
            async with secure(port, authority.client_context()):
                pass


@pytest.mark.parametrize(
    ("first", "text"),
    [
        (b"GET / HTTP/1.1\r\n", "plain HTTP"),
        (b"ruok", "a four-letter word"),
        (struct.pack(">iiq", 45, 0, 0), "plain ZooKeeper protocol"),
        (b"\0\0", "plain ZooKeeper protocol"),
        (b"SSH-2.0-OpenSSH\r\n", "no TLS"),
    ],
)
def test_who_speaks_no_tls_is_named(first: bytes, text: str) -> None:
    assert spoken_without_tls(first).startswith(text)


async def test_1_1_tls_on_the_plain_port_is_closed_without_a_byte(start: Start) -> None:
    port = await start()
    async with await Wire.open(port) as wire:
        await wire.send(bytes.fromhex("1603010200010001fc0303") + bytes(64))
        assert await wire.rest() == b""


async def test_four_letter_words_work_over_tls(start: Start, authority: Authority, config: TlsConfig) -> None:
    port = await start(tls=config)
    context = authority.client_context(authority.issue("client"))
    with trio.fail_after(SECONDS_MAX):
        plain = await trio.open_tcp_stream("127.0.0.1", port)
        async with trio.SSLStream(plain, context, server_hostname="localhost") as stream:
            await stream.send_all(b"ruok")
            assert await stream.receive_some() == b"imok"
            assert await stream.receive_some() == b""


@pytest.mark.parametrize(("client_auth", "is_let_in"), [("need", False), ("want", True), ("none", True)])
async def test_11_4_a_client_without_certificate_is_let_in_unless_it_needs_one(
    start: Start, authority: Authority, key_store: str, client_auth: str, is_let_in: bool
) -> None:
    tls = TlsConfig(
        port_unification=True, key_store=key_store, trust_store=str(authority.path), client_auth=client_auth
    )
    port = await start(tls=tls)
    with trio.fail_after(SECONDS_MAX):
        if is_let_in:
            async with secure(port, authority.client_context()) as wire:
                assert await whoami_acl(wire, b"/mine") == encode_int(o.INVALID_ACL)
        else:
            with pytest.raises((trio.BrokenResourceError, EOFError)):
                async with secure(port, authority.client_context()):
                    pass
        async with await Wire.session(port) as witness:
            assert (await witness.call(1, EXISTS, watched(b"/")))[0] == 0


@pytest.mark.parametrize("client_auth", ["need", "want"])
async def test_a_certificate_of_another_authority_is_refused(
    start: Start, authority: Authority, key_store: str, client_auth: str, tmp_path: Path
) -> None:
    tls = TlsConfig(
        port_unification=True, key_store=key_store, trust_store=str(authority.path), client_auth=client_auth
    )
    port = await start(tls=tls)
    foreign = Authority(tmp_path, "foreign").issue("client")
    with trio.fail_after(SECONDS_MAX), pytest.raises((trio.BrokenResourceError, EOFError)):
        async with secure(port, authority.client_context(foreign)):
            pass


async def test_a_certificate_with_a_name_beyond_all_bounds_is_refused(
    start: Start, authority: Authority, config: TlsConfig
) -> None:
    """Every write would carry it through the log."""
    port = await start(tls=config)
    endless = authority.issue("endless", units=200)
    with trio.fail_after(SECONDS_MAX), pytest.raises((trio.BrokenResourceError, EOFError)):
        async with secure(port, authority.client_context(endless)):
            pass


async def test_enforced_x509_serves_who_has_a_certificate_only(
    start: Start, authority: Authority, config: TlsConfig
) -> None:
    security = SecurityConfig(enforce_enabled=True, enforce_schemes=("x509",))
    port = await start(tls=config, security=security)
    with trio.fail_after(SECONDS_MAX):
        async with secure(port, authority.client_context(authority.issue("client"))) as wire:
            assert (await wire.call(1, EXISTS, watched(b"/")))[0] == 0
        async with await Wire.session(port) as plain:
            await plain.send(request(1, EXISTS, watched(b"/")))
            assert await plain.rest() == struct.pack(">iiqi", 16, 1, 0, -124)


# the keys


def failure(config: TlsConfig) -> str:
    with pytest.raises(ConfigError) as caught:
        make_context(config)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_context_has_the_versions_that_are_enabled(authority: Authority, key_store: str) -> None:
    def versions(**changes: object) -> tuple[ssl.TLSVersion, ssl.TLSVersion]:
        tls = TlsConfig(secure_port=0, key_store=key_store, client_auth="none", **changes)  # type: ignore[arg-type]
        context = make_context(tls)
        return context.minimum_version, context.maximum_version

    old, new = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
    assert versions() == (old, new)
    assert versions(protocol="TLSv1.3") == (new, new)
    assert versions(enabled_protocols=("TLSv1.2",)) == (old, old)
    assert versions(cipher_suites=("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",)) == (old, old)


def test_suites_are_those_named(key_store: str) -> None:
    tls = TlsConfig(
        secure_port=0,
        key_store=key_store,
        client_auth="none",
        cipher_suites=(
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        ),
    )
    names = [suite["name"] for suite in make_context(tls).get_ciphers() if suite["protocol"] == "TLSv1.2"]
    assert sorted(names) == ["ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-AES128-GCM-SHA256"]


@pytest.mark.parametrize(
    ("java", "openssl"),
    [
        ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", "ECDHE-RSA-AES128-SHA256"),
        ("TLS_DHE_RSA_WITH_AES_256_GCM_SHA384", "DHE-RSA-AES256-GCM-SHA384"),
        ("TLS_RSA_WITH_AES_256_CBC_SHA", "AES256-SHA"),
    ],
)
def test_javas_names_of_suites_are_understood(java: str, openssl: str) -> None:
    assert openssl_name(java) == openssl


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key_store": "/nowhere.pem"}, "ssl.keyStore.location /nowhere.pem cannot be read: No such file"),
        ({"trust_store": "/nowhere.pem"}, "ssl.trustStore.location /nowhere.pem cannot be read"),
        ({"key_password_path": "/nowhere"}, "passwordPath /nowhere cannot be read"),
        ({"cipher_suites": ("SSL_RSA_WITH_RC4_128_MD5",)}, "not known here or not safe"),
        ({"cipher_suites": ("TLS_AES_128_GCM_SHA256",)}, "TLS 1.3 comes with all its suites"),
        ({"crl": True}, "expected CRLs"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(
    config: TlsConfig, authority: Authority, changes: dict[str, object], words: str
) -> None:
    settings = {"key_store": config.key_store, "trust_store": config.trust_store} | changes
    assert words in failure(TlsConfig(secure_port=0, **settings))  # type: ignore[arg-type]


def test_an_encrypted_key_needs_its_password(authority: Authority, tmp_path: Path) -> None:
    store = str(authority.issue("encrypted", password=b"pw"))
    path = tmp_path / "password"
    path.write_text("pw\n")

    def tls(**changes: str) -> TlsConfig:
        return TlsConfig(secure_port=0, key_store=store, client_auth="none", **changes)  # type: ignore[arg-type]

    make_context(tls(key_password="pw"))
    make_context(tls(key_password="wrong", key_password_path=str(path)))
    assert "ssl.keyStore.password" in failure(tls())
    assert "ssl.keyStore.password" in failure(tls(key_password="wrong"))


def test_a_store_without_its_key_is_refused(authority: Authority) -> None:
    text = failure(TlsConfig(secure_port=0, key_store=str(authority.path), client_auth="none"))
    assert "cannot be used" in text


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ({"secureClientPort": "0"}, "ssl.keyStore.location must name a PEM file"),
        ({"client.portUnification": "true"}, "client.portUnification is set: ssl.keyStore.location"),
        ({"secureClientPort": "0", "ssl.keyStore.location": "a.pem"}, "ssl.clientAuth is need"),
        ({"ssl.keyStore.location": "a.jks"}, "JKS stores cannot be read here; convert it"),
        ({"ssl.trustStore.location": "a.p12"}, "PKCS12 stores cannot be read here; convert it"),
        ({"ssl.keyStore.type": "PKCS12"}, "must be PEM"),
        ({"ssl.protocol": "TLSv1.1"}, "older ones are not safe"),
        ({"ssl.enabledProtocols": "TLSv1.2,SSLv3"}, "older ones are not safe"),
        ({"ssl.ocsp": "true"}, "there is no OCSP here"),
        ({"ssl.clientHostnameVerification": "true"}, "not compared"),
        ({"ssl.context.supplier.class": "com.acme.X"}, "classes cannot be loaded"),
        ({"ssl.authProvider": "acme"}, "must be x509"),
        ({"zookeeper.X509AuthenticationProvider.clientCertIdType": "SAN"}, "must be subject"),
        ({"ssl.clientAuth": "maybe"}, "must be none, want or need"),
    ],
)
def test_keys_that_contradict_or_weaken_are_refused(pairs: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_config({"dataDir": "/d"} | pairs)


def test_19_1_a_member_line_may_name_the_tls_port(tmp_path: Path) -> None:
    (tmp_path / "myid").write_text("1")
    (tmp_path / "ensemble.secret").write_text("x" * 16)
    pairs = {
        "dataDir": str(tmp_path),
        "initLimit": "5",
        "syncLimit": "5",
        "server.1": "a:1:2:participant;2181;127.0.0.1:2281",
        "server.2": "b:1:2",
        "server.3": "c:1:2",
        "ssl.clientAuth": "none",
        "ssl.keyStore.location": "k.pem",
    }
    tls = parse_config(pairs).tls
    assert (tls.secure_address, tls.secure_port) == ("127.0.0.1", 2281)
    with pytest.raises(ConfigError, match=r"secureClientPort 1 differs from 2281 in the line server\.1"):
        parse_config(pairs | {"secureClientPort": "1"})
    with pytest.raises(ConfigError, match=r"ssl\.keyStore\.location must name a PEM file"):
        parse_config(pairs | {"ssl.keyStore.location": ""})


def test_a_bad_store_keeps_the_server_from_starting(tmp_path: Path) -> None:
    store = tmp_path / "store.pem"
    store.write_bytes(b"\xfe\xed\xfe\xed\0\0\0\2")
    file = tmp_path / "zoo.cfg"
    file.write_text(f"dataDir=/d\nsecureClientPort=0\nssl.clientAuth=none\nssl.keyStore.location={store}\n")
    with pytest.raises(ConfigError, match=r"is no PEM file; Java's stores are converted with .keytool"):
        load_config(str(file))


async def test_a_revoked_certificate_is_refused(start: Start, authority: Authority, key_store: str) -> None:
    good, bad = authority.issue("good"), authority.issue("bad")
    trust = authority.directory / "trust-with-crl.pem"
    trust.write_bytes(authority.path.read_bytes() + authority.revoke(bad))
    port = await start(
        tls=TlsConfig(port_unification=True, key_store=key_store, trust_store=str(trust), crl=True)
    )
    with trio.fail_after(SECONDS_MAX):
        async with secure(port, authority.client_context(good)) as wire:
            assert (await wire.call(1, EXISTS, watched(b"/")))[0] == 0
        with pytest.raises((trio.BrokenResourceError, EOFError)):
            async with secure(port, authority.client_context(bad)):
                pass


# renewal


def touch(path: Path, data: bytes, moment: int) -> None:
    path.write_bytes(data)
    os.utime(path, ns=(moment, moment))


def test_changed_files_are_taken_up_and_bad_ones_are_not(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    first, second = authority.issue("first").read_bytes(), authority.issue("second").read_bytes()
    store = tmp_path / "store.pem"
    touch(store, first, 1)
    tls = ClientTls(TlsConfig(secure_port=0, key_store=str(store), client_auth="none", cert_reload=True))
    before = tls.current()
    assert not tls.check()
    touch(store, b"-----BEGIN nonsense", 2)
    assert not tls.check()
    assert tls.current() is before
    store.unlink()
    assert not tls.check()
    assert tls.current() is before
    touch(store, second, 3)
    assert tls.check()
    assert tls.current() is not before
    assert not tls.check()


async def test_a_running_server_shows_its_new_certificate(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    store = tmp_path / "store.pem"
    touch(store, authority.issue("first").read_bytes(), 1)
    port = await start(
        tls=TlsConfig(port_unification=True, key_store=str(store), client_auth="none", cert_reload=True)
    )

    async def name_shown() -> object:
        async with secure(port, authority.client_context()) as wire:
            shown = wire.stream.getpeercert()  # type: ignore[attr-defined]
        return dict(pair for relative in shown["subject"] for pair in relative)["commonName"]

    with trio.fail_after(SECONDS_MAX):
        assert await name_shown() == "first"
        touch(store, authority.issue("second").read_bytes(), 2)
        while await name_shown() != "second":  # each look is a connection of its own
            pass
