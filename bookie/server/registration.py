"""The bookie's place in the coordination service: one ephemeral node, in the writable or the read-only list
(11.4).

Safety does not depend on it: an unregistered bookie goes on serving its connections. When the session expires
a new client registers again. A restarted bookie closes the session of its previous life first, so that it
need not wait for its own old node to expire; id and password are kept in the locked data directory.
"""

from collections.abc import Callable
from typing import Final

import trio

from bookie.ledger import layout
from bookie.ledger.layout import Registration
from bookie.server.session import Connect, Session
from coord import eventlog
from coord.disk import SavedSession, SessionFile
from coord.errors import CoordError, NodeExistsError, NoNodeError

RETRY_S: Final = 0.5

_log = eventlog.get("bookie.server")


class RegistrationError(Exception):
    """Somebody else stays registered under this bookie's id."""


class Registrar:
    """Keeps one bookie registered.

    Args:
        patience_ms: how long a foreign node of our id may stay: the session time-out, since it may be our own
            from a life whose session was not kept.

    Attributes:
        session: the live client, None between two sessions; others may use it, for garbage collection.
    """

    def __init__(
        self,
        connect: Connect,
        sessions: SessionFile,
        bookie_id: str,
        registration: Registration,
        is_read_only: Callable[[], bool],
        patience_ms: int,
    ) -> None:
        self.session: Session | None = None
        self._connect = connect
        self._sessions = sessions
        self._paths = {
            False: layout.available_path(bookie_id),
            True: layout.readonly_path(bookie_id),
        }
        self._data = registration.encode()
        self._is_read_only = is_read_only
        self._patience_ms = patience_ms
        self._changed = trio.Event()
        self._on_registered: Callable[[], None] = lambda: None

    def note_change(self) -> None:
        """Read-only came or went: move to the other list."""
        self._changed.set()

    async def run(self, on_registered: Callable[[], None]) -> None:
        """Stay registered until cancelled, which takes the registration back.

        Args:
            on_registered: called once, after the first registration.

        Raises:
            RegistrationError: the id is another's.
        """
        self._on_registered = on_registered
        while True:
            failure: Exception | None = None
            try:
                async with self._connect() as zk:
                    # Caught inside: what leaves the block comes out as a group.
                    try:
                        await self._live(zk)
                    except (CoordError, RegistrationError, OSError) as error:
                        failure = error
                    finally:
                        self.session = None
            except CoordError as error:
                failure = error
            if failure is not None and not isinstance(failure, CoordError):
                raise failure
            _log.warning("not registered", do="check the coordination service", error=failure)
            await trio.sleep(RETRY_S)

    async def _live(self, zk: Session) -> None:
        """One session, from its beginning to its end."""
        await self._end_previous(zk)
        self._sessions.save(SavedSession(zk.session_id, zk.session_password))
        await self._register(zk)
        self.session = zk
        self._on_registered()
        self._on_registered = lambda: None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_changes, zk)
            await zk.expired.wait()
            nursery.cancel_scope.cancel()
        _log.warning("session expired, registering again")

    async def _end_previous(self, zk: Session) -> None:
        previous = self._sessions.load()
        if previous is not None and previous.session_id != zk.session_id:
            await zk.end_session(previous.session_id, previous.password)
            self._sessions.forget()

    async def _register(self, zk: Session) -> None:
        """Be in the list that fits, and only then leave the other (11.3)."""
        read_only = self._is_read_only()
        deadline = trio.current_time() + self._patience_ms / 1000
        while True:
            try:
                await zk.create(self._paths[read_only], self._data, ephemeral=True)
                break
            except NodeExistsError:
                stat = await zk.exists(self._paths[read_only])
                if stat is not None and stat.ephemeral_owner == zk.session_id:
                    break
                if trio.current_time() >= deadline:
                    owner = "another session" if stat is None else f"session {stat.ephemeral_owner:x}"
                    raise RegistrationError(f"{self._paths[read_only]} is held by {owner}") from None
                await trio.sleep(RETRY_S)
        try:
            await zk.delete(self._paths[not read_only])
        except NoNodeError:
            pass
        _log.info("registered", path=self._paths[read_only])

    async def _follow_changes(self, zk: Session) -> None:
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            try:
                await self._register(zk)
            except CoordError as error:
                _log.warning("still in the wrong list", do="check the coordination service", error=error)
                self._changed.set()
                await trio.sleep(RETRY_S)
