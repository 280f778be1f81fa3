"""The ensemble of a soak: three participants and an observer, each with what the machine allows for faults: a
network of its own to be cut off from the others, a wall clock to be shifted, one of them a small disk.
"""

import contextlib
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.coord_servers import LOOK_SECONDS_MAX, CoordServer, CoordServers, ask
from tests.namespaces import Network, network
from tests.shifted_clocks import build_library

PARTICIPANTS, OBSERVER = (1, 2, 3), 4
SMALL_DISK_SID, SMALL_DISK_MB = 2, 700
SUPER = "super:test"
SETTINGS = """maxSessionTimeout=15000
DigestAuthenticationProvider.superDigest=super:D/InIHSb7yEEbrWz8b9l71RjZJU=
"""


class SoakServer(CoordServer):
    """Runs in its network and with its clock, where there are such."""

    def __init__(
        self, directory: Path, sid: int, port: int, text: str, net: Network | None, library: Path | None
    ) -> None:
        super().__init__(directory, sid, port, text)
        self.net = net
        self.library = library
        self.has_small_disk = False
        self.shift_path = directory / f"{sid}.shift"
        self.shift_path.write_bytes(bytes(8))

    def command(self) -> list[str]:
        command = super().command()
        if self.library is not None:
            command = [
                "env",
                f"LD_PRELOAD={self.library}",
                f"CLOCK_SHIFT_FILE={self.shift_path}",
                *command,
            ]
        return self.in_its_network(command)

    def in_its_network(self, command: list[str]) -> list[str]:
        if self.net is None:
            return command
        return ["ip", "netns", "exec", self.net.name(self.sid), *command]

    def operate(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`zoolog coord WORDS` against this server, as its super user."""
        command = [sys.executable, "-m", "pubsub.command", "coord", *words]
        command += ["--coord", self.address, "--auth", SUPER]
        return subprocess.run(
            self.in_its_network(command), cwd=self.root, capture_output=True, text=True, check=False
        )

    def inside(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.net is None else self.net.inside(self.sid)

    def mode(self) -> str:
        with self.inside():
            return super().mode()

    def figures(self) -> dict[str, int]:
        """What `mntr` says, whole numbers only."""
        with self.inside():
            rows = [row.split("\t") for row in ask(self.port, "mntr", LOOK_SECONDS_MAX).splitlines()]
        return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}

    def shift(self, seconds: int) -> None:
        """From now on its wall clock differs by so much from the machine's."""
        with open(self.shift_path, "r+b") as file:
            os.pwrite(file.fileno(), struct.pack("=q", seconds), 0)

    def wipe(self) -> None:
        shutil.rmtree(self.data_directory / "zoolog")

    def fill_disk(self, free_mb: int) -> None:
        """Until so much is left on its disk, which must be small."""
        assert self.has_small_disk
        found = os.statvfs(self.data_directory)
        surplus = found.f_bavail * found.f_frsize - (free_mb << 20)
        with open(self.data_directory / "filler", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, surplus))

    def make_room(self) -> None:
        (self.data_directory / "filler").unlink()


class SoakServers(CoordServers):
    def __init__(
        self, directory: Path, *, tick_ms: int, net: Network | None = None, library: Path | None = None
    ) -> None:
        self.net = net
        self.library = library
        self.by_sid: dict[int, SoakServer] = {}
        super().__init__(directory, len(PARTICIPANTS) + 1, tick_ms=tick_ms, extra=SETTINGS)
        self.sid_of = {server.port: server.sid for server in self.servers}

    def make(self, directory: Path, sid: int, port: int, text: str) -> CoordServer:
        net = self.net
        if net is not None:
            text = re.sub(r"server\.(\d+)=127\.0\.0\.1:", lambda found: _member(net, int(found[1])), text)
        text = re.sub(rf"(?m)^(server\.{OBSERVER}=.*)$", r"\1:observer", text)
        if sid == OBSERVER:
            text += "peerType=observer\n"
        server = self.by_sid[sid] = SoakServer(directory, sid, port, text, net, self.library)
        return server

    def via(self, port: int) -> contextlib.AbstractContextManager[None]:
        return self.by_sid[self.sid_of[port]].inside()


def _member(net: Network, sid: int) -> str:
    return f"server.{sid}={net.address(sid)}:"


@contextlib.contextmanager
def soak_servers(directory: Path, tick_ms: int, without: frozenset[str]) -> Iterator[SoakServers]:
    """Running servers; says which faults the machine does not allow.

    Args:
        without: faults that are not wanted.
    """
    with contextlib.ExitStack() as stack:
        net, library = None, None
        if "partition" not in without:
            try:
                net = stack.enter_context(network(len(PARTICIPANTS) + 1))
            except pytest.skip.Exception as reason:
                print(f"no partitions: {reason}")
        if "clock" not in without:
            try:
                library = build_library(directory)
            except pytest.skip.Exception as reason:
                print(f"no jumps of clocks: {reason}")
        servers = SoakServers(directory, tick_ms=tick_ms, net=net, library=library)
        if "full-disk" not in without:
            stack.enter_context(_small_disk(servers.by_sid[SMALL_DISK_SID]))
        yield stack.enter_context(servers)


@contextlib.contextmanager
def _small_disk(server: SoakServer) -> Iterator[None]:
    """Memory for a disk; the server's id moves to it."""
    disk = server.data_directory
    sid = (disk / "myid").read_text()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MB}m", "tmpfs", str(disk)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        problem = done.stderr.strip() if done.returncode else ""
    except FileNotFoundError:
        problem = "there is no command mount"
    if problem:
        print(f"no full disks: {problem}")
        yield
        return
    try:
        (disk / "myid").write_text(sid)
        server.has_small_disk = True
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
