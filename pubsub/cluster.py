"""A local cluster: coordination servers, bookies and hubs as processes of this machine, kept running.

`run_cluster` starts one process per server below one directory, waits until all of them serve, starts again
what dies, and stops everything when its block ends. The directory holds each server's data and log and
`cluster.json`, which names every address and process id; started again on the same directory the cluster
goes on with the data.
"""

import contextlib
import fcntl
import json
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import trio

import coord
from coord import eventlog
from coord.nursery import open_private_nursery

HOST = "127.0.0.1"
RESTART_DELAY_S = 1.0
STOP_DEADLINE_S = 10.0
READY_DEADLINE_S = 60.0
READY_POLL_S = 0.05
#: A server that has ended so often before the cluster was ready will not serve: its log says why.
STARTS_MAX = 3
LEFTOVER_DEADLINE_S = 5.0
#: Without --port-base the system gives the ports; with it, each kind of server has its own range above the
#: base.
PORT_STEP = 100

log = eventlog.get("pubsub.cluster")


class ClusterError(Exception):
    """The cluster cannot be started or did not become ready; the text names the server and its log file."""


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """How many servers of each kind, and where."""

    directory: Path
    coord: int = 3
    bookies: int = 3
    hubs: int = 2
    port_base: int | None = None


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """One server: its name (`coord-1`), its address, and the command's arguments that run it."""

    name: str
    address: str
    arguments: tuple[str, ...]


class LocalCluster:
    """The running servers of one `run_cluster` block. Addresses never change; process ids do."""

    def __init__(
        self,
        plan: ClusterPlan,
        restart: bool,
        on_event: Callable[[str], None],
        held: contextlib.ExitStack,
    ) -> None:
        self.plan = plan
        self.restart = restart
        self.servers = {server.name: server for server in _plan_servers(plan, held)}
        self.pids: dict[str, int] = {}
        self.starts: dict[str, int] = dict.fromkeys(self.servers, 0)
        self._on_event = on_event
        self._processes: dict[str, trio.Process] = {}
        self._ready = False
        self._stopping = False
        self._failed: str | None = None

    def addresses(self, kind: str) -> list[str]:
        """Addresses of the servers of one kind (`coord`, `bookie`, `hub`) in the order of their numbers."""
        return [server.address for server in self.servers.values() if server.name.startswith(kind + "-")]

    @property
    def coord_hosts(self) -> str:
        """The connection string of the coordination ensemble."""
        return ",".join(self.addresses("coord"))

    def name_of(self, address: str) -> str:
        """The name of the server that listens at `address`; KeyError if none does."""
        return next(name for name, server in self.servers.items() if server.address == address)

    def kill(self, name: str, signal_number: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal, by default kill -9, to one server; it is started again where `restart` holds.

        Raises:
            KeyError: it does not run at the moment.
        """
        os.kill(self.pids[name], signal_number)

    async def wait_ready(self) -> None:
        """Returns once every server serves.

        Raises:
            ClusterError: one of them ended or did not serve within READY_DEADLINE_S.
        """
        waiting = "the coordination servers"
        with trio.move_on_after(READY_DEADLINE_S):
            for address in self.addresses("coord"):
                while not await _coord_serves(address):
                    self._check_failed()
                    await trio.sleep(READY_POLL_S)
            waiting = "bookies and hubs"
            async with coord.connect(self.coord_hosts) as zk:
                while not await self._all_registered(zk):
                    self._check_failed()
                    await trio.sleep(READY_POLL_S)
            for server in self.servers.values():
                # A registration may be that of a predecessor whose session has not expired.
                while not await _listens(server.address):
                    self._check_failed()
                    await trio.sleep(READY_POLL_S)
            self._ready = True
            return
        raise ClusterError(
            f"{waiting} did not serve within {READY_DEADLINE_S:.0f} s; see the logs in {self.plan.directory}"
        )

    async def _all_registered(self, zk: coord.Client) -> bool:
        wanted = ((REGISTERED_BOOKIES, self.plan.bookies), (REGISTERED_HUBS, self.plan.hubs))
        for path, count in wanted:
            if count == 0:
                continue
            try:
                names = await zk.get_children(path)
            except (coord.NoNodeError, coord.ConnectionLossError):
                return False
            if len([name for name in names if name != "readonly"]) < count:
                return False
        return True

    def _check_failed(self) -> None:
        if self._failed is not None:
            raise ClusterError(
                f"{self._failed} ended while starting; see {self.plan.directory / self._failed}.log"
            )

    async def stop(self) -> None:
        """Stops all servers, those first that need the others to leave in order: hubs, bookies, coordination.

        Takes at most STOP_DEADLINE_S for each kind, and is not to be cancelled.
        """
        self._stopping = True
        for kind in ("hub", "bookie", "coord"):
            async with trio.open_nursery() as nursery:
                for name, process in self._processes.items():
                    if name.startswith(kind + "-"):
                        nursery.start_soon(_stop, process)

    def write_facts(self) -> None:
        """Writes cluster.json, whole or not at all."""
        facts = {
            "coord": self.addresses("coord"),
            "bookies": self.addresses("bookie"),
            "hubs": self.addresses("hub"),
            "pids": self.pids,
        }
        path = self.plan.directory / "cluster.json"
        draft = path.with_suffix(".json.new")
        draft.write_text(json.dumps(facts, indent=1) + "\n")
        draft.replace(path)

    async def _keep(self, server: ServerPlan) -> None:
        """Runs one server until the cluster stops, again after each death where `restart` holds."""
        while True:
            with (self.plan.directory / f"{server.name}.log").open("ab") as output:
                process = await trio.lowlevel.open_process(
                    [sys.executable, "-m", "pubsub.command", *server.arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    # Its own group: Ctrl-C reaches `zoolog up` alone, which stops the servers in order.
                    start_new_session=True,
                )
            self._processes[server.name] = process
            self.pids[server.name] = process.pid
            self.starts[server.name] += 1
            if self._stopping:
                process.kill()
            self.write_facts()
            with trio.CancelScope(shield=True):
                # `stop` ends it, in its turn.
                status = await process.wait()
            del self._processes[server.name], self.pids[server.name]
            self.write_facts()
            if self._stopping:
                return
            self._on_event(f"{server.name} (pid {process.pid}) ended with status {status}")
            if not self.restart or (not self._ready and self.starts[server.name] >= STARTS_MAX):
                self._failed = server.name
                return
            await trio.sleep(RESTART_DELAY_S)
            self._on_event(f"starting {server.name} again")


REGISTERED_BOOKIES = "/ledgers/available"
REGISTERED_HUBS = "/pubsub/hubs"


@contextlib.asynccontextmanager
async def run_cluster(
    plan: ClusterPlan, *, restart: bool = True, on_event: Callable[[str], None] | None = None
) -> AsyncIterator[LocalCluster]:
    """Runs a local cluster for the length of the block; inside it every server has served at least once.

    Args:
        plan: what to run and where; the directory is created.
        restart: start a server that dies again after RESTART_DELAY_S.
        on_event: called with a line for each death and restart; default: the log.

    Raises:
        ClusterError: the directory cannot be used, or a server ended or did not serve in time.
    """
    try:
        plan.directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClusterError(f"cannot create {plan.directory}: {error.strerror}") from error
    with _locked(plan.directory), contextlib.ExitStack() as held:
        await _end_leftovers(plan.directory)
        cluster = LocalCluster(plan, restart, on_event or (lambda line: log.info(line)), held)
        async with open_private_nursery() as nursery:
            for server in cluster.servers.values():
                nursery.start_soon(cluster._keep, server)
            try:
                await cluster.wait_ready()
                yield cluster
            finally:
                with trio.CancelScope(shield=True):
                    await cluster.stop()
                nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def failing_on_signals(*numbers: signal.Signals) -> AsyncIterator[None]:
    """Within the block such a signal is a failure like any other, so that a cluster in it is stopped: its
    servers are no children of a shell that would end them.

    Raises:
        ClusterError: one of the signals came.
    """

    async def wait(task_status: "trio.TaskStatus[None]") -> None:
        with trio.open_signal_receiver(*numbers) as signals:
            task_status.started()
            async for number in signals:
                raise ClusterError(f"ended by {signal.Signals(number).name}")

    async with open_private_nursery() as nursery:
        await nursery.start(wait)
        yield


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One cluster at a time lives in a directory.

    Raises:
        ClusterError: another one does, or the directory cannot be written.
    """
    try:
        lock = (directory / "cluster.lock").open("ab")
    except OSError as error:
        raise ClusterError(f"cannot write to {directory}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ClusterError(f"a cluster runs in {directory} already") from error
        yield


async def _end_leftovers(directory: Path) -> None:
    """Kills servers that outlived their cluster, which was killed itself: they hold the data's locks.

    Only a process whose command line is that of a server in this directory; its number alone proves nothing.
    """
    try:
        facts = read_facts(directory)
    except ClusterError:
        return
    pids = facts.get("pids")
    for pid in pids.values() if isinstance(pids, dict) else ():
        with trio.move_on_after(LEFTOVER_DEADLINE_S):
            while isinstance(pid, int) and _is_server_of(pid, directory):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                await trio.sleep(READY_POLL_S)


def _is_server_of(pid: int, directory: Path) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    inside = os.fsencode(directory) + b"/"
    return b"pubsub.command" in words and any(word.startswith(inside) for word in words)


async def _stop(process: trio.Process) -> None:
    """SIGTERM, and kill -9 for what has not ended after STOP_DEADLINE_S."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with trio.move_on_after(STOP_DEADLINE_S) as scope:
        await process.wait()
    if scope.cancelled_caught:
        log.warning("server does not stop, killing it", pid=process.pid)
        process.kill()
        await process.wait()


async def _listens(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        with trio.fail_after(1):
            await (await trio.open_tcp_stream(host, int(port))).aclose()
    except (OSError, trio.TooSlowError):
        return False
    return True


async def _coord_serves(address: str) -> bool:
    """Asks one coordination server's `srvr` word whether it is in service."""
    host, port = address.rsplit(":", 1)
    try:
        with trio.fail_after(1):
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                await stream.send_all(b"srvr")
                answer = b"".join([chunk async for chunk in stream])
    except (OSError, trio.TooSlowError):
        return False
    return b"\nMode: " in answer


def _plan_servers(plan: ClusterPlan, held: contextlib.ExitStack) -> list[ServerPlan]:
    """Chooses ports, which are held, writes the coordination servers' configuration, and names every
    command.
    """
    ports = _choose_ports(plan, held)
    clients, quorums, elections = ports["coord"], ports["quorum"], ports["election"]
    ensemble = "".join(
        f"server.{number}={HOST}:{quorum}:{election}\n"
        for number, (quorum, election) in enumerate(zip(quorums, elections, strict=True), 1)
    )
    ensemble = (
        f"{ensemble}ensemble.secretFile={plan.directory / 'ensemble.secret'}\n" if plan.coord > 1 else ""
    )
    secret = plan.directory / "ensemble.secret"
    if plan.coord > 1 and not secret.exists():
        from coord.server import write_ensemble_secret

        write_ensemble_secret(str(secret))
    servers = []
    for number, port in enumerate(clients, 1):
        name = f"coord-{number}"
        config = _write_coord_config(plan.directory / name, number, port, ensemble)
        servers.append(ServerPlan(name, f"{HOST}:{port}", ("coord", "serve", str(config))))
    hosts = ",".join(f"{HOST}:{port}" for port in clients)
    for kind in ("bookie", "hub"):
        for number, port in enumerate(ports[kind], 1):
            name = f"{kind}-{number}"
            arguments = (
                kind,
                "serve",
                "--coord",
                hosts,
                "--dir",
                str(plan.directory / name),
                "--port",
                str(port),
            )
            servers.append(ServerPlan(name, f"{HOST}:{port}", (*arguments, "--id", name)))
    return servers


def _write_coord_config(directory: Path, number: int, port: int, ensemble: str) -> Path:
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    (data / "myid").write_text(f"{number}\n")
    config = directory / "zoo.cfg"
    config.write_text(
        f"tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={data}\n"
        f"clientPort={port}\nclientPortAddress={HOST}\nmaxClientCnxns=0\n"
        f"4lw.commands.whitelist=*\n{ensemble}"
    )
    return config


def _choose_ports(plan: ClusterPlan, held: contextlib.ExitStack) -> dict[str, list[int]]:
    counts = {
        "coord": plan.coord,
        "bookie": plan.bookies,
        "hub": plan.hubs,
        "quorum": plan.coord,
        "election": plan.coord,
    }
    if plan.port_base is not None:
        highest = plan.port_base + PORT_STEP * len(counts)
        if plan.port_base < 1 or highest > 65535 or max(counts.values()) > PORT_STEP:
            raise ClusterError(
                f"ports {plan.port_base} to {highest} do not exist; choose a lower --port-base"
            )
        starts = {kind: plan.port_base + PORT_STEP * step for step, kind in enumerate(counts)}
        ports = {kind: [starts[kind] + i for i in range(count)] for kind, count in counts.items()}
        _check_free([port for kind in ports.values() for port in kind], held)
        return ports
    wanted = _ports_before(plan, counts)
    free = iter(_free_ports(wanted, held))
    return {kind: [next(free) for _ in range(count)] for kind, count in counts.items()}


def _check_free(ports: list[int], held: contextlib.ExitStack) -> None:
    """Another cluster's servers would answer in place of ours, which could not start: no cluster then.

    Raises:
        ClusterError: one of the ports is in use.
    """
    for port, got in zip(ports, _free_ports(ports, held), strict=True):
        if got != port:
            raise ClusterError(f"port {port} is in use; choose another --port-base")


def _ports_before(plan: ClusterPlan, counts: dict[str, int]) -> list[int]:
    """The ports that the servers had in this directory, so that addresses outlive a restart; 0 for none."""
    try:
        facts = read_facts(plan.directory)
    except ClusterError:
        facts = {}
    wanted = []
    for kind, count in counts.items():
        addresses = facts.get({"bookie": "bookies", "hub": "hubs"}.get(kind, kind))
        known = addresses if isinstance(addresses, list) else []
        for index in range(count):
            port = str(known[index]).rpartition(":")[2] if index < len(known) else ""
            wanted.append(int(port) if port.isascii() and port.isdigit() and int(port) < 65536 else 0)
    return wanted


def _free_ports(wanted: list[int], held: contextlib.ExitStack) -> list[int]:
    """Ports that nobody has right now: those wanted where they are free, else such as the system gives.

    `held` keeps them, bound and not listened on: a server of this cluster can listen there, now and when it
    is started again, and the system gives them to nobody else.
    """
    ports = []
    for port in wanted:
        sock = held.enter_context(socket.socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, port))
        except OSError:
            sock.bind((HOST, 0))
        ports.append(sock.getsockname()[1])
    return ports


def read_facts(directory: Path) -> dict[str, object]:
    """The content of DIR/cluster.json.

    Raises:
        ClusterError: it is not there or not readable.
    """
    path = directory / "cluster.json"
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ClusterError(f"cannot read {path}: {error}") from error
    if not isinstance(facts, dict):
        raise ClusterError(f"expected an object in {path}, got {type(facts).__name__}")
    return facts


def format_ready(cluster: LocalCluster) -> str:
    """The lines `zoolog up` prints once everything serves."""
    kinds = (("coord", "coord"), ("bookies", "bookie"), ("hubs", "hub"))
    width = math.ceil(max(len(title) for title, _ in kinds))
    rows = [f"  {title:<{width}}  {','.join(cluster.addresses(kind))}" for title, kind in kinds]
    return "ready\n" + "\n".join(rows)
