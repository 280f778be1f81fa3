"""The client behind the shell's commands, which open, change and close it, and the watches they have set."""

import contextlib
import ssl
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import click
import trio

import coord
from pubsub.command.shell.text import EVENT_TYPES, explain, format_event, format_state

#: Lines that `history` and `redo` know.
HISTORY_MAX = 1000
#: Watches that wait for their event at a time.
WATCHES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to connect to, and how."""

    hosts: str
    auth: tuple[tuple[str, bytes], ...] = ()
    sasl: tuple[str, str] | None = None
    ssl_context: ssl.SSLContext | None = None
    read_only: bool = False
    session_timeout_ms: int = 30_000
    connect_timeout_ms: int = 10_000

    def connect(self) -> contextlib.AbstractAsyncContextManager[coord.Client]:
        return coord.connect(
            self.hosts,
            auth=self.auth,
            sasl=self.sasl,
            ssl_context=self.ssl_context,
            read_only=self.read_only,
            session_timeout_ms=self.session_timeout_ms,
            connect_timeout_ms=self.connect_timeout_ms,
        )


class Console:
    """One run of the shell.

    Attributes:
        target: whom `connect` connects to.
        interactive: whether commands come one after the other; a single one ends with its answer.
        print_watches: whether events are printed.
        history: the commands so far, with their numbers.
    """

    def __init__(self, target: Target, nursery: trio.Nursery, *, interactive: bool) -> None:
        self.target = target
        self.interactive = interactive
        self.print_watches = True
        self.history: deque[tuple[int, str]] = deque(maxlen=HISTORY_MAX)
        self._nursery = nursery
        self._client: coord.Client | None = None
        self._close = trio.Event()
        self._closed = trio.Event()
        self._watches = 0
        self._last_event: tuple[coord.EventKind, str, int] | None = None

    @property
    def zk(self) -> coord.Client:
        """The client.

        Raises:
            ClickException: there is none.
        """
        if self._client is None:
            raise click.ClickException("Not connected")
        return self._client

    @property
    def state(self) -> str:
        return "CLOSED" if self._client is None else self._client.state.name

    async def connect(self, target: Target) -> None:
        """Opens a session, after closing the one before."""
        await self.close()
        self.target = target
        self._client = await self._nursery.start(self._hold, target)

    async def close(self) -> None:
        if self._client is not None:
            self._close.set()
            await self._closed.wait()

    async def _hold(self, target: Target, task_status: trio.TaskStatus[coord.Client]) -> None:
        self._close, self._closed = trio.Event(), trio.Event()
        try:
            async with target.connect() as client:
                task_status.started(client)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._follow_states, client)
                    await self._close.wait()
                    nursery.cancel_scope.cancel()
        finally:
            self._client = None
            self._closed.set()

    async def _follow_states(self, client: coord.Client) -> None:
        """Tells that the connection has gone or is back."""
        with client.states() as states:
            await anext(states)
            async for state in states:
                if self.interactive and self.print_watches:
                    self.write(format_state(state))
                    sys.stdout.flush()

    # What it prints

    def write(self, text: str) -> None:
        sys.stdout.write(text + "\n")

    def write_bytes(self, data: bytes) -> None:
        """Data as it is; a newline comes behind it unless a single command's output is taken by a program."""
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        if self.interactive or sys.stdout.isatty():
            sys.stdout.buffer.write(b"\n")
        sys.stdout.buffer.flush()

    def on_event(self, kind: coord.EventKind, path: str, zxid: int) -> None:
        """Prints an event, once however many watches it has fired."""
        if self.print_watches and (zxid < 0 or (kind, path, zxid) != self._last_event):
            self._last_event = (kind, path, zxid)
            self.write(format_event(EVENT_TYPES[kind], path, zxid))
            sys.stdout.flush()

    def on_removed(self, path: str) -> None:
        if self.print_watches:
            self.write(format_event("PersistentWatchRemoved", path, -1))
            sys.stdout.flush()

    # Watches

    async def watch_once(self, path: str, *, children: bool = False) -> None:
        """Sets a watch whose event, one, is printed when it comes; a single command does not wait for it."""
        await self._start_watch(self._wait_once, path, children)

    async def watch_all(self, path: str, *, recursive: bool) -> None:
        """Prints each event of a node, or of a subtree."""
        await self._start_watch(self._follow, path, recursive)

    async def _start_watch(self, watch: Callable[..., Awaitable[None]], path: str, of_more: bool) -> None:
        if self._watches >= WATCHES_MAX:
            raise click.ClickException(f"expected at most {WATCHES_MAX} watches, got one more")
        await self._nursery.start(watch, self.zk, path, of_more)

    async def _wait_once(
        self, zk: coord.Client, path: str, children: bool, task_status: trio.TaskStatus[None]
    ) -> None:
        with self._counted(), contextlib.suppress(StopAsyncIteration, *_ENDS):
            async with zk.watch(path, children=children) as events:
                await anext(events)
                task_status.started()
                kind, path, stat = await anext(events)
                self.on_event(kind, path, _zxid_of(kind, stat))

    async def _follow(
        self, zk: coord.Client, path: str, recursive: bool, task_status: trio.TaskStatus[None]
    ) -> None:
        with self._counted(), contextlib.suppress(*_ENDS):
            async with zk.add_watch(path, recursive=recursive) as events:
                task_status.started()
                async for event in events:
                    self.on_event(event.kind, event.path, event.zxid)
                self.on_removed(path)

    @contextlib.contextmanager
    def _counted(self) -> Any:
        self._watches += 1
        try:
            yield
        finally:
            self._watches -= 1


_ENDS = (coord.SessionExpiredError, coord.AuthFailedError)


def _zxid_of(kind: coord.EventKind, stat: coord.Stat | None) -> int:
    """Of what change a followed node's event tells; a deletion leaves nothing to tell it by."""
    if stat is None:
        return -1
    match kind:
        case coord.EventKind.CREATED:
            return stat.czxid
        case coord.EventKind.CHILDREN:
            return stat.pzxid
    return stat.mzxid


async def run_once(
    target: Target, command: Callable[[Console], Awaitable[None]], *, offline: bool = False
) -> None:
    """Connects, runs one command, and closes the session."""
    async with trio.open_nursery() as nursery:
        console = Console(target, nursery, interactive=False)
        try:
            if not offline:
                await console.connect(target)
            await command(console)
        except coord.CoordError as error:
            raise click.ClickException(explain(error)) from error
        finally:
            with trio.CancelScope(shield=True):
                await console.close()
            nursery.cancel_scope.cancel()
