"""Sessions as kazoo sees them: ephemerals, passwords, reconnects, expiry, restarts, another server."""

import threading
from pathlib import Path

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionLoss, SessionExpiredError
from kazoo.protocol.states import KazooState

from tests.coord_servers import CoordServers, wait_for
from tests.interop.conftest import MakeClient

pytestmark = pytest.mark.interop


def break_connection(client: KazooClient) -> None:
    """Cuts the TCP connection from below; kazoo reconnects with its session."""
    client._connection._socket.shutdown(2)


class States:
    """Waits for a state of a client's connection."""

    def __init__(self, client: KazooClient) -> None:
        self.seen: list[str] = []
        self.changed = threading.Condition()
        client.add_listener(self)

    def __call__(self, state: str) -> None:
        with self.changed:
            self.seen.append(state)
            self.changed.notify_all()

    def wait(self, *states: str) -> None:
        """Until these states have been seen, in this order and last of all."""
        with self.changed:
            assert self.changed.wait_for(lambda: tuple(self.seen[-len(states) :]) == states, timeout=60), (
                self.seen
            )


def test_an_ephemeral_ends_with_its_session(standalone: CoordServers, make_client: MakeClient) -> None:
    owner, other = make_client(standalone.hosts), make_client(standalone.hosts)
    owner.create("/ends", ephemeral=True)
    assert other.exists("/ends").ephemeralOwner == owner.client_id[0]
    gone = threading.Event()
    other.exists("/ends", watch=lambda event: gone.set())
    owner.stop()
    assert gone.wait(60)
    assert other.exists("/ends") is None


def test_an_ephemeral_survives_a_reconnect(standalone: CoordServers, make_client: MakeClient) -> None:
    client = make_client(standalone.hosts)
    client.create("/stays", ephemeral=True)
    session, states = client.client_id, States(client)
    break_connection(client)
    states.wait(KazooState.SUSPENDED, KazooState.CONNECTED)
    assert client.client_id == session
    assert client.exists("/stays").ephemeralOwner == session[0]


def test_a_session_survives_a_restart_of_the_server(tmp_path: Path, make_client: MakeClient) -> None:
    with CoordServers(tmp_path) as servers:
        client = make_client(servers.hosts)
        client.create("/kept", b"value", ephemeral=True)
        session, states = client.client_id, States(client)
        servers.servers[0].kill()
        servers.servers[0].start()
        states.wait(KazooState.SUSPENDED, KazooState.CONNECTED)
        assert client.client_id == session
        assert client.get("/kept")[0] == b"value"
        client.stop()


def test_the_same_session_moves_to_the_newer_connection(
    standalone: CoordServers, make_client: MakeClient
) -> None:
    first = make_client(standalone.hosts)
    first.create("/moves", ephemeral=True)
    states, session = States(first), first.client_id
    second = make_client(standalone.hosts, client_id=session)
    assert second.retry(second.exists, "/moves").ephemeralOwner == session[0]
    # The first is disconnected; it comes back and takes the session over in its turn.
    states.wait(KazooState.SUSPENDED, KazooState.CONNECTED)


def test_a_wrong_password_does_not_get_the_session(standalone: CoordServers, make_client: MakeClient) -> None:
    owner = make_client(standalone.hosts)
    owner.create("/guarded", ephemeral=True)
    thief = make_client(standalone.hosts, client_id=(owner.client_id[0], b"x" * 16))
    assert thief.client_id[0] != owner.client_id[0]
    assert owner.exists("/guarded") is not None


def test_a_silent_client_expires_and_others_see_it(standalone: CoordServers, make_client: MakeClient) -> None:
    silent, other = make_client(standalone.hosts, timeout=4.0), make_client(standalone.hosts)
    silent.create("/silent", ephemeral=True)
    gone = threading.Event()
    other.exists("/silent", watch=lambda event: gone.set())
    states, session = States(silent), silent.client_id
    # kazoo's connection thread is stopped from sending anything by having its socket closed behind its back
    # and no server to go to.
    silent.set_hosts("127.0.0.1:1")
    break_connection(silent)
    assert gone.wait(60)
    silent.set_hosts(standalone.hosts)
    states.wait(KazooState.LOST, KazooState.CONNECTED)
    assert silent.client_id != session


def test_two_megabytes_cost_the_connection_and_nothing_else(
    standalone: CoordServers, make_client: MakeClient
) -> None:
    """Specification 22.2.28."""
    client = make_client(standalone.hosts)
    states = States(client)
    with pytest.raises((ConnectionLoss, SessionExpiredError)):
        client.create("/too-big", bytes(2 << 20))
    states.wait(KazooState.SUSPENDED, KazooState.CONNECTED)
    assert client.exists("/too-big") is None


@pytest.mark.slow
def test_an_idle_client_lives_on_its_pings(standalone: CoordServers, make_client: MakeClient) -> None:
    client = make_client(standalone.hosts, timeout=4.0)
    client.create("/idle", ephemeral=True)
    session = client.client_id
    threading.Event().wait(5.5)  # the server looks once a tick, of 500 ms, whose time is over
    assert client.client_id == session
    assert client.exists("/idle") is not None


def test_a_client_moves_to_another_server_when_its_own_dies(
    ensemble: CoordServers, make_client: MakeClient
) -> None:
    client = make_client(ensemble.hosts, randomize_hosts=True)
    client.create("/wanders", b"v", ephemeral=True)
    session = client.client_id
    for _ in range(2):
        port = client._connection._socket.getpeername()[1]
        (own,) = [server for server in ensemble.servers if server.port == port]
        states = States(client)
        own.kill()
        states.wait(KazooState.SUSPENDED, KazooState.CONNECTED)
        assert client.client_id == session
        assert client.retry(client.get, "/wanders")[0] == b"v"
        own.start()
        ensemble.wait_serving()
    client.set("/wanders", b"w")


def test_every_server_shows_a_write_after_sync(ensemble: CoordServers, make_client: MakeClient) -> None:
    writer = make_client(ensemble.servers[0].address)
    readers = [make_client(server.address) for server in ensemble.servers]
    writer.create("/synced", b"0")
    for number in range(20):
        value = b"%d" % number
        writer.set("/synced", value)
        for reader in readers:
            reader.sync("/synced")
            assert reader.get("/synced")[0] == value


def test_ephemerals_of_a_client_that_vanished_with_its_server_expire(
    ensemble: CoordServers, make_client: MakeClient
) -> None:
    watcher = make_client(ensemble.leader().address)
    follower = ensemble.followers()[0]
    victim = make_client(follower.address, timeout=4.0)
    victim.create("/vanishes", ephemeral=True)
    follower.kill()
    wait_for(lambda: watcher.exists("/vanishes") is None, "the ephemeral expires")
    follower.start()
    ensemble.wait_serving()
