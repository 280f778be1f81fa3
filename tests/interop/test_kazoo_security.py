"""kazoo, unchanged, against a server with users: SASL, digest, the super user (specification 11, 22.6)."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import AuthFailedError, NoAuthError
from kazoo.protocol.states import KazooState, KeeperState
from kazoo.security import OPEN_ACL_UNSAFE, make_acl, make_digest_acl

from tests.coord.certificates import Authority
from tests.coord_servers import CoordServers, free_ports
from tests.interop.conftest import SYNC_LIMIT, MakeClient

pytestmark = pytest.mark.interop

CONFIG = """
sasl.digest.user.jaasuser=jaas_password
sasl.digest.user.boss=boss_password
superUser=boss
DigestAuthenticationProvider.superDigest=super:D/InIHSb7yEEbrWz8b9l71RjZJU=
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoordServers]:
    with CoordServers(Path(tmp_path_factory.mktemp("guarded")), extra=CONFIG) as servers:
        yield servers


def options(user: str, password: str) -> dict[str, object]:
    return {"sasl_options": {"mechanism": "DIGEST-MD5", "username": user, "password": password}}


def test_22_76_a_sasl_user_opens_what_names_him(guarded: CoordServers, make_client: MakeClient) -> None:
    client = make_client(guarded.hosts, **options("jaasuser", "jaas_password"))
    client.create("/sasl", b"x", acl=[make_acl("sasl", credential="jaasuser", all=True)])
    assert client.get("/sasl")[0] == b"x"
    with pytest.raises(NoAuthError):
        make_client(guarded.hosts).get("/sasl")
    assert make_client(guarded.hosts, **options("boss", "boss_password")).get("/sasl")[0] == b"x"


def test_22_76_a_wrong_sasl_password_is_auth_failed(guarded: CoordServers) -> None:
    client = KazooClient(guarded.hosts, **options("jaasuser", "guessed"))
    states: list[str] = []
    failed = threading.Event()

    def note(state: str) -> None:
        states.append(client.client_state)
        if state == KazooState.LOST:
            failed.set()

    client.add_listener(note)
    client.start_async()
    try:
        assert failed.wait(60)
        assert KeeperState.AUTH_FAILED in states
    finally:
        client.stop()
        client.close()


def test_22_65_digest_credentials_open_and_are_hidden(guarded: CoordServers, make_client: MakeClient) -> None:
    client = make_client(guarded.hosts, auth_data=[("digest", "zoë:pass:wörd")])
    acl = [make_digest_acl("zoë", "pass:wörd", all=True), make_acl("world", credential="anyone", read=True)]
    client.create("/digest", acl=acl)
    stranger = make_client(guarded.hosts)
    with pytest.raises(NoAuthError):
        stranger.set("/digest", b"y")
    assert [entry.id.id for entry in stranger.get_acls("/digest")[0]] == ["zoë:x", "anyone"]
    assert [entry.id.id for entry in client.get_acls("/digest")[0]] == [entry.id.id for entry in acl]


def test_22_66_an_unknown_scheme_is_auth_failed(guarded: CoordServers, make_client: MakeClient) -> None:
    client = make_client(guarded.hosts)
    with pytest.raises(AuthFailedError):
        client.add_auth("unknown-scheme", "user:password")


def test_22_70_the_super_digest_passes_empty_permissions(
    guarded: CoordServers, make_client: MakeClient
) -> None:
    client = make_client(guarded.hosts)
    client.create("/nothing", b"x", acl=[make_acl("world", credential="anyone")])
    with pytest.raises(NoAuthError):
        client.get("/nothing")
    client.add_auth("digest", "super:test")
    assert client.get("/nothing")[0] == b"x"
    client.set_acls("/nothing", OPEN_ACL_UNSAFE)
    assert make_client(guarded.hosts).get("/nothing")[0] == b"x"


def test_22_78_kazoo_over_tls_is_known_by_its_certificate(tmp_path: Path, make_client: MakeClient) -> None:
    authority = Authority(tmp_path)
    server, client = authority.issue("server"), authority.issue("client")
    (port,) = free_ports(1)
    config = (
        f"secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\nssl.keyStore.location={server}\n"
        f"ssl.trustStore.location={authority.path}\n"
    )
    with CoordServers(tmp_path / "servers", extra=config) as servers:
        secure = make_client(
            f"localhost:{port}",
            use_ssl=True,
            ca=str(authority.path),
            certfile=str(client),
            keyfile=str(client),
        )
        secure.create("/mine", b"x" * 500_000, acl=[make_acl("auth", credential="", all=True)])
        acl = secure.get_acls("/mine")[0]
        assert [(entry.id.scheme, entry.id.id) for entry in acl] == [("x509", "CN=client,O=Acme")]
        assert secure.get("/mine")[0] == b"x" * 500_000
        with pytest.raises(NoAuthError):
            make_client(servers.hosts).get("/mine")
        secure.stop()
        secure.close()


def test_22_70_identities_count_on_every_server_of_an_ensemble(
    tmp_path: Path, make_client: MakeClient
) -> None:
    with CoordServers(tmp_path, 3, sync_limit=SYNC_LIMIT, extra=CONFIG) as servers:
        first, second = servers.followers()
        owner = make_client(first.address, **options("jaasuser", "jaas_password"))
        owner.create("/closed", acl=[make_acl("auth", credential="", all=True)])
        stranger, boss = make_client(second.address), make_client(second.address)
        for client in (stranger, boss):
            client.sync("/closed")
        with pytest.raises(NoAuthError):
            stranger.set("/closed", b"x")
        boss.add_auth("digest", "super:test")
        boss.set("/closed", b"x")
        owner.sync("/closed")
        assert owner.get("/closed")[0] == b"x"
        for client in (owner, stranger, boss):
            client.stop()
            client.close()
