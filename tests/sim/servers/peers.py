"""The other servers, as a simulated one reaches them: frames and chunks of snapshots over the world's links.

What `coord.server.snapshots` does in tasks over connections of their own is done here in steps; what it reads
and writes is production storage. The repair of logs runs as it is, over streams of `tests.sim.servers.tasks`.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from coord.log import fail_stop
from coord.server.giving import LogGiver
from coord.server.link import Frame, LinkUser
from coord.server.repairing import LogRepairer
from coord.server.roster import Roster, addresses_of
from coord.server.startup import members_of, membership_of
from coord.storage import (
    CheckpointDamagedError,
    EnvironmentFailedError,
    SnapshotDamagedError,
    SnapshotReader,
    SnapshotReceiver,
)
from coord.tree import DataTree
from coord.zab import SnapshotOrder
from tests.sim.servers.tasks import SimStream, StreamPart, Task

if TYPE_CHECKING:
    from tests.sim.servers.server import SimServer

CHUNK_US = 3_000


class SnapshotAsk(NamedTuple):
    """A learner opens its connection for a snapshot."""


class Chunk(NamedTuple):
    """A part of a snapshot."""

    number: int
    data: bytes


class SimPeers:
    """`coord.server.peers.Peers` without sockets."""

    def __init__(
        self,
        owner: "SimServer",
        config: Any,
        persistence: Any,
        clock: Any,
        reactor: Any,
        statistics: Any,
        meters: Any,
        *,
        user: LinkUser,
        settle: Callable[[], None],
        close_clients: Callable[[str], None],
        serve_at: Callable[[str, int], None],
        begin_again: Callable[[int], None],
    ) -> None:
        self._owner = owner
        self._config = config
        self._persistence = persistence
        self._clock = clock
        self._close_clients = close_clients
        self._settle = settle
        self._peer = persistence.peer
        self._frames: list[tuple[int, bytes]] = []
        self._orders: dict[int, SnapshotOrder] = {}
        self._readers: dict[int, SnapshotReader] = {}
        self._receiver: SnapshotReceiver[DataTree] | None = None
        self._from = 0
        self._next = 0
        self._streams: dict[int, SimStream] = {}
        state = persistence.state
        self.members = sorted(addresses_of(config, members_of(config, state.tree), persistence.peers_seen))
        self._roster = Roster(config, lambda: state.tree, self, self._hand_over, serve_at)  # type: ignore[arg-type]
        self._giver = LogGiver(persistence, statistics)
        self._repairer = LogRepairer(config.sid, persistence, self, begin_again)  # type: ignore[arg-type]
        self.user = user

    def start(self) -> None:
        """What the process does beside its ticks."""
        Task(self._owner, self._repairer.run())

    async def start_in(self, nursery: object) -> None:
        raise AssertionError("simulated peers have no tasks")

    def refresh(self) -> None:
        self._roster.refresh()

    def set_members(self, addresses: Mapping[int, object]) -> None:
        """They mean nothing here but for whom can be asked."""
        self.members = sorted(addresses)

    def listen_on(self, addresses: object) -> None:
        """Whoever wants to can reach it."""

    def _hand_over(self) -> None:
        self._peer.hand_over(self._clock.monotonic_ms())

    def send(self, sid: int, frame: Frame) -> None:
        self._frames.append((sid, b"".join(frame)))

    def flush(self) -> None:
        frames, self._frames = self._frames, []
        for sid, frame in frames:
            self._owner.world.network.send(self._owner.sid, sid, frame)

    def on_disconnected(self, sid: int) -> None:
        """The snapshots' connections break with the link."""
        self._close_reader(sid)
        if self._from == sid:
            self._abort()
        for stream in [each for each in self._streams.values() if each.sid == sid]:
            self._streams.pop(stream.number).break_off()

    # Repair.

    async def open_repair(self, sid: int) -> SimStream:
        owner, network = self._owner, self._owner.world.network
        if (owner.sid, sid) not in network.open_ends:
            raise OSError(f"server {sid} cannot be reached")
        owner.world.streams += 1
        stream = self._streams[owner.world.streams] = SimStream(owner, sid, owner.world.streams)
        network.send(owner.sid, sid, StreamPart(stream.number, b"", opens=True))
        return stream

    def on_stream(self, sid: int, part: StreamPart) -> None:
        if part.opens:
            stream = self._streams[part.number] = SimStream(self._owner, sid, part.number)
            Task(self._owner, self._serve(stream))
        elif part.number in self._streams:
            self._streams[part.number].feed(part.data)

    async def _serve(self, stream: SimStream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError):
                await self._giver.serve(stream.sid, stream)  # type: ignore[arg-type]

    # The sender's side.

    def serve_snapshot(self, order: SnapshotOrder) -> None:
        self._orders[order.sid] = order

    def cancel_snapshot(self, sid: int) -> None:
        self._orders.pop(sid, None)
        self._close_reader(sid)

    def on_ask(self, sid: int) -> None:
        order = self._orders.pop(sid, None)
        if order is not None:
            self._send_when_ready(self._owner.life, order)

    def _send_when_ready(self, life: int, order: SnapshotOrder) -> None:
        if life != self._owner.life or not self._owner.running:
            return
        if self._persistence.checkpoints.reaches(order.at_least_zxid):
            self._owner.input(self._begin, order.sid)
        else:
            self._owner.go_on_with_checkpoint(life)
            self._owner.world.later(20_000, self._send_when_ready, life, order)

    def _begin(self, sid: int) -> None:
        self._close_reader(sid)
        try:
            self._readers[sid] = SnapshotReader(self._persistence.checkpoints.store)
        except CheckpointDamagedError as error:
            fail_stop(error, "the checkpoint")
        self._send_chunk(sid, self._readers[sid], 0)

    def _send_chunk(self, sid: int, reader: SnapshotReader, number: int) -> None:
        if self._readers.get(sid) is not reader:
            return
        try:
            chunk = reader.next_chunk()
        except CheckpointDamagedError as error:
            fail_stop(error, "the checkpoint")
        if chunk is None:
            self._close_reader(sid)
            return
        owner = self._owner
        owner.world.network.send(owner.sid, sid, Chunk(number, chunk))
        delay_us = owner.world.random.randrange(CHUNK_US)
        owner.world.later(delay_us, owner.input_of, owner.life, self._send_chunk, sid, reader, number + 1)

    def _close_reader(self, sid: int) -> None:
        reader = self._readers.pop(sid, None)
        if reader is not None:
            reader.close()

    # The learner's side.

    def install_snapshot(self, sid: int) -> None:
        owner = self._owner
        self._from, self._next = sid, 0
        if (owner.sid, sid) not in owner.world.network.open_ends:
            owner.input(self._abort)
            return
        owner.world.network.send(owner.sid, sid, SnapshotAsk())

    def cancel_install(self) -> None:
        if self._from:
            self._owner.input(self._abort)

    def on_chunk(self, sid: int, chunk: Chunk) -> None:
        if sid != self._from or chunk.number != self._next:
            return
        self._next += 1
        persistence = self._persistence
        try:
            if self._receiver is None:
                self._receiver = SnapshotReceiver(
                    persistence.directory,
                    persistence.environments,
                    persistence.kind,
                    lambda: None,
                    threaded=False,
                )
            if not self._receiver.feed(chunk.data):
                self._peer.snapshot_progress(self._clock.monotonic_ms())
                return
        except (SnapshotDamagedError, EnvironmentFailedError, OSError):
            self._abort()
            return
        self._switch()

    def _switch(self) -> None:
        assert self._receiver is not None
        try:
            installed = self._receiver.take_installed()
        except EnvironmentFailedError as error:
            if not error.disk_full:
                fail_stop(error, "the snapshot's environment")
            self._abort()
            return
        except OSError as error:
            fail_stop(error, "the switch to the snapshot")
        assert installed is not None
        self._receiver, self._from = None, 0
        self._persistence.replace(installed)
        self._close_clients("another state is in use")
        self._persistence.state.replace(installed.state)
        self._owner.world.laws.on_installed(self._owner)
        self.refresh()
        membership = membership_of(self._config, installed.state)
        self._peer.snapshot_installed(installed.zxid, membership, self._clock.monotonic_ms())

    def _abort(self) -> None:
        if not self._from:
            return
        self._from = 0
        if self._receiver is not None:
            receiver, self._receiver = self._receiver, None
            with suppress(OSError):  # what is left of it goes at the next start
                receiver.abort()
        self._peer.snapshot_aborted(self._clock.monotonic_ms())
