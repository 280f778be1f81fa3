"""A coordination service in memory, and `FakeBookie`s behind the real rpc server, in this process.

async with FakeCluster(3) as cluster:
    async with bookie.open_ledgers(cluster.zk) as ledgers: ...
    cluster.stop("b0"); await cluster.start("b0")
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import trio

from bookie.ledger import layout
from bookie.ledger.extent import NO_ENTRY_ID
from bookie.ledger.layout import Registration
from bookie.ledger.wire import BOOKIE_PROTOCOL, FRAME_BYTES_MAX, Add, Code, Tail, WriteLac
from coord.clock import SYSTEM_CLOCK
from coord.errors import BadVersionError, ConnectionLossError, NodeExistsError, NoNodeError, NotEmptyError
from coord.nursery import open_private_nursery
from coord.reactor import Reactor
from coord.rpc import Peer, RpcService
from tests.bookie.fake_bookie import FakeBookie, Refused


class FakeStat(NamedTuple):
    version: int


class FakeWatch:
    """Events of one node: something may have changed; coalesced as one-shot watches are."""

    def __init__(self, zk: "FakeCoord", path: str) -> None:
        self._zk = zk
        self._path = path
        self._changed = trio.Event()
        self._changed.set()

    async def __aenter__(self) -> Self:
        self._zk.watches.setdefault(self._path, set()).add(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._zk.watches[self._path].discard(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        await self._changed.wait()
        self._changed = trio.Event()
        return self._path

    def wake(self) -> None:
        self._changed.set()


@dataclass
class FakeCoord:
    """The methods of `coord.Client` that ledgers use.

    Attributes:
        lose: called with (operation, path) before each write; "request" loses the request, "answer" only its
            answer, None nothing. Both raise ConnectionLossError.
        writes: (operation, path) of every write carried out.
    """

    nodes: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    watches: dict[str, set[FakeWatch]] = field(default_factory=dict)
    lose: Callable[[str, str], str | None] = lambda operation, path: None
    writes: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for path in (layout.ROOT, layout.AVAILABLE, layout.READONLY, layout.COOKIES):
            self.nodes[path] = (b"", 0)
        self.nodes[layout.ID_GENERATOR] = (b"0", 0)
        self.nodes[layout.INSTANCE_ID] = (b"fake", 0)

    async def _write(self, operation: str, path: str, action: Callable[[], Any]) -> Any:
        await trio.lowlevel.checkpoint()
        lost = self.lose(operation, path)
        if lost == "request":
            raise ConnectionLossError(path=path)
        result = action()
        self.writes.append((operation, path))
        self.wake(path)
        if lost == "answer":
            raise ConnectionLossError(path=path)
        return result

    def wake(self, path: str) -> None:
        for one in (path, path.rpartition("/")[0]):
            for watch in self.watches.get(one, ()):
                watch.wake()

    async def create(
        self, path: str, data: bytes = b"", *, ephemeral: bool = False, sequential: bool = False
    ) -> str:
        def act() -> str:
            if path in self.nodes:
                raise NodeExistsError(path=path)
            if path.rpartition("/")[0] not in self.nodes:
                raise NoNodeError(path=path)
            self.nodes[path] = (data, 0)
            return path

        return await self._write("create", path, act)

    async def set(self, path: str, data: bytes, version: int = -1) -> FakeStat:
        def act() -> FakeStat:
            if path not in self.nodes:
                raise NoNodeError(path=path)
            if version not in (-1, self.nodes[path][1]):
                raise BadVersionError(path=path)
            self.nodes[path] = (data, self.nodes[path][1] + 1)
            return FakeStat(self.nodes[path][1])

        return await self._write("set", path, act)

    async def delete(self, path: str, version: int = -1) -> None:
        def act() -> None:
            if path not in self.nodes:
                raise NoNodeError(path=path)
            if any(other.startswith(path + "/") for other in self.nodes):
                raise NotEmptyError(path=path)
            del self.nodes[path]

        await self._write("delete", path, act)

    async def get(self, path: str) -> tuple[bytes, FakeStat]:
        await trio.lowlevel.checkpoint()
        if path not in self.nodes:
            raise NoNodeError(path=path)
        data, version = self.nodes[path]
        return data, FakeStat(version)

    async def get_children(self, path: str) -> list[str]:
        await self.get(path)
        prefix = path + "/"
        return [p[len(prefix) :] for p in self.nodes if p.startswith(prefix) and "/" not in p[len(prefix) :]]

    async def sync(self, path: str) -> None:
        await trio.lowlevel.checkpoint()

    def watch(self, path: str, *, children: bool = False) -> FakeWatch:
        return FakeWatch(self, path)


class FakeServer:
    """One FakeBookie behind rpc; everything is synced before it is answered.

    Attributes:
        silent: swallow requests without answering, as a hanging process does.
        hold: decides per message whether its answer waits for `release`.
    """

    def __init__(self, bookie: FakeBookie) -> None:
        self.bookie = bookie
        self.silent = False
        self.hold: Callable[[object], bool] = lambda message: False
        self.seen: list[object] = []
        self._held: list[tuple[Peer, int, object, bytes]] = []
        self._tails: list[tuple[Peer, int, Tail]] = []

    def on_connected(self, peer: Peer) -> None: ...
    def on_disconnected(self, peer: Peer, reason: str) -> None:
        self._tails = [tail for tail in self._tails if tail[0] is not peer]
        self._held = [held for held in self._held if held[0] is not peer]

    def on_one_way(self, peer: Peer, message: Any, body: memoryview) -> None: ...
    def on_tick_end(self) -> None: ...

    def on_request(self, peer: Peer, request_id: int, message: Any, body: memoryview) -> None:
        self.seen.append(message)
        if self.silent:
            return
        if self.hold(message):
            self._held.append((peer, request_id, message, bytes(body)))
            return
        self._answer(peer, request_id, message, bytes(body))

    def release(self) -> None:
        """Answer what was held."""
        self.hold = lambda message: False
        held, self._held = self._held, []
        for peer, request_id, message, body in held:
            self._answer(peer, request_id, message, body)

    def _answer(self, peer: Peer, request_id: int, message: Any, body: bytes) -> None:
        if isinstance(message, Tail):
            ledger = self.bookie.ledgers.get(message.ledger_id)
            if (ledger.lac if ledger else NO_ENTRY_ID) <= message.previous_lac:
                self._tails.append((peer, request_id, message))
                return
        try:
            reply, data = self.bookie.answer(message, body)
        except Refused as refused:
            peer.fail(request_id, refused.code)
            return
        finally:
            self.bookie.sync()
        peer.reply(request_id, reply, *([data] if data else []))
        if isinstance(message, Add | WriteLac):
            tails, self._tails = self._tails, []
            for one in tails:
                self._answer(*one, b"")


class FakeCluster:
    """Bookies b0, b1, … on one reactor, registered in one FakeCoord."""

    def __init__(self, count: int) -> None:
        self.zk = FakeCoord()
        self.servers = {f"b{n}": FakeServer(FakeBookie(f"b{n}")) for n in range(count)}
        self._running: dict[str, trio.CancelScope] = {}
        self._stack = AsyncExitStack()
        self._nursery: trio.Nursery

    async def __aenter__(self) -> Self:
        self._nursery = await self._stack.enter_async_context(open_private_nursery())
        for name in self.servers:
            await self.start(name)
        return self

    async def __aexit__(self, *error: Any) -> bool | None:
        for scope in self._running.values():
            scope.cancel()
        return await self._stack.__aexit__(*error)

    async def start(self, name: str) -> None:
        """Listen and register."""
        reactor = Reactor(SYSTEM_CLOCK)
        service = RpcService(BOOKIE_PROTOCOL, self.servers[name], frame_bytes_max=FRAME_BYTES_MAX)
        host, port = reactor.listen("127.0.0.1", 0, service)
        scope = self._running[name] = trio.CancelScope()

        async def run(task_status: Any) -> None:
            with scope:
                await reactor.run(task_status=task_status)

        await self._nursery.start(run)
        self.register(name, host, port)

    def register(self, name: str, host: str, port: int) -> None:
        member = self.servers[name].bookie.member
        path = layout.available_path(name)
        self.zk.nodes[path] = (Registration(host, port, member.incarnation).encode(), 0)
        self.zk.wake(path)

    def unregister(self, name: str) -> None:
        self.zk.nodes.pop(layout.available_path(name), None)
        self.zk.wake(layout.available_path(name))

    def stop(self, name: str, *, unregister: bool = True) -> None:
        """The process is gone; its registration stays until its session has expired, if so wanted."""
        self._running.pop(name).cancel()
        if unregister:
            self.unregister(name)

    def stored(self, name: str, ledger_id: int) -> dict[int, bytes]:
        """What a bookie holds durably of a ledger."""
        ledger = self.servers[name].bookie.durable.get(ledger_id)
        return {e: entry.payload for e, entry in ledger.entries.items()} if ledger else {}


REFUSED_AS_FULL = int(Code.READ_ONLY)
