"""`zoolog up`: what it prints and writes, what survives, what it starts again and what it leaves."""

import os
import signal
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.coord_servers import ask, wait_for
from tests.pubsub.command.clusters import Up, is_running, up, zoolog

pytestmark = [pytest.mark.crash, pytest.mark.slow]
SMALL = ("--coord", "1", "--bookies", "1", "--hubs", "1")


@contextmanager
def held(addresses: Iterable[str]) -> Iterator[None]:
    """Meanwhile the system gives these ports to nobody else; a server may listen there (see `hold_ports`)."""
    with ExitStack() as stack:
        for address in addresses:
            one = stack.enter_context(socket.socket())
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            host, port = address.split(":")
            one.bind((host, int(port)))
        yield


def test_a_cluster_from_ready_to_its_end(tmp_path: Path) -> None:
    with up(tmp_path / "c", *SMALL) as cluster:
        facts = cluster.facts()
        assert [len(facts[kind]) for kind in ("coord", "bookies", "hubs")] == [1, 1, 1]
        assert set(facts["pids"]) == {"coord-1", "bookie-1", "hub-1"}
        pids = list(facts["pids"].values())
        assert all(map(is_running, pids))
        for kind in ("coord", "bookies", "hubs"):
            assert f"{kind:<7}  {facts[kind][0]}\n" in cluster.output()
        assert all((tmp_path / "c" / f"{name}.log").exists() for name in facts["pids"])
        zoolog("zk", "create", "/kept", "data", "--coord", cluster.hosts)
        assert cluster.end(signal.SIGTERM) == 0
        assert not any(map(is_running, pids))
        assert cluster.facts()["pids"] == {}
    with held(facts["coord"] + facts["bookies"] + facts["hubs"]), up(tmp_path / "c", *SMALL) as again:
        assert zoolog("zk", "get", "/kept", "--coord", again.hosts) == "data"
        after = again.facts()
        assert {kind: after[kind] for kind in ("coord", "bookies", "hubs")} == {
            kind: facts[kind] for kind in ("coord", "bookies", "hubs")
        }
        assert again.end(signal.SIGINT) == 0


def test_a_killed_server_is_started_again(tmp_path: Path) -> None:
    with up(tmp_path / "c", *SMALL) as cluster:
        for name in ("hub-1", "bookie-1", "coord-1"):
            before = cluster.facts()["pids"]
            os.kill(before[name], signal.SIGKILL)

            def is_back(name: str = name, dead: int = before[name]) -> bool:
                pid = cluster.facts()["pids"].get(name)
                return pid is not None and pid != dead and is_running(pid)

            wait_for(is_back, f"{name} is started again")
            others = {one: pid for one, pid in cluster.facts()["pids"].items() if one != name}
            assert others == {one: pid for one, pid in before.items() if one != name}
            assert f"{name} (pid {before[name]}) ended with status -9" in cluster.output()
        port = int(cluster.hosts.rpartition(":")[2])
        wait_for(lambda: "\nMode: " in ask(port, "srvr"), "the coordination server serves again")
        wait_for(
            lambda: zoolog("zk", "ls", "/pubsub/hubs", "--coord", cluster.hosts) != "[]\n",
            "the hub is back",
        )


def test_without_restart_a_killed_server_stays_dead(tmp_path: Path) -> None:
    with up(tmp_path / "c", "--coord", "1", "--bookies", "1", "--hubs", "0", "--no-restart") as cluster:
        os.kill(cluster.facts()["pids"]["bookie-1"], signal.SIGKILL)
        wait_for(lambda: "bookie-1" not in cluster.facts()["pids"], "the death is noted")
        assert is_running(cluster.facts()["pids"]["coord-1"])
        host, port = cluster.facts()["bookies"][0].split(":")
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((host, int(port)))  # its address is kept for it
        assert cluster.end() == 0


def test_a_directory_has_one_cluster(tmp_path: Path) -> None:
    with up(tmp_path / "c", "--coord", "1", "--bookies", "0", "--hubs", "0"):
        zoolog("up", "--dir", str(tmp_path / "c"), status=1)


def test_ports_that_others_use_are_named_and_no_cluster_claims_to_be_ready(tmp_path: Path) -> None:
    """The other cluster would answer for this one."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        base = ("--port-base", str(port - 200 if port + 300 > 65535 else port))
        cluster = Up(tmp_path / "c", "--coord", "1", "--bookies", "1", "--hubs", "1", *base)
        try:
            assert cluster.end(0) == 1
            assert cluster.output() == f"zoolog: port {port} is in use; choose another --port-base\n"
        finally:
            cluster.kill_all()


def test_servers_that_outlived_their_cluster_are_ended(tmp_path: Path) -> None:
    options = ("--coord", "1", "--bookies", "1", "--hubs", "0")
    cluster = Up(tmp_path / "c", *options)
    pids: list[int] = []
    try:
        cluster.wait_ready()
        pids = list(cluster.facts()["pids"].values())
        cluster.end(signal.SIGKILL)
        assert all(map(is_running, pids))
        with up(tmp_path / "c", *options) as again:
            assert not any(map(is_running, pids))
            assert again.facts()["coord"]
    finally:
        for pid in pids:
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)


def test_a_server_that_cannot_start_fails_the_cluster_and_names_its_log(tmp_path: Path) -> None:
    data = tmp_path / "c" / "coord-1" / "data"
    (data / "version-2").mkdir(parents=True)
    (data / "version-2" / "snapshot.0").write_bytes(b"somebody else's")
    cluster = Up(tmp_path / "c", "--coord", "1", "--bookies", "0", "--hubs", "0")
    try:
        assert cluster.end(0) == 1
        assert cluster.output().endswith(f"coord-1 ended while starting; see {tmp_path}/c/coord-1.log\n")
        assert "version-2" in (tmp_path / "c" / "coord-1.log").read_text()
    finally:
        cluster.kill_all()
