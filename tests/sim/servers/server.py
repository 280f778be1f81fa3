"""One simulated server: a machine with a disk, and while it runs a production `coord.server.server.Server`.

What happens to it (bytes of a client, a frame of a peer, a timer, a report of its disk) waits for its next
tick; a tick takes all of it, settles the server, and sends, as the reactor's do. Its process may be paused,
and it may die at any change of its disk.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from struct import Struct
from typing import TYPE_CHECKING, Any

from coord.disk import PowerLossError
from coord.log import LogConfig, LogDamagedError
from coord.message import MessageError
from coord.server.admin.snapshots import Rates
from coord.server.config import PeerAddress, parse_config
from coord.server.config.members import parse_members
from coord.server.member import ZAB_CODE_MAX
from coord.server.server import Server
from coord.server.surroundings import Surroundings
from coord.server.wire import PEER_PROTOCOL, Touch, decode_session_ids
from coord.storage import (
    DataDirectoryError,
    DiskEnvironments,
    LogOptions,
    RecoveryError,
    open_data_directory,
)
from coord.zab import HistoryConflictError, Membership, Role, Status
from tests.sim.servers.ensemble import OBSERVER, Roles, line_of
from tests.sim.servers.machine import Link, ProcessEndedError, SimClock, SimDisk, SimReactor
from tests.sim.servers.peers import Chunk, SimPeers, SnapshotAsk
from tests.sim.servers.tasks import StreamPart, Task

if TYPE_CHECKING:
    from tests.sim.servers.world import ServersWorld

DATA_DIRECTORY = "/data"
LOG_SIZES = LogConfig(segment_bytes_max=48 << 10, zero_ahead_bytes=4 << 10)
RESTED = Status(Role.LOOKING, None, 0, False)
REFUSALS = (DataDirectoryError, RecoveryError, LogDamagedError, OSError)
NEVER = 1 << 60
TICK_US_MAX = 100
"""Inputs that come within this time are taken by one tick."""

_unpack_head = Struct(">IHI").unpack_from


class SimServer:
    """A server through all its lives."""

    def __init__(self, world: "ServersWorld", sid: int, keys: dict[str, str], roles: Roles) -> None:
        self.world = world
        self.sid = sid
        self.config = replace(parse_config(keys), sid=sid, servers=self._members(roles))
        self.disk = SimDisk()
        self.running = False
        self.paused = False
        self.life = 0
        self.clock_ms = 0
        """How far this machine's monotonic clock is ahead of the world's."""
        self.clock = SimClock(self)
        self.damaged_in_life = -1
        """Its disk was lost or damaged then, and it has not been synchronized since; -1: it is whole."""
        self.server: Server | None = None
        self.tasks: list[Task] = []
        self.promised_zxid = 0
        """How far its log was durable when its process ended; of one that had lost its history, and had not
        made good what a leader gave it, when that was lost.
        """
        self.repaired = 0
        """Batches of its log that it got back from peers."""
        self._reset()

    def _reset(self) -> None:
        self._inputs: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._tick_due = False
        self._timer_us = -1
        self._writing = False
        self.links: dict[Link, None] = {}
        self.closing: list[Link] = []
        tasks, self.tasks = self.tasks, []
        for task in tasks:
            task.close()

    @property
    def now_ms(self) -> int:
        return self.world.now_ms + self.clock_ms

    @property
    def status(self) -> Status:
        return RESTED if self.server is None else self.server._member.status

    @property
    def service(self) -> Any:
        assert self.server is not None
        return self.server._service

    @property
    def tree(self) -> Any:
        assert self.server is not None
        return self.server._persistence.state.tree

    @property
    def peer(self) -> Any:
        assert self.server is not None
        return self.server._member.peer

    @property
    def changes_under_way(self) -> list[Membership]:
        """What its core has appended and does not know committed, durable or not."""
        return [membership for _, membership in self.peer._replica.history.pending]

    @property
    def durable_zxid(self) -> int:
        """How far its log is durable, or was when its process ended."""
        if self.server is None:
            return self.promised_zxid
        return int(self.server._persistence.log.txn_log.durable_zxid)

    # Life and death.

    def start(self) -> None:
        if self.running:
            return
        self.life += 1
        self._reset()
        self.running = True
        try:
            self._begin()
        except REFUSALS as error:
            self.running = False
            self.world.trace("refuses", self.sid, str(error))
            self.disk.restart(self.world.random)
            self.world.faults.on_refusal(self, error)
            return
        except (PowerLossError, ProcessEndedError) as error:
            self._die(str(error))
            return
        self.world.trace("start", self.sid, (self.tree.last_zxid, self.server._persistence.directory.epochs))
        self.world.laws.on_start(self)
        self.peers.start()
        self._look_after()
        self._checkpoint()
        for other in self.world.nodes:
            if other != self.sid:
                delay_us = self.world.random.randrange(500, 30_000)
                self.world.later(delay_us, self.world.network.connect, self.sid, other)

    def _begin(self) -> None:
        draw, disk = self.world.random, self.disk
        directory = open_data_directory(disk, DATA_DIRECTORY, new_id=partial(draw.randbytes, 8))
        surroundings = Surroundings(
            make_reactor=lambda config, clock: SimReactor(self),  # type: ignore[arg-type,return-value]
            make_peers=partial(SimPeers, self),
            make_random=draw.randbytes,
            log_options=lambda notify: LogOptions(
                notify,
                threaded=False,
                config=LOG_SIZES,
                new_file_id=partial(draw.randbytes, 16),
                clock_ns=lambda: self.world.now_us * 1000 + disk.spent_ns,
            ),
        )
        self.server = Server(
            self.config,
            directory,
            DiskEnvironments(disk),
            self.clock,
            Rates(self.config),
            surroundings=surroundings,
            repaired_batches=self.repaired,
        )
        self.world.laws.watch(self)
        self.input(self.peer.tick, self.now_ms)

    def crash(self, wipe: bool = False) -> None:
        if self.running:
            self._lose_power()
            self._die("wiped" if wipe else "crash")
            if wipe:
                self.wipe()

    def _lose_power(self) -> None:
        """In the middle of a write of the log, if there is one."""
        draw, server = self.world.random, self.server
        if server is not None and self._writing:
            self.disk.power_off_after(draw.randrange(3))
            try:
                server._persistence.log.txn_log.writer.step()
            except (PowerLossError, ProcessEndedError):
                return

    def _die(self, why: str) -> None:
        """The process is over; what its disk had not synced may be lost."""
        self.world.trace("dies", self.sid, why)
        self.disk.faults.clear()
        self.disk.restart(self.world.random)
        self._end(self.claims_its_log)

    @property
    def claims_its_log(self) -> bool:
        return self.server is not None and self.server._persistence.directory.loss is None

    def _end(self, claims: bool) -> None:
        if claims:
            self.promised_zxid = self.durable_zxid
        self.running = self.paused = False
        self.server = None
        links = list(self.links)
        self._reset()
        self.life += 1
        for link in links:
            link.cut(2_000)
        self.world.network.node_died(self.sid)

    def stop(self, why: str) -> bool:
        """In order: the log is written to its end, and where that is; False if it has died of that."""
        assert self.server is not None
        claims = self.claims_its_log
        try:
            self.server._close()
            self.server._persistence.directory.close()
        except (PowerLossError, ProcessEndedError, OSError) as error:
            self._die(f"{type(error).__name__}: {error}")
            self.world.faults.on_end(self)
            return False
        self.world.trace("stops", self.sid, why)
        self.disk.power_off_after(NEVER)
        self._end(claims)
        return True

    def wipe(self) -> None:
        """Its disk is replaced by an empty one."""
        self.disk = SimDisk()
        self.disk.fsync_us = self.world.profile.fsync_us
        self.promised_zxid = 0
        configurations = self.world.laws.model.configurations
        if configurations:  # whoever replaces the disk gives it the configuration of today
            self.config = replace(self.config, servers=self._members(configurations[-1].roles))
        self.damage()

    def _members(self, roles: Roles) -> tuple[PeerAddress, ...]:
        """These and this server, which has to be in its own file."""
        roles = {self.sid: OBSERVER} | roles
        lines = [line_of(sid, role).removeprefix("server.") for sid, role in sorted(roles.items())]
        return parse_members([(sid, value) for sid, _, value in (line.partition("=") for line in lines)])

    def damage(self) -> None:
        """What is on its disk cannot be trusted."""
        self.damaged_in_life = self.life

    @property
    def is_damaged(self) -> bool:
        return self.damaged_in_life >= 0

    def pause(self) -> None:
        self.paused = True
        self.world.trace("pause", self.sid, None)

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            self.world.trace("resume", self.sid, None)
            self._want_tick()

    # Ticks.

    def input(self, action: Callable[..., None], *arguments: Any) -> None:
        """Something happens to the process; its next tick takes it."""
        if self.running:
            self._inputs.append((action, arguments))
            self._want_tick()

    def _want_tick(self) -> None:
        if not self._tick_due and not self.paused:
            self._tick_due = True
            self.world.later(self.world.random.randrange(TICK_US_MAX), self._tick, self.life)

    def _tick(self, life: int) -> None:
        if life != self.life or not self.running:
            return
        self._tick_due = False
        if self.paused or self.server is None:
            return
        inputs, self._inputs = self._inputs, deque()
        self.world.faults.crash_point(self)
        try:
            for action, arguments in inputs:
                action(*arguments)
            self.server._service.on_tick_end()
            self.flush()
        except (PowerLossError, ProcessEndedError, OSError) as error:
            self._die(f"{type(error).__name__}: {error}")
            self.world.faults.on_end(self)
            return
        except HistoryConflictError as error:
            self.world.laws.violated("CheckDuringAction", self, str(error))
        self.world.laws.on_tick(self)
        if self.server.begins_again:
            self.repaired = self.server.repaired_batches
            if self.stop("begins again"):
                self.start()
            return
        self._have_written()
        self._set_timer()

    def flush(self) -> None:
        """What is owed to clients and peers leaves; connections that have ended are forgotten."""
        assert self.server is not None
        while self.closing:
            closing, self.closing = self.closing, []
            for link in closing:
                self.links.pop(link, None)
                self.server._service.on_close(link, link.close_reason)  # type: ignore[arg-type]
                link.flush()
                link.data = None
        for link in self.links:
            link.flush()
        self.server._peers.flush()

    def _have_written(self) -> None:
        assert self.server is not None
        writer = self.server._persistence.log.txn_log.writer
        if not self._writing and writer._given > writer._handled:
            self._writing = True
            draw = self.world.random
            self.disk.next_us = int(self.disk.fsync_us * (0.2 + 4 * draw.random() ** 4))
            self.world.later(self.disk.next_us, self.input_of, self.life, self._write, writer)

    def input_of(self, life: int, action: Callable[..., None], *arguments: Any) -> None:
        """`input`, if the process is still the same."""
        if life == self.life:
            self.input(action, *arguments)

    def _write(self, writer: Any) -> None:
        """The log's thread comes to the end of a group, or of an operation."""
        self._writing = False
        writer.step()

    # Time.

    def _set_timer(self) -> None:
        deadline_us = max(self.world.now_us, (self.peer.next_deadline_ms() - self.clock_ms) * 1000)
        if self._timer_us < 0 or deadline_us < self._timer_us:
            self._timer_us = deadline_us
            self.world.at(deadline_us, self._timer, self.life, deadline_us)

    def _timer(self, life: int, due_us: int) -> None:
        if life == self.life and due_us == self._timer_us:
            self._timer_us = -1
            self.tick()

    def tick(self) -> None:
        self.input(self._tick_peer)

    def _tick_peer(self) -> None:
        self.peer.tick(self.now_ms)

    def _look_after(self) -> None:
        assert self.server is not None
        housekeeping = self.server._housekeeping
        self.input(housekeeping.look_after)
        self.world.later(housekeeping.interval_ms * 1000, self._look_again, self.life)

    def _look_again(self, life: int) -> None:
        if life != self.life or not self.running:
            return
        if self.paused:  # the task goes on when the process does
            self.world.later(1000, self._look_again, life)
        else:
            self._look_after()

    def _checkpoint(self) -> None:
        """An operator's script asks for a checkpoint now and then."""
        self.world.later(self.world.random.randrange(6_000_000), self._want_checkpoint, self.life)

    def _want_checkpoint(self, life: int) -> None:
        if life == self.life and self.running and self.server is not None:
            self.want_checkpoint()
            self._checkpoint()

    def want_checkpoint(self) -> None:
        assert self.server is not None
        self.server._persistence.checkpoints.want()
        self.go_on_with_checkpoint(self.life)

    def go_on_with_checkpoint(self, life: int) -> None:
        self.input_of(life, self._checkpoint_slice)

    def _checkpoint_slice(self) -> None:
        assert self.server is not None
        if self.server._persistence.checkpoints.go_on():
            self.world.later(2_000, self.go_on_with_checkpoint, self.life)

    # Peers, for the network.

    def on_connected(self, other: int) -> None:
        self.input(self._connected, other)

    def on_disconnected(self, other: int) -> None:
        self.input(self._disconnected, other)

    def on_message(self, sender: int, message: Any) -> None:
        self.input(self._received, sender, message)

    @property
    def peers(self) -> SimPeers:
        assert self.server is not None
        peers = self.server._peers
        assert isinstance(peers, SimPeers)
        return peers

    def _connected(self, other: int) -> None:
        self.world.trace("up", self.sid, other)
        self.peers.user.on_connected(other)

    def _disconnected(self, other: int) -> None:
        self.world.trace("down", self.sid, other)
        self.peers.on_disconnected(other)
        self.peers.user.on_disconnected(other)

    def _received(self, sender: int, message: Any) -> None:
        if isinstance(message, SnapshotAsk):
            self.peers.on_ask(sender)
        elif isinstance(message, Chunk):
            self.peers.on_chunk(sender, message)
        elif isinstance(message, StreamPart):
            self.peers.on_stream(sender, message)
        else:
            self._frame(sender, message)

    def _frame(self, sender: int, frame: bytes) -> None:
        _, code, header_bytes = _unpack_head(frame)
        header, body = frame[10 : 10 + header_bytes], memoryview(frame)[10 + header_bytes :]
        if code > ZAB_CODE_MAX:
            message = PEER_PROTOCOL.decode(code, header)
            self.world.trace("hears", self.sid, (sender, message))
            if isinstance(message, Touch):
                self.world.laws.heard(self, decode_session_ids(body))
        try:
            self.peers.user.on_frame(sender, code, header, body)
        except MessageError as error:
            self.world.laws.violated("messageIllegal", self, str(error))

    # Clients.

    def connect(self, client: Any, address: tuple[str, int], delay_us: int) -> Link | None:
        """A client's connection; None if nobody listens."""
        if not self.running or self.server is None:
            return None
        link = Link(self, client, address, delay_us)
        self.links[link] = None
        self.input(self.service.on_open, link)
        return link

    def heard(self, link: Link, data: bytes) -> None:
        """Bytes of a client have arrived; its session lives on."""
        if link.data is not None and link.data.session_id:
            self.world.laws.heard(self, (link.data.session_id,))

    # Operators.

    def resign(self) -> None:
        if self.server is not None:
            self.input(lambda: self.peer.resign("asked to", self.now_ms))

    def request_snapshot(self) -> None:
        if self.server is not None and self.status.role is Role.FOLLOWING:
            self.input(lambda: self.peer.request_snapshot(self.now_ms))

    def hand_over(self) -> None:
        if self.server is not None:
            self.input(lambda: self.peer.hand_over(self.now_ms))
