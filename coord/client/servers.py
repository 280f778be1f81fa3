"""The servers of a client, in the order in which it tries them, and how it moves when their list changes.

Moving is ZooKeeper's probabilistic rebalancing: when the list changes, each client decides for itself whether
to move, and where, with the probabilities that leave every server of the new list the same expected load.
"""

import random
from collections import deque
from collections.abc import Sequence

Address = tuple[str, int]


class ServerList:
    """A rotation over servers, which may be changed.

    Args:
        servers: at least one.
        rng: decides the order, and who moves.
    """

    def __init__(self, servers: Sequence[Address], rng: random.Random) -> None:
        self._rng = rng
        self._servers = self._shuffled(servers)
        self._position = 0
        self._ahead: deque[Address] = deque()

    def __len__(self) -> int:
        return len(self._servers)

    def servers(self) -> tuple[Address, ...]:
        return tuple(self._servers)

    def next(self) -> Address:
        """The server to try now."""
        if self._ahead:
            return self._ahead.popleft()
        address = self._servers[self._position % len(self._servers)]
        self._position += 1
        return address

    def on_connected(self, address: Address) -> None:
        """A server has taken us: the next one is that behind it, and nobody is to be preferred any more."""
        self._ahead.clear()
        if address in self._servers:
            self._position = self._servers.index(address) + 1

    def prefer(self, address: Address) -> None:
        """Names the server to try next."""
        self._ahead.appendleft(address)

    def update(self, servers: Sequence[Address], current: Address | None) -> bool:
        """Takes a new list.

        Args:
            current: the server we are connected to, or were last.

        Returns:
            Whether to leave the server we are connected to; `next` then begins with where to go.
        """
        before = len(self._servers)
        shuffled = self._shuffled(servers)
        old = [address for address in shuffled if address in self._servers]
        new = [address for address in shuffled if address not in self._servers]
        to_new = self._chance_of_new(before, len(old), len(new), stays=current in shuffled)
        self._servers, self._position = shuffled, 0
        self._ahead.clear()
        if to_new is None:
            if current in shuffled:
                self._position = shuffled.index(current) + 1
            return False
        while old or new:
            take_new = new and (not old or self._rng.random() <= to_new)
            self._ahead.append(new.pop(0) if take_new else old.pop(0))
        return True

    def _chance_of_new(self, before: int, old: int, new: int, *, stays: bool) -> float | None:
        """With what probability a client that moves goes to a new server; None where it stays."""
        after = old + new
        if after > before:
            # The load of the servers that stay goes down: a part of their clients goes to the new ones.
            if stays and self._rng.random() > 1 - before / after:
                return None
            return 1.0
        if stays:
            return None
        # Our server has gone. Those that stay have room for the clients of the ones removed, as far as the
        # new servers do not take them.
        return 1 - (old * (before - after)) / (after * (before - old))

    def _shuffled(self, servers: Sequence[Address]) -> list[Address]:
        if not servers:
            raise ValueError("expected at least one server, got none")
        shuffled = list(dict.fromkeys(servers))
        self._rng.shuffle(shuffled)
        return shuffled
