"""Ensembles of real processes: servers that lose their disk, sessions that move, configurations that do not
fit.
"""

import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.coord_raw import ACL, Client, buffer, insist
from tests.coord_servers import CoordServer, CoordServers, ask, free_ports, wait_for

pytestmark = pytest.mark.crash

CREATE, EXISTS, GET_DATA, SET_DATA, SYNC, CLOSE = 1, 3, 4, 5, 9, -11
NODE_EXISTS = -110
SYNC_LIMIT = 25
"""Ticks: a server that the machine holds up for a moment is not given up, and connections stay."""


def create(client: Client, xid: int, path: str, data: bytes = b"", flags: int = 0) -> int:
    return client.call(xid, CREATE, buffer(path.encode()) + buffer(data) + ACL + struct.pack(">i", flags))


def write(server: CoordServer, paths: Sequence[str], data: bytes = b"") -> None:
    """Creates them all, each acknowledged; the session that did it is over."""
    left = list(paths)

    def go_on() -> None:
        with Client("127.0.0.1", server.port) as client:
            while left:
                assert create(client, 1, left[0], data) in (0, NODE_EXISTS)  # it may be the second try
                del left[0]
            client.call(2, CLOSE, b"")

    insist(go_on)


def digest_of(port: int, paths: Sequence[str]) -> list[int]:
    """Errors of reads after a sync: 0 for each path that is there."""

    def read() -> list[int]:
        with Client("127.0.0.1", port) as client:
            assert client.call(1, SYNC, buffer(b"/")) == 0
            return [client.call(2, EXISTS, buffer(path.encode()) + b"\0") for path in paths]

    return insist(read)


def zxid_of(server: CoordServer) -> str:
    found = re.search(r"^Zxid: (.*)$", ask(server.port, "srvr"), re.MULTILINE)
    return found[1] if found else ""


def wait_even(servers: CoordServers) -> None:
    """Until every server has executed, and so logged, what was acknowledged by now: a quorum had it before,
    the others need not.
    """

    def are_even() -> bool:
        zxids = {zxid_of(server) for server in servers.running()}
        return len(zxids) == 1 and "" not in zxids

    wait_for(are_even, "all servers have executed the same")


def wipe(server: CoordServer) -> None:
    shutil.rmtree(server.data_directory / "zoolog")


def test_a_follower_that_lost_its_disk_gets_everything_back(tmp_path: Path) -> None:
    with CoordServers(tmp_path, 3, tick_ms=200, sync_limit=SYNC_LIMIT) as servers:
        paths = [f"/n{number}" for number in range(50)]
        write(servers.servers[0], paths)
        victim = servers.followers()[0]
        victim.kill()
        wipe(victim)
        victim.start()
        servers.wait_serving()
        assert digest_of(victim.port, paths) == [0] * 50


@pytest.mark.slow
def test_a_follower_far_behind_gets_a_snapshot(tmp_path: Path) -> None:
    with CoordServers(tmp_path, 3, sync_limit=SYNC_LIMIT) as servers:
        victim = servers.followers()[0]
        victim.kill()
        wipe(victim)
        paths = [f"/big{number}" for number in range(90)]
        write(servers.leader(), paths, bytes(1_000_000))
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
    with CoordServers(tmp_path, 3, tick_ms=200, sync_limit=SYNC_LIMIT) as servers:
        write(servers.servers[0], ["/precious"])
        wait_even(servers)
        for server in servers.servers:
            server.kill()
            server.log_path.unlink()
        keeper, one, two = servers.servers
        aside = tmp_path / "aside"
        shutil.move(one.data_directory / "zoolog", aside)
        wipe(two)

        def has_met(server: CoordServer, count: int) -> bool:
            return server.log_path.read_text().count("connected to a peer") >= count

        # Two that meet each other alone would take themselves for a new ensemble.
        keeper.start()
        two.start()
        wait_for(lambda: has_met(keeper, 1) and has_met(two, 1), "one of them hears of the history")
        one.start()
        wait_for(lambda: all(has_met(server, 2) for server in servers.servers), "the peers meet")
        assert [server.mode() for server in servers.servers] == ["", "", ""]
        one.kill()
        wipe(one)
        shutil.move(aside, one.data_directory / "zoolog")
        one.start()
        servers.wait_serving()
        for server in servers.servers:
            assert digest_of(server.port, ["/precious"]) == [0]


def test_a_session_moves_and_the_older_connection_can_write_no_more(tmp_path: Path) -> None:
    """Specification 4.4, 22.1.5."""
    with CoordServers(tmp_path, 3, sync_limit=SYNC_LIMIT) as servers:
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
    with CoordServers(tmp_path, 3, tick_ms=200, sync_limit=SYNC_LIMIT) as servers:
        one, two = servers.followers()
        leader = servers.leader()
        client = Client("127.0.0.1", one.port)
        # The leader last: who has lost it has nobody to elect another with.
        two.kill()
        leader.kill()
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
    with CoordServers(tmp_path, 3, tick_ms=200, sync_limit=SYNC_LIMIT) as servers:
        stranger = servers.followers()[0]
        stranger.kill()
        secret = tmp_path / "other-secret"
        secret.write_text("another secret of the tests\n")
        text = stranger.config_path.read_text()
        stranger.config_path.write_text(re.sub("secretFile=.*", f"secretFile={secret}", text))
        stranger.start()
        said = "does not have this ensemble's secret"
        wait_for(lambda: any(said in server.log_end() for server in servers.servers), "it is refused")
        modes = lambda: sorted(server.mode() for server in servers.servers)  # noqa: E731
        wait_for(lambda: modes() == ["", "follower", "leader"], "the others go on")
        assert not stranger.mode()
        stranger.kill()


def run_server(path: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "coord.server", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
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
