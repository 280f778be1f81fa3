"""`zoolog coord|bookie|hub serve`: a server stops in order, and leaves nothing behind."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.coord_servers import ROOT, CoordServers, free_ports, wait_for
from tests.pubsub.command.clusters import COMMAND, END_SECONDS_MAX, zoolog

pytestmark = [pytest.mark.crash, pytest.mark.slow]
SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with CoordServers(Path(tmp_path_factory.mktemp("serve"))) as servers:
        yield servers.hosts


@contextmanager
def serving(log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen([*COMMAND, *arguments], stdout=output, stderr=output, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(("kind", "registered"), [("bookie", "/ledgers/available"), ("hub", "/pubsub/hubs")])
def test_a_stopped_server_is_no_longer_registered(
    hosts: str, tmp_path: Path, kind: str, registered: str, number: int
) -> None:
    """Its session is closed, not left to time out: nobody goes on to ask it."""
    log = tmp_path / "log"
    arguments = ("serve", "--coord", hosts, "--dir", str(tmp_path / "data"), "--port", "0")
    with serving(log, kind, *arguments) as process:
        wait_for(lambda: "registered" in log.read_text(), f"the {kind} is registered")
        process.send_signal(number)
        assert process.wait(END_SECONDS_MAX) == 0, log.read_text()
    names = json.loads(zoolog("zk", "ls", registered, "--json", "--coord", hosts))
    assert [name for name in names if name != "readonly"] == []


@pytest.mark.parametrize("number", SIGNALS)
def test_a_coordination_server_stops_with_status_0(tmp_path: Path, number: int) -> None:
    (port,) = free_ports(1)
    config, log = tmp_path / "zoo.cfg", tmp_path / "log"
    config.write_text(f"dataDir={tmp_path / 'data'}\nclientPort={port}\nclientPortAddress=127.0.0.1\n")
    with serving(log, "coord", "serve", str(config)) as process:
        wait_for(lambda: "in service" in log.read_text(), "the server is in service")
        process.send_signal(number)
        assert process.wait(END_SECONDS_MAX) == 0, log.read_text()
