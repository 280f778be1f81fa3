"""One simulated ensemble of whole servers under one seed: servers, clients, faults, and the end.

A run has three parts, as at the first level: servers start; for `chaos_ms` faults befall them and their
clients; then everything is mended, some clients fall silent for good, and the ensemble must serve all others,
end the sessions of the silent, and agree, within `RECOVERY_MS`. Laws are checked all the time.
"""

from dataclasses import dataclass

from coord import eventlog
from tests.sim.network import Network
from tests.sim.schedule import Schedule, Tracer
from tests.sim.servers.clients import SimClient
from tests.sim.servers.ensemble import OBSERVER, PARTICIPANT, Roles
from tests.sim.servers.faults import ServersFaults, ServersProfile
from tests.sim.servers.laws import ServersWitness
from tests.sim.servers.machine import processes_that_end
from tests.sim.servers.server import SimServer
from tests.sim.servers.tasks import tasks_that_wait
from tests.sim.witness import LawViolated

RECOVERY_MS = 60_000
NEVER_USED_MS = 2_000
"""How long a container may stay without a first child."""


@dataclass(frozen=True, slots=True)
class ServersOutcome:
    """How a run ended; `law` is None when all held."""

    seed: int
    law: str | None
    text: str
    simulated_ms: int
    executed: int
    acknowledged: int
    sessions: int
    expired: int
    events: int
    epochs: int
    changes: int
    faults: int


class Journal:
    """The servers' event log: lines that tell of something impossible are kept for the witness."""

    def __init__(self, world: "ServersWorld") -> None:
        self._world = world
        self._lines: list[str] = []

    def write(self, text: str) -> int:
        self._world.trace("log", 0, text.rstrip())
        if 'do="report this' in text:
            self._lines.append(text.rstrip())
        return len(text)

    def flush(self) -> None:
        """Every line is where it belongs."""

    def take(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines


class ServersWorld(Schedule):
    """Everything one seed decides."""

    def __init__(
        self, seed: int, tracer: Tracer | None = None, profile: ServersProfile | None = None
    ) -> None:
        super().__init__(seed, tracer)
        self.journal = Journal(self)
        self.is_traced = tracer is not None
        drawn = ServersProfile.draw(self.random)
        self.profile = profile or drawn
        self.network = Network(self)  # type: ignore[arg-type]
        self.nodes: dict[int, SimServer] = {}
        self.first_roles: Roles = {}
        """The ensemble that it begins with."""
        self.owners: dict[int, SimClient] = {}
        """Session -> its client."""
        self.streams = 0
        """Numbers of streams between servers."""
        self._build()
        self.laws = ServersWitness(self)
        self.faults = ServersFaults(self)
        self.clients = [SimClient(self, number) for number in range(1, self.profile.clients + 1)]

    def _build(self) -> None:
        draw = self.random
        size = draw.choice((3, 3, 3, 3, 5, 1))
        size = self.profile.servers or size
        observers = draw.choice((0, 0, 0, 1)) if size == 3 else 0
        tick_ms = draw.choice((100, 200, 400))
        roles = {sid: OBSERVER if sid > size else PARTICIPANT for sid in range(1, size + observers + 1)}
        self.changes_members = size > 1 and self.profile.change_weight > 0
        joiners = draw.choice((1, 2)) if self.changes_members else 0
        keys = {
            "dataDir": "/data",
            "tickTime": str(tick_ms),
            "initLimit": "20",
            "syncLimit": str(draw.choice((3, 5))),
            "minSessionTimeout": "500",
            "maxSessionTimeout": "60000",
            "maxClientCnxns": "0",
            "extendedTypesEnabled": "true",
            "znode.container.checkIntervalMs": "500",
            "znode.container.maxNeverUsedIntervalMs": str(NEVER_USED_MS),
        }
        self.local_sessions = draw.random() < self.profile.local_sessions
        self.upgrades_sessions = self.local_sessions and draw.random() < 0.7
        if self.local_sessions:
            keys["localSessionsEnabled"] = "true"
            keys["localSessionsUpgradingEnabled"] = "true" if self.upgrades_sessions else "false"
        if self.changes_members:
            keys |= {"reconfigEnabled": "true", "skipACL": "yes"}
        self.first_roles = roles
        for sid in range(1, size + observers + joiners + 1):
            self.nodes[sid] = SimServer(self, sid, keys, roles)
            self.nodes[sid].disk.fsync_us = self.profile.fsync_us
        self.network.delay_us = draw.choice((100, 300, 2_000))
        self.network.spread = draw.choice((1.0, 5.0, 30.0))
        self.client_delay_us = draw.choice((100, 500, 5_000))

    def identity_of(self, session_id: int) -> str | None:
        """What the session's client has proved to be."""
        client = self.owners.get(session_id)
        return None if client is None else client.identity

    def client_of(self, session_id: int) -> SimClient | None:
        return self.owners.get(session_id)

    # A run.

    def run(self) -> ServersOutcome:
        """Raises nothing: a broken law is in the outcome."""
        level = eventlog.INFO if self.is_traced else eventlog.ERROR
        eventlog.configure(stream=self.journal, level=level)  # type: ignore[arg-type]
        try:
            with processes_that_end(), tasks_that_wait():
                self._run()
        except LawViolated as error:
            return self._outcome(error.law, str(error))
        finally:
            eventlog.configure()
        return self._outcome(None, "all laws held")

    def _run(self) -> None:
        draw = self.random
        for server in self.nodes.values():
            self.later(draw.randrange(50_000), server.start)
        for client in self.clients:
            self.later(draw.randrange(500_000), client.start)
        self.faults.begin()
        self.run_until(self.profile.chaos_ms * 1000)
        self.faults.mend()
        mended_us = self.now_us
        self.run_until(mended_us + self.profile.calm_ms * 1000)
        for client in self.clients:
            client.is_done = True
            client.is_gone = draw.random() < 0.3
        if not self.run_until(mended_us + RECOVERY_MS * 1000, self._recovered):
            self._explain()
        self.laws.check_end()

    def _recovered(self) -> bool:
        """All servers have executed the same, all clients are served, the silent ones' sessions are over."""
        zxids = {node.tree.last_zxid if node.status.serving else None for node in self.nodes.values()}
        is_still = zxids == {self.laws.model.zxid} and self._clients_are_served()
        return is_still and not self._silent_sessions() and not self._overdue()

    def _overdue(self) -> list[str]:
        """What should have gone by itself, by the clock that is behind all others."""
        wall_ms = min(node.clock.wall_ms() for node in self.nodes.values())
        nodes = self.laws.model.nodes.items()
        return [path for path, node in nodes if node.is_due(wall_ms, NEVER_USED_MS)]

    def _clients_are_served(self) -> bool:
        return all(client.is_gone or client.is_connected for client in self.clients)

    def _silent_sessions(self) -> list[int]:
        living = {client.session_id for client in self.clients if not client.is_gone}
        return [session_id for session_id in self.laws.model.sessions if session_id not in living]

    def _explain(self) -> None:
        states = [
            (node.sid, node.status, node.server and node.tree.last_zxid) for node in self.nodes.values()
        ]
        if self._clients_are_served() and self._silent_sessions():
            sessions = [hex(session_id) for session_id in self._silent_sessions()]
            self.laws.violated("SessionEnds", None, f"{sessions} live on; {states}")
        if self._clients_are_served() and self._overdue():
            self.laws.violated("ReapedInTime", None, f"{self._overdue()} are there still; {states}")
        clients = [(client.number, client.is_connected) for client in self.clients]
        self.laws.violated("Progress", None, f"not recovered in {RECOVERY_MS} ms: {states} {clients}")

    def _outcome(self, law: str | None, text: str) -> ServersOutcome:
        laws = self.laws
        return ServersOutcome(
            self.seed,
            law,
            text,
            self.now_ms,
            len(laws.model.executed),
            laws.acknowledged,
            len(laws.model.sessions) + len(laws.model.ended),
            laws.expired,
            laws.events,
            len({zxid >> 32 for zxid in laws.model.executed}),
            max(0, len(laws.model.configurations) - 1),
            self.faults.count,
        )


def run_servers(
    seed: int, tracer: Tracer | None = None, profile: ServersProfile | None = None
) -> ServersOutcome:
    """Runs one seed; with a `profile` that is not drawn from it."""
    return ServersWorld(seed, tracer, profile).run()
