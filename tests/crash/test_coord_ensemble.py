"""Ensembles of real processes: servers that lose their disk, sessions that move, configurations that do not
fit.
"""

import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.coord_raw import ACL, Client, buffer
from tests.coord_servers import CoordServer, CoordServers, ask, free_ports, wait_for

pytestmark = pytest.mark.crash

CREATE, EXISTS, GET_DATA, SET_DATA, SYNC = 1, 3, 4, 5, 9


def create(client: Client, xid: int, path: str, data: bytes = b"", flags: int = 0) -> int:
    return client.call(xid, CREATE, buffer(path.encode()) + buffer(data) + ACL + struct.pack(">i", flags))


def digest_of(port: int, paths: list[str]) -> list[int]:
    """Errors of reads after a sync: 0 for each path that is there."""
    client = Client("127.0.0.1", port)
    client.call(1, SYNC, buffer(b"/"))
    errors = [client.call(2, EXISTS, buffer(path.encode()) + b"\0") for path in paths]
    client.socket.close()
    return errors


def zxid_of(server: CoordServer) -> str:
    found = re.search(r"^Zxid: (.*)$", ask(server.port, "srvr"), re.MULTILINE)
    return found[1] if found else ""


def wipe(server: CoordServer) -> None:
    shutil.rmtree(server.data_directory / "zoolog")


def test_a_follower_that_lost_its_disk_gets_everything_back(tmp_path: Path) -> None:
    with CoordServers(tmp_path, 3, tick_ms=200) as servers:
        client = Client("127.0.0.1", servers.servers[0].port)
        paths = [f"/n{number}" for number in range(50)]
        assert [create(client, 1, path) for path in paths] == [0] * 50
        client.socket.close()
        victim = servers.followers()[0]
        victim.kill()
        wipe(victim)
        victim.start()
        servers.wait_serving()
        assert digest_of(victim.port, paths) == [0] * 50


@pytest.mark.slow
def test_a_follower_far_behind_gets_a_snapshot(tmp_path: Path) -> None:
    with CoordServers(tmp_path, 3, tick_ms=500) as servers:
        victim = servers.followers()[0]
        victim.kill()
        wipe(victim)
        client = Client("127.0.0.1", servers.leader().port)
        paths = [f"/big{number}" for number in range(90)]
        assert [create(client, 1, path, bytes(1_000_000)) for path in paths] == [0] * 90
        client.socket.close()
        victim.start()
        servers.wait_serving()
        assert digest_of(victim.port, paths) == [0] * 90
        assert "has a snapshot's state" in victim.log_path.read_text()
        # What it was given is on its disk: alone with the other follower it serves on.
        servers.fail_over()
        assert digest_of(victim.port, paths) == [0] * 90
        victim.kill()
        victim.start()
        servers.wait_serving()
        assert digest_of(victim.port, paths) == [0] * 90


def test_a_wiped_majority_does_not_outvote_what_was_acknowledged(tmp_path: Path) -> None:
    """DESIGN 4: a server without history is counted in no quorum while any that answers has one."""
    with CoordServers(tmp_path, 3, tick_ms=200) as servers:
        client = Client("127.0.0.1", servers.servers[0].port)
        assert create(client, 1, "/precious") == 0
        client.socket.close()
        zxids = lambda: {zxid_of(server) for server in servers.servers}  # noqa: E731
        wait_for(lambda: len(zxids()) == 1, "all servers have executed the same")
        for server in servers.servers:
            server.kill()
        wipe(servers.servers[1])
        wipe(servers.servers[2])
        for server in servers.servers:
            server.start()
        keeper = servers.servers[0]
        wait_for(lambda: "connected to a peer" in keeper.log_end(), "the peers meet")
        for server in servers.servers:
            if server.mode():
                assert digest_of(server.port, ["/precious"]) == [0]


def test_a_session_moves_and_the_older_connection_can_write_no_more(tmp_path: Path) -> None:
    """Specification 4.4, 22.1.5."""
    with CoordServers(tmp_path, 3, tick_ms=500) as servers:
        one, two = servers.followers()
        old = Client("127.0.0.1", one.port)
        assert create(old, 1, "/session", b"", 1) == 0
        new = Client("127.0.0.1", two.port, session=(old.session_id, old.password))
        assert new.session_id == old.session_id
        assert new.call(1, SET_DATA, buffer(b"/session") + buffer(b"new") + struct.pack(">i", -1)) == 0
        with pytest.raises(ConnectionError):
            old.call(2, SET_DATA, buffer(b"/session") + buffer(b"old") + struct.pack(">i", -1))
        assert new.call(2, SET_DATA, buffer(b"/session") + buffer(b"new") + struct.pack(">i", 1)) == 0
        old.socket.close()
        new.socket.close()


def test_a_server_without_quorum_closes_its_clients_and_refuses_new_ones(tmp_path: Path) -> None:
    """Specification 22.1.19."""
    with CoordServers(tmp_path, 3, tick_ms=200) as servers:
        one, two = servers.followers()
        client = Client("127.0.0.1", one.port)
        servers.leader().kill()
        two.kill()
        with pytest.raises(ConnectionError):
            while True:
                client.call(1, EXISTS, buffer(b"/") + b"\0")
        client.socket.close()
        with pytest.raises(ConnectionError):
            Client("127.0.0.1", one.port)
        assert ask(one.port, "isro") == "null"
        assert ask(one.port, "srvr").startswith("This ZooKeeper instance is not currently serving")
        two.start()
        wait_for(lambda: bool(one.mode() and two.mode()), "two of three serve")


def test_servers_of_another_secret_do_not_join(tmp_path: Path) -> None:
    with CoordServers(tmp_path, 3, tick_ms=200) as servers:
        stranger = servers.followers()[0]
        stranger.kill()
        secret = tmp_path / "other-secret"
        secret.write_text("another secret of the tests\n")
        text = stranger.config_path.read_text()
        stranger.config_path.write_text(re.sub("secretFile=.*", f"secretFile={secret}", text))
        stranger.start()
        said = "does not have this ensemble's secret"
        wait_for(lambda: any(said in server.log_end() for server in servers.servers), "it is refused")
        assert not stranger.mode()
        assert len(servers.followers()) == 1
        stranger.kill()


def run_server(path: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "coord.server", str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stderr


def test_failures_to_start_are_one_line_and_a_status(tmp_path: Path) -> None:
    config = tmp_path / "zoo.cfg"
    (port,) = free_ports(1)
    data = tmp_path / "data"
    data.mkdir()
    text = f"dataDir={data}\nclientPort={port}\nclientPortAddress=127.0.0.1\n"

    config.write_text(text + "tickTime=fast\n")
    assert run_server(config) == (2, f"{config}: tickTime must be a number, got 'fast'\n")

    (data / "version-2").mkdir()
    config.write_text(text)
    status, error = run_server(config)
    assert (status, error.count("\n")) == (1, 1)
    assert "version-2" in error
    (data / "version-2").rmdir()

    with CoordServers(tmp_path / "running") as servers:
        (server,) = servers.servers
        status, error = run_server(server.config_path)
        assert (status, error.count("\n")) == (1, 1)
        config.write_text(text.replace(str(port), str(server.port)))
        status, error = run_server(config)
        assert (status, error.splitlines()[-1].count("in use")) == (1, 1)
        server.check_alive()
        assert server.stop() == 0
