"""The client through TLS: behind an endpoint that ends it, and to servers that speak it themselves."""

import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

import coord
from coord.tls import client_context
from pubsub.command.main import run
from tests.coord_servers import CoordServers, free_ports
from tests.interop.apache import ApacheServers

pytestmark = pytest.mark.interop


async def pump(source: trio.abc.ReceiveStream, target: trio.abc.SendStream, done: trio.CancelScope) -> None:
    try:
        while data := await source.receive_some(65536):
            await target.send_all(data)
    except trio.BrokenResourceError:
        pass
    done.cancel()


async def forward(port: int, stream: "trio.SSLStream[trio.SocketStream]") -> None:
    async with (
        await trio.open_tcp_stream("127.0.0.1", port) as server,
        stream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(pump, stream, server, nursery.cancel_scope)
        nursery.start_soon(pump, server, stream, nursery.cancel_scope)


async def test_sessions_and_watches_through_tls(standalone: CoordServers) -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_ssl_over_tcp, host="127.0.0.1")
        listeners = await nursery.start(
            serve, partial(forward, standalone.servers[0].port), 0, server_context
        )
        hosts = f"localhost:{listeners[0].transport_listener.socket.getsockname()[1]}"
        async with coord.connect(hosts, ssl_context=client_context) as zk:
            await zk.create("/tls", b"x" * 100_000)
            async with zk.watch("/tls") as events:
                await events.__anext__()
                await zk.set("/tls", b"y")
                with trio.fail_after(60):
                    assert (await events.__anext__()).kind is coord.EventKind.CHANGED
            await zk.delete("/tls")
        with pytest.raises(coord.NotConnectedError, match=r"certificate|CERTIFICATE"):
            async with coord.connect(
                hosts, ssl_context=ssl.create_default_context(), connect_timeout_ms=5000
            ):
                pass
        nursery.cancel_scope.cancel()


# Servers that speak TLS themselves


class Certificates:
    """An authority, a server's certificate, a client's; as PEM files that Java reads too."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        self.ca = directory / "ca.pem"
        authority.cert_pem.write_to_path(self.ca)
        self.server = self._issue(authority, directory / "server.pem", "localhost")
        self.client = self._issue(authority, directory / "client.pem", "client.test", common_name="bob")

    def _issue(self, authority: trustme.CA, path: Path, name: str, common_name: str | None = None) -> Path:
        issued = authority.issue_cert(name, common_name=common_name)
        key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        # PKCS 8, which is all that Java takes.
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + chain)
        return path

    def settings(self, port: int) -> str:
        return (
            f"secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\nssl.clientAuth=need\n"
            f"ssl.keyStore.location={self.server}\nssl.trustStore.location={self.ca}\n"
        )


APACHE = (
    "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n"
    "ssl.keyStore.type=PEM\nssl.trustStore.type=PEM\n"
    "authProvider.x509=org.apache.zookeeper.server.auth.X509AuthenticationProvider\n"
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(Path(tmp_path_factory.mktemp("certificates")))


@pytest.fixture(scope="module", params=["zoolog", "apache-3.9"])
def secure_hosts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[str]:
    """One server whose TLS port demands a client's certificate."""
    directory = Path(tmp_path_factory.mktemp("tls"))
    (port,) = free_ports(1)
    settings = certificates.settings(port)
    made = (
        CoordServers(directory, extra=settings)
        if request.param == "zoolog"
        else ApacheServers(directory, extra=APACHE + settings)
    )
    with made:
        yield f"localhost:{port}"


async def test_a_certificate_is_an_identity(secure_hosts: str, certificates: Certificates) -> None:
    """Spec 11.4: x509, which scheme auth expands to."""
    context = client_context(certificates.ca, certificate_path=certificates.client)
    async with coord.connect(secure_hosts, ssl_context=context) as zk:
        path = await zk.create("/mine-", sequential=True, acl=coord.CREATOR_ACL)
        ((perms, scheme, name),) = (await zk.get_acl(path))[0]
        assert (perms, scheme) == (31, "x509")
        assert "CN=bob" in name
        assert coord.Identity("x509", name) in await zk.who_am_i()
        assert zk._session._serving is not None
        zk._session._serving[1].cancel()
        await zk.wait_state(coord.State.SUSPENDED)
        await zk.set(path, b"x" * 500_000)
        await zk.delete(path)


async def test_without_a_certificate_nobody_is_let_in(secure_hosts: str, certificates: Certificates) -> None:
    with pytest.raises(coord.NotConnectedError):
        async with coord.connect(
            secure_hosts, ssl_context=client_context(certificates.ca), connect_timeout_ms=1500
        ):
            pass


def test_the_shell_speaks_tls(
    secure_hosts: str, certificates: Certificates, capfd: pytest.CaptureFixture[str]
) -> None:
    files = ["--tls-ca", str(certificates.ca), "--tls-cert", str(certificates.client)]
    assert run(["zk", *files, "--coord", secure_hosts, "ls", "/"]) == 0
    assert capfd.readouterr().out == "[zookeeper]\n"
