"""What the admin server answers to which request, beside the commands' own keys (specification 17.1, 17.2).

Heavy commands are answered one after the other: each may hold as much as the server's watches or sessions.
"""

import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, Final

import trio
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric as Family

from coord.clock import Clock
from coord.http import Request, Response
from coord.server.admin.commands import NAMES, AdminCommands
from coord.server.admin.snapshots import SnapshotCommands
from coord.server.figures import selected
from coord.server.slices import Pace
from coord.server.statistics import ServerStatistics

JSON: Final = "application/json"
PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"
CHUNK_CHARACTERS: Final = 64 << 10
LISTED: Final = tuple(sorted((*NAMES, "restore", "snapshot")))
READING: Final = frozenset({"GET", "HEAD"})


class MetricsPage:
    """`/metrics`: all families, or with `?name[]=x` those asked for."""

    def __init__(self, families: Callable[[], Iterable[Family]]) -> None:
        self._families = families

    def answer(self, request: Request) -> Response:
        if request.method not in READING:
            return not_allowed(READING)
        names = frozenset(request.query.get("name[]", ()))
        found = _Families(list(selected(self._families(), names)))
        return Response(HTTPStatus.OK, generate_latest(found), PROMETHEUS)

    async def handle(self, request: Request) -> Response:
        """For a port of its own."""
        if request.path != "/metrics":
            return Response(HTTPStatus.NOT_FOUND, b"not found, the page is /metrics\n")
        return self.answer(request)


class _Families:
    """As much of a registry as `generate_latest` wants."""

    def __init__(self, families: list[Family]) -> None:
        self._found = families

    def collect(self) -> list[Family]:
        return self._found


class AdminPages:
    """The handler of the admin server.

    Args:
        root: the path of the list of commands.
    """

    def __init__(
        self,
        commands: AdminCommands,
        metrics: MetricsPage,
        snapshots: SnapshotCommands,
        statistics: ServerStatistics,
        clock: Clock,
        *,
        root: str,
    ) -> None:
        self._commands = commands
        self._metrics = metrics
        self._snapshots = snapshots
        self._statistics = statistics
        self._clock = clock
        self._root = root.rstrip("/")
        self._one_at_a_time = trio.Lock()

    async def handle(self, request: Request) -> Response:
        if not request.is_secure:
            self._statistics.insecure_admin += 1
        if request.method == "TRACE":
            return Response(HTTPStatus.FORBIDDEN)
        if request.path == "/metrics":
            return self._metrics.answer(request)
        if request.path in (self._root, f"{self._root}/"):
            return self._list() if request.method in READING else not_allowed(READING)
        if not request.path.startswith(f"{self._root}/"):
            return Response(HTTPStatus.NOT_FOUND, f"not found, commands are under {self._root}\n".encode())
        name = request.path.removeprefix(f"{self._root}/")
        if name in self._snapshots.by_name:
            method, answer_it = self._snapshots.by_name[name]
            return await answer_it(request) if request.method == method else not_allowed((method,))
        if request.method not in READING:
            return not_allowed(READING)
        async with self._one_at_a_time:
            answer = await self._commands.answer(name, request.query)
        return Response(HTTPStatus.OK, await self._encode(answer), JSON)

    def _list(self) -> Response:
        links = "".join(f'<a href="{self._root}/{name}">{name}</a>\n<br/>\n' for name in LISTED)
        return Response(HTTPStatus.OK, links.encode(), "text/html;charset=utf-8")

    async def _encode(self, answer: dict[str, Any]) -> "bytes | JsonChunks":
        """In one piece, or in chunks where it is long."""
        chunks = JsonChunks(answer, Pace(self._clock))
        first = await chunks.next_chunk()
        if chunks.is_done:
            return first
        chunks.put_back(first)
        return chunks


class JsonChunks:
    """An object's JSON a chunk at a time, made when it is taken."""

    def __init__(self, answer: dict[str, Any], pace: Pace) -> None:
        self._parts = json.JSONEncoder(indent=2, separators=(",", " : ")).iterencode(answer)
        self._pace = pace
        self._ready: list[bytes] = []
        self.is_done = False

    def put_back(self, chunk: bytes) -> None:
        self._ready.append(chunk)

    async def next_chunk(self) -> bytes:
        """At least `CHUNK_CHARACTERS` of it; less at its end."""
        taken: list[str] = []
        size = 0
        for part in self._parts:
            taken.append(part)
            size += len(part)
            if size >= CHUNK_CHARACTERS:
                break
            await self._pace.step()
        else:
            taken.append("\n")
            self.is_done = True
        return "".join(taken).encode()

    def __aiter__(self) -> "JsonChunks":
        return self

    async def __anext__(self) -> bytes:
        if self._ready:
            return self._ready.pop()
        if self.is_done:
            raise StopAsyncIteration
        return await self.next_chunk()


def not_allowed(methods: Iterable[str]) -> Response:
    allowed = ", ".join(sorted(methods))
    text = f"expected one of {allowed}\n".encode()
    return Response(HTTPStatus.METHOD_NOT_ALLOWED, text, headers={"Allow": allowed})
