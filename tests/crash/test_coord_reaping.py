"""Containers, TTL nodes and quotas of a real ensemble whose leader is killed: the next leader goes on, and
all servers have the same.
"""

import struct
from pathlib import Path

import pytest

from tests.coord_raw import ACL, Client, buffer, insist
from tests.coord_servers import CoordServer, CoordServers, wait_for

pytestmark = [pytest.mark.crash, pytest.mark.slow]

CREATE, DELETE, EXISTS, SYNC, CREATE_CONTAINER, CREATE_TTL = 1, 2, 3, 9, 19, 21
NO_NODE, QUOTA_EXCEEDED = -101, -125
SETTINGS = "extendedTypesEnabled=true\nenforceQuota=true\nznode.container.checkIntervalMs=100"
TTL_MS = 1500


def create(path: str, data: bytes = b"", flags: int = 0) -> bytes:
    return buffer(path.encode()) + buffer(data) + ACL + struct.pack(">i", flags)


def ask(server: CoordServer, op: int, body: bytes) -> int:
    with Client("127.0.0.1", server.port) as client:
        assert client.call(1, SYNC, buffer(b"/")) == 0
        return client.call(2, op, body)


def is_gone(server: CoordServer, path: str) -> bool:
    return insist(lambda: ask(server, EXISTS, buffer(path.encode()) + b"\0")) == NO_NODE


def test_the_next_leader_deletes_what_has_had_its_time_and_holds_quotas(tmp_path: Path) -> None:
    # Connections are to stay, so a server that the machine holds up for a moment is not given up.
    with CoordServers(tmp_path, 3, sync_limit=25, extra=SETTINGS) as servers:
        leader = servers.leader()
        follower = servers.followers()[0]
        ttl = struct.pack(">q", TTL_MS)
        assert ask(follower, CREATE_TTL, create("/t", flags=5) + ttl) == 0
        assert ask(follower, CREATE_CONTAINER, create("/c")) == 0
        for path, data in (
            ("/c/k", b""),
            ("/q", b""),
            ("/zookeeper/quota/q", b""),
            ("/zookeeper/quota/q/zookeeper_limits", b"countHardLimit=2"),
            ("/zookeeper/quota/q/zookeeper_stats", b""),
            ("/q/1", b""),
        ):
            assert ask(follower, CREATE, create(path, data)) == 0
        servers.fail_over()
        assert ask(follower, CREATE, create("/q/2")) == QUOTA_EXCEEDED
        assert ask(follower, DELETE, buffer(b"/c/k") + struct.pack(">i", -1)) == 0
        leader.start()
        servers.wait_serving()
        for server in servers.servers:
            for path in ("/t", "/c"):
                wait_for(lambda server=server, path=path: is_gone(server, path), f"{path} goes")
            assert ask(server, CREATE, create("/q/2")) == QUOTA_EXCEEDED
