"""The clients' side of a server: what a connection meets, from its first frame to its last answer.

`Clients` puts service, handshake and answers together, and stands between them and whoever decides: it is
`Sessions` for the handshake, and `Audience` for the replica. The relay to the leader is younger than these
parts, as executing needs their answers; so the member is asked for when it is wanted.
"""

import os
from collections.abc import Callable
from random import SystemRandom
from typing import Final

from coord import eventlog
from coord.clock import Clock
from coord.protocol.opcodes import CREATE_SESSION
from coord.reactor import Connection
from coord.server.answers import Answers
from coord.server.authentication import Authentication
from coord.server.authority import Authority
from coord.server.config import ServerConfig
from coord.server.connection_throttle import ConnectionThrottle
from coord.server.handshake import Handshake
from coord.server.local_sessions import LocalSessions
from coord.server.member import Member
from coord.server.meters import Meters
from coord.server.persistence import Persistence
from coord.server.read_only import ReadOnlyMode
from coord.server.service import ClientService
from coord.server.slowness import SlowRequests
from coord.server.statistics import ServerStatistics
from coord.server.tracker import SessionIds
from coord.tree.execute import encode_create_session
from coord.zab import Role, Status

LOG_QUEUE_BYTES_MAX: Final = 64 << 20
"""Bytes that wait for the disk at which clients that write are not read."""

log = eventlog.get("coord.server")


class Clients:
    """Those of one server.

    Args:
        authority: told of the sessions that begin and end, while this server leads.
        member: decides, and has the relay.
        answer_word: answers a connection's four-letter word, and ends it.
        settle: called at the end of each of the reactor's ticks.
        make_random: fresh random bytes, for passwords of sessions and logins.
    """

    def __init__(
        self,
        config: ServerConfig,
        persistence: Persistence,
        clock: Clock,
        statistics: ServerStatistics,
        meters: Meters,
        *,
        authority: Authority,
        member: Callable[[], Member],
        answer_word: Callable[[Connection, bytes, bytes], None],
        settle: Callable[[], None],
        make_random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._make_random = make_random
        self._state = persistence.state
        self._log = persistence.log
        self._clock = clock
        self._statistics = statistics
        self._meters = meters
        self._authority = authority
        self._member = member
        self._is_retired = False
        self.slow = SlowRequests(config.admin.slow_request_ms, clock)
        self.local = _make_local_sessions(config)
        self.read_only = ReadOnlyMode(
            enabled=config.sessions.read_only_mode and not config.standalone,
            tick_ms=config.tick_ms,
            now_ms=clock.monotonic_ms(),
        )
        self.throttle = ConnectionThrottle(
            config.limits,
            local_sessions=self.local is not None,
            now_ms=clock.monotonic_ms(),
            chance=SystemRandom().random,
        )
        self.authentication = Authentication(
            config.security, statistics, x509=config.tls.asks_for_certificates, make_random=make_random
        )
        self.answers = Answers(
            self._state,
            statistics,
            lambda done: member().relay.sync(done),
            clock,
            self.slow,
            self.authentication,
            skip_acl=config.security.skip_acl,
        )
        self.handshake = self._make_handshake(config)
        self.service = ClientService(
            clock=clock,
            answers=self.answers,
            handshake=self.handshake,
            statistics=statistics,
            frame_bytes_max=config.frame_bytes_max,
            connections_per_host_max=config.max_client_connections,
            answer_word=answer_word,
            settle=settle,
            is_busy=self._is_busy,
            local=self.local,
            authentication=self.authentication,
            limits=config.limits,
            in_flight=lambda: member().relay.in_flight,
        )

    def _make_handshake(self, config: ServerConfig) -> Handshake:
        state, clock = self._state, self._clock
        return Handshake(
            timeout_ms_min=config.session_timeout_ms_min,
            timeout_ms_max=config.session_timeout_ms_max,
            sessions=self,
            session_ids=SessionIds(config.sid, clock.wall_ms(), state.tree.sessions),
            make_password=self._make_random,
            executed_zxid=lambda: state.zxid,
            exists=lambda session_id: state.find_password(session_id) is not None,
            serve=lambda client: self.service.serve(client),
            local=self.local,
            now_ms=clock.monotonic_ms,
            admits=self._admits_handshake if config.limits.connection_tokens else None,
        )

    def submit_intakes(self) -> None:
        """Hands over the writes that have come in."""
        for intake in self.service.take_intakes():
            self._member().relay.submit(intake)

    def end_local_session(self, session_id: int) -> None:
        """Its time is over."""
        client = self.handshake.attached.get(session_id)
        if client is not None:
            self.answers.close(client, "its session has expired")

    def _is_busy(self) -> bool:
        return self._member().relay.is_busy or self._log.queued_bytes > LOG_QUEUE_BYTES_MAX

    def _admits_handshake(self, renews: bool) -> bool:
        if self.throttle.admits(renews=renews, now_ms=self._clock.monotonic_ms()):
            self._meters.note("connection_token_deficit", self.throttle.deficit)
            return True
        self._statistics.handshakes -= 1
        self._statistics.connections_refused += 1
        self._statistics.limits.connection_throttled += 1
        return False

    # -- what the server has become ------------------------------------------------------------------------

    def on_status(self, status: Status) -> None:
        if status.role is Role.LOOKING:
            self.read_only.on_looking(self._clock.monotonic_ms())
        elif self.read_only.on_leader():
            log.info("no longer read-only: there is a leader", leader=status.leader)
            self.service.close_all("read-only mode is over")

    def on_serving(self) -> None:
        if self.local is not None:
            self.local.restart(self._clock.monotonic_ms())

    def on_resting(self) -> None:
        self._state.forget_watches()
        self.service.close_all("this server is out of service")

    def retire(self) -> None:
        """Another state takes this one's place: nobody is acknowledged anything any more."""
        self._is_retired = True
        self.service.close_all("the state is restored from a snapshot")

    # -- Sessions, for the handshake -----------------------------------------------------------------------

    @property
    def is_serving(self) -> bool:
        return self._member().status.serving and not self._is_retired

    @property
    def is_read_only(self) -> bool:
        return self.read_only.is_on

    def create_session(self, session_id: int, timeout_ms: int, password: bytes) -> None:
        self.service.add_write(session_id, CREATE_SESSION, encode_create_session(timeout_ms, password))

    def attach_session(
        self, session_id: int, timeout_ms: int, password: bytes, done: Callable[[bool], None]
    ) -> None:
        self.submit_intakes()
        self._member().relay.attach(session_id, timeout_ms, password, done)

    def await_own_writes(self, done: Callable[[], None]) -> None:
        if not self.is_serving:
            done()
            return
        self.submit_intakes()
        self._member().relay.sync(done)

    # -- Audience, for the replica -------------------------------------------------------------------------

    def on_session_created(self, session_id: int, timeout_ms: int, *, own: bool) -> None:
        if self._member().relay.is_leading:
            self._authority.on_created(session_id, timeout_ms, self._clock.monotonic_ms())
        if own:
            if self.local is not None:
                self.local.remove(session_id)
            self.handshake.on_created(session_id)

    def on_session_closed(self, session_id: int) -> None:
        if self._member().relay.is_leading:
            self._authority.on_closed(session_id)

    def on_own_block_executed(self, reads: int) -> None:
        count, waited_ms = self._member().relay.on_own_block_executed()
        self._statistics.note_latency(count, waited_ms)
        self._meters.note_updates(count, waited_ms)
        if reads:
            self._statistics.note_reads_behind(reads, waited_ms)
            self._meters.note_reads_behind(reads, waited_ms)


def _make_local_sessions(config: ServerConfig) -> LocalSessions | None:
    """None where all sessions are global; a standalone server's are (specification 4.7)."""
    settings = config.sessions
    if config.standalone or not settings.local_sessions:
        return None
    return LocalSessions(config.tick_ms, upgrades=settings.local_sessions_upgrade)
