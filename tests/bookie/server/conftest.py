"""A coordination service in memory, and bookies that run in this process against it."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from bookie.ledger.extent import encode_extent, iterate_extents
from bookie.ledger.wire import (
    BOOKIE_PROTOCOL,
    FRAME_BYTES_MAX,
    PROTOCOL_VERSION,
    Add,
    Hello,
    Read,
)
from bookie.server import BookieConfig, RunningBookie, serve
from coord import rpc
from coord.errors import NodeExistsError, NoNodeError

KEY = b"k" * 20


@dataclass
class Node:
    data: bytes
    version: int = 0
    ephemeral_owner: int = 0


@dataclass
class FakeService:
    """The tree and the sessions; a client is `FakeSession`."""

    nodes: dict[str, Node] = field(default_factory=lambda: {"/": Node(b"")})
    sessions: dict[int, "FakeSession"] = field(default_factory=dict)
    next_session: int = 1
    syncs: int = 0

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator["FakeSession"]:
        session = FakeSession(self, self.next_session)
        self.next_session += 1
        self.sessions[session.session_id] = session
        await trio.lowlevel.checkpoint()
        async with trio.open_nursery():  # as the real one: what leaves the block comes out as a group
            try:
                yield session
            finally:
                self.end(session.session_id)

    def end(self, session_id: int) -> None:
        """Expire or close a session: its ephemerals go."""
        session = self.sessions.pop(session_id, None)
        if session is not None:
            session.expired.set()
        for path in [path for path, node in self.nodes.items() if node.ephemeral_owner == session_id]:
            del self.nodes[path]

    def children(self, path: str) -> list[str]:
        prefix = path.rstrip("/") + "/"
        return sorted(
            p[len(prefix) :]
            for p in self.nodes
            if p.startswith(prefix) and "/" not in p[len(prefix) :] and p != "/"
        )


class FakeSession:
    def __init__(self, service: FakeService, session_id: int) -> None:
        self.service = service
        self.session_id = session_id
        self.session_password = b"p" * 16
        self.expired = trio.Event()

    async def create(
        self, path: str, data: bytes = b"", *, ephemeral: bool = False, sequential: bool = False
    ) -> str:
        await trio.lowlevel.checkpoint()
        nodes = self.service.nodes
        if path in nodes:
            raise NodeExistsError(path=path)
        if (path.rpartition("/")[0] or "/") not in nodes:
            raise NoNodeError(path=path)
        nodes[path] = Node(data, ephemeral_owner=self.session_id if ephemeral else 0)
        return path

    async def multi(self, operations: list[Any]) -> list[str]:
        await trio.lowlevel.checkpoint()
        for operation in operations:
            if operation.path in self.service.nodes:
                raise NodeExistsError(path=operation.path)
        return [await self.create(operation.path, operation.data) for operation in operations]

    async def get(self, path: str) -> tuple[bytes | None, Node]:
        node = await self.exists(path)
        if node is None:
            raise NoNodeError(path=path)
        return node.data, node

    async def exists(self, path: str) -> Node | None:
        await trio.lowlevel.checkpoint()
        return self.service.nodes.get(path)

    async def set(self, path: str, data: bytes, version: int = -1) -> Node:
        _, node = await self.get(path)
        node.data, node.version = data, node.version + 1
        return node

    async def delete(self, path: str, version: int = -1) -> None:
        await self.get(path)
        del self.service.nodes[path]

    async def get_children(self, path: str) -> list[str]:
        await self.get(path)
        return self.service.children(path)

    async def sync(self, path: str = "/") -> None:
        await trio.lowlevel.checkpoint()
        self.service.syncs += 1

    async def end_session(self, session_id: int, password: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if session_id in self.service.sessions:
            assert self.service.sessions[session_id].session_password == password
            self.service.end(session_id)

    def watch(self, path: str, *, children: bool = False) -> Any:
        raise AssertionError("a bookie watches nothing")


class DiskFailedError(Exception):
    """Stands for the end of the process."""


def fail(error: BaseException) -> Any:
    raise DiskFailedError(str(error)) from error


@dataclass
class Cluster:
    """One service and directories for bookies."""

    directory: Path
    service: FakeService = field(default_factory=FakeService)

    def config(self, name: str = "b1", **settings: Any) -> BookieConfig:
        return BookieConfig(directory=self.directory / name, coord="unused", **settings)

    @contextlib.asynccontextmanager
    async def bookie(self, name: str = "b1", **settings: Any) -> AsyncIterator[RunningBookie]:
        """A bookie that serves within the block and is stopped in order after it."""
        async with trio.open_nursery() as nursery:

            async def run(task_status: Any) -> None:
                await serve(
                    self.config(name, **settings),
                    connect=self.service.connect,
                    on_disk_failure=fail,
                    task_status=task_status,
                )

            running = await nursery.start(run)
            yield running
            nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def link_to(running: RunningBookie, *, hello: bool = True) -> AsyncIterator[rpc.Link]:
    """A connection that has said Hello."""
    async with rpc.connect(
        running.host, running.port, BOOKIE_PROTOCOL, frame_bytes_max=FRAME_BYTES_MAX
    ) as link:
        if hello:
            await link.call(Hello(PROTOCOL_VERSION, running.bookie_id, running.incarnation))
        yield link


def add_parts(
    ledger_id: int, first: int, payloads: list[bytes], *, lac: int = -1, flags: int = 0, key: bytes = KEY
) -> tuple[Add, bytes]:
    encoded = encode_extent(ledger_id, first, lac, 0, payloads)
    return Add(ledger_id, flags, key, encoded.checksum), encoded.data


async def add(link: rpc.Link, ledger_id: int, first: int, payloads: list[bytes], **options: Any) -> Any:
    return (await link.call(*add_parts(ledger_id, first, payloads, **options))).message


async def read(
    link: rpc.Link, ledger_id: int, first: int, last: int, **options: Any
) -> tuple[Any, list[bytes]]:
    reply = await link.call(Read(ledger_id, first, last, **options))
    return reply.message, [p for extent in iterate_extents(bytes(reply.body)) for p in extent.payloads()]


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)
