"""Servers of the release before are replaced one by one by this release's under load, and back again, as
docs/upgrade.md says: no acknowledged write is lost, no session that should live, and the history is
linearizable.

Real processes of both releases; the earlier one comes from the repository's history (`tests/releases.py`).
On the way each release starts from checkpoints and logs that the other wrote, and gets a snapshot from it.
`ZOOLOG_UPGRADE_ROUNDS=10` goes there and back so often.
"""

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from coord.disk import RealDisk
from coord.protocol.batch import FEATURE_LEVEL
from coord.storage import open_data_directory
from tests.coord_raw import ACL, Client, buffer
from tests.coord_servers import ROOT, CoordServer, CoordServers, ask, wait_for
from tests.histories.recording import History
from tests.histories.running import check, clients, idle_clients, wait_progress
from tests.releases import unpack_previous

pytestmark = [pytest.mark.crash, pytest.mark.slow]

ROUNDS = int(os.environ.get("ZOOLOG_UPGRADE_ROUNDS", "1"))
SUPER = "super:test"
SETTINGS = """maxSessionTimeout=15000
DigestAuthenticationProvider.superDigest=super:D/InIHSb7yEEbrWz8b9l71RjZJU=
"""
TICK_MS = 200
SESSION_TIMEOUT_MS = 15_000
LARGE_WRITES, LARGE = 80, 1_000_000
"""More than the 64 MB of history that a leader has at hand: who lost its disk needs a snapshot."""


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack_previous(tmp_path_factory.mktemp("releases"))


class Releases(CoordServers):
    """An ensemble whose servers can be moved from release to release."""

    def __init__(self, directory: Path, root: Path) -> None:
        # Nobody is to be given up, and no leader to change, but by the upgrade.
        super().__init__(directory, 3, tick_ms=TICK_MS, sync_limit=25, extra=SETTINGS)
        for server in self.servers:
            server.root = root

    def outgrow_history(self) -> None:
        path = buffer(b"/large")
        with Client("127.0.0.1", self.leader().port) as client:
            assert client.call(1, 1, path + buffer(b"") + ACL + struct.pack(">i", 0)) == 0
            for _ in range(LARGE_WRITES):
                assert client.call(1, 5, path + buffer(bytes(LARGE)) + struct.pack(">i", -1)) == 0

    def checkpoint(self) -> None:
        """Has the leader make one: the level that there is is "raised" only after one."""
        leader = self.leader()
        self.raise_level(1)
        assert "INFO coord.server checkpoint " in leader.log_path.read_text()

    def raise_level(self, level: int) -> None:
        command = ["coord", "feature-level", str(level), "--coord", self.hosts, "--auth", SUPER]
        subprocess.run([sys.executable, "-m", "pubsub.command", *command], cwd=ROOT, check=True)

    def move(self, server: CoordServer, root: Path, *, wiped: bool = False) -> None:
        """Stops the server and starts it with the release at `root`, until it is back in the ensemble.
        A wiped one loses its disk in between, and gets a snapshot.
        """
        assert server.stop() == 0, server.log_end()
        if wiped:
            shutil.rmtree(server.data_directory / "zoolog")
        snapshots = server.log_path.read_text().count("has a snapshot's state")
        server.root = root
        server.start()
        self.wait_serving()
        wait_for(self._all_follow, "the leader counts all followers as synchronized")
        assert server.log_path.read_text().count("has a snapshot's state") == snapshots + wiped

    def _all_follow(self) -> bool:
        return f"zk_synced_followers\t{len(self.servers) - 1}" in ask(self.leader().port, "mntr")


def test_a_release_before_does_not_touch_a_directory_that_it_cannot_read(
    tmp_path: Path, previous: Path
) -> None:
    """Behind a feature level there is no way back: it does not start, and changes nothing."""
    servers = Releases(tmp_path, previous)
    server = servers.servers[0]
    directory = open_data_directory(RealDisk(), str(server.data_directory))
    directory.raise_level(FEATURE_LEVEL)
    directory.close()
    before = contents(server)
    server.start()
    process = server.process
    assert process is not None
    try:
        assert process.wait(60) != 0
    finally:
        servers.kill()
        for port in servers.held:
            port.close()
    assert "zoolog/current" in server.log_end()
    assert contents(server) == before


def contents(server: CoordServer) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in server.data_directory.rglob("*") if path.is_file()}


def test_a_rolling_upgrade_and_the_way_back_cost_no_session_and_no_write(
    tmp_path: Path, previous: Path
) -> None:
    history = History()
    with Releases(tmp_path, previous) as servers:
        servers.outgrow_history()
        with (
            clients(servers, history, SESSION_TIMEOUT_MS),
            idle_clients(servers, history, SESSION_TIMEOUT_MS),
        ):
            for root in (ROOT, previous) * ROUNDS:
                servers.checkpoint()
                # Followers first, the leader last: it hands over to one of the release that all are to run.
                followers, leader = servers.followers(), servers.leader()
                for server in (*followers, leader):
                    wait_progress(history)
                    servers.move(server, root, wiped=server is followers[1])
        check(history)
        assert history.lost_sessions == []
