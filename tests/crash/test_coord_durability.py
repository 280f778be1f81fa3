"""Real coordination servers, kill -9, real files: what was acknowledged is there, everywhere, and nothing
else.
"""

import random
import signal
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.coord_raw import ACL, Client, buffer, insist
from tests.coord_servers import CoordServers, wait_for

pytestmark = [pytest.mark.crash, pytest.mark.slow]

CREATE, GET_DATA, SET_DATA, SYNC = 1, 4, 5, 9
NODE_EXISTS = -110
WRITES_BETWEEN = 300
"""Acknowledged creates between two disturbances: enough for groups, blocks and batches of every size."""

ENOUGH = 20
"""Acknowledged writes of each client without which a test says nothing."""

PATIENCE_SECONDS = 5.0
"""How long a client waits for a server that says nothing."""


class Writer(threading.Thread):
    """Creates numbered nodes, one after the other, through whatever server answers; keeps what it is told."""

    def __init__(
        self, name: str, ports: list[int], chance: random.Random, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        super().__init__(daemon=True)
        self.patience_seconds = patience_seconds
        self.prefix = f"/crash/{name}-"
        self.ports = ports
        self.chance = chance
        self.acknowledged: list[int] = []
        self.unknown: list[int] = []
        self.stopping = threading.Event()
        self.errors: list[str] = []

    def run(self) -> None:
        number = 0
        client: Client | None = None
        while not self.stopping.is_set():
            try:
                if client is None:
                    port = self.chance.choice(self.ports)
                    client = Client("127.0.0.1", port, 5000, patience_seconds=self.patience_seconds)
            except OSError:
                time.sleep(0.01)
                continue
            number += 1
            body = buffer(f"{self.prefix}{number}".encode()) + buffer(b"v" * 100) + ACL + struct.pack(">i", 0)
            try:
                error = client.call(number, CREATE, body)
            except OSError:
                self.unknown.append(number)
                client.socket.close()
                client = None
                continue
            if error:
                self.errors.append(f"create {number}: error {error}")
                return
            self.acknowledged.append(number)
        if client is not None:
            client.socket.close()


class Register(threading.Thread):
    """Adds one to a shared number by compare-and-set, again and again."""

    def __init__(self, ports: list[int], chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.ports = ports
        self.chance = chance
        self.added = 0
        self.perhaps_added = 0
        self.seen = 0
        self.stopping = threading.Event()
        self.errors: list[str] = []

    def run(self) -> None:
        while not self.stopping.is_set():
            try:
                port = self.chance.choice(self.ports)
                client = Client("127.0.0.1", port, 5000, patience_seconds=PATIENCE_SECONDS)
            except OSError:
                time.sleep(0.01)
                continue
            try:
                self.use(client)
            except OSError:
                pass
            finally:
                client.socket.close()

    def use(self, client: Client) -> None:
        xid = 0
        while not self.stopping.is_set():
            xid += 2
            value, version = read(client, "/register", xid)
            if value < self.seen:
                self.errors.append(f"read {value} after {self.seen} on a connection or after a sync")
                return
            body = buffer(b"/register") + buffer(b"%d" % (value + 1)) + struct.pack(">i", version)
            self.perhaps_added += 1
            error = client.call(xid + 1, SET_DATA, body)
            self.perhaps_added -= 1
            if error == 0:
                self.added += 1
                self.seen = value + 1
            elif error != -103:
                self.errors.append(f"set: error {error}")
                return


def wait_writes(writers: Sequence[Writer], count: int = WRITES_BETWEEN) -> None:
    """Until so many more creates are acknowledged, or a writer has met an error."""
    target = sum(len(writer.acknowledged) for writer in writers) + count

    def is_enough() -> bool:
        if any(writer.errors for writer in writers):
            return True
        return sum(len(writer.acknowledged) for writer in writers) >= target

    wait_for(is_enough, f"{count} more creates")


def wait_enough(writers: Sequence[Writer], registers: Sequence[Register] = ()) -> None:
    """Until everybody has been acknowledged enough, behind the last disturbance too."""
    wait_writes(writers)

    def is_enough() -> bool:
        if any(thread.errors for thread in (*writers, *registers)):
            return True
        each = all(len(writer.acknowledged) > ENOUGH for writer in writers)
        return each and (not registers or sum(register.added for register in registers) > ENOUGH)

    wait_for(is_enough, f"{ENOUGH} writes of everybody")


def read(client: Client, path: str, xid: int) -> tuple[int, int]:
    """The number in a node and its version, as of a sync."""
    client.call(xid, SYNC, buffer(path.encode()))
    request = buffer(path.encode()) + b"\0"
    client.socket.sendall(struct.pack(">iii", 8 + len(request), xid, GET_DATA) + request)
    reply = client.receive_frame()
    (error,) = struct.unpack_from(">i", reply, 12)
    assert error == 0, error
    (length,) = struct.unpack_from(">i", reply, 16)
    (version,) = struct.unpack_from(">i", reply, 20 + length + 32)
    return int(reply[20 : 20 + length]), version


def read_once(port: int, path: str) -> int:
    """The number in a node, as of a sync, over a connection of its own."""
    with Client("127.0.0.1", port) as client:
        return read(client, path, 1)[0]


def create(port: int, *paths: bytes) -> None:
    with Client("127.0.0.1", port) as client:
        for xid, path in enumerate(paths, 1):
            error = client.call(xid, CREATE, buffer(path) + buffer(b"0") + ACL + struct.pack(">i", 0))
            assert error in (0, NODE_EXISTS), error  # it may be the second try


def children(port: int, path: str) -> set[str]:
    with Client("127.0.0.1", port) as client:
        client.call(1, SYNC, buffer(path.encode()))
        request = buffer(path.encode()) + b"\0"
        client.socket.sendall(struct.pack(">iii", 8 + len(request), 2, 8) + request)
        reply = client.receive_frame()
    (count,) = struct.unpack_from(">i", reply, 16)
    names, at = set(), 20
    for _ in range(count):
        (length,) = struct.unpack_from(">i", reply, at)
        names.add(reply[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return names


def check_writers(writers: list[Writer], names: set[str]) -> None:
    assert not [error for writer in writers for error in writer.errors]
    for writer in writers:
        prefix = writer.prefix.rpartition("/")[2]
        present = {int(name[len(prefix) :]) for name in names if name.startswith(prefix)}
        assert len(writer.acknowledged) > ENOUGH, "hardly anything was written"
        missing = set(writer.acknowledged) - present
        assert not missing, f"{prefix}: acknowledged and lost: {sorted(missing)[:10]}"
        invented = present - set(writer.acknowledged) - set(writer.unknown)
        assert not invented, f"{prefix}: never sent: {sorted(invented)[:10]}"


def finish(threads: list[Writer] | list[Register]) -> None:
    for thread in threads:
        thread.stopping.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_a_standalone_server_loses_nothing_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(1)
    with CoordServers(tmp_path) as servers:
        (server,) = servers.servers
        insist(lambda: create(server.port, b"/crash"))
        writers = [Writer(f"w{number}", [server.port], random.Random(number)) for number in range(4)]
        for writer in writers:
            writer.start()
        for _ in range(4):
            wait_writes(writers, chance.randrange(WRITES_BETWEEN))
            server.kill()
            server.start()
            servers.wait_serving()
        wait_enough(writers)
        finish(writers)
        check_writers(writers, insist(lambda: children(server.port, "/crash")))


@pytest.mark.parametrize("victim", ["leader", "follower", "any"])
def test_an_ensemble_loses_nothing_acknowledged(tmp_path: Path, victim: str) -> None:
    chance = random.Random(2)
    with CoordServers(tmp_path, 3, tick_ms=200) as servers:
        ports = [server.port for server in servers.servers]
        insist(lambda: create(ports[0], b"/crash", b"/register"))
        writers = [Writer(f"w{number}", ports, random.Random(number)) for number in range(6)]
        registers = [Register(ports, random.Random(number)) for number in range(3)]
        for thread in [*writers, *registers]:
            thread.start()
        for _ in range(4):
            wait_writes(writers, chance.randrange(WRITES_BETWEEN))
            leader = servers.leader()
            others = [server for server in servers.servers if server is not leader]
            target = {"leader": leader, "follower": others[0], "any": chance.choice(servers.servers)}[victim]
            target.kill()
            if chance.random() < 0.5:
                wait_writes(writers, chance.randrange(WRITES_BETWEEN))
            target.start()
            servers.wait_serving()
        wait_enough(writers, registers)
        finish(writers)
        finish(registers)
        for port in ports:
            check_writers(writers, insist(lambda: children(port, "/crash")))  # noqa: B023
        check_registers(registers, ports)


def test_a_leader_that_is_paused_acknowledges_nothing_of_its_own_afterwards(tmp_path: Path) -> None:
    """A deposed leader wakes up with writes, sessions and syncs under way (specification 20.7)."""
    with CoordServers(tmp_path, 3, tick_ms=200) as servers:
        ports = [server.port for server in servers.servers]
        insist(lambda: create(ports[0], b"/crash", b"/register"))
        # Every second one is still there, with a write under way, when the leader wakes up; the others go on.
        writers = [
            Writer(f"w{number}", ports, random.Random(number), PATIENCE_SECONDS if number % 2 else 1.0)
            for number in range(6)
        ]
        registers = [Register(ports, random.Random(number)) for number in range(3)]
        for thread in [*writers, *registers]:
            thread.start()
        for _ in range(3):
            wait_writes(writers)
            leader = servers.leader()
            assert leader.process is not None
            leader.process.send_signal(signal.SIGSTOP)
            others = [server for server in servers.servers if server is not leader]
            try:
                wait_for(lambda: any(server.mode() == "leader" for server in others), "another leader")  # noqa: B023
                wait_writes(writers)
            finally:
                leader.process.send_signal(signal.SIGCONT)
            servers.wait_serving()
        wait_enough(writers, registers)
        finish(writers)
        finish(registers)
        for port in ports:
            check_writers(writers, insist(lambda: children(port, "/crash")))  # noqa: B023
        check_registers(registers, ports)


def test_an_ensemble_that_is_killed_as_a_whole_comes_back_with_everything(tmp_path: Path) -> None:
    with CoordServers(tmp_path, 3, tick_ms=200) as servers:
        ports = [server.port for server in servers.servers]
        insist(lambda: create(ports[0], b"/crash", b"/register"))
        writers = [Writer(f"w{number}", ports, random.Random(number)) for number in range(6)]
        registers = [Register(ports, random.Random(number)) for number in range(3)]
        for thread in [*writers, *registers]:
            thread.start()
        for _ in range(3):
            wait_writes(writers)
            for server in servers.servers:
                server.kill()
            for server in servers.servers:
                server.start()
            servers.wait_serving()
        wait_enough(writers, registers)
        finish(writers)
        finish(registers)
        for port in ports:
            check_writers(writers, insist(lambda: children(port, "/crash")))  # noqa: B023
        check_registers(registers, ports)


def check_registers(registers: list[Register], ports: list[int]) -> None:
    """Compare-and-set lost no addition and made none up; every server agrees after a sync."""
    assert not [error for register in registers for error in register.errors]
    added = sum(register.added for register in registers)
    perhaps = sum(register.perhaps_added for register in registers)
    assert added > ENOUGH, "hardly anything was added"
    values = set()
    for port in ports:
        values.add(insist(lambda: read_once(port, "/register")))  # noqa: B023
    assert len(values) == 1
    (value,) = values
    assert added <= value <= added + perhaps
