"""What a server does by the clock, beside its ticks: Zab's deadlines, silent connections, expired sessions,
the disk.
"""

from collections.abc import Callable
from typing import Final

import trio

from coord import eventlog
from coord.clock import Clock
from coord.server.authority import Authority
from coord.server.clients import Clients
from coord.server.local_sessions import LocalSessions
from coord.server.member import Member
from coord.server.meters import Meters
from coord.server.persistence import Persistence
from coord.server.reaper import Reaper
from coord.server.statistics import ServerStatistics

HOUSEKEEPING_MS_MAX: Final = 250
STALL_MS_MIN: Final = 100
"""A round that comes later than this is a sign that the whole loop stood still."""
FREE_BYTES_MIN: Final = 192 << 20
"""Free bytes on the log's disk below which writes are refused; the log itself takes nothing below 64 MB."""
FREE_BYTES_HALT: Final = 112 << 20
"""Free bytes below which nothing is proposed at all: a refusal takes its place in the log too."""

log = eventlog.get("coord.server")


class Housekeeping:
    """Two tasks: `keep_time` and `keep_house`.

    Args:
        settle: to be called after anything was changed; sends too.
        drain: reads all that is readable on the client ports.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        tick_ms: int,
        persistence: Persistence,
        clients: Clients,
        member: Member,
        authority: Authority,
        statistics: ServerStatistics,
        meters: Meters,
        reaper: Reaper,
        settle: Callable[[], None],
        drain: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._tick_ms = tick_ms
        self._member = member
        self._service = clients.service
        self._authority = authority
        self._log = persistence.log
        self._directory = persistence.directory
        self._statistics = statistics
        self._state = persistence.state
        self._reaper = reaper
        self._settle = settle
        self._drain = drain
        self._local = clients.local
        self._end_session = clients.end_local_session
        self._read_only = clients.read_only
        self._meters = meters
        self._make_room = persistence.checkpoints.make_room
        self._disk_watch = persistence.disk_watch
        self._deadline_moved = trio.Event()
        self._deadline_ms = 0
        self._looked_ms = clock.monotonic_ms()

    def on_settled(self) -> None:
        """Zab's next deadline may have moved closer."""
        deadline_ms = self._member.peer.next_deadline_ms()
        if deadline_ms < self._deadline_ms:
            self._deadline_ms = deadline_ms
            self._deadline_moved.set()

    async def keep_time(self) -> None:
        """Zab's timer: wakes when its next deadline is due, or has moved closer."""
        peer = self._member.peer
        while True:
            now_ms = self._clock.monotonic_ms()
            self._deadline_ms = peer.next_deadline_ms()
            self._deadline_moved = trio.Event()
            with trio.move_on_after(max(0, self._deadline_ms - now_ms) / 1000):
                await self._deadline_moved.wait()
                continue
            peer.tick(self._clock.monotonic_ms())
            self._settle()

    async def keep_house(self) -> None:
        """Every half tick."""
        while True:
            await trio.sleep(self.interval_ms / 1000)
            self.look_after()

    @property
    def interval_ms(self) -> int:
        """Between two rounds of `look_after`."""
        return min(self._tick_ms // 2, HOUSEKEEPING_MS_MAX)

    def look_after(self) -> None:
        """One round: who was heard of, who is silent, whose session is over, how the disk is."""
        now_ms = self._clock.monotonic_ms()
        late_ms = now_ms - self._looked_ms - self.interval_ms
        self._looked_ms = now_ms
        if late_ms >= STALL_MS_MIN:
            self._catch_up(late_ms)
        self._member.compare_when_idle()
        if not self._member.peer.has_diverged and self._read_only.begin_when_due(now_ms):
            missing = "" if self._local is not None else "; without localSessionsEnabled nobody is served"
            do = f"look after the other servers, a majority is missing{missing}"
            log.warning("read-only: no leader", do=do)
            if self._local is not None:
                self._local.restart(now_ms)
        self._tend_sessions(now_ms)
        self._reap()
        self._watch_leading(now_ms)
        self._watch_disk()
        self._meters.rotate(self._clock.monotonic_ms())
        self._settle()
        self._mark_when_idle()

    def _watch_leading(self, now_ms: int) -> None:
        """Whether the ensemble has the members it should have, and this disk is good enough to lead with."""
        peer, log_file = self._member.peer, self._log.txn_log
        writing = log_file.durable_zxid < log_file.last_zxid
        mine_ms = self._disk_watch.latency_ms(now_ms, writing=writing)
        peer.note_disk(mine_ms)
        if not self._member.relay.is_leading:
            return
        self._member.relay.orders.propose_members_of_file()
        others_ms = peer.successors_disk_ms
        if self._disk_watch.is_too_slow(now_ms, mine_ms, others_ms):
            log.warning(
                "hands leadership over: its disk is slow",
                do="look after the disk of dataLogDir",
                latency_ms=mine_ms,
                best_of_followers_ms=min(others_ms),
            )
            peer.hand_over(now_ms)

    def _catch_up(self, late_ms: int) -> None:
        """The loop stood still: what clients have sent meanwhile is read before anybody is called silent, and
        whoever could not be heard, at another server perhaps, has as much time left as before.
        """
        self._statistics.loop_stalls += 1
        self._authority.tracker.stand_still(late_ms)
        if self._local is not None:
            self._local.stand_still(late_ms)
        self._service.stand_still(late_ms)
        self._drain()

    def _tend_sessions(self, now_ms: int) -> None:
        service, relay = self._service, self._member.relay
        service.keep_house(now_ms)
        if self._local is not None and (self._member.status.serving or self._read_only.is_on):
            self._tend_local_sessions(self._local, now_ms)
        relay.touch(service.touched)
        service.touched.clear()
        if relay.is_leading and not relay.orders.is_halted:
            expired = self._authority.take_expired(now_ms)
            if expired:
                log.info("sessions expire", count=len(expired), first=hex(expired[0]))
                self._statistics.sessions_expired += len(expired)
                relay.orders.close_sessions(expired)

    def _reap(self) -> None:
        """Asks for the deletion of containers and TTL nodes that have had their time."""
        orders = self._member.relay.orders
        if not self._member.relay.is_leading:
            self._reaper.rest()
        elif not orders.is_halted and not orders.refuses_writes:
            due = self._reaper.take_due(self._state.tree, self._clock.wall_ms(), self._clock.monotonic_ms())
            if due:
                orders.delete_containers(due, self._reaper.settings.never_used_ms)

    def _tend_local_sessions(self, local: LocalSessions, now_ms: int) -> None:
        local.take_touched(self._service.touched, now_ms)
        expired = local.take_expired(now_ms)
        if expired:
            log.info("local sessions expire", count=len(expired), first=hex(expired[0]))
            self._statistics.sessions_expired += len(expired)
            for session_id in expired:
                self._end_session(session_id)

    def _mark_when_idle(self) -> None:
        """Each batch in the log says what was committed before it; behind the last one somebody has to say
        it.
        """
        txn_log = self._log.txn_log
        if self._member.relay.orders.is_halted:
            return
        if txn_log.durable_zxid == txn_log.last_zxid:
            self._log.mark_committed(min(self._member.peer.committed_zxid, txn_log.durable_zxid))

    def _watch_disk(self) -> None:
        """Refuses writes in time: what is left is for closing sessions and for what is under way."""
        free_bytes = self._directory.disk.free_bytes(self._directory.log_root)
        self._make_room(free_bytes)
        orders = self._member.relay.orders
        if orders.is_halted != (free_bytes < FREE_BYTES_HALT):
            orders.is_halted = not orders.is_halted
            if orders.is_halted:
                log.error("disk full: writes wait", do="free space on dataLogDir", free_bytes=free_bytes)
        if orders.refuses_writes == (free_bytes < FREE_BYTES_MIN):
            return
        orders.refuses_writes = not orders.refuses_writes
        if orders.refuses_writes:
            log.error(
                "disk nearly full: refuses writes", do="free space on dataLogDir", free_bytes=free_bytes
            )
        else:
            log.info("disk space is back: takes writes", free_bytes=free_bytes)
