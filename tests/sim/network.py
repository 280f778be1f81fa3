"""Simulated links: one connection per pair of servers, FIFO in each direction as TCP gives it.

A direction may be blocked: messages stall and come later in order, or never, if the connection is cut
before. A cut loses what is under way; each end learns of it in its own time, and may go on talking into a
dead connection. Directions and pairs are independent, so messages of different links overtake each other
freely.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coord.zab.messages import Ack, Commit, Heartbeat, HeartbeatAck, Propose

if TYPE_CHECKING:
    from tests.sim.world import World

REPEATABLE = (Propose, Ack, Commit, Heartbeat, HeartbeatAck)
"""A link repeats nothing by itself; a core must not mind these twice."""
HALF_OPEN_US = 3_000_000
"""How long an end may take to learn that its connection is dead."""


@dataclass(slots=True, eq=False)
class Direction:
    """Messages from one end to the other."""

    arrives_us: int = 0
    """When the latest message arrives."""
    messages: deque[object] = field(default_factory=deque)
    stuck: int = 0
    """Messages whose time came while the direction was blocked."""


@dataclass(slots=True, eq=False)
class Connection:
    """One connection of one pair, from its establishment until both ends have forgotten it."""

    ends: tuple[int, int]
    number: int
    cut: bool = False
    directions: dict[int, Direction] = field(default_factory=dict)  # by sending sid


class Network:
    """All links of one world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._random = world.random
        self._count = 0
        self.connections: dict[tuple[int, int], Connection] = {}  # the latest of each pair, while not cut
        self.open_ends: dict[tuple[int, int], Connection] = {}  # (this sid, other sid) -> as this end sees it
        self.blocked: set[tuple[int, int]] = set()  # (from, to)
        self.repeating: set[int] = set()
        """Senders whose repeatable messages may come twice."""
        self.delay_us = 200
        self.spread = 3.0

    # Connections.

    def connect(self, one: int, other: int) -> bool:
        """Tries to establish the pair's connection; both ends are told. False if it cannot be now."""
        nodes = self._world.nodes
        pair = (min(one, other), max(one, other))
        if pair in self.connections or not (nodes[one].running and nodes[other].running):
            return False
        if (one, other) in self.blocked or (other, one) in self.blocked:
            return False
        self._count += 1
        connection = Connection(pair, self._count)
        self.connections[pair] = connection
        for here, there in (pair, pair[::-1]):
            opens_us = self._world.now_us + self._delay()
            connection.directions[there] = Direction(opens_us)  # nothing arrives here before this end is open
            self._world.at(opens_us, self._end_opened, connection, here, there)
        return True

    def _end_opened(self, connection: Connection, here: int, there: int) -> None:
        node = self._world.nodes[here]
        if connection.cut or not node.running:
            self.cut(here, there)
            return
        if (here, there) in self.open_ends:
            self._end_closed(self.open_ends[here, there], here, there)
        self.open_ends[here, there] = connection
        node.on_connected(there)

    def _end_closed(self, connection: Connection, here: int, there: int) -> None:
        if self.open_ends.get((here, there)) is not connection:
            return
        del self.open_ends[here, there]
        self._world.nodes[here].on_disconnected(there)

    def cut(self, one: int, other: int, learn_us: int = 2_000) -> None:
        """The pair's connection is gone; ends learn within about `learn_us`."""
        connection = self.connections.pop((min(one, other), max(one, other)), None)
        if connection is None:
            return
        connection.cut = True
        for here, there in (connection.ends, connection.ends[::-1]):
            self._world.later(self._random.randrange(learn_us), self._end_closed, connection, here, there)
        self._world.later(self._random.randrange(1_000, 60_000), self.connect, one, other)

    def node_died(self, sid: int) -> None:
        """A process ended: its sockets close, and the others hear of it at once, or much later if cut off."""
        for other in self._world.nodes:
            self.open_ends.pop((sid, other), None)
            if other != sid:
                silent = (sid, other) in self.blocked
                self.cut(sid, other, HALF_OPEN_US if silent else 2_000)

    # Messages.

    def send(self, sender: int, receiver: int, message: object) -> None:
        connection = self.open_ends.get((sender, receiver))
        if connection is None or connection.cut:
            return
        connection.directions[sender].messages.append(message)
        self._schedule(connection, sender, receiver)

    def _schedule(self, connection: Connection, sender: int, receiver: int) -> None:
        direction = connection.directions[sender]
        direction.arrives_us = max(direction.arrives_us + 1, self._world.now_us + self._delay())
        self._world.at(direction.arrives_us, self._arrive, connection, sender, receiver)

    def _arrive(self, connection: Connection, sender: int, receiver: int) -> None:
        """The oldest message of this direction arrives, unless it is stuck."""
        if connection.cut:
            return
        direction = connection.directions[sender]
        if (sender, receiver) in self.blocked:
            direction.stuck += 1
            return
        message = direction.messages.popleft()
        if self.open_ends.get((receiver, sender)) is connection:
            self._world.nodes[receiver].on_message(sender, message)
            if sender in self.repeating and isinstance(message, REPEATABLE) and self._random.random() < 0.3:
                self._world.nodes[receiver].on_message(sender, message)

    def _delay(self) -> int:
        return int(self.delay_us * (0.3 + self.spread * self._random.random() ** 3))

    # Faults.

    def block(self, sender: int, receiver: int) -> None:
        self.blocked.add((sender, receiver))

    def unblock(self, sender: int, receiver: int, reset: bool) -> None:
        """Lets messages through again: those that stalled come in order, unless the connection is `reset`."""
        self.blocked.discard((sender, receiver))
        connection = self.connections.get((min(sender, receiver), max(sender, receiver)))
        if connection is None:
            self.connect(sender, receiver)
            return
        if reset:
            self.cut(sender, receiver)
            return
        direction = connection.directions[sender]
        while direction.stuck:
            direction.stuck -= 1
            self._schedule(connection, sender, receiver)
