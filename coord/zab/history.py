"""One server's history as the protocol sees it: a window of batches, and how far each has come.

Positions are zxids of batches (a batch is named by its last zxid), and keep this order:

    floor <= delivered <= committed <= last_appended      delivered <= logged <= last_appended

    floor          the batch just before the window; what is older is in snapshots only
    delivered      handed out for execution: committed and durable here
    committed      known committed
    logged         durable in this server's log, with everything before it
    last_appended  handed to the log

An append moves `last_appended`, the log's report `logged`, the leader's word `committed`; `delivered`
follows the lower of the last two. A truncation takes back what was appended, never what was committed.
Reports come in the order of the operations, so while a truncation is not reported every `logged` speaks
of the log before it, and counts only up to the cut.

A batch may bring another membership. While it is the last of its kind in the history and not known
committed, quorums of the membership before it and of its own decide together (`quorum`); from its commit on
its own alone. A leader proposes one only when the one before is committed, so what stands before the last
one in a history was committed, whether or not this server has been told.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence

from coord.zab.errors import HistoryConflictError
from coord.zab.membership import Membership
from coord.zab.messages import Proposal
from coord.zab.quorum import Joint, Quorum

TRIM_FRACTION = 8
"""The window is trimmed once it exceeds its bound by this part of it, so that trimming costs nothing per
batch.
"""


class History:
    """The end of the log in memory. The window is bounded by `window_bytes_max` (and a fraction) plus
    what is not yet delivered; twice that while a snapshot is under way.
    """

    __slots__ = (
        "_batches",
        "_bytes",
        "_bytes_max",
        "_cuts",
        "_delivered_count",
        "_handed_out",
        "_lasts",
        "_membership_of",
        "_pending_append",
        "_pending_cut",
        "_pins",
        "_trim_at",
        "committed",
        "delivered",
        "floor",
        "last_appended",
        "logged",
        "membership",
        "pending",
        "quorum",
        "undelivered_bytes",
    )

    def __init__(
        self,
        after_zxid: int,
        batches: Sequence[Proposal],
        executed_zxid: int,
        bytes_max: int,
        membership: Membership,
        membership_of: Callable[[bytes], Membership | None],
    ) -> None:
        """Recovered batches are durable; those up to `executed_zxid` are committed and delivered, and
        `membership` is what holds behind them.

        Raises:
            ValueError: they are not in order, or executed_zxid is not the end of one of them.
        """
        self.floor = after_zxid
        self._lasts: list[int] = []
        self._batches: list[Proposal] = []
        self._bytes = 0
        self._bytes_max = bytes_max
        self._trim_at = bytes_max + bytes_max // TRIM_FRACTION
        self._pending_append: list[Proposal] = []
        self._pending_cut: int | None = None
        self._cuts: deque[int] = (
            deque()
        )  # truncations not yet reported, pending one included; bounded by leaders met
        self._pins: dict[int, int] = {}
        self._membership_of = membership_of
        self.membership = membership
        """As of `committed`."""
        self.pending: list[tuple[int, Membership]] = []
        """Memberships above it, each with the zxid of its batch."""
        self.quorum: Quorum = membership.quorum
        self.last_appended = after_zxid
        self.undelivered_bytes = 0
        for batch in batches:
            if batch.first_zxid <= self.last_appended:
                raise ValueError(f"batch {batch.first_zxid:#x} does not follow {self.last_appended:#x}")
            self.append(batch)
        self._pending_append = []
        self.logged = self._handed_out = self.last_appended
        self.delivered = self.committed = executed_zxid
        self.pending = [each for each in self.pending if each[0] > executed_zxid]
        self._choose_quorum()
        if not self.has_boundary(executed_zxid):
            raise ValueError(f"executed zxid {executed_zxid:#x} is not the end of a recovered batch")
        self._delivered_count = bisect_right(self._lasts, executed_zxid)
        for batch in self._batches[: self._delivered_count]:
            self.undelivered_bytes -= len(batch.payload)

    # What the window knows.

    @property
    def settled(self) -> bool:
        """Everything appended is durable and no truncation is on its way."""
        return self.logged == self.last_appended and not self._cuts

    def durable_through(self, zxid: int) -> bool:
        return not self._cuts and self.logged >= zxid

    def has_boundary(self, zxid: int) -> bool:
        """Is `zxid` the end of a batch in the window, or the floor?"""
        return self.boundary_at_or_below(zxid) == zxid

    def boundary_at_or_below(self, zxid: int) -> int:
        """The latest batch up to `zxid`, which is not below the floor."""
        index = bisect_right(self._lasts, zxid)
        return self._lasts[index - 1] if index else self.floor

    def batches_after(self, zxid: int) -> list[Proposal]:
        return self._batches[bisect_right(self._lasts, zxid) :]

    @property
    def newest_membership(self) -> Membership:
        """The last one here, committed or not."""
        return self.pending[-1][1] if self.pending else self.membership

    @property
    def membership_before(self) -> Membership:
        """The one before the newest, if that is not known committed."""
        return self.pending[-2][1] if len(self.pending) > 1 else self.membership

    def _choose_quorum(self) -> None:
        new = self.newest_membership.quorum
        self.quorum = Joint(self.membership_before.quorum, new) if self.pending else new

    # What moves it.

    def append(self, batch: Proposal) -> None:
        """Adds the next batch; the caller has checked that it follows `last_appended`."""
        membership = self._membership_of(batch.payload)
        if membership is not None:
            self.pending.append((batch.last_zxid, membership))
            self._choose_quorum()
        self._lasts.append(batch.last_zxid)
        self._batches.append(batch)
        self._pending_append.append(batch)
        self.last_appended = batch.last_zxid
        size = len(batch.payload)
        self._bytes += size
        self.undelivered_bytes += size

    def truncate(self, zxid: int) -> None:
        """Drops everything above `zxid`, which is a boundary of the window.

        Raises:
            HistoryConflictError: something above was committed.
        """
        if zxid < self.committed:
            raise HistoryConflictError(
                f"batches up to {self.committed:#x} are committed here, and the leader's history lacks those "
                f"after {zxid:#x}"
            )
        keep = bisect_right(self._lasts, zxid)
        for batch in self._batches[keep:]:
            self._bytes -= len(batch.payload)
            self.undelivered_bytes -= len(batch.payload)
        del self._lasts[keep:], self._batches[keep:]
        self._pending_append = [batch for batch in self._pending_append if batch.last_zxid <= zxid]
        if self.pending:
            self.pending = [each for each in self.pending if each[0] <= zxid]
            self._choose_quorum()
        self.last_appended = zxid
        if zxid >= self._handed_out:
            return  # what is dropped was never given to the log
        if self._pending_cut is None:
            self._cuts.append(zxid)
        else:
            self._cuts[-1] = zxid
        self._pending_cut = self._handed_out = zxid
        self.logged = min(self.logged, zxid)

    def reset(self, zxid: int, membership: Membership) -> None:
        """The log and the state were replaced by a snapshot at `zxid`, behind which `membership` holds."""
        self.membership = membership
        self.pending.clear()
        self._choose_quorum()
        self._lasts.clear()
        self._batches.clear()
        self._pending_append.clear()
        self._pending_cut = None
        self._cuts.clear()
        self._bytes = self.undelivered_bytes = self._delivered_count = 0
        self.floor = self.delivered = self.committed = zxid
        self.logged = self._handed_out = self.last_appended = zxid

    def on_logged(self, zxid: int) -> bool:
        """The log reports everything up to `zxid` durable. Returns whether that is news."""
        if self._cuts:
            zxid = min(zxid, *self._cuts)
        zxid = min(zxid, self.last_appended)
        if zxid <= self.logged:
            return False
        self.logged = zxid
        return True

    def on_truncated(self) -> None:
        """The log reports the oldest truncation that was handed out."""
        if self._cuts and not (len(self._cuts) == 1 and self._pending_cut is not None):
            self._cuts.popleft()

    def commit(self, zxid: int) -> None:
        """Everything up to `zxid`, a boundary not above last_appended, is committed."""
        if zxid > self.committed:
            self.committed = zxid
            if self.pending and self.pending[0][0] <= zxid:
                while self.pending and self.pending[0][0] <= zxid:
                    self.membership = self.pending.pop(0)[1]
                self._choose_quorum()

    # What is owed.

    def take_truncate(self) -> int | None:
        cut, self._pending_cut = self._pending_cut, None
        return cut

    def take_append(self) -> Sequence[Proposal]:
        batches = self._pending_append
        if not batches:
            return ()
        self._pending_append = []
        self._handed_out = batches[-1].last_zxid
        return batches

    def take_committed(self) -> Sequence[Proposal]:
        """Batches that became both committed and durable here, in order; each once."""
        target = self.committed if self.committed < self.logged else self.logged
        if target <= self.delivered:
            return ()
        start = self._delivered_count
        end = bisect_right(self._lasts, target, start)
        batches = self._batches[start:end]
        if not batches:
            return ()
        self._delivered_count = end
        self.delivered = batches[-1].last_zxid
        self.undelivered_bytes -= sum([len(batch.payload) for batch in batches])
        if self._bytes - self.undelivered_bytes > self._trim_at:
            self._trim()
        return batches

    # The window's bound.

    def pin(self, owner: int, zxid: int) -> None:
        """Keep what is after `zxid` for `owner`, up to twice the window's bound."""
        self._pins[owner] = zxid

    def unpin(self, owner: int) -> None:
        self._pins.pop(owner, None)

    def _trim(self) -> None:
        pinned = min(self._pins.values(), default=self.delivered)
        count = 0
        excess = self._bytes - self.undelivered_bytes - self._bytes_max
        for batch in self._batches[: self._delivered_count]:
            if excess <= 0 or (batch.last_zxid > pinned and excess <= self._bytes_max):
                break
            excess -= len(batch.payload)
            self._bytes -= len(batch.payload)
            self.floor = batch.last_zxid
            count += 1
        del self._lasts[:count], self._batches[:count]
        self._delivered_count -= count
