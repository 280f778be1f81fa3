"""Hubs as real processes, for tests and benches: started, killed, and always stopped.

    with HubServers(directory, "127.0.0.1:2181", count=2) as hubs:
        hubs[0].kill(); hubs[0].start()

Ports are taken from the system, and stay with a hub over its restarts: they are held as long as it exists.
A hub's standard error is `directory/hub-N.log`; failures quote its end.
"""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.coord_servers import hold_ports

READY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 60.0
ROOT = Path(__file__).resolve().parents[2]


class HubFailedError(Exception):
    """A process did not become ready; the text ends with the end of its log."""


class HubServer:
    """One hub's directory, and its process while it runs."""

    def __init__(self, directory: Path, number: int, hosts: str, port: int, options: tuple[str, ...]) -> None:
        self.directory = directory / f"hub-{number}"
        self.log_path = directory / f"hub-{number}.log"
        self.root = ROOT
        """Of the release that it runs from its next start on."""
        self.process: subprocess.Popen[bytes] | None = None
        self.address = f"127.0.0.1:{port}"
        self._hosts = hosts
        self._port = port
        self._options = options

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def spawn(self) -> None:
        command = [sys.executable, "-m", "pubsub.hub", "--coord", self._hosts, "--dir", str(self.directory)]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self._port), *self._options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.root,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        process = self.process
        assert process is not None
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], READY_SECONDS_MAX)
        line = process.stdout.readline() if readable else b""
        if not line:
            self.kill()
            raise HubFailedError(f"{self.directory}: {self.log_path.read_text()[-3000:]}")
        facts = json.loads(line)
        assert f"{facts['host']}:{facts['port']}" == self.address

    def start(self) -> None:
        self.spawn()
        self.wait_ready()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and gone when this returns."""
        self.end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        return self.end(signal.SIGTERM)

    def end(self, number: int) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        try:
            status = process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        if process.stdout is not None:
            process.stdout.close()
        return status

    def resident_bytes(self) -> int:
        """Memory of the process now."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class HubServers:
    """Several hubs of one cluster, running within the block."""

    def __init__(self, directory: Path, hosts: str, count: int, *options: str) -> None:
        self.held = hold_ports(count)
        self.servers = [
            HubServer(directory, number, hosts, one.getsockname()[1], options)
            for number, one in enumerate(self.held, 1)
        ]

    def __getitem__(self, index: int) -> HubServer:
        return self.servers[index]

    def at(self, address: str) -> HubServer:
        """The hub that listens there."""
        return next(server for server in self.servers if server.address == address)

    def __enter__(self) -> "HubServers":
        try:
            for server in self.servers:
                server.spawn()
            for server in self.servers:
                server.wait_ready()
        except BaseException:
            self._end(signal.SIGKILL)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        for server in self.servers:
            server.end(number)
        for one in self.held:
            one.close()
