"""The trio-native client of a coordination ensemble, ours or Apache ZooKeeper's.

    async with coord.connect("host1:2181,host2:2181/chroot") as zk:
        path = await zk.create("/jobs/job-", b"...", sequential=True, ephemeral=True)
        data, stat = await zk.get(path)

Requests of one client are pipelined: what many tasks ask for at once leaves in one send. When a connection
is lost the client attaches its session to the next server; requests that were in flight then fail with
ConnectionLossError, whose outcome is unknown, and requests not yet sent wait for the next connection.
"""

import contextlib
import random
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence

import trio

from coord.client.hosts import Hosts, parse_hosts
from coord.client.session import Dial, Session, State
from coord.client.transaction import Operation, decode_results, encode_operations
from coord.client.watch import Watch, WatchTable
from coord.clock import SYSTEM_CLOCK, Clock
from coord.errors import (
    ConnectionLossError,
    NoNodeError,
    NotConnectedError,
    ProtocolError,
    SessionExpiredError,
    error_of,
)
from coord.nursery import open_private_nursery
from coord.protocol import opcodes
from coord.protocol.jute import DecodeError, Reader, encode_text
from coord.protocol.records import (
    OPEN_ACL,
    PASSWORD_BYTES,
    Acl,
    Stat,
    encode_create,
    encode_path_version,
    encode_path_watch,
    encode_set_data,
    read_stat,
)

SESSION_TIMEOUT_MS = 10_000
CONNECT_TIMEOUT_MS = 15_000
#: Longest session timeout that can be asked for: the wire has 32 bits.
SESSION_TIMEOUT_MS_MAX = (1 << 31) - 1
NEW_SESSION = (0, bytes(16))


class Client:
    """A session with a coordination ensemble; made by `connect`.

    Paths are given and returned without the chroot. Every call raises SessionExpiredError once the session is
    over: a new session is a new client. Cancelling a call that was sent leaves its outcome unknown.
    """

    def __init__(
        self,
        hosts: Hosts,
        session_timeout_ms: int,
        identity: tuple[int, bytes],
        clock: Clock,
        rng: random.Random,
        dial: Dial,
    ) -> None:
        self.hosts = hosts
        self._chroot = hosts.chroot
        self._clock = clock
        self._rng = rng
        self._dial = dial
        self._watches = WatchTable()
        servers = list(hosts.servers)
        rng.shuffle(servers)
        self._session = Session(
            servers,
            session_timeout_ms,
            identity,
            clock=clock,
            rng=rng,
            dial=dial,
            on_event=self._watches.on_event,
            on_break=self._watches.wake_all,
        )

    @property
    def session_id(self) -> int:
        """The session's id; 0 before the first connection."""
        return self._session.session_id

    @property
    def session_password(self) -> bytes:
        """The 16 bytes that, with the id, re-attach the session from elsewhere."""
        return self._session.password

    @property
    def session_timeout_ms(self) -> int:
        """The timeout the server granted."""
        return self._session.timeout_ms

    @property
    def state(self) -> State:
        return self._session.state

    @property
    def expired(self) -> trio.Event:
        """Set once the session is over, expired or closed."""
        return self._session.expired

    @property
    def server(self) -> tuple[str, int] | None:
        """The server last connected to."""
        return self._session.server

    @property
    def last_zxid(self) -> int:
        """The newest state this client has seen."""
        return self._session.last_zxid

    async def create(
        self,
        path: str,
        data: bytes | None = b"",
        *,
        ephemeral: bool = False,
        sequential: bool = False,
        acl: Sequence[Acl] = OPEN_ACL,
    ) -> str:
        """Creates a node and returns its path, which a sequential one's number ends.

        Raises:
            NodeExistsError, NoNodeError: the node is there, its parent is not.
        """
        flags = (opcodes.FLAG_EPHEMERAL if ephemeral else 0) | (opcodes.FLAG_SEQUENTIAL if sequential else 0)
        body = encode_create(self._absolute(path), data, acl, flags)
        reader = await self._call(opcodes.CREATE, body, path)
        with _decoding("create"):
            return self._relative(reader.read_text() or "")

    async def delete(self, path: str, version: int = -1) -> None:
        """Deletes a node without children; `version` -1 means whatever its version.

        Raises:
            NoNodeError, NotEmptyError, BadVersionError
        """
        await self._call(opcodes.DELETE, encode_path_version(self._absolute(path), version), path)

    async def exists(self, path: str) -> Stat | None:
        """The node's Stat, or None where there is no node."""
        try:
            reader = await self._call(opcodes.EXISTS, self._read_body(path), path)
        except NoNodeError:
            return None
        with _decoding("exists"):
            return read_stat(reader)

    async def get(self, path: str) -> tuple[bytes | None, Stat]:
        """The node's data (None where it was created with null) and Stat.

        Raises:
            NoNodeError
        """
        reader = await self._call(opcodes.GET_DATA, self._read_body(path), path)
        with _decoding("getData"):
            return reader.read_buffer(), read_stat(reader)

    async def set(self, path: str, data: bytes | None, version: int = -1) -> Stat:
        """Replaces the node's data; returns the Stat behind the change.

        Raises:
            NoNodeError, BadVersionError
        """
        body = encode_set_data(self._absolute(path), data, version)
        reader = await self._call(opcodes.SET_DATA, body, path)
        with _decoding("setData"):
            return read_stat(reader)

    async def get_children(self, path: str) -> list[str]:
        """The names of the node's children, sorted.

        Raises:
            NoNodeError
        """
        return (await self.get_children_and_stat(path))[0]

    async def get_children_and_stat(self, path: str) -> tuple[list[str], Stat]:
        """The names of the node's children, sorted, and its Stat.

        Raises:
            NoNodeError
        """
        reader = await self._call(opcodes.GET_CHILDREN2, self._read_body(path), path)
        with _decoding("getChildren2"):
            return _read_names(reader), read_stat(reader)

    async def sync(self, path: str = "/") -> None:
        """Waits until this client's server has everything that was written before the call."""
        await self._call(opcodes.SYNC, encode_text(self._absolute(path)), path)

    async def multi(self, operations: Sequence[Operation]) -> list[str | Stat | None]:
        """Carries out all operations or none of them.

        Returns:
            Per operation: the path of a Create, the Stat behind a SetData, None for Delete and Check.

        Raises:
            CoordError: the class of the operation that failed, with `index` naming it; nothing was changed.
        """
        body = encode_operations(operations, self._absolute)
        reader = await self._call(opcodes.MULTI, body, None)
        with _decoding("multi"):
            return decode_results(operations, reader, self._relative)

    def watch(self, path: str, *, children: bool = False) -> Watch:
        """Follows one node: `async with zk.watch(path) as events: async for event in events`.

        The first event tells how things are; each later one that they have changed since. Several changes may
        come as one event, but none stays untold, not even one that happens while the connection is away. With
        `children` the changes are those of the list of children.
        """
        return Watch(self._watches, self._session, self._absolute(path), path, children)

    async def end_session(self, session_id: int, password: bytes) -> None:
        """Closes a session that somebody else held, such as this process before its restart.

        Its ephemerals are gone when this returns; a session that is unknown or over already is no error.

        Raises:
            NotConnectedError: no server answered in time.
            ConnectionLossError: no server confirmed it in time.
        """
        with contextlib.suppress(SessionExpiredError):
            async with connect(
                str(Hosts(self.hosts.servers, "")),
                session=(session_id, password),
                dial=self._dial,
                clock=self._clock,
                rng=self._rng,
            ) as other:
                if not await other._session.close():
                    raise ConnectionLossError(f"session 0x{session_id:x} was not closed in time")

    def _absolute(self, path: str) -> str:
        if not path.startswith("/"):
            raise ValueError(f"expected a path that begins with /, got {path!r}")
        if self._chroot:
            return self._chroot if path == "/" else self._chroot + path
        return path

    def _relative(self, path: str) -> str:
        return (path.removeprefix(self._chroot) or "/") if self._chroot else path

    def _read_body(self, path: str) -> bytes:
        return encode_path_watch(self._absolute(path), False)

    async def _call(self, op: int, body: bytes, path: str | None) -> Reader:
        """Sends a request; the reader of its reply's body."""
        err, reply = await self._session.call(op, body)
        if err != 0:
            raise error_of(err, path=path)
        return Reader(reply)


@contextlib.contextmanager
def _decoding(what: str) -> Iterator[None]:
    """A reply that cannot be decoded is the server's fault; whether the operation happened is unknown."""
    try:
        yield
    except DecodeError as error:
        raise ProtocolError(f"the reply to {what} cannot be decoded: {error}") from error


def _read_names(reader: Reader) -> list[str]:
    return sorted(name.decode("utf-8", "replace") for name in reader.read_strings() or () if name is not None)


@contextlib.asynccontextmanager
async def connect(
    hosts: str,
    *,
    session_timeout_ms: int = SESSION_TIMEOUT_MS,
    connect_timeout_ms: int | None = CONNECT_TIMEOUT_MS,
    session: tuple[int, bytes] = NEW_SESSION,
    ssl_context: ssl.SSLContext | None = None,
    dial: Dial | None = None,
    clock: Clock = SYSTEM_CLOCK,
    rng: random.Random | None = None,
) -> AsyncIterator[Client]:
    """Opens a session; the block begins once a server has granted it and its end closes it.

    Args:
        hosts: `host:port,host:port/chroot`.
        session_timeout_ms: how long the session outlives its last sign of life; the server may grant another.
        connect_timeout_ms: how long the first connection may take; None waits for ever.
        session: (id, password) of a session to re-attach to instead of a new one.
        ssl_context: for servers that listen with TLS.
        dial: opens a stream to (host, port), in place of TCP; `ssl_context` is then its own business.

    Raises:
        HostsError: `hosts` cannot be parsed.
        ValueError: the session timeout is out of range, the password has not 16 bytes.
        NotConnectedError: no server answered in time; the text has the last reason.
        SessionExpiredError: the session to re-attach to is over.
    """
    if not 0 < session_timeout_ms <= SESSION_TIMEOUT_MS_MAX:
        raise ValueError(
            f"expected a session timeout of 1 to {SESSION_TIMEOUT_MS_MAX} ms, got {session_timeout_ms}"
        )
    if len(session[1]) != PASSWORD_BYTES:
        raise ValueError(f"expected a session password of {PASSWORD_BYTES} bytes, got {len(session[1])}")
    client = Client(
        parse_hosts(hosts),
        session_timeout_ms,
        session,
        clock,
        rng or random.SystemRandom(),
        dial or _tcp_dial(ssl_context),
    )
    state = client._session
    async with open_private_nursery() as nursery:
        nursery.start_soon(state.run)
        with trio.move_on_after(_seconds(connect_timeout_ms)) as scope:
            await state.connected.wait()
        if scope.cancelled_caught:
            raise NotConnectedError(f"cannot connect to {client.hosts}: {state.last_failure}")
        if state.state is State.EXPIRED:
            raise SessionExpiredError(f"session 0x{session[0]:x} has expired")
        try:
            yield client
        finally:
            with trio.CancelScope(shield=True):
                await state.close()


def _seconds(milliseconds: int | None) -> float:
    """Milliseconds as the seconds that trio takes; None is for ever."""
    return float("inf") if milliseconds is None else milliseconds / 1000


def _tcp_dial(ssl_context: ssl.SSLContext | None) -> Dial:
    """Opens TCP connections, with TLS where there is a context."""

    async def dial(host: str, port: int) -> trio.abc.Stream:
        stream = await trio.open_tcp_stream(host, port)
        if ssl_context is None:
            return stream
        return trio.SSLStream(stream, ssl_context, server_hostname=host)

    return dial
