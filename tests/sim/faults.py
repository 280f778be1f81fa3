"""What goes wrong in a simulated run, and when it stops.

A profile, drawn from the seed, says how often each kind of fault comes, so that some seeds are about
crashes, some about the network, some about everything. The ensemble is not always left a majority: safety
must hold without one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from coord.zab import Membership, Role, Sid
from tests.sim.disk import membership_of

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.world import World

FAULTS = {
    "crash": "a server dies, now or within its work (`crash_point_odds`); unsynced writes are lost or torn",
    "crash_leader": "the leader dies",
    "crash_all": "all die at once",
    "cut": "a connection is lost with what is under way; each end learns of it in its own time",
    "block": "one direction of one link stalls",
    "partition": "two groups cannot talk",
    "pause": "a process stands still and goes on later",
    "slow_disk": "the log's fsync takes up to some hundred times as long",
    "resign": "an operator makes a leader give up",
    "wipe": "a disk is lost and replaced by an empty one",
    "snapshot": "a follower asks for the whole state",
    "hand_over": "the leader hands over",
    "swizzle": "the links of a server stop one by one, and come back one by one in another order",
    "clock_jump": "a monotonic clock leaps ahead",
    "disk_error": "EIO or ENOSPC at a write or fsync of log or epoch file: the process stops",
    "repeat": "batches, acknowledgements, commits and heartbeats come twice",
}
KINDS = tuple(FAULTS)


@dataclass(frozen=True, slots=True)
class Profile:
    """Weights of the kinds of faults, and the run's measures."""

    weights: tuple[int, ...]
    every_us: int
    down_us: int
    """Mean time until a fault is mended."""
    chaos_ms: int
    write_every_us: int
    crash_point_odds: float
    fsync_us: int
    """Of the log when its disk is well."""
    epochs_us: int
    """Of the epoch file, independent of the log."""
    change_every_us: int = 0
    """Mean time between two changes of membership; 0: none."""
    membership: Membership | None = None
    """What the ensemble begins with; None: drawn from the seed."""
    window_bytes: int = 0
    """Of committed batches kept for a DIFF; 0: drawn from the seed."""
    damage_every_us: int = 0
    """Mean time between two damaged logs, of any number of servers at once, repaired later; 0: none."""

    @classmethod
    def draw(cls, random: Random) -> "Profile":
        return cls(
            tuple(random.choice((0, 0, 1, 1, 3)) for _ in KINDS),
            random.choice((50_000, 150_000, 400_000)),
            random.choice((30_000, 200_000, 1_000_000)),
            random.choice((4_000, 8_000, 15_000)),
            random.choice((3_000, 10_000, 40_000)),
            random.choice((0.0, 0.0, 0.0005, 0.003)),
            random.choice((800, 800, 4_000, 30_000)),
            random.choice((1_000, 1_000, 20_000)),
            random.choice((0, 100_000, 500_000)),
        )


def _weights(**weights: int) -> tuple[int, ...]:
    return tuple(weights.get(kind, 0) for kind in KINDS)


SLOW_LOG = Profile(
    _weights(crash=2, crash_leader=3, crash_all=2, cut=2), 50_000, 30_000, 8_000, 3_000, 0.003, 30_000, 1_000
)
"""Many crashes while the log lags behind everything else: what must wait for it is caught not waiting."""
SLOW_EPOCHS = Profile(
    _weights(crash=1, crash_leader=2, cut=3, resign=2), 50_000, 30_000, 6_000, 10_000, 0.01, 800, 60_000
)
"""Many elections while the epoch file lags behind."""
LOST_DISKS = Profile(
    _weights(crash_leader=1, wipe=3, block=1, partition=3), 100_000, 200_000, 8_000, 3_000, 0.0, 800, 1_000
)
"""Servers lose their disks while others are cut off."""
CUT_OFF = Profile(
    _weights(block=1, partition=3),
    400_000,
    1_500_000,
    8_000,
    3_000,
    0.0,
    800,
    1_000,
    membership=Membership.of((1, 2, 3)),
)
"""Leaders go on for a while among the few."""
CALM = Profile(_weights(), 50_000, 30_000, 4_000, 5_000, 0.0, 800, 1_000)
"""No faults at all."""
CHANGING = Profile(
    _weights(crash=2, crash_leader=3, cut=2, partition=2),
    80_000,
    150_000,
    8_000,
    5_000,
    0.001,
    4_000,
    1_000,
    60_000,
)
"""The membership changes all the time."""
SNAPSHOTS = Profile(
    _weights(crash=3, crash_leader=2, snapshot=3, cut=1),
    50_000,
    100_000,
    8_000,
    5_000,
    0.003,
    30_000,
    1_000,
    window_bytes=400,
)
"""Learners get the whole state, over and over, on slow disks."""
HANDING_OVER = Profile(
    _weights(crash=1, cut=2, slow_disk=2, hand_over=6), 60_000, 100_000, 8_000, 3_000, 0.001, 4_000, 1_000
)
"""Leaders hand over all the time."""
REPEATING = Profile(_weights(crash=1, cut=2, repeat=4), 60_000, 400_000, 6_000, 5_000, 0.0, 800, 1_000)
"""Messages come twice."""
OBSERVED = Profile(
    _weights(crash=2, crash_leader=2, partition=4, resign=1),
    80_000,
    400_000,
    8_000,
    5_000,
    0.0,
    4_000,
    1_000,
    membership=Membership.of((1, 2, 3), (4, 5)),
)
"""Three participants and two observers, cut off in all ways."""
WEIGHTED = Profile(
    _weights(crash=2, crash_leader=3, partition=2, hand_over=1),
    100_000,
    200_000,
    8_000,
    5_000,
    0.0,
    4_000,
    1_000,
    membership=Membership(
        frozenset(map(Sid, (1, 2, 3, 4))),
        groups=(frozenset(map(Sid, (1, 2, 3, 4))),),
        weights=((Sid(4), 0),),
    ),
)
"""Server 4, which every vote would prefer, weighs nothing."""


DAMAGED = Profile(
    _weights(crash=2, crash_leader=2, crash_all=1, cut=1, partition=2, snapshot=1),
    100_000,
    200_000,
    8_000,
    5_000,
    0.001,
    4_000,
    1_000,
    window_bytes=2_000,
    damage_every_us=150_000,
)
"""Logs are damaged, of several servers at once, and repaired from each other."""


class Faults:
    """The schedule of one run's faults."""

    kinds = KINDS

    def __init__(self, world: "World") -> None:
        self._world = world
        self._random = world.random
        self._profile = world.profile
        self.mended = False
        self.count = 0

    def begin(self) -> None:
        if any(self._profile.weights):
            self._world.later(self._random.randrange(500_000), self._next)

        if self._profile.damage_every_us:
            self._world.later(self._random.randrange(500_000), self._damage)

    def _damage(self) -> None:
        if self.mended:
            return
        self.count += 1
        victim = self._random.choice(list(self._world.nodes.values()))
        victim.damage_log()
        self._after_a_while(self._restart, victim)
        self._after_a_while(self._repair, victim)
        self._world.later(self._random.randrange(2 * self._profile.damage_every_us), self._damage)

    def _repair(self, victim: "Node") -> None:
        """As soon as the victim has no leader, unless one makes the loss good before."""
        if victim.disk.can_repair and not victim.repair_log():
            self._world.later(50_000, self._repair, victim)

    def _next(self) -> None:
        if self.mended:
            return
        kind = self._random.choices(self.kinds, self._profile.weights)[0]
        victim = self._random.choice(list(self._world.nodes.values()))
        self.count += 1
        self.actions()[kind](victim)
        self._world.later(self._random.randrange(2 * self._profile.every_us), self._next)

    def actions(self) -> dict[str, Callable[["Node"], None]]:
        """What each kind does to a victim."""
        return {
            "crash": self._crash,
            "crash_leader": self._crash_leader,
            "crash_all": self._crash_all,
            "cut": self._cut,
            "block": self._block,
            "partition": self._partition,
            "pause": self._pause,
            "slow_disk": self._slow_disk,
            "resign": self._resign,
            "wipe": self._wipe,
            "snapshot": self._snapshot,
            "hand_over": self._hand_over,
            "swizzle": self._swizzle,
            "clock_jump": self._clock_jump,
            "disk_error": self._disk_error,
            "repeat": self._repeat,
        }

    def _after_a_while(self, action: Callable[..., None], *arguments: object) -> None:
        self._world.later(self._random.randrange(2 * self._profile.down_us), action, *arguments)

    def crash_point(self, node: "Node") -> int:
        odds = self._profile.crash_point_odds
        if self.mended or odds == 0.0 or self._random.random() >= odds:
            return -1
        self._after_a_while(self._restart, node)
        return self._random.randrange(4)

    # The kinds.

    def _crash(self, victim: "Node") -> None:
        victim.crash()
        self._after_a_while(self._restart, victim)

    def _crash_leader(self, victim: "Node") -> None:
        leaders = [node for node in self._world.nodes.values() if node.status.role is Role.LEADING]
        self._crash(leaders[0] if leaders else victim)

    def _crash_all(self, victim: "Node") -> None:
        for node in self._world.nodes.values():
            self._crash(node)

    def _restart(self, victim: "Node") -> None:
        if not victim.running:
            victim.start()

    def _wipe(self, victim: "Node") -> None:
        """One disk at a time, and only while a quorum of others has been synchronized: without that the
        rule that a server without history does not count rightly waits for an operator.
        """
        nodes = self._world.nodes.values()
        whole = {node.sid for node in nodes if node is not victim and node.disk.epochs.current > 0}
        memberships = [self._world.laws.membership]
        for node in nodes:  # changes under way need their own quorum too
            memberships += [found for batch in node.disk.log if (found := membership_of(batch.payload))]
            memberships += node.changes_under_way
        enough = all(each.quorum.contains(whole) for each in memberships)
        if not enough or any(node.wiped for node in nodes) or not victim.running:
            return
        victim.crash(wipe=True)
        self._after_a_while(self._restart, victim)

    def _cut(self, victim: "Node") -> None:
        other = self._random.choice(list(self._world.nodes))
        if other != victim.sid:
            self._world.trace("cut_link", victim.sid, other)
            self._world.network.cut(victim.sid, other, self._random.choice((2_000, 50_000, 2_000_000)))

    def _block(self, victim: "Node") -> None:
        """One direction of one link stalls."""
        other = self._random.choice(list(self._world.nodes))
        if other != victim.sid:
            self._block_one(victim.sid, other)

    def _block_one(self, sender: int, receiver: int) -> None:
        if (sender, receiver) in self._world.network.blocked:
            return
        self._world.trace("block", sender, receiver)
        self._world.network.block(sender, receiver)
        self._after_a_while(self._unblock, sender, receiver)

    def _unblock(self, sender: int, receiver: int) -> None:
        if (sender, receiver) in self._world.network.blocked:
            self._world.trace("unblock", sender, receiver)
            self._world.network.unblock(sender, receiver, reset=self._random.random() < 0.5)

    def _partition(self, victim: "Node") -> None:
        """Two groups cannot talk; the victim is in the first."""
        others = [sid for sid in self._world.nodes if sid != victim.sid]
        friends = {victim.sid, *self._random.sample(others, self._random.randint(0, len(others) // 2))}
        for one in self._world.nodes:
            for other in self._world.nodes:
                if (one in friends) != (other in friends):
                    self._block_one(one, other)

    def _pause(self, victim: "Node") -> None:
        if victim.running and not victim.paused:
            victim.pause()
            self._after_a_while(victim.resume)

    def _slow_disk(self, victim: "Node") -> None:
        victim.disk.fsync_us = self._random.choice((20_000, 100_000, 400_000))
        self._after_a_while(self._normal_disk, victim)

    def _normal_disk(self, victim: "Node") -> None:
        victim.disk.fsync_us = self._profile.fsync_us

    def _resign(self, victim: "Node") -> None:
        victim.resign()

    def _snapshot(self, victim: "Node") -> None:
        victim.request_snapshot()

    def _hand_over(self, victim: "Node") -> None:
        for node in self._world.nodes.values():
            if node.status.role is Role.LEADING:
                node.hand_over()

    def _swizzle(self, victim: "Node") -> None:
        """The victim's links stop one after the other, and come back one after the other in another order."""
        for other in self._world.nodes:
            if other != victim.sid:
                stops_us = self._random.randrange(self._profile.down_us)
                self._world.later(stops_us, self._stop_link, victim.sid, other)

    def _stop_link(self, one: int, other: int) -> None:
        if not self.mended:
            self._block_one(one, other)
            self._block_one(other, one)

    def _clock_jump(self, victim: "Node") -> None:
        """Its monotonic clock leaps ahead, as that of a machine that was put to sleep may; it never goes
        back.
        """
        victim.clock_ms += self._random.choice((50, 500, 5_000, 100_000))
        self._world.trace("jump", victim.sid, victim.clock_ms)
        victim.tick()

    def _disk_error(self, victim: "Node") -> None:
        """EIO or ENOSPC from the next write or fsync of log or epoch file: the process stops (DESIGN 4)."""
        victim.disk.fails = True
        self._after_a_while(self._restart, victim)

    def _repeat(self, victim: "Node") -> None:
        """For a while what the victim sends comes twice now and then: chapter 21, lesson 2."""
        self._world.network.repeating.add(victim.sid)
        self._after_a_while(self._world.network.repeating.discard, victim.sid)

    # The end.

    def mend(self) -> None:
        """No more faults; everything that is broken is repaired."""
        self.mended = True
        world = self._world
        world.trace("mend", 0, None)
        for sender, receiver in sorted(world.network.blocked):
            self._unblock(sender, receiver)
        world.network.repeating.clear()
        for node in world.nodes.values():
            node.disk.fails = False
            self._normal_disk(node)
            node.resume()
            self._restart(node)
