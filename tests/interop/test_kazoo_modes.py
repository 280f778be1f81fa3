"""kazoo at a server without a quorum, and with sessions of one server: specification 4.7, 14, 22.15."""

from pathlib import Path

import pytest
from kazoo.exceptions import KazooException, NotReadOnlyCallError
from kazoo.protocol.states import KeeperState

from tests.coord_servers import CoordServers, wait_for
from tests.interop.conftest import MakeClient

pytestmark = pytest.mark.interop

LOCAL = "localSessionsEnabled=true\nlocalSessionsUpgradingEnabled=true\n"


def test_22_90_kazoo_reads_without_a_quorum_and_writes_again_with_one(
    tmp_path: Path, make_client: MakeClient
) -> None:
    with CoordServers(tmp_path, 3, extra=f"readonlymode.enabled=true\n{LOCAL}") as servers:
        writer = make_client(servers.hosts)
        writer.create("/kept", b"value")
        writer.sync("/kept")
        writer.stop()
        left, *others = [*servers.followers(), servers.leader()]
        for server in others:
            server.kill()
        wait_for(lambda: left.mode() == "read-only", "the server left alone serves reads")
        client = make_client(left.address, read_only=True)
        assert client.client_state == KeeperState.CONNECTED_RO
        assert client.get("/kept")[0] == b"value"
        with pytest.raises(NotReadOnlyCallError):
            client.set("/kept", b"other")
        others[0].start()
        wait_for(lambda: client.client_state == KeeperState.CONNECTED, "kazoo is connected for writing")
        client.set("/kept", b"other")
        assert client.get("/kept")[0] == b"other"


def test_22_15_kazoo_with_a_local_session_that_an_ephemeral_makes_global(
    tmp_path: Path, make_client: MakeClient
) -> None:
    with CoordServers(tmp_path, 3, extra=LOCAL) as servers:
        one, two = servers.followers()
        client = make_client(f"{one.address},{two.address}", randomize_hosts=False)
        client.create("/a", b"local")
        client.set("/a", b"still")
        created = [client.create_async(f"/e-{number}", ephemeral=True) for number in range(10)]
        assert [each.get(60) for each in created] == [f"/e-{number}" for number in range(10)]
        session = client.client_id
        assert client.exists("/e-0").ephemeralOwner == session[0]
        one.kill()
        wait_for(lambda: client.client_state == KeeperState.CONNECTED and _works(client), "kazoo has moved")
        assert client.client_id == session
        assert client.exists("/e-9").ephemeralOwner == session[0]


def _works(client: object) -> bool:
    try:
        client.set("/a", b"moved")  # type: ignore[attr-defined]
    except KazooException:  # whatever kazoo says while it moves
        return False
    return True
