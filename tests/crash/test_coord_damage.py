"""Ensembles of real processes with damaged files: the peers give back what a disk has lost, and nothing that
was acknowledged is outvoted meanwhile.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from coord.disk import RealDisk
from coord.storage import TxnRow, inspect_txnlog
from tests.coord_raw import Client
from tests.coord_servers import CoordServer, CoordServers, wait_for
from tests.crash.test_coord_ensemble import CLOSE, SYNC_LIMIT, create, digest_of, wait_even
from tests.crash.test_coord_ensemble import write as create_all

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
    create_all(servers.leader(), PATHS)
    wait_even(servers)


def write_apart(servers: CoordServers) -> None:
    """Each write is a group of its own in every log: none comes before all have the one before."""
    with Client("127.0.0.1", servers.leader().port) as client:
        wait_even(servers)
        for path in PATHS:
            assert create(client, 1, path) == 0
            wait_even(servers)
        client.call(2, CLOSE, b"")
    wait_even(servers)


@pytest.mark.parametrize("damage", [flip_in_the_log, lose_segments])
def test_a_follower_with_a_damaged_log_gets_everything_back(
    tmp_path: Path, damage: Callable[[CoordServer], None]
) -> None:
    with CoordServers(tmp_path, 3, tick_ms=200, sync_limit=SYNC_LIMIT) as servers:
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


def kill_all(servers: CoordServers) -> None:
    for server in servers.servers:
        server.kill()
        server.log_path.unlink()


def flip_all_but_a_third(server: CoordServer, third: int) -> None:
    """A bit in each group of the log that has no batch of this third, by zxid."""
    flipped = 0
    for path in sorted((server.data_directory / "zoolog").glob("log-*/txn.*")):
        content = bytearray(path.read_bytes())
        groups: dict[str, list[TxnRow]] = {}
        for row in inspect_txnlog(RealDisk(), str(path)):
            if row.kind == "batch":
                groups.setdefault(row.facts["group"], []).append(row)
        for rows in groups.values():
            if all(int(row.facts["zxids"].partition("-")[2], 16) % 3 != third for row in rows):
                content[rows[0].offset] ^= 1
                flipped += 1
        path.write_bytes(content)
    assert flipped > len(PATHS) // 2


def test_a_damaged_majority_waits_for_the_one_that_has_everything(tmp_path: Path) -> None:
    """What it acknowledged may be nowhere else: it stands still instead of going on without it."""
    with CoordServers(tmp_path, 3, tick_ms=200, sync_limit=SYNC_LIMIT) as servers:
        write(servers)
        kill_all(servers)
        damaged = servers.servers[1:]
        for server in damaged:
            flip_in_the_log(server)
            server.start()
        for server in damaged:
            wait_for(lambda server=server: "no peer has all" in server.log_end(), "it says what is missing")  # type: ignore[misc]
            assert "has lost its history" in server.log_path.read_text()
            assert (server.data_directory / "zoolog" / "history-lost").exists()
        assert [server.mode() for server in damaged] == ["", ""]
        servers.servers[0].start()
        servers.wait_serving()
        for server in servers.servers:
            assert digest_of(server.port, PATHS) == [0] * len(PATHS)


def test_servers_of_which_none_has_a_whole_log_repair_each_other(tmp_path: Path) -> None:
    """Each has a third of the batches left; what one lacks another has."""
    with CoordServers(tmp_path, 3, tick_ms=200, sync_limit=SYNC_LIMIT) as servers:
        write_apart(servers)
        for server in servers.servers:
            assert server.stop() == 0
            server.log_path.unlink()
        for number, server in enumerate(servers.servers):
            flip_all_but_a_third(server, number)
            server.start()
        servers.wait_serving()
        whole = [server for server in servers.servers if "its log is whole" in server.log_path.read_text()]
        assert len(whole) >= 2
        for server in servers.servers:
            assert digest_of(server.port, PATHS) == [0] * len(PATHS)


def test_what_is_bad_everywhere_is_not_made_up(tmp_path: Path) -> None:
    with CoordServers(tmp_path, 3, tick_ms=200, sync_limit=SYNC_LIMIT) as servers:
        write(servers)
        kill_all(servers)
        for server in servers.servers:
            flip_in_the_log(server)
            server.start()
        for server in servers.servers:
            wait_for(lambda server=server: "no peer has all" in server.log_end(), "it says what is missing")  # type: ignore[misc]
        assert [server.mode() for server in servers.servers] == ["", "", ""]
        for server in servers.servers:
            assert (server.data_directory / "zoolog" / "history-lost").exists()


def test_a_log_cut_short_behind_the_back_of_a_stopped_server_is_noticed(tmp_path: Path) -> None:
    """What is left of it is valid to the last byte."""
    with CoordServers(tmp_path, 3, tick_ms=200, sync_limit=SYNC_LIMIT) as servers:
        write(servers)
        victim = servers.followers()[0]
        assert victim.stop() == 0
        path = min((victim.data_directory / "zoolog").glob("log-*/txn.*"))
        path.write_bytes(path.read_bytes()[:512])
        victim.start()
        servers.wait_serving()
        assert "as when the server stopped" in victim.log_path.read_text()
        assert digest_of(victim.port, PATHS) == [0] * len(PATHS)
