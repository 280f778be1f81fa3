"""SNAP between servers, over a connection of its own: the leader streams a checkpoint, the learner becomes
it.

    stream = (u32-BE length | chunk)*        chunks of `coord.storage.snapshot`, which end by themselves

The leader streams a durable checkpoint; where the newest is older than what Zab can use (`SnapshotOrder`),
it first makes one. The learner receives into a new generation and switches to it durably before it says so;
what it had stays whole until then, whatever goes wrong.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from coord import eventlog
from coord.log import fail_stop
from coord.message import MessageError
from coord.server.checkpoints import Checkpoints
from coord.server.introduction import IntroductionError
from coord.server.links import PeerLinks
from coord.server.meters import Meters
from coord.server.peer_tls import ByteStream
from coord.server.statistics import ServerStatistics
from coord.storage import (
    CheckpointDamagedError,
    DataDirectory,
    EnvironmentFailedError,
    Environments,
    Installed,
    SnapshotDamagedError,
    SnapshotReader,
    SnapshotReceiver,
    StateKind,
)
from coord.tree import DataTree
from coord.zab import SnapshotOrder

RECEIVE_BYTES: Final = 1 << 18
"""Read from a link at once."""
CHUNK_BYTES_MAX: Final = 64 << 20
"""One chunk: about 64 KiB, and at most one record more."""
WRITER_SECONDS: Final = 0.005
"""How long the writing thread is given to catch up, before looking again."""
RECEIVED_BYTES_MAX: Final = 16 << 20
"""Received and not yet written; more, and the stream is not read."""

log = eventlog.get("coord.server")


class SnapshotSender:
    """The leader's side: streams what has been ordered to whoever fetches it."""

    def __init__(self, checkpoints: Checkpoints, statistics: ServerStatistics, meters: Meters) -> None:
        self._checkpoints = checkpoints
        self._statistics = statistics
        self._meters = meters
        self._orders: dict[int, SnapshotOrder] = {}
        self._scopes: dict[int, trio.CancelScope] = {}

    def order(self, order: SnapshotOrder) -> None:
        self._orders[order.sid] = order

    def cancel(self, sid: int) -> None:
        self._orders.pop(sid, None)
        scope = self._scopes.get(sid)
        if scope is not None:
            scope.cancel()

    async def serve(self, sid: int, stream: ByteStream) -> None:
        """One connection of a learner that fetches its snapshot; ends early when that is cancelled."""
        order = self._orders.pop(sid, None)
        if order is None:
            log.warning("a snapshot was asked for that nobody ordered", sid=sid)
            return
        with trio.CancelScope() as scope:
            self._scopes[sid] = scope
            try:
                while self._checkpoints.store.zxid < order.at_least_zxid:
                    finished = self._checkpoints.finished
                    self._checkpoints.want()
                    await finished.wait()
                await self._stream(sid, stream)
            finally:
                if self._scopes.get(sid) is scope:
                    del self._scopes[sid]

    async def _stream(self, sid: int, stream: ByteStream) -> None:
        try:
            reader = SnapshotReader(self._checkpoints.store)
        except CheckpointDamagedError as error:
            fail_stop(error, "the checkpoint")
        sent = 0
        begun = trio.current_time()
        try:
            log.info("sends a snapshot", sid=sid, zxid=hex(reader.zxid))
            while (chunk := reader.next_chunk()) is not None:
                await stream.send_all(len(chunk).to_bytes(4, "big") + chunk)
                sent += len(chunk)
        except CheckpointDamagedError as error:
            fail_stop(error, "the checkpoint")
        finally:
            reader.close()
        self._statistics.snapshots_sent += 1
        self._meters.note("snapshot_send_time", int((trio.current_time() - begun) * 1000))
        log.info("sent a snapshot", sid=sid, bytes=sent)


class SnapshotFetcher:
    """The learner's side.

    Args:
        on_progress: called for each chunk.
        on_installed: the new state is durable and current; it is given the snapshot.
        on_aborted: nothing has changed.
    """

    def __init__(
        self,
        *,
        links: PeerLinks,
        directory: DataDirectory,
        environments: Environments,
        kind: StateKind[DataTree],
        run_soon: Callable[[Callable[[], None]], None],
        on_progress: Callable[[], None],
        on_installed: Callable[[Installed[DataTree]], None],
        on_aborted: Callable[[], None],
    ) -> None:
        self._links = links
        self._directory = directory
        self._environments = environments
        self._kind = kind
        self._run_soon = run_soon
        self._on_progress = on_progress
        self._on_installed = on_installed
        self._on_aborted = on_aborted
        self._scope: trio.CancelScope | None = None
        self._switching = False

    def start(self, nursery: trio.Nursery, sid: int) -> None:
        """Fetches one snapshot from the leader, in a task; one of the two calls back follows."""
        self._scope = scope = trio.CancelScope()
        nursery.start_soon(self._fetch_within, scope, sid)

    def cancel(self) -> None:
        """Gives up; once the switch to the new state has begun it is finished instead."""
        if self._scope is not None and not self._switching:
            self._scope.cancel()

    async def _fetch_within(self, scope: trio.CancelScope, sid: int) -> None:
        installed: Installed[DataTree] | None = None
        with scope:
            try:
                installed = await self._fetch(sid)
            except (
                IntroductionError,
                MessageError,
                OSError,
                trio.BrokenResourceError,
                trio.TooSlowError,
            ) as error:
                log.warning("lost the snapshot's connection", sid=sid, error=error)
            except SnapshotDamagedError as error:
                log.error("refused a damaged snapshot", do="look at the leader's disk", sid=sid, error=error)
        self._scope = None
        self._switching = False
        if installed is None:
            self._on_aborted()
        else:
            self._on_installed(installed)

    async def _fetch(self, sid: int) -> Installed[DataTree]:
        log.info("fetches a snapshot", sid=sid)
        received = trio.Event()
        stream = await self._links.open_snapshot(sid)
        try:
            receiver = SnapshotReceiver(
                self._directory, self._environments, self._kind, lambda: self._run_soon(received.set)
            )
        except (EnvironmentFailedError, OSError) as error:
            await trio.aclose_forcefully(stream)
            raise SnapshotDamagedError(f"no new generation for it: {error}") from error
        installed: Installed[DataTree] | None = None
        done = False
        try:
            async with stream:
                chunks = ChunkReader(lambda: stream.receive_some(RECEIVE_BYTES))
                while not receiver.feed(await chunks.next()):
                    self._on_progress()
                    while receiver.queued_bytes > RECEIVED_BYTES_MAX:  # noqa: ASYNC110 (a thread drains it)
                        await trio.sleep(WRITER_SECONDS)
            self._switching = True
            with trio.CancelScope(shield=True):
                await received.wait()
                try:
                    installed = receiver.take_installed()
                except EnvironmentFailedError as error:
                    if not error.disk_full:
                        fail_stop(error, "the snapshot's environment")
                    raise SnapshotDamagedError(f"no space for it: {error}") from error
                except OSError as error:
                    fail_stop(error, "the switch to the snapshot")
                done = True
        finally:
            if not done:
                receiver.abort()
        assert installed is not None
        return installed


class ChunkReader:
    """Cuts what a link or an HTTP request brings into the chunks of a snapshot.

    Args:
        receive: more bytes; none at the end.
    """

    def __init__(self, receive: Callable[[], Awaitable[bytes | bytearray]]) -> None:
        self._receive = receive
        self._buffer = bytearray()

    async def next(self) -> bytes:
        await self._fill(4)
        length = int.from_bytes(self._buffer[:4], "big")
        if length > CHUNK_BYTES_MAX:
            raise SnapshotDamagedError(f"a chunk of {length} bytes, expected at most {CHUNK_BYTES_MAX}")
        await self._fill(4 + length)
        chunk = bytes(self._buffer[4 : 4 + length])
        del self._buffer[: 4 + length]
        return chunk

    async def _fill(self, count: int) -> None:
        while len(self._buffer) < count:
            part = await self._receive()
            if not part:
                raise SnapshotDamagedError("it ends early")
            self._buffer += part
