"""kazoo's `reconfig()` and zkCli's `reconfig` against an ensemble of ours (19.4): the calls of kazoo's own
tests, and a server that joins, votes, and leaves again.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kazoo.exceptions import BadArgumentsException, BadVersionError, NewConfigNoQuorumError, NoAuthError

from tests.coord_servers import CoordServer, CoordServers, free_ports, wait_for
from tests.interop.apache import zookeeper_jars
from tests.interop.conftest import EXTRA, SYNC_LIMIT, MakeClient
from tests.interop.tools import need

pytestmark = pytest.mark.interop
SUPER = ("digest", "super:test")
JOINER = "server.100=127.0.0.1:2181:2182:observer;2183"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoordServers]:
    directory = Path(tmp_path_factory.mktemp("reconfig"))
    with CoordServers(directory, 3, sync_limit=SYNC_LIMIT, extra=f"{EXTRA}reconfigEnabled=true\n") as running:
        yield running


def test_a_joiner_without_super_is_refused(servers: CoordServers, make_client: MakeClient) -> None:
    client = make_client(servers.hosts)
    with pytest.raises(NoAuthError):
        client.reconfig(joining=JOINER, leaving=None, new_members=None)


def test_an_observer_comes_and_goes(servers: CoordServers, make_client: MakeClient) -> None:
    client = make_client(servers.hosts, auth_data=[SUPER])
    data, _ = client.reconfig(joining=JOINER, leaving=None, new_members=None)
    assert f"{JOINER.replace(';', ';0.0.0.0:')}\n".encode() in data
    data, _ = client.reconfig(joining=None, leaving="100", new_members=None)
    assert b"server.100" not in data
    current, stat = client.get("/zookeeper/config")
    assert current == data
    assert int(data.decode().splitlines()[-1].removeprefix("version="), 16) == stat.mzxid


def test_bad_input_and_versions_are_told_apart(servers: CoordServers, make_client: MakeClient) -> None:
    client = make_client(servers.hosts, auth_data=[SUPER])
    with pytest.raises(BadArgumentsException):
        client.reconfig(joining="some thing", leaving=None, new_members=None)
    with pytest.raises(BadVersionError):
        client.reconfig(joining=JOINER, leaving=None, new_members=None, from_config=529)
    with pytest.raises(NewConfigNoQuorumError):
        client.reconfig(
            joining=None, leaving=None, new_members=f"{JOINER.replace('observer', 'participant')},{DEAD}"
        )


DEAD = "server.101=127.0.0.1:2184:2185:participant;2186"


def test_a_real_server_joins_votes_and_leaves(servers: CoordServers, make_client: MakeClient) -> None:
    client = make_client(servers.leader().address, auth_data=[SUPER])  # that nobody kills
    client.create("/before-it-came", b"x")
    quorum_port, election_port, client_port = free_ports(3)
    line = f"127.0.0.1:{quorum_port}:{election_port}:participant;127.0.0.1:{client_port}"
    known = servers.servers[0].config_path.read_text().split("\n", 4)[4]
    joiner = CoordServer(servers.servers[0].config_path.parent, 4, client_port, f"{known}server.4={line}\n")
    (joiner.data_directory / "myid").write_text("4\n")
    joiner.start()
    try:
        wait_for(joiner.is_serving, "the joiner serves")
        data, _ = client.reconfig(joining=f"server.4={line}", leaving=None, new_members=None)
        assert f"server.4={line}\n".encode() in data
        follower = servers.followers()[0]
        follower.kill()
        client.create("/three-of-four", b"y")
        at_joiner = make_client(joiner.address)
        assert at_joiner.get("/before-it-came")[0] == b"x"
        follower.start()
        servers.wait_serving()
        client.reconfig(joining=None, leaving="4", new_members=None)
        wait_for(lambda: b"server.4=" not in at_joiner.get("/zookeeper/config")[0], "it has left")
        assert joiner.mode() == "follower"
    finally:
        joiner.kill()


def test_zkclis_reconfig(servers: CoordServers) -> None:
    """Its answers are the new configuration, and its own words for each refusal."""
    need("java")
    script = (
        f"addauth digest super:test\nreconfig -add {JOINER}\nreconfig -remove 100\nreconfig -v 77 -remove 9\n"
    )
    script += f"reconfig -members {DEAD},{JOINER.replace('observer', 'participant')}\nconfig\nquit\n"
    main = "org.apache.zookeeper.ZooKeeperMain"
    command = ["java", "-Xmx200m", "-cp", f"{zookeeper_jars()}/*", main, "-server", servers.hosts]
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=60)
    said = done.stdout + done.stderr
    assert f"\n{JOINER.replace(';', ';0.0.0.0:')}\n" in said
    assert said.count("Committed new configuration:") == 2
    assert "No quorum of new config is connected" in said
    assert "version No is not valid" in said
