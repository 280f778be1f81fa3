"""One simulated ensemble under one seed: the queue of events, the clients, the faults, and the end.

A run has three parts: servers start; for `chaos_ms` faults of a profile drawn from the seed befall them
while clients write; then everything is mended and the ensemble must serve on all servers within
`RECOVERY_MS`. Laws are checked all the time. Nothing but the seed decides: no clock is read, and no
container is iterated in an order that could change.
"""

from dataclasses import dataclass
from random import Random

from coord.zab import Config, Detection, Membership, Role, Sid
from coord.zab.detection import FIXED
from tests.sim.disk import membership_of
from tests.sim.faults import Faults, Profile
from tests.sim.network import Network
from tests.sim.node import Node
from tests.sim.schedule import Schedule, Tracer
from tests.sim.witness import LawViolated, Witness

RECOVERY_MS = 60_000
GROUPED: tuple[tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, int], ...]], ...] = (
    (((1, 2, 3),), ((3, 0),)),
    (((1, 2, 3, 4),), ((1, 3), (4, 0))),
    (((1, 2, 3), (4, 5, 6)), ()),
    (((1, 2), (3, 4), (5,)), ((1, 2), (5, 0))),
)
"""(groups, weights) of ensembles that do not decide by a majority."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended; `law` is None when all held."""

    seed: int
    law: str | None
    text: str
    simulated_ms: int
    executed: int
    acknowledged: int
    epochs: int
    faults: int


class World(Schedule):
    """Everything one seed decides."""

    def __init__(
        self,
        seed: int,
        tracer: Tracer | None = None,
        profile: Profile | None = None,
        detection: Detection = FIXED,
    ) -> None:
        super().__init__(seed, tracer)
        self.detection = detection
        self._written = 0
        self.changes = 0
        self.network = Network(self)
        self.nodes: dict[int, Node] = {}
        drawn = Profile.draw(self.random)
        self.profile = profile or drawn
        membership = _draw_membership(self.random)
        self.membership = self.profile.membership or membership
        """The ensemble as it begins."""
        self.laws = Witness(self)
        self._build()
        self.faults = Faults(self)

    def _build(self) -> None:
        draw = self.random
        size = len(self.membership.members)
        if self.profile.change_every_us and size < 6:
            size += draw.choice((0, 1, 2))  # who may join
        window = draw.choice((400, 2_000, 1 << 20))
        window = self.profile.window_bytes or window
        for number in range(1, size + 1):
            config = Config(
                Sid(number),
                self.membership,
                tick_ms=draw.choice((100, 200)),
                init_limit=10,
                sync_limit=draw.choice((2, 5)),
                window_bytes_max=window,
                outstanding_bytes_max=draw.choice((500, 10_000)),
                membership_of=membership_of,
                peers=self.detection,
                observers=self.detection,
            )
            self.nodes[number] = Node(self, config)
            self.nodes[number].disk.fsync_us = self.profile.fsync_us
            self.nodes[number].disk.epochs_us = self.profile.epochs_us
        self.network.delay_us = draw.choice((100, 300, 2_000))
        self.network.spread = draw.choice((1.0, 5.0, 30.0))

    # A run.

    def run(self) -> Outcome:
        """Raises nothing: a broken law is in the outcome."""
        try:
            self._run()
        except LawViolated as error:
            return self._outcome(error.law, str(error))
        return self._outcome(None, "all laws held")

    def _run(self) -> None:
        for node in self.nodes.values():
            self.later(self.random.randrange(50_000), node.start)
        self.later(0, self._write)
        self.later(0, self._sync)
        if self.profile.change_every_us:
            self.later(self.random.randrange(1_000_000), self._change)
        self.faults.begin()
        self.run_until(self.profile.chaos_ms * 1000)
        self.faults.mend()
        self._final_write = False
        if not self.run_until(self.now_us + RECOVERY_MS * 1000, self._recovered):
            states = [
                (node.sid, node.status, node.peer and node.peer.last_reason) for node in self.nodes.values()
            ]
            self.laws.violated("Progress", None, f"not recovered in {RECOVERY_MS} ms: {states}")
        self.laws.check_all_durable()

    def _recovered(self) -> bool:
        """All serve, the clients have stopped, and a last write reached everybody."""
        nodes = self.nodes.values()
        if not all(node.running and node.status.serving for node in nodes):
            return False
        if not self._final_write:
            self._final_write = self._propose()
            return False
        return all(node.state == next(iter(nodes)).state for node in nodes) and not any(
            node.peer is not None and node.peer.last_zxid != node.state.zxid for node in nodes
        )

    def _outcome(self, law: str | None, text: str) -> Outcome:
        laws = self.laws
        return Outcome(
            self.seed,
            law,
            text,
            self.now_ms,
            len(laws.order),
            len(laws.acknowledged),
            len(laws.leaders),
            self.faults.count,
        )

    # Clients.

    def _write(self) -> None:
        if self.faults.mended:
            return
        for _ in range(self.random.choice((1, 1, 1, 4))):
            self._propose()
        self.later(self.random.randrange(2 * self.profile.write_every_us), self._write)

    def _propose(self) -> bool:
        """A batch at whoever believes to lead; old leaders are tried too."""
        draw = self.random
        leaders = [node for node in self.nodes.values() if node.status.role is Role.LEADING]
        if not leaders:
            return False
        self._written += 1
        owner = bytes([draw.randrange(256)])
        payload = owner + self._written.to_bytes(4, "big") + bytes(draw.randrange(60))
        return draw.choice(leaders).propose(payload, draw.choice((1, 1, 2, 5)))

    def _change(self) -> None:
        """Another membership: some join, some leave, some change their role; the leader may be among them."""
        if self.faults.mended:
            return
        draw = self.random
        now = self.laws.membership
        roles = {sid: "votes" for sid in now.participants} | {sid: "observes" for sid in now.observers}
        for sid in draw.sample(list(self.nodes), min(len(self.nodes), draw.choice((1, 1, 2, 3)))):
            roles[Sid(sid)] = draw.choice(("votes", "votes", "observes", "absent"))
        participants = [sid for sid, role in roles.items() if role == "votes"]
        if participants:
            wanted = Membership.of(participants, [sid for sid, role in roles.items() if role == "observes"])
            for node in self.nodes.values():
                if node.status.role is Role.LEADING and node.change_membership(wanted):
                    self.changes += 1
        self.later(draw.randrange(2 * self.profile.change_every_us), self._change)

    def _sync(self) -> None:
        if self.faults.mended:
            return
        for node in self.nodes.values():
            node.sync()
        self.later(self.random.randrange(200_000), self._sync)

    def crash_point(self, node: Node) -> int:
        """Where within its work this server dies now, or -1."""
        return self.faults.crash_point(node)


def _draw_membership(draw: Random) -> Membership:
    """Mostly majorities, some with observers; sometimes groups, and a server that weighs nothing."""
    if draw.random() < 0.8:
        size = draw.choice((3, 3, 3, 3, 3, 3, 5, 5, 4, 2, 1))
        observers = draw.choice((0, 0, 0, 1, 2))
        return Membership.of(range(1, size + 1), range(size + 1, size + observers + 1))
    groups, weights = draw.choice(GROUPED)
    return Membership(
        frozenset(Sid(sid) for group in groups for sid in group),
        groups=tuple(frozenset(map(Sid, group)) for group in groups),
        weights=tuple((Sid(sid), weight) for sid, weight in weights),
    )


def run_seed(
    seed: int,
    tracer: Tracer | None = None,
    profile: Profile | None = None,
    detection: Detection = FIXED,
) -> Outcome:
    """Runs one seed; with a `profile` that is not drawn from it, and servers that watch each other so."""
    return World(seed, tracer, profile, detection).run()
