"""Bookies as real processes, for tests and benches: started, killed, and always stopped.

    with BookieServers(directory, "127.0.0.1:2181", count=3) as bookies:
        bookies[0].kill(); bookies[0].start()

A bookie's standard error is `directory/bookie-N.log`; failures quote its end.
"""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

READY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 60.0
ROOT = Path(__file__).resolve().parents[2]


class BookieFailedError(Exception):
    """A process did not become ready; the text ends with the end of its log."""


class BookieServer:
    """One bookie's directory, and its process while it runs."""

    def __init__(self, directory: Path, number: int, hosts: str, options: tuple[str, ...]) -> None:
        self.directory = directory / f"bookie-{number}"
        self.log_path = directory / f"bookie-{number}.log"
        self.root = ROOT
        """Of the release that it runs from its next start on."""
        self.process: subprocess.Popen[bytes] | None = None
        self.ready: dict[str, str | int] = {}
        self._command = [
            sys.executable,
            "-m",
            "bookie.server",
            "--coord",
            hosts,
            "--dir",
            str(self.directory),
            *options,
        ]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def spawn(self) -> None:
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self._command,
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
            raise BookieFailedError(f"{self.directory}: {self.log_path.read_text()[-2000:]}")
        self.ready = json.loads(line)

    def start(self) -> None:
        self.spawn()
        self.wait_ready()

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


class BookieServers:
    """Several bookies of one cluster, running within the block."""

    def __init__(self, directory: Path, hosts: str, count: int, *options: str) -> None:
        self.servers = [BookieServer(directory, number, hosts, options) for number in range(1, count + 1)]

    def __getitem__(self, index: int) -> BookieServer:
        return self.servers[index]

    def __enter__(self) -> "BookieServers":
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
