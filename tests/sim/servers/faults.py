"""What goes wrong in a run of whole servers: the faults of the first level that concern processes and links,
and those of bytes on disks and of clients.
"""

import errno
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from coord.disk import DiskFault
from coord.protocol.batch import change_in
from coord.server.housekeeping import FREE_BYTES_MIN
from coord.storage import TxnRow, inspect_txnlog
from tests.sim.faults import FAULTS, Faults
from tests.sim.servers.machine import CAPACITY_BYTES

if TYPE_CHECKING:
    from tests.sim.servers.server import SimServer
    from tests.sim.servers.world import ServersWorld

SHARED = (
    "crash",
    "crash_leader",
    "crash_all",
    "cut",
    "block",
    "partition",
    "pause",
    "slow_disk",
    "resign",
    "wipe",
    "snapshot",
    "hand_over",
    "swizzle",
    "clock_jump",
)
SERVER_FAULTS = {
    **{kind: FAULTS[kind] for kind in SHARED},
    "write_error": "EIO at a write, a sync or a rename, of log, epochs or checkpoint: the process stops",
    "full_disk": "little space is left, or none: writes are refused, the process stops; later there is space",
    "bit_rot": "bits flip on the disk of a server that is down: in its log but for the end, its checkpoint, "
    "`current`, epochs; an operator empties the directory of a server that refuses to start",
    "misdirected": "a write of the log or the checkpoint lands in another place while all servers are well; "
    "more is written behind it, and the server dies",
    "lost_write": "as `misdirected`, and the write lands nowhere",
    "stop": "a server is stopped in order, and started again",
    "logs_rot": "all servers stop or die, and bits flip in the logs of any of them, so that one good copy of "
    "each batch is left somewhere; all start again",
    "client_cut": "a client's connection is lost",
    "client_moves": "a client goes to another server",
    "client_silent": "a client stands still, perhaps beyond its timeout",
}
KINDS = tuple(SERVER_FAULTS)
REQUESTS = {
    "create": 6,
    "ephemeral": 4,
    "sequential": 2,
    "container": 2,
    "ttl": 2,
    "set": 8,
    "delete": 4,
    "set_acl": 1,
    "get_acl": 1,
    "multi": 3,
    "get": 8,
    "exists": 4,
    "children": 4,
    "watch": 1,
    "sync": 1,
}


@dataclass(frozen=True, slots=True)
class ServersProfile:
    """Weights of the kinds of faults, and the run's measures."""

    weights: tuple[int, ...]
    every_us: int
    down_us: int
    chaos_ms: int
    crash_point_odds: float
    fsync_us: int
    clients: int
    ask_every_us: int
    """Mean time between two requests of a client."""
    close_weight: float = 0.05
    servers: int = 0
    """0: drawn from the seed."""
    change_weight: float = 0.0
    """Of changes of the ensemble among the clients' requests; with it there are servers that may join."""
    damage_every_us: int = 0
    """Damaged logs that are repaired on order are the first level's; here `bit_rot` damages them."""
    local_sessions: float = 0.0
    """How likely it is that sessions begin as those of one server."""
    calm_ms: int = 6_000
    """A run goes on for so long after its last fault, so that what should not happen then has its time."""

    @property
    def requests(self) -> tuple[list[str], list[float]]:
        return [*REQUESTS, "close", "change"], [*REQUESTS.values(), self.close_weight, self.change_weight]

    @classmethod
    def draw(cls, random: Random) -> "ServersProfile":
        return cls(
            tuple(random.choice((0, 0, 1, 1, 3)) for _ in KINDS),
            random.choice((80_000, 200_000, 500_000)),
            random.choice((50_000, 200_000, 1_000_000)),
            random.choice((5_000, 8_000, 12_000)),
            random.choice((0.0, 0.0, 0.0005, 0.003)),
            random.choice((800, 800, 4_000, 20_000)),
            random.choice((2, 3, 5)),
            random.choice((40_000, 80_000, 200_000)),
            change_weight=random.choice((0.0, 0.0, 0.5)),
            local_sessions=random.choice((0.0, 0.0, 1.0)),
        )


def weights_of(**weights: int) -> tuple[int, ...]:
    return tuple(weights.get(kind, 0) for kind in KINDS)


class Frame(NamedTuple):
    """A group of one server's log: damage to one byte takes all of it."""

    node: "SimServer"
    path: str
    offset: int
    lasts: tuple[int, ...]
    """Of its batches."""


class SeenLog:
    """One server's log, seen from outside."""

    def __init__(self, node: "SimServer") -> None:
        persistence = node.server._persistence
        self._node = node
        self._directory = persistence.directory.log_path()
        self._durable_zxid = persistence.log.txn_log.durable_zxid

    def frames(self) -> list[Frame]:
        """Once the server has ended: those that its disk has promised to keep, but for changes of the
        ensemble: they say who can be asked.
        """
        disk, frames = self._node.disk, []
        for name in sorted(disk.list(self._directory)):
            path = f"{self._directory}/{name}"
            groups: dict[str, list[TxnRow]] = {}
            for row in inspect_txnlog(disk, path) if name.startswith("txn.") else ():
                if row.kind == "batch":
                    groups.setdefault(row.facts["group"], []).append(row)
            for rows in groups.values():
                lasts = tuple(int(row.facts["zxids"].partition("-")[2], 16) for row in rows)
                if lasts[-1] <= self._durable_zxid and not any(change_in(row.payload) for row in rows):
                    frames.append(Frame(self._node, path, rows[0].offset, lasts))
        return frames


class ServersFaults(Faults):
    """The schedule of one run's faults."""

    kinds = KINDS
    _world: "ServersWorld"

    def __init__(self, world: "ServersWorld") -> None:
        super().__init__(world)  # type: ignore[arg-type]
        self.mended_us: int | None = None
        self._rest = False
        """No other fault meanwhile."""
        self.must_repair: set[int] = set()
        """Whose log is damaged, and has what no other has."""

    def _next(self) -> None:
        if self._rest:
            self._world.later(50_000, self._next)
        else:
            super()._next()

    def actions(self) -> dict[str, Callable[..., None]]:
        return super().actions() | {
            "write_error": self._write_error,
            "full_disk": self._full_disk,
            "bit_rot": self._bit_rot,
            "misdirected": self._misdirected,
            "lost_write": self._lost_write,
            "stop": self._stop,
            "logs_rot": self._logs_rot,
            "client_cut": self._client_cut,
            "client_moves": self._client_moves,
            "client_silent": self._client_silent,
        }

    def crash_point(self, server: "SimServer") -> int:
        """Within its next tick, perhaps: at one of the changes of its disk."""
        odds = self._profile.crash_point_odds
        if not self.mended and not self._rest and odds and self._random.random() < odds:
            server.disk.power_off_after(self._random.randrange(8))
        return -1

    def on_end(self, server: "SimServer") -> None:
        """Its process has ended itself, or died at a change of its disk."""
        self._after_a_while(self._restart, server)

    def on_refusal(self, server: "SimServer", error: Exception) -> None:
        """It does not start from what is on its disk. An operator makes space, or empties a damaged one."""
        if not isinstance(error, OSError):
            if server.sid in self.must_repair:
                self._world.laws.violated("CheckDuringAction", server, f"refuses to start: {error}")
            if not server.is_damaged:
                self._world.laws.violated("CheckDuringAction", server, f"refuses to start: {error}")
            server.wipe()
        self._after_a_while(self._restart, server)

    # Disks.

    def _others_are_whole(self, victim: "SimServer") -> bool:
        """So that one bad disk is a fault that the ensemble must bear."""
        nodes = self._world.nodes.values()
        whole = {
            node.sid for node in nodes if node is not victim and node.status.serving and not node.is_damaged
        }
        has_quorum = all(
            membership.quorum.contains(whole)
            for node in nodes
            if node.server is not None
            for membership in (node.peer.membership, *node.changes_under_way)
        )
        return has_quorum and not any(node.is_damaged for node in nodes) and victim.status.serving

    def _wipe(self, victim: "SimServer") -> None:  # type: ignore[override]
        if self._others_are_whole(victim):
            victim.crash(wipe=True)
            self._after_a_while(self._restart, victim)

    def _write_error(self, victim: "SimServer") -> None:
        operation = self._random.choice(("pwrite", "fdatasync", "fdatasync", "rename", "fsync_directory"))
        part = self._random.choice(("", "log-", "epochs", "checkpoint"))
        victim.disk.faults.append(DiskFault(operation, errno.EIO, part, skip=self._random.randrange(3)))

    def _full_disk(self, victim: "SimServer") -> None:
        disk = victim.disk
        disk.capacity_bytes = disk.used_bytes() + self._random.choice(
            (0, 2_000, FREE_BYTES_MIN, FREE_BYTES_MIN // 2)
        )
        self._after_a_while(self._make_space, victim)

    def _make_space(self, victim: "SimServer") -> None:
        victim.disk.capacity_bytes = CAPACITY_BYTES

    def _bit_rot(self, victim: "SimServer") -> None:
        if not self._others_are_whole(victim):
            return
        victim.crash()
        victim.damage()
        for path, size in self._rotting(victim):
            victim.disk.flip_bit(path, self._random.randrange(size * 8))
            self._world.trace("rot", victim.sid, path)
        self._after_a_while(self._restart, victim)

    def _rotting(self, victim: "SimServer") -> list[tuple[str, int]]:
        """One to three files, and how many of their first bytes may rot: the end of a log that no close has
        protected is not told from a torn write (docs/damage.md).
        """
        draw, disk = self._random, victim.disk
        found = []
        for path in sorted(disk._names):
            if disk._names[path] is None or path.endswith(("lock", ".open", ".new")):
                continue
            size = len(disk.content(path).rstrip(b"\0"))
            if "/log-" in path:
                size = size // 2 // 512 * 512
            if size:
                found.append((path, size))
        return draw.sample(found, min(len(found), draw.choice((1, 1, 1, 3))))

    def _misdirected(self, victim: "SimServer") -> None:
        bytes_off = self._random.choice((512, 1024, 4096, 1 << 20))
        self._lie(victim, DiskFault("pwrite", misdirect=bytes_off))

    def _lost_write(self, victim: "SimServer") -> None:
        self._lie(victim, DiskFault("pwrite", lost=True))

    def _lie(self, victim: "SimServer", fault: DiskFault) -> None:
        if not self._others_are_whole(victim) or not all(
            node.status.serving for node in self._world.nodes.values()
        ):
            return
        victim.damage()
        self._rest = True  # what the victim has acknowledged and does not have must reach the others first
        fault.path_part = self._random.choice(("/log-", "/log-", "checkpoint"))
        if fault.path_part == "checkpoint":
            victim.want_checkpoint()
        victim.disk.faults.append(fault)
        self._world.later(300_000, self._die_of_a_lie, victim, victim.life, fault, 0, 20)

    def _die_of_a_lie(
        self, victim: "SimServer", life: int, fault: DiskFault, seen_zxid: int, patience: int
    ) -> None:
        """Once something was written behind the lie: the end of a log that was never there is believed."""
        if victim.life == life and victim.server is not None and patience and fault.path_part == "/log-":
            durable_zxid = victim.server._persistence.log.txn_log.durable_zxid
            if fault.times or not seen_zxid or durable_zxid == seen_zxid:
                seen_zxid = 0 if fault.times else seen_zxid or durable_zxid
                self._world.later(50_000, self._die_of_a_lie, victim, life, fault, seen_zxid, patience - 1)
                return
        self._rest = False
        if victim.life == life:
            victim.crash()
            if not patience:
                victim.promised_zxid = 0  # nothing came behind it
            self._after_a_while(self._restart, victim)

    def _stop(self, victim: "SimServer") -> None:
        if victim.running and not victim.paused and victim.stop("restarts"):
            self._after_a_while(self._restart, victim)

    def _logs_rot(self, victim: "SimServer") -> None:
        nodes = list(self._world.nodes.values())
        if not all(node.status.serving and not node.is_damaged and not node.paused for node in nodes):
            return
        logs = [SeenLog(node) for node in nodes]
        for node in nodes:
            if self._random.random() < 0.5:
                node.crash()
            else:
                node.stop("before its log rots")
            self._after_a_while(self._restart, node)
        frames = [frame for log in logs for frame in log.frames()]
        members = self._world.laws.configuration.roles
        good = Counter(last for frame in frames if frame.node.sid in members for last in frame.lasts)
        odds = self._random.choice((0.02, 0.1, 0.5))
        for frame in self._random.sample(frames, len(frames)):
            if self._random.random() < odds and all(good[last] > 1 for last in frame.lasts):
                if frame.node.sid in members:
                    good.subtract(frame.lasts)
                frame.node.disk.flip_bit(frame.path, frame.offset * 8 + self._random.randrange(8))
                frame.node.damage()
                self.must_repair.add(frame.node.sid)
                self._world.trace("rot", frame.node.sid, (frame.lasts[-1], frame.path))

    # Clients.

    def _client_cut(self, victim: "SimServer") -> None:
        client = self._random.choice(self._world.clients)
        if client.link is not None:
            client.link.cut(self._random.choice((2_000, 500_000)))

    def _client_moves(self, victim: "SimServer") -> None:
        self._random.choice(self._world.clients).leave()

    def _client_silent(self, victim: "SimServer") -> None:
        client = self._random.choice(self._world.clients)
        if not client.is_silent:
            client.is_silent = True
            delay_us = self._random.randrange(4 * client.timeout_ms * 1000)
            self._world.later(delay_us, self._client_speaks, client)

    def _client_speaks(self, client: object) -> None:
        client.is_silent = False  # type: ignore[attr-defined]

    def mend(self) -> None:
        super().mend()
        self.mended_us = self._world.now_us
        for server in self._world.nodes.values():
            server.disk.faults.clear()
            self._make_space(server)
        for client in self._world.clients:
            client.is_silent = False
