"""The first frame of a client: a session is made or taken up again (specification 4.1, 4.4)."""

from collections.abc import Callable
from typing import Protocol

from coord import eventlog
from coord.protocol.jute import DecodeError
from coord.protocol.records import (
    PASSWORD_BYTES,
    decode_connect_request,
    encode_connect_response,
    encode_expired_response,
)
from coord.server.connection import ATTACHING, CLOSED, ClientConnection
from coord.server.local_sessions import LocalSessions
from coord.server.tracker import SessionIds

log = eventlog.get("coord.server")


class Sessions(Protocol):
    """What the handshake needs of whoever decides about sessions: this server alone, or its leader."""

    @property
    def is_serving(self) -> bool: ...

    @property
    def is_read_only(self) -> bool:
        """Whether it serves reads only, without a quorum; it is not in service then."""

    def create_session(self, session_id: int, timeout_ms: int, password: bytes) -> None:
        """Replicates the new session; `Handshake.on_created` follows when it has been executed here."""

    def attach_session(
        self, session_id: int, timeout_ms: int, password: bytes, done: Callable[[bool], None]
    ) -> None:
        """Makes this server the session's owner; False for one that is unknown, closing or of another
        password.

        `done` is called when this server has executed all that had been proposed at that moment, this
        server's own writes so far included; never, when this server goes out of service first.
        """

    def await_own_writes(self, done: Callable[[], None]) -> None:
        """`done` once the writes that this server's clients have sent so far are executed here; never, when
        this server goes out of service first.
        """


class Handshake:
    """All handshakes of a server, and the table of the sessions that have a connection here.

    Args:
        executed_zxid: the last zxid executed here; a client that has seen more is sent away.
        exists: whether a session exists in the state executed here.
        serve: called when a connection's session is established.
        local: the sessions of this server alone; None when all sessions are global.
        now_ms: the monotonic clock.
        admits: whether there may be one more handshake at this moment, of a session that is taken up again
            or of a new one; None where any number may come.
        make_password: fresh random bytes.
    """

    def __init__(
        self,
        *,
        timeout_ms_min: int,
        timeout_ms_max: int,
        sessions: Sessions,
        session_ids: SessionIds,
        make_password: Callable[[int], bytes],
        executed_zxid: Callable[[], int],
        exists: Callable[[int], bool],
        serve: Callable[[ClientConnection], None],
        local: LocalSessions | None = None,
        now_ms: Callable[[], int] = lambda: 0,
        admits: Callable[[bool], bool] | None = None,
    ) -> None:
        self._timeout_ms_min = timeout_ms_min
        self._timeout_ms_max = timeout_ms_max
        self._sessions = sessions
        self._session_ids = session_ids
        self._make_password = make_password
        self._executed_zxid = executed_zxid
        self._exists = exists
        self._serve = serve
        self._local = local
        self._now_ms = now_ms
        self._admits = admits
        self._creating: dict[int, ClientConnection] = {}
        self._asking: dict[int, dict[ClientConnection, bool]] = {}
        """Connections whose attachment is under way, by session, and whether each has to ask once more."""
        self.attached: dict[int, ClientConnection] = {}
        """The connection of each session that has one here."""

    def begin(self, client: ClientConnection, payload: bytes) -> None:
        """A connection's ConnectRequest has arrived."""
        try:
            request = decode_connect_request(payload)
        except DecodeError as error:
            self._refuse(client, str(error))
            return
        client.is_read_only = self._sessions.is_read_only
        if not self._sessions.is_serving and not client.is_read_only:
            self._refuse(client, "not in service")
        elif self._admits is not None and not self._admits(request.session_id != 0):
            self._refuse(client, "too many handshakes at once")
        elif client.is_read_only and not request.read_only:
            self._refuse(client, "in read-only mode, which this client has not asked for")
        elif request.last_zxid_seen > self._executed_zxid():
            # What this client has seen it must never see undone; a more advanced server will take it.
            self._refuse(client, f"client has seen zxid 0x{request.last_zxid_seen:x}, which is not here yet")
        else:
            client.read_only_flag = request.read_only
            client.timeout_ms = max(self._timeout_ms_min, min(self._timeout_ms_max, request.timeout_ms))
            if request.session_id:
                client.session_id = request.session_id
                client.password = request.password
                self._reopen(client)
            else:
                self._create(client)

    def on_created(self, session_id: int) -> None:
        """The transaction of a session that was created through this server has been executed."""
        client = self._creating.pop(session_id, None)
        if client is not None and client.state == ATTACHING:
            self._establish(client)

    def forget(self, client: ClientConnection) -> None:
        """The connection has ended; its session lives on until it expires."""
        if self.attached.get(client.session_id) is client:
            self._detach(client.session_id)
        if self._creating.get(client.session_id) is client:
            del self._creating[client.session_id]
        self._stop_asking(client)

    def _create(self, client: ClientConnection) -> None:
        if self._local is None and client.is_read_only:
            self._refuse(client, "in read-only mode, and sessions of one server (local ones) are not enabled")
            return
        client.session_id = self._session_ids.take()
        client.password = self._make_password(PASSWORD_BYTES)
        if self._local is None:
            self._creating[client.session_id] = client
            self._sessions.create_session(client.session_id, client.timeout_ms, client.password)
            return
        self._local.add(client.session_id, client.timeout_ms, client.password, self._now_ms())
        client.is_local = True
        self._establish(client)

    def _reopen(self, client: ClientConnection) -> None:
        if self._local is not None and client.session_id in self._local:
            self._reopen_local(client)
        elif not client.is_read_only:
            self._attach(client)
        elif self._exists(client.session_id):
            self._refuse(client, "in read-only mode, and the session is known to the ensemble")
        else:
            self._expire(client)

    def _reopen_local(self, client: ClientConnection) -> None:
        """This server decides alone, but waits for the writes of the connection that had the session."""
        assert self._local is not None
        if not self._local.accepts(client.session_id, client.password):
            self._expire(client)
            return
        self._close_older(client.session_id)
        self._sessions.await_own_writes(lambda: self._on_own_writes(client))

    def _on_own_writes(self, client: ClientConnection) -> None:
        assert self._local is not None
        if client.state != ATTACHING:
            return
        if client.session_id not in self._local:
            # It has ended meanwhile, or the older connection's last request has made it global.
            self._attach(client)
        elif client.session_id in self.attached:
            self._reopen_local(client)  # another connection was faster, and may have written since
        else:
            self._local.add(client.session_id, client.timeout_ms, client.password, self._now_ms())
            client.is_local = True
            self._establish(client)

    def _attach(self, client: ClientConnection) -> None:
        self._asking.setdefault(client.session_id, {})[client] = False
        self._sessions.attach_session(
            client.session_id, client.timeout_ms, client.password, lambda ok: self._on_attached(client, ok)
        )

    def _on_attached(self, client: ClientConnection, ok: bool) -> None:
        overtaken = self._stop_asking(client)
        if client.state != ATTACHING:
            return
        if not ok or not self._exists(client.session_id):
            # What was proposed behind the question has been executed as well, and may have ended the session.
            self._expire(client)
            return
        if self._close_older(client.session_id) or overtaken:
            # The last writes of the older connection may still be on their way to the log; now that it can
            # send no more, asking a second time waits for the rest of them, so that no answer of the older
            # connection's goes to this one.
            self._attach(client)
            return
        self._establish(client)

    def _close_older(self, session_id: int) -> bool:
        """Ends the connection that has the session; whether there was one."""
        older = self._detach(session_id)
        if older is None:
            return False
        older.state = CLOSED
        older.conn.close(reason="its session was taken over by another connection")
        return True

    def _detach(self, session_id: int) -> ClientConnection | None:
        """Takes the session from the connection that has it, whose writes may be under way still: whoever has
        asked for the session before this moment has to ask again.
        """
        older = self.attached.pop(session_id, None)
        if older is not None and (asking := self._asking.get(session_id)):
            for client in asking:
                asking[client] = True
        return older

    def _stop_asking(self, client: ClientConnection) -> bool:
        """Whether the session was taken from another connection since `client` asked for it."""
        asking = self._asking.get(client.session_id)
        if asking is None:
            return False
        overtaken = asking.pop(client, False)
        if not asking:
            del self._asking[client.session_id]
        return overtaken

    def _establish(self, client: ClientConnection) -> None:
        self.attached[client.session_id] = client
        client.conn.send(
            encode_connect_response(
                client.timeout_ms,
                client.session_id,
                client.password,
                flag=client.read_only_flag,
                read_only=client.is_read_only,
            )
        )
        self._serve(client)

    def _expire(self, client: ClientConnection) -> None:
        client.state = CLOSED
        client.conn.send(encode_expired_response(client.read_only_flag, read_only=client.is_read_only))
        client.conn.close(reason="its session is expired")

    def _refuse(self, client: ClientConnection, reason: str) -> None:
        client.state = CLOSED
        client.conn.close(reason=reason)
