"""Real servers of ours, and kazoo clients that are stopped whatever a test does."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kazoo.client import KazooClient
from kazoo.retry import KazooRetry

from tests.coord_servers import CoordServers
from tests.interop.apache import SUPER_DIGEST

EXTRA = f"extendedTypesEnabled=true\nDigestAuthenticationProvider.superDigest={SUPER_DIGEST}\n"
"""TTL nodes, and a super user `super:test`."""
MakeClient = Callable[..., KazooClient]
SESSION_SECONDS = 10.0
"""The longest session that servers with ticks of 500 ms grant. kazoo leaves a server that owes it the answer
to a ping for a third of it: with a short session that happens where a machine is slow.
"""
SYNC_LIMIT = 20
"""Ticks: a member that the machine holds up for a moment is not given up."""


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoordServers]:
    with CoordServers(Path(tmp_path_factory.mktemp("standalone")), extra=EXTRA) as servers:
        yield servers


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoordServers]:
    directory = Path(tmp_path_factory.mktemp("ensemble"))
    with CoordServers(directory, 3, sync_limit=SYNC_LIMIT, extra=EXTRA) as servers:
        yield servers


@pytest.fixture
def make_client() -> Iterator[MakeClient]:
    """Makes started clients: `make_client(hosts, timeout=10.0, ...)`."""
    clients: list[KazooClient] = []

    def make(hosts: str, **options: object) -> KazooClient:
        retry = KazooRetry(max_tries=-1, delay=0.02, max_delay=0.2, max_jitter=0.1)
        client = KazooClient(hosts, **({"timeout": SESSION_SECONDS, "connection_retry": retry} | options))
        clients.append(client)
        client.start(timeout=60)
        return client

    yield make
    for client in clients:
        client.stop()
        client.close()
