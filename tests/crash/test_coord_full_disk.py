"""Real servers on small disks that fill up: writes are refused and reads go on, a follower without room
leaves and comes back, and nothing that was acknowledged is missing (DESIGN 4; docs/operations.md has the
steps).
"""

import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.coord_raw import ACL, Client, buffer
from tests.coord_servers import CoordServer, CoordServers, wait_for

pytestmark = [pytest.mark.crash, pytest.mark.slow]

CREATE, EXISTS, SYNC = 1, 3, 9
SYSTEM_ERROR = -1
DISK_MB = 320
REFUSING_MB, NOTHING_MB = 150, 40
"""Free space at which the leader refuses writes, and at which the log takes nothing."""
STATUS_FAILED_DISK = 70
LARGE = 500_000
"""Bytes of a write that soon makes the log look how much is free; it does so every 16 MB."""


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Path]:
    """A directory in which 1, 2 and 3 are small disks of their own, in memory."""
    mounted: list[Path] = []
    try:
        for sid in (1, 2, 3):
            disk = tmp_path / str(sid)
            disk.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(disk)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
            mounted.append(disk)
        yield tmp_path
    finally:
        for disk in mounted:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(server: CoordServer, free_mb: int) -> None:
    """Until so much is left on the server's disk."""
    found = os.statvfs(server.data_directory)
    surplus = found.f_bavail * found.f_frsize - (free_mb << 20)
    assert surplus > 0
    with open(server.data_directory / "filler", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, surplus)


def make_room(server: CoordServer) -> None:
    (server.data_directory / "filler").unlink()


def create(client: Client, number: int, size: int) -> int:
    path = buffer(b"/n%d" % number)
    return client.call(number, CREATE, path + buffer(bytes(size)) + ACL + struct.pack(">i", 0))


def exists(client: Client, number: int) -> int:
    return client.call(number, EXISTS, buffer(b"/n%d" % number) + b"\0")


def test_a_leader_with_a_full_disk_refuses_writes_and_a_follower_with_one_comes_back(disks: Path) -> None:
    # Connections are to stay: neither a server that the machine holds up for a moment is given up, nor a
    # client that waits for its turn.
    with CoordServers(disks, 3, tick_ms=200, sync_limit=25, extra="maxSessionTimeout=60000") as servers:
        leader, (follower, other) = servers.leader(), servers.followers()
        clients = [Client("127.0.0.1", server.port) for server in (leader, other)]
        written = iter(range(1, 1_000_000))
        acknowledged: list[int] = []

        def write(client: Client, size: int = 100) -> int:
            number = next(written)
            if (error := create(client, number, size)) == 0:
                acknowledged.append(number)
            return error

        assert [write(client) for client in clients] == [0, 0]

        fill(leader, REFUSING_MB)
        for client in clients:
            wait_for(lambda: write(client) == SYSTEM_ERROR, "a write is refused")  # noqa: B023
            assert [exists(client, number) for number in acknowledged] == [0] * len(acknowledged)
            assert client.call(1, SYNC, buffer(b"/")) == 0
        assert "disk nearly full: refuses writes" in leader.log_path.read_text()
        make_room(leader)
        for client in clients:
            wait_for(lambda: write(client) == 0, "a write is taken")  # noqa: B023

        fill(follower, NOTHING_MB)
        process = follower.process
        assert process is not None

        def has_ended() -> bool:
            assert write(clients[0], LARGE) == 0
            return process.poll() is not None

        wait_for(has_ended, "the follower cannot log")
        assert process.returncode == STATUS_FAILED_DISK, follower.log_end()
        follower.kill()
        assert [write(client) for client in clients] == [0, 0]
        make_room(follower)
        follower.start()
        servers.wait_serving()
        for server in servers.servers:
            with Client("127.0.0.1", server.port) as reader:
                assert reader.call(1, SYNC, buffer(b"/")) == 0
                assert [exists(reader, number) for number in acknowledged] == [0] * len(acknowledged)
        for client in clients:
            client.socket.close()
