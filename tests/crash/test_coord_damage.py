"""Ensembles of real processes with damaged files: the peers give back what a disk has lost, and nothing that
was acknowledged is outvoted meanwhile.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.coord_raw import Client
from tests.coord_servers import CoordServer, CoordServers, wait_for
from tests.crash.test_coord_ensemble import create, digest_of

pytestmark = pytest.mark.crash

PATHS = [f"/n{number}" for number in range(40)]


def flip_in_the_log(server: CoordServer) -> None:
    """A bit of the first frame: everything behind it was acknowledged."""
    path = min((server.data_directory / "zoolog").glob("log-*/txn.*"))
    content = bytearray(path.read_bytes())
    content[512 + 100] ^= 1
    path.write_bytes(content)


def lose_segments(server: CoordServer) -> None:
    """The files are gone, the directory is there."""
    for path in (server.data_directory / "zoolog").glob("log-*/txn.*"):
        path.write_bytes(b"")


def write(servers: CoordServers) -> None:
    client = Client("127.0.0.1", servers.leader().port)
    assert [create(client, 1, path) for path in PATHS] == [0] * len(PATHS)
    client.socket.close()


@pytest.mark.parametrize("damage", [flip_in_the_log, lose_segments])
def test_a_follower_with_a_damaged_log_gets_everything_back(
    tmp_path: Path, damage: Callable[[CoordServer], None]
) -> None:
    with CoordServers(tmp_path, 3, tick_ms=200) as servers:
        write(servers)
        victim, other = servers.followers()
        victim.kill()
        damage(victim)
        victim.start()
        servers.wait_serving()
        assert "has lost its history" in victim.log_path.read_text()
        assert digest_of(victim.port, PATHS) == [0] * len(PATHS)
        root = victim.data_directory / "zoolog"
        assert list(root.glob("set-aside-log-*/txn.*")) != []
        # It counts again, as what it was given is on its disk.
        wait_for(lambda: not (root / "history-lost").exists(), "its history is proved")
        other.kill()
        servers.wait_serving()
        assert digest_of(victim.port, PATHS) == [0] * len(PATHS)


def test_a_damaged_majority_decides_nothing(tmp_path: Path) -> None:
    """What it acknowledged may be nowhere else: it stands still instead of going on without it."""
    with CoordServers(tmp_path, 3, tick_ms=200) as servers:
        write(servers)
        for server in servers.servers:
            server.kill()
            server.log_path.unlink()
        damaged = servers.servers[1:]
        for server in damaged:
            flip_in_the_log(server)
            server.start()
        for server in damaged:
            wait_for(lambda server=server: "connected to a peer" in server.log_end(), "the peers meet")  # type: ignore[misc]
            assert "has lost its history" in server.log_end()
        servers.servers[0].start()
        wait_for(lambda: "connected to a peer" in servers.servers[0].log_end(), "the peers meet")
        assert [server.mode() for server in servers.servers] == ["", "", ""]
        for server in damaged:
            assert (server.data_directory / "zoolog" / "history-lost").exists()


def test_a_log_cut_short_behind_the_back_of_a_stopped_server_is_noticed(tmp_path: Path) -> None:
    """What is left of it is valid to the last byte."""
    with CoordServers(tmp_path, 3, tick_ms=200) as servers:
        write(servers)
        victim = servers.followers()[0]
        assert victim.stop() == 0
        path = min((victim.data_directory / "zoolog").glob("log-*/txn.*"))
        path.write_bytes(path.read_bytes()[:512])
        victim.start()
        servers.wait_serving()
        assert "as when the server stopped" in victim.log_path.read_text()
        assert digest_of(victim.port, PATHS) == [0] * len(PATHS)
