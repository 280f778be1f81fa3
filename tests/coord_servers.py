"""Coordination servers as real processes, for tests and benchmarks: started on free ports, reliably stopped.

    with CoordServers(directory, count=3) as servers:
        servers.hosts                      # "127.0.0.1:41001,127.0.0.1:41002,127.0.0.1:41003"
        leader = servers.leader()
        leader.kill(); leader.start(); servers.wait_serving()
        servers.fail_over()                # the next leader

Ports are taken from the system, and stay with a server over its restarts: they are held as long as it exists.
A server's standard error is `directory/N.log`; `check_alive` and failures quote its end.
"""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 60.0
ANSWER_SECONDS_MAX = 30.0
"""How long the answer to a four-letter word may take."""
LOOK_SECONDS_MAX = 2.0
"""The same for who only looks, and looks again: a server that is stopped takes no longer of a look at all."""
POLL_SECONDS = 0.01
ROOT = Path(__file__).resolve().parent.parent


_held_ports: list[socket.socket] = []


class ServerFailedError(Exception):
    """A server process did not do what it must; the text ends with the end of its log."""


def free_ports(count: int) -> list[int]:
    """Ports for servers to come, which nobody else is given before `release_ports`; all differ."""
    held = hold_ports(count)
    _held_ports.extend(held)
    return [one.getsockname()[1] for one in held]


def release_ports() -> None:
    """What `free_ports` has given may be anybody's again: at the end of each test."""
    while _held_ports:
        _held_ports.pop().close()


def hold_ports(count: int) -> list[socket.socket]:
    """Sockets on ports for servers to come: bound but not listening, they let a server listen there, and keep
    the system from giving the ports to anybody else.
    """
    held = []
    for _ in range(count):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", 0))
        held.append(one)
    return held


def ask(port: int, word: str, seconds: float = ANSWER_SECONDS_MAX) -> str:
    """The answer to a four-letter word; empty when nobody answers in time."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
            connection.sendall(word.encode())
            answer = b""
            while part := connection.recv(65536):
                answer += part
            return answer.decode()
    except OSError:
        return ""


def wait_for(condition: Callable[[], bool], what: str, seconds: float = START_SECONDS_MAX) -> None:
    """Polls until `condition` holds.

    Raises:
        ServerFailedError: it did not in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ServerFailedError(f"waited {seconds} s in vain: {what}")
        time.sleep(POLL_SECONDS)


class CoordServer:
    """One server: its configuration file, its process when it runs, its log."""

    def __init__(self, directory: Path, sid: int, client_port: int, extra: str) -> None:
        self.sid = sid
        self.port = client_port
        self.address = f"127.0.0.1:{client_port}"
        self.data_directory = directory / str(sid)
        self.data_directory.mkdir(parents=True, exist_ok=True)
        self.config_path = directory / f"{sid}.cfg"
        self.log_path = directory / f"{sid}.log"
        self.root = ROOT
        """Of the release that it runs from its next start on."""
        self.process: subprocess.Popen[bytes] | None = None
        self.config_path.write_text(
            f"dataDir={self.data_directory}\nclientPort={client_port}\nclientPortAddress=127.0.0.1\n"
            f"4lw.commands.whitelist=*\nmaxClientCnxns=0\n{extra}"
        )

    def command(self) -> list[str]:
        return [sys.executable, "-m", "coord.server", str(self.config_path)]

    def start(self) -> None:
        log: IO[bytes]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.root,
                start_new_session=True,
            )

    def kill(self) -> None:
        """SIGKILL, and gone when this returns."""
        self.signal(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        return self.signal(signal.SIGTERM)

    def signal(self, number: int) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ServerFailedError(f"server {self.sid} did not stop\n{self.log_end()}") from None

    def mode(self) -> str:
        """leader, follower, standalone; empty while it is not in service."""
        found = re.search(r"^Mode: (.*)$", ask(self.port, "srvr", LOOK_SECONDS_MAX), re.MULTILINE)
        return found[1] if found else ""

    def log_end(self) -> str:
        return self.log_path.read_text(errors="replace")[-3000:] if self.log_path.exists() else ""

    def check_alive(self) -> None:
        if self.process is not None and (status := self.process.poll()) is not None:
            raise ServerFailedError(f"server {self.sid} ended with status {status}\n{self.log_end()}")

    def is_serving(self) -> bool:
        self.check_alive()
        return bool(self.mode())


class CoordServers:
    """A standalone server (`count` 1) or an ensemble; started by `with`, all stopped at its end.

    Args:
        sync_limit: ticks after which a silent server is given up; a dead one is noticed at once.
    """

    def __init__(
        self, directory: Path, count: int = 1, *, tick_ms: int = 500, sync_limit: int = 4, extra: str = ""
    ) -> None:
        self.held = hold_ports(3 * count)
        ports = [one.getsockname()[1] for one in self.held]
        text = f"tickTime={tick_ms}\n{extra}\n"
        if count > 1:
            text += f"initLimit=20\nsyncLimit={sync_limit}\n"
            text += f"ensemble.secretFile={directory}/secret\n"
            for sid in range(1, count + 1):
                quorum_port, election_port = ports[count + 2 * sid - 2], ports[count + 2 * sid - 1]
                text += f"server.{sid}=127.0.0.1:{quorum_port}:{election_port}\n"
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "secret").write_text("a secret of the tests only\n")
        self.servers = [self.make(directory, sid, ports[sid - 1], text) for sid in range(1, count + 1)]
        if count > 1:
            for server in self.servers:
                (server.data_directory / "myid").write_text(f"{server.sid}\n")

    def make(self, directory: Path, sid: int, port: int, text: str) -> CoordServer:
        return CoordServer(directory, sid, port, text)

    @property
    def hosts(self) -> str:
        return ",".join(server.address for server in self.servers)

    def __enter__(self) -> "CoordServers":
        try:
            for server in self.servers:
                server.start()
            self.wait_serving()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            for server in self.servers:
                server.stop()
        self.kill()
        for one in self.held:
            one.close()

    def kill(self) -> None:
        for server in self.servers:
            server.kill()

    def running(self) -> list[CoordServer]:
        return [server for server in self.servers if server.process is not None]

    def wait_serving(self, seconds: float = START_SECONDS_MAX) -> None:
        """Until every running server is in service."""
        wait_for(lambda: all(server.is_serving() for server in self.running()), "all servers serve", seconds)

    def leader(self) -> CoordServer:
        """The server that leads, once there is one."""
        found: list[CoordServer] = []

        def look() -> bool:
            found[:] = [server for server in self.running() if server.mode() in ("leader", "standalone")]
            return bool(found)

        wait_for(look, "a leader")
        return found[0]

    def fail_over(self) -> CoordServer:
        """Kills the leader; returns the next one, once all that run serve under it.

        Who waits only until the others serve may meet one that has not seen yet that its leader is dead, and
        ends its connections when it does. The next leader leads when a quorum has left the old one; what
        serves from then on follows it.
        """
        self.leader().kill()
        successor = self.leader()
        self.wait_serving()
        return successor

    def followers(self) -> list[CoordServer]:
        """The servers that follow, once all that run serve under one leader.

        A single look may come while a follower is on its way back to its leader, or too slow to answer.
        """
        found: list[CoordServer] = []

        def look() -> bool:
            modes = {server.sid: server.mode() for server in self.running()}
            found[:] = [server for server in self.running() if modes[server.sid] == "follower"]
            return all(modes.values()) and "leader" in modes.values()

        wait_for(look, "followers of a leader")
        return found
