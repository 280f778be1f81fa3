"""Servers in network namespaces of their own (Linux, with leave to make them), so that they can be cut off
from each other while their clients reach them: each has a loopback, and a cable to a switch.
"""

import contextlib
import ctypes
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.coord_servers import CoordServer, CoordServers

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
SWITCH = 0


class Network:
    def __init__(self, count: int) -> None:
        self.count = count

    def name(self, number: int) -> str:
        return f"zoolog-{os.getpid()}-{number}"

    def address(self, sid: int) -> str:
        return f"10.213.77.{sid}"

    def cut(self, sid: int) -> None:
        """Pulls the cable: nothing arrives, and nobody is told."""
        run("-n", self.name(SWITCH), "link", "set", f"port{sid}", "nomaster")

    def mend(self, sid: int) -> None:
        run("-n", self.name(SWITCH), "link", "set", f"port{sid}", "master", "switch")

    @contextlib.contextmanager
    def inside(self, sid: int) -> Iterator[None]:
        """What this thread connects to is in the namespace of that server."""
        with (
            open("/proc/thread-self/ns/net") as own,
            open(f"/run/netns/{self.name(sid)}") as other,
        ):
            enter(other.fileno())
            try:
                yield
            finally:
                enter(own.fileno())


def enter(namespace: int) -> None:
    if LIBC.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def run(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def network(count: int) -> Iterator[Network]:
    """Skips the test where namespaces cannot be made."""
    net = Network(count)
    made: list[str] = []
    try:
        try:
            for number in range(count + 1):
                run("netns", "add", net.name(number))
                made.append(net.name(number))
                run("-n", net.name(number), "link", "set", "lo", "up")
            switch = net.name(SWITCH)
            run("-n", switch, "link", "add", "switch", "type", "bridge")
            run("-n", switch, "link", "set", "switch", "up")
            for sid in range(1, count + 1):
                own = net.name(sid)
                run("-n", switch, "link", "add", f"port{sid}", "type", "veth", "peer", "cable", "netns", own)
                run("-n", own, "address", "add", f"{net.address(sid)}/24", "dev", "cable")
                run("-n", own, "link", "set", "cable", "up")
                run("-n", switch, "link", "set", f"port{sid}", "master", "switch", "up")
        except FileNotFoundError:
            pytest.skip("network namespaces need the command ip")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
        yield net
    finally:
        for name in made:
            run("netns", "delete", name)


class IsolatedServer(CoordServer):
    def __init__(self, directory: Path, sid: int, client_port: int, extra: str, net: Network) -> None:
        self.net = net
        super().__init__(directory, sid, client_port, extra)

    def command(self) -> list[str]:
        return ["ip", "netns", "exec", self.net.name(self.sid), *super().command()]

    def mode(self) -> str:
        with self.net.inside(self.sid):
            return super().mode()


class IsolatedServers(CoordServers):
    def __init__(self, directory: Path, net: Network, *, tick_ms: int, extra: str) -> None:
        self.net = net
        super().__init__(directory, net.count, tick_ms=tick_ms, extra=extra)

    def make(self, directory: Path, sid: int, port: int, text: str) -> CoordServer:
        def replaced(found: re.Match[str]) -> str:
            return f"server.{found[1]}={self.net.address(int(found[1]))}:"

        text = re.sub(r"server\.(\d+)=127\.0\.0\.1:", replaced, text)
        return IsolatedServer(directory, sid, port, text, self.net)
