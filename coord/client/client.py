"""The trio-native client of a coordination ensemble, ours or Apache ZooKeeper's.

    async with coord.connect("host1:2181,host2:2181/chroot") as zk:
        path = await zk.create("/jobs/job-", b"...", sequential=True, ephemeral=True)
        data, stat = await zk.get(path)

Requests of one client are pipelined: what many tasks ask for at once leaves in one send. When a connection
is lost the client attaches its session to the next server; requests that were in flight then fail with
ConnectionLossError, whose outcome is unknown, and requests not yet sent wait for the next connection.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Literal, overload

import trio

from coord.client.hosts import Hosts, HostsError, parse_hosts
from coord.client.persistent import EVENTS_BUFFERED_MAX, PersistentWatch
from coord.client.replies import (
    ClientStatistics,
    Config,
    decoding,
    read_acl,
    read_config,
    read_identities,
    read_names,
)
from coord.client.session import Session
from coord.client.states import State, States
from coord.client.transaction import (
    Create,
    Operation,
    OperationResult,
    Read,
    ReadResult,
    Transaction,
    decode_outcomes,
    decode_reads,
    encode_creation,
    encode_operations,
    encode_reads,
    find_failure,
)
from coord.client.watch import Watch
from coord.client.watches import ARMED_OF_KIND, WatcherKind, WatchTable
from coord.errors import (
    ConnectionLossError,
    CoordError,
    NoNodeError,
    NotConnectedError,
    NoWatcherError,
    SessionExpiredError,
    error_of,
)
from coord.protocol import opcodes
from coord.protocol.jute import Reader, encode_int, encode_long, encode_text
from coord.protocol.records import (
    OPEN_ACL,
    Acl,
    Identity,
    Stat,
    encode_acl,
    encode_auth,
    encode_path_version,
    encode_path_watch,
    encode_set_data,
    read_stat,
)

CONFIG_PATH = "/zookeeper/config"


class Client:
    """A session with a coordination ensemble; made by `connect`.

    Paths are given and returned without the chroot. Every call raises SessionExpiredError once the session is
    over, AuthFailedError once a server has rejected our credentials: a new session is a new client.
    Cancelling a call that was sent leaves its outcome unknown.

    `linearizable=True` on a read puts a sync before it, in the same send: the answer then shows all that was
    written anywhere before the call.
    """

    def __init__(
        self,
        hosts: Hosts,
        session: Session,
        watches: WatchTable,
        open_session: "Callable[[tuple[int, bytes]], contextlib.AbstractAsyncContextManager[Client]]",
    ) -> None:
        self.hosts = hosts
        self._chroot = hosts.chroot
        self._session = session
        self._watches = watches
        self._open_session = open_session

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
        """Where the client stands; `wait_state` waits for a state, `states` follows them."""
        return self._session.state

    @property
    def expired(self) -> trio.Event:
        """Set once the session is over: expired, closed, or its credentials rejected."""
        return self._session.expired

    @property
    def server(self) -> tuple[str, int] | None:
        """The server last connected to."""
        return self._session.server

    @property
    def last_zxid(self) -> int:
        """The newest state this client has seen."""
        return self._session.last_zxid

    def statistics(self) -> ClientStatistics:
        return ClientStatistics(self._session.connections, self._session.requests_sent, self._watches.events)

    # The session

    async def wait_state(self, *states: State) -> State:
        """Waits until the state is one of `states`, be it for a moment, and returns it.

        Raises:
            SessionExpiredError, AuthFailedError: the session is over, and that was not waited for.
        """
        state = await self._session.standing.wait(*states)
        if state not in states:
            self._session.check_alive()
        return state

    def states(self) -> States:
        """Follows the state: `with zk.states() as states: async for ...`, the present one first."""
        return States(self._session.standing)

    async def add_auth(self, scheme: str, credentials: bytes | str) -> None:
        """Shows credentials, such as ("digest", "user:password"); also to each server the session moves to.

        Raises:
            AuthFailedError: the server rejected them. The session is over then.
            NotConnectedError: no server was reached in time; the next one will be shown them.
        """
        await self._session.add_credentials(encode_auth(scheme, credentials))

    async def update_hosts(self, hosts: str) -> bool:
        """Takes a new list of servers, and moves if that balances the load (ZooKeeper's updateServerList).

        What is in flight is answered before the client moves.

        Returns:
            Whether the client leaves its present server.

        Raises:
            HostsError: `hosts` cannot be parsed, or has another chroot.
        """
        await trio.lowlevel.checkpoint()
        parsed = parse_hosts(hosts)
        if parsed.chroot not in ("", self._chroot):
            raise HostsError(f"expected the chroot {self._chroot!r}, got {parsed.chroot!r} in {hosts!r}")
        self.hosts = Hosts(parsed.servers, self._chroot)
        moves = self._session.servers.update(parsed.servers, self._session.server)
        if moves:
            self._session.leave("left to balance the load of the servers")
        return moves

    async def end_session(self, session_id: int, password: bytes) -> None:
        """Closes a session that somebody else held, such as this process before its restart.

        Its ephemerals are gone when this returns; a session that is unknown or over already is no error.

        Raises:
            NotConnectedError: no server answered in time.
            ConnectionLossError: no server confirmed it in time.
        """
        with contextlib.suppress(SessionExpiredError):
            async with self._open_session((session_id, password)) as other:
                if not await other._session.close():
                    raise ConnectionLossError(f"session 0x{session_id:x} was not closed in time")

    async def who_am_i(self) -> list[Identity]:
        """The identities this connection has shown, by scheme and user name."""
        reader = await self._call(opcodes.WHO_AM_I, b"", None)
        with decoding("whoAmI"):
            return read_identities(reader)

    # Nodes

    async def create(
        self,
        path: str,
        data: bytes | None = b"",
        *,
        acl: Sequence[Acl] = OPEN_ACL,
        ephemeral: bool = False,
        sequential: bool = False,
        container: bool = False,
        ttl_ms: int | None = None,
    ) -> str:
        """Creates a node and returns its path, which a sequential one's number ends.

        Args:
            ephemeral: it goes with the session.
            sequential: a number is put behind the path, that no other child of the parent has had.
            container: the servers delete it once its last child is gone.
            ttl_ms: the servers delete it once it was not written for so long and has no children.

        Raises:
            NodeExistsError, NoNodeError: the node is there, its parent is not.
            ValueError: kinds that exclude each other.
        """
        operation = Create(path, data, ephemeral, sequential, acl, container, ttl_ms)
        op, body = encode_creation(operation, self._absolute(path))
        reader = await self._call(op, body, path)
        with decoding("create"):
            return self._relative(reader.read_text() or "")

    async def create_with_stat(
        self,
        path: str,
        data: bytes | None = b"",
        *,
        acl: Sequence[Acl] = OPEN_ACL,
        ephemeral: bool = False,
        sequential: bool = False,
        container: bool = False,
        ttl_ms: int | None = None,
    ) -> tuple[str, Stat]:
        """As `create`; returns the node's path and its Stat, whose czxid is a fencing token."""
        operation = Create(path, data, ephemeral, sequential, acl, container, ttl_ms, with_stat=True)
        op, body = encode_creation(operation, self._absolute(path))
        reader = await self._call(op, body, path)
        with decoding("create2"):
            return self._relative(reader.read_text() or ""), read_stat(reader)

    async def delete(self, path: str, version: int = -1) -> None:
        """Deletes a node without children; `version` -1 means whatever its version.

        Raises:
            NoNodeError, NotEmptyError, BadVersionError
        """
        await self._call(opcodes.DELETE, encode_path_version(self._absolute(path), version), path)

    async def exists(self, path: str, *, linearizable: bool = False) -> Stat | None:
        """The node's Stat, or None where there is no node."""
        try:
            reader = await self._read(opcodes.EXISTS, path, linearizable)
        except NoNodeError:
            return None
        with decoding("exists"):
            return read_stat(reader)

    async def get(self, path: str, *, linearizable: bool = False) -> tuple[bytes | None, Stat]:
        """The node's data (None where it was created with null) and Stat.

        Raises:
            NoNodeError
        """
        reader = await self._read(opcodes.GET_DATA, path, linearizable)
        with decoding("getData"):
            return reader.read_buffer(), read_stat(reader)

    async def set(self, path: str, data: bytes | None, version: int = -1) -> Stat:
        """Replaces the node's data; returns the Stat behind the change.

        Raises:
            NoNodeError, BadVersionError
        """
        body = encode_set_data(self._absolute(path), data, version)
        reader = await self._call(opcodes.SET_DATA, body, path)
        with decoding("setData"):
            return read_stat(reader)

    async def get_children(self, path: str, *, linearizable: bool = False) -> list[str]:
        """The names of the node's children, sorted.

        Raises:
            NoNodeError
        """
        return (await self.get_children_and_stat(path, linearizable=linearizable))[0]

    async def get_children_and_stat(self, path: str, *, linearizable: bool = False) -> tuple[list[str], Stat]:
        """The names of the node's children, sorted, and its Stat.

        Raises:
            NoNodeError
        """
        reader = await self._read(opcodes.GET_CHILDREN2, path, linearizable)
        with decoding("getChildren2"):
            return read_names(reader), read_stat(reader)

    async def get_all_children_number(self, path: str, *, linearizable: bool = False) -> int:
        """How many nodes there are below the node, at any depth.

        Raises:
            NoNodeError
        """
        body, sync = encode_text(self._absolute(path)), self._sync(path, linearizable)
        reader = await self._call(opcodes.GET_ALL_CHILDREN_NUMBER, body, path, sync)
        with decoding("getAllChildrenNumber"):
            return reader.read_int()

    async def get_ephemerals(self, prefix: str = "/") -> list[str]:
        """The paths of this session's ephemerals that begin with `prefix`, sorted."""
        # The prefix of a chroot is a string too: `/app` would also match `/apple`.
        absolute = self._absolute(prefix)
        body = encode_text(absolute)
        reader = await self._call(opcodes.GET_EPHEMERALS, body, prefix)
        with decoding("getEphemerals"):
            paths = [path.decode("utf-8", "replace") for path in reader.read_strings() or () if path]
        inside = self._chroot + "/"
        return sorted(self._relative(path) for path in paths if path.startswith(inside))

    async def get_acl(self, path: str, *, linearizable: bool = False) -> tuple[list[Acl], Stat]:
        """The node's access control list, digests hidden from whoever lacks ADMIN, and its Stat.

        Raises:
            NoNodeError
        """
        body, sync = encode_text(self._absolute(path)), self._sync(path, linearizable)
        reader = await self._call(opcodes.GET_ACL, body, path, sync)
        with decoding("getACL"):
            return read_acl(reader), read_stat(reader)

    async def set_acl(self, path: str, acl: Sequence[Acl], version: int = -1) -> Stat:
        """Replaces the node's access control list; `version` is that of the list, `Stat.aversion`.

        Raises:
            NoNodeError, BadVersionError, InvalidAclError
        """
        body = encode_text(self._absolute(path)) + encode_acl(acl) + encode_int(version)
        reader = await self._call(opcodes.SET_ACL, body, path)
        with decoding("setACL"):
            return read_stat(reader)

    async def sync(self, path: str = "/") -> None:
        """Waits until this client's server has everything that was written before the call."""
        await self._call(opcodes.SYNC, encode_text(self._absolute(path)), path)

    # Several at once

    def transaction(self) -> Transaction:
        """Collects operations that are then carried out together or not at all."""
        return Transaction(self._send_operations)

    async def multi(self, operations: Sequence[Operation]) -> list[OperationResult]:
        """Carries out all operations or none of them.

        Returns:
            Per operation: the path of a Create (with_stat: Created), the Stat behind a SetData, None for
            Delete and Check.

        Raises:
            CoordError: the class of the operation that failed, with `index` naming it; nothing was changed.
        """
        outcomes = await self._send_operations(operations)
        failure = find_failure(outcomes)
        if failure is not None:
            raise failure
        return [outcome for outcome in outcomes if not isinstance(outcome, CoordError)]

    async def multi_read(self, reads: Sequence[Read], *, linearizable: bool = False) -> list[ReadResult]:
        """Reads several nodes in one request.

        Returns:
            Per read: (data, Stat) of a GetData, the names of a GetChildren, or the error of that one read.
        """
        body = encode_reads(reads, self._absolute)
        reader = await self._call(opcodes.MULTI_READ, body, None, self._sync("/", linearizable))
        with decoding("multiRead"):
            return decode_reads(reads, reader)

    async def _send_operations(self, operations: Sequence[Operation]) -> list[OperationResult | CoordError]:
        body = encode_operations(operations, self._absolute)
        reader = await self._call(opcodes.MULTI, body, None)
        with decoding("multi"):
            return decode_outcomes(operations, reader, self._relative)

    # Watches

    @overload
    def watch(self, path: str, *, children: bool = False, recursive: Literal[False] = False) -> Watch: ...

    @overload
    def watch(self, path: str, *, recursive: Literal[True]) -> PersistentWatch: ...

    def watch(self, path: str, *, children: bool = False, recursive: bool = False) -> Watch | PersistentWatch:
        """Follows one node: `async with zk.watch(path) as events: async for event in events`.

        The first event tells how things are; each later one that they have changed since. Several changes may
        come as one event, but none stays untold, not even one that happens while the connection is away. With
        `children` the changes are those of the list of children.

        With `recursive` it is `add_watch` of a whole subtree.
        """
        if recursive:
            return self.add_watch(path, recursive=True)
        return Watch(self._watches, self._session, self._absolute(path), path, children)

    def add_watch(
        self, path: str, *, recursive: bool = False, buffer: int = EVENTS_BUFFERED_MAX
    ) -> PersistentWatch:
        """Every event of a node, or with `recursive` of a whole subtree, as an async iterator.

        The node need not exist. A MISSED event tells that events may have been lost, because the connection
        was away or because more than `buffer` of them were waiting: read again what you follow.
        """
        return PersistentWatch(
            self._watches, self._session, self._absolute(path), self._relative, recursive, buffer
        )

    async def check_watches(self, path: str, kind: WatcherKind = WatcherKind.ANY) -> bool:
        """Whether the server holds such a watch of this client's on the path."""
        try:
            await self._call(opcodes.CHECK_WATCHES, self._watcher_body(path, kind), path)
        except NoWatcherError:
            return False
        return True

    async def remove_watches(
        self, path: str, kind: WatcherKind = WatcherKind.ANY, *, local: bool = False
    ) -> None:
        """Removes the server's watches of a kind; iterations over them end.

        Args:
            local: they end also where no server can be asked: none will be told of them again.

        Raises:
            NoWatcherError: there is none.
        """
        try:
            await self._call(opcodes.REMOVE_WATCHES, self._watcher_body(path, kind), path)
        except (ConnectionLossError, NotConnectedError):
            if not local:
                raise
        armed = ARMED_OF_KIND[kind]
        one_shot, persistent = self._watches.at(self._absolute(path))
        for followers in (one_shot, persistent):
            for follower in followers:
                # One that has fired just now and is not read again yet is removed as well.
                if follower.armed in armed or (follower.armed is None and follower.is_of(kind)):
                    follower.on_removed()

    # The ensemble

    async def get_config(self) -> Config:
        """The ensemble's configuration; its text is empty on a standalone server."""
        body = encode_path_watch(CONFIG_PATH, False)
        reader = await self._call(opcodes.GET_DATA, body, CONFIG_PATH)
        with decoding("getData"):
            return read_config(reader)

    async def reconfig(
        self,
        *,
        joining: Sequence[str] = (),
        leaving: Sequence[str] = (),
        members: Sequence[str] = (),
        version: int = -1,
    ) -> Config:
        """Changes the ensemble's members; returns the new configuration.

        Args:
            joining: servers to add, as `server.4=host:2888:3888;2181`.
            leaving: ids of servers to remove, as `4`.
            members: in place of the two, all servers of the new configuration.
            version: the configuration version this is meant for; -1 for any.

        Raises:
            ReconfigDisabledError, ReconfigInProgressError, NewConfigNoQuorumError, BadVersionError,
            BadArgumentsError, NoAuthError
        """
        lists = b"".join(encode_text(",".join(names) or None) for names in (joining, leaving, members))
        reader = await self._call(opcodes.RECONFIG, lists + encode_long(version), CONFIG_PATH)
        with decoding("reconfig"):
            return read_config(reader)

    # The wire

    def _absolute(self, path: str) -> str:
        if not path.startswith("/"):
            raise ValueError(f"expected a path that begins with /, got {path!r}")
        if self._chroot:
            return self._chroot if path == "/" else self._chroot + path
        return path

    def _relative(self, path: str) -> str:
        return (path.removeprefix(self._chroot) or "/") if self._chroot else path

    def _watcher_body(self, path: str, kind: WatcherKind) -> bytes:
        return encode_text(self._absolute(path)) + encode_int(kind)

    def _sync(self, path: str, linearizable: bool) -> bytes | None:
        return encode_text(self._absolute(path)) if linearizable else None

    async def _read(self, op: int, path: str, linearizable: bool) -> Reader:
        body = encode_path_watch(self._absolute(path), False)
        return await self._call(op, body, path, self._sync(path, linearizable))

    async def _call(self, op: int, body: bytes, path: str | None, sync: bytes | None = None) -> Reader:
        """Sends a request; the reader of its reply's body."""
        err, reply = await self._session.call(op, body, sync)
        if err != 0:
            raise error_of(err, path=path)
        return Reader(reply)
