"""When this server takes the digest of its state: for `hash`, and for Zab, which compares it with the
others'.

Digests can be compared where all servers take one as of the same zxid. So what decides is in the batches,
which are the same everywhere:

    a batch stamped in another second than the one before it
    a small batch with a zxid that is a multiple of `DIGEST_INTERVAL`

Under load, what changes often is then digested once a second; and while nothing happens each server takes one
where it stands, which is where the others stand.
"""

from collections import deque
from typing import Final

from coord.protocol.batch import Stamp
from coord.server.state import State

DIGESTS_MAX: Final = 1000
DIGEST_INTERVAL: Final = 128
DIGEST_PERIOD_MS: Final = 1000


class StateDigests:
    """The digests of one server's state.

    Attributes:
        kept: (zxid, digest), the latest `DIGESTS_MAX`, oldest first.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._tree = state.tree
        self._taken_zxid = state.zxid
        self._idle_zxid = 0
        self._period = -1
        self._untold: list[tuple[int, int]] = []
        self.kept: deque[tuple[int, int]] = deque(maxlen=DIGESTS_MAX)

    def on_executed(self, stamp: Stamp) -> None:
        """Once per batch."""
        period = stamp.wall_ms // DIGEST_PERIOD_MS
        if period != self._period:
            self._period = period
            self.take()
        elif stamp.count < DIGEST_INTERVAL:
            before = stamp.first_zxid - 1
            if before // DIGEST_INTERVAL != (before + stamp.count) // DIGEST_INTERVAL:
                self.take()

    def on_idle(self) -> None:
        """Called now and then: if nothing was executed since the last time, that is where to compare."""
        zxid = self._state.zxid
        if zxid == self._idle_zxid:
            self.take()
        self._idle_zxid = zxid

    def take(self) -> None:
        """Of the state as it is now, unless that was taken before."""
        tree = self._state.tree
        if tree.last_zxid == self._taken_zxid and tree is self._tree:
            return
        self._taken_zxid, self._tree = tree.last_zxid, tree
        taken = (tree.last_zxid, tree.state_digest())
        self.kept.append(taken)
        self._untold.append(taken)

    def take_untold(self) -> list[tuple[int, int]]:
        """Those since the last call, for Zab."""
        untold, self._untold = self._untold, []
        return untold
