"""docs/migrate.md, block by block, on a real Apache ZooKeeper 3.9.5: there, and back.

Needs `java` and ZooKeeper's jars; where they are missing the tests say so and are skipped
(`tests.interop.tools`). The parser itself is tested on files in `tests/coord/apache/golden`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kazoo.client import KazooClient

from tests.coord_raw import ACL, Client, buffer
from tests.coord_servers import ROOT, CoordServer, CoordServers, free_ports, wait_for
from tests.interop.apache import ApacheServer, ApacheServers, zookeeper_jars

pytestmark = pytest.mark.interop

PAGE = ROOT / "docs" / "migrate.md"
TIMEOUT_MS = 60_000
LONG_SESSIONS = f"maxSessionTimeout={TIMEOUT_MS}\n"
"""Nobody sends pings for the sessions that are taken along here."""
CREATE = 1
EPHEMERAL = b"\0\0\0\1"


def step(name: str, **variables: object) -> str:
    """Runs a block of the page; returns what it printed."""
    found = re.search(rf"<!-- step: {name} -->\n *```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None, f"{PAGE} has no step {name}"
    done = subprocess.run(
        ["bash", "-euc", 'zoolog() { "$PYTHON" -m pubsub.command "$@"; }\n' + found[1]],
        cwd=str(variables.pop("cwd", ROOT)),
        env=os.environ
        | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
        | {key: str(value) for key, value in variables.items()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def fresh(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


@pytest.fixture
def apache(tmp_path: Path) -> Iterator[ApacheServers]:
    with ApacheServers(tmp_path / "apache", extra=LONG_SESSIONS) as servers:
        yield servers


def fill(address: str) -> tuple[Client, int]:
    """Puts something of everything on a server; returns an open session with an ephemeral, and a zxid."""
    zk = KazooClient(address, timeout=10.0)
    zk.start(timeout=60)
    zk.create("/app", b"app")
    for number in range(20):
        zk.create("/app/job-", b"%d" % number, sequence=True)
        zk.set("/app", b"%d" % number)
    with zk.transaction() as transaction:
        transaction.create("/app/pair", b"1")
        transaction.create("/app/pair/second", b"2")
    zk.delete("/app/job-0000000003")
    zxid = zk.exists("/app").mzxid
    zk.stop()
    zk.close()
    holder = connect(address)
    assert holder.call(1, CREATE, buffer(b"/app/held") + buffer(b"") + ACL + EPHEMERAL) == 0
    return holder, zxid


def connect(address: str, session: tuple[int, bytes] = (0, bytes(16))) -> Client:
    host, _, port = address.rpartition(":")
    return Client(host, int(port), TIMEOUT_MS, session)


def read(address: str, root: str = "/app") -> dict[str, tuple[bytes, int, int]]:
    """What a client sees from a path down: data, czxid, cversion."""
    zk = KazooClient(address, timeout=10.0)
    zk.start(timeout=60)
    seen = {}
    waiting = [root]
    while waiting:
        path = waiting.pop()
        data, stat = zk.get(path)
        seen[path] = (data, stat.czxid, stat.cversion)
        waiting += [f"{path}/{child}" for child in zk.get_children(path)]
    zk.stop()
    zk.close()
    return seen


def leave(client: Client) -> tuple[int, bytes]:
    """Ends a connection without ending its session."""
    client.socket.close()
    return client.session_id, client.password


def take_up(address: str, session: tuple[int, bytes]) -> int:
    """The session that a server grants to whoever comes with this one; 0 where it has expired."""
    client = connect(address, session)
    granted = client.session_id
    client.socket.close()
    return granted


def test_an_ensemble_takes_zookeepers_place_and_gives_it_back(tmp_path: Path, apache: ApacheServers) -> None:
    (java,) = apache.servers
    holder, zxid = fill(java.address)
    rehearsal = step("rehearse", ZK=java.data_directory, COPY=fresh(tmp_path / "copy"))
    assert "nodes (1 ephemeral)" in rehearsal

    before = read(java.address)
    session = leave(holder)
    java.stop()
    compared = json.loads(step("compare", ZK=java.data_directory))
    assert compared["zxid"] > zxid
    final = fresh(tmp_path / "final")
    step("copy", ZK=java.data_directory, FINAL=final)

    ours = CoordServers(tmp_path / "ours", 3, extra=LONG_SESSIONS)
    printed = {step("import", FINAL=final, OURS=server.data_directory) for server in ours.servers}
    assert len(printed) == 1
    with ours:
        address = ours.servers[0].address
        assert read(address) == before
        assert take_up(address, session) == session[0]
        zk = KazooClient(ours.hosts, timeout=10.0)
        zk.start(timeout=60)
        created = zk.create("/app/job-", b"written on zoolog", sequence=True)
        assert created == "/app/job-0000000022"  # 20 jobs, /app/pair, /app/held
        assert zk.get("/app/held")[1].ephemeralOwner == session[0]
        assert zk.exists(created).czxid >> 32 > zxid >> 32
        zk.stop()
        zk.close()
        stranger = leave(connect(address))
        between = read(address)

    exports = {}
    for server in ours.servers:
        back = tmp_path / f"back-{server.sid}"
        found = re.search(r"zxid (0x[0-9a-f]+)", step("export", OURS=server.data_directory, BACK=back))
        assert found is not None
        exports[int(found[1], 16)] = back
    step("replace", ZK=java.data_directory, BACK=exports[max(exports)])
    java.start()
    apache.wait_serving()
    assert read(java.address) == between
    assert take_up(java.address, session) == session[0]
    assert take_up(java.address, stranger) == 0
    zk = KazooClient(java.address, timeout=10.0)
    zk.start(timeout=60)
    assert zk.create("/app/job-", b"", sequence=True) == "/app/job-0000000023"
    assert zk.exists("/app/job-0000000023").czxid > max(exports)
    zk.stop()
    zk.close()


def test_a_configuration_of_zookeepers_is_checked_before_anything_stops(tmp_path: Path) -> None:
    (tmp_path / "zoo.cfg").write_text(
        f"dataDir={tmp_path}\ntickTime=2000\nclientPort=2181\npreAllocSize=65536\nadmin.enableServer=false\nx.y=1\n"
    )
    printed = step("configuration", cwd=tmp_path)
    assert "without effect: preAllocSize\n" in printed
    assert "unknown: x.y\n" in printed
    assert printed.endswith(f"ok: standalone, dataDir {tmp_path}\n")
    step("secret", OURS=tmp_path)
    assert len((tmp_path / "ensemble.secret").read_text()) == 65


@pytest.mark.slow
def test_three_servers_of_zookeepers_start_from_one_export(tmp_path: Path) -> None:
    golden = tmp_path / "golden" / "version-2"
    shutil.copytree(ROOT / "tests" / "coord" / "apache" / "golden", golden)
    step("import", FINAL=golden.parent, OURS=tmp_path / "ours")
    step("export", OURS=tmp_path / "ours", BACK=tmp_path / "back")
    apache = ApacheServers(tmp_path / "apache", 3)
    for server in apache.servers:
        shutil.copytree(tmp_path / "back" / "version-2", server.data_directory / "version-2")
    with apache:
        for server in apache.servers:
            assert read(server.address, "/app/container")["/app/container/child"][0] == b"x"


def test_a_mixed_ensemble_is_refused_by_name(tmp_path: Path) -> None:
    """One server of each kind with the same members: ours says what is wrong, and neither serves."""
    ports = free_ports(6)
    members = "".join(f"server.{sid}=127.0.0.1:{ports[2 * sid]}:{ports[2 * sid + 1]}\n" for sid in (1, 2))
    text = f"tickTime=500\ninitLimit=10\nsyncLimit=4\n{members}"
    java = ApacheServer(tmp_path, 1, ports[0], text)
    java.jars = zookeeper_jars()
    ours = CoordServer(tmp_path, 2, ports[1], text)
    (ours.data_directory / "ensemble.secret").write_text("a secret of the tests only\n")
    for server in (java, ours):
        (server.data_directory / "myid").write_text(f"{server.sid}\n")
    try:
        ours.start()
        java.start()
        said = re.compile("cannot be in one ensemble.*apache_sid=1")
        wait_for(lambda: said.search(ours.log_end()) is not None, "the line that says so")
        assert ours.mode() == java.mode() == ""
    finally:
        java.kill()
        ours.kill()
