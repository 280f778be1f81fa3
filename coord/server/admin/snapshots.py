"""`snapshot` and `restore` over HTTP (specification 17.4): the state as a file, and back again.

The file is the stream that a leader sends its learners (`coord.storage.snapshot`), each chunk behind its
length: a checkpoint of this very moment, every node under the checksum it was written with.

A restore is for standalone servers only. It is received into a new generation beside the state in use; when
every checksum and the digest have been proved it becomes the state, durably, and the server begins again with
it in a higher epoch: zxids go on rising, so no client has seen what is not there yet. Whatever was written
since the snapshot is given up, which is what was asked for. In an ensemble the others would take the old
state for the newer one, or the new one for a lie: there it is refused.
"""

import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

import trio

from coord import eventlog
from coord.clock import Clock
from coord.disk import DamagedFileError
from coord.http import ClientGoneError, Request, Response
from coord.log import fail_stop
from coord.protocol.jute import DecodeError, encode_buffer, encode_int, encode_text
from coord.protocol.records import Identity
from coord.server.authentication import Authentication, CredentialError
from coord.server.checkpoints import Checkpoints
from coord.server.config import ServerConfig
from coord.server.meters import Meters
from coord.server.slices import Pace
from coord.server.snapshots import ChunkReader
from coord.server.state import State
from coord.server.statistics import ServerStatistics
from coord.server.tree_kind import TreeKind
from coord.storage import (
    CheckpointDamagedError,
    DataDirectory,
    EnvironmentFailedError,
    Environments,
    Epochs,
    SnapshotDamagedError,
    SnapshotReader,
    SnapshotReceiver,
)
from coord.tree import DataTree
from coord.tree.acl import is_allowed
from coord.tree.path import ROOT

CHUNK_BYTES_MAX: Final = 64 << 20
CHECKPOINT_SECONDS_MAX: Final = 300.0
RECEIVED_BYTES_MAX: Final = 16 << 20
"""Received and not yet written; more, and the body is not read."""
WRITER_SECONDS: Final = 0.005
PERMISSIONS: Final = (1, 2, 4, 8, 16)
REFUSED_IN_ENSEMBLE: Final = (
    "restore is refused in an ensemble: the other servers have another history; stop all of them, load the "
    "same state on each (zoolog coord from-json), and start them"
)

log = eventlog.get("coord.server")


class RateLimit:
    """Lets one through in `interval_ms`; it outlives a server that begins again."""

    def __init__(self, interval_ms: int) -> None:
        self._interval_ms = interval_ms
        self._taken_ms: int | None = None

    def take(self, now_ms: int) -> bool:
        if self._taken_ms is not None and now_ms - self._taken_ms < self._interval_ms:
            return False
        self._taken_ms = now_ms
        return True


class Rates:
    """Those of one process."""

    def __init__(self, config: ServerConfig) -> None:
        self.snapshots = RateLimit(config.admin.snapshot_interval_ms)
        self.restores = RateLimit(config.admin.restore_interval_ms)


class SnapshotCommands:
    """Answers both commands.

    Args:
        is_serving: whether the server is in service.
        retire: takes the server out of service: from then on nothing is acknowledged.
        restart: the server begins again with what is on disk.
    """

    def __init__(
        self,
        *,
        config: ServerConfig,
        clock: Clock,
        state: State,
        checkpoints: Checkpoints,
        directory: DataDirectory,
        environments: Environments,
        authentication: Authentication,
        statistics: ServerStatistics,
        meters: Meters,
        rates: Rates,
        is_serving: Callable[[], bool],
        retire: Callable[[], None],
        restart: Callable[[], None],
    ) -> None:
        self._config = config
        self._clock = clock
        self._state = state
        self._checkpoints = checkpoints
        self._directory = directory
        self._environments = environments
        self._authentication = authentication
        self._statistics = statistics
        self._meters = meters
        self._rates = rates
        self._is_serving = is_serving
        self._retire = retire
        self._restart = restart
        self._one_at_a_time = trio.Lock()
        self.by_name: dict[str, tuple[str, Callable[[Request], Awaitable[Response]]]] = {
            "snapshot": ("GET", self.snapshot),
            "snap": ("GET", self.snapshot),
            "restore": ("POST", self.restore),
            "rest": ("POST", self.restore),
        }
        """By every name: the method, and what answers it."""

    async def snapshot(self, request: Request) -> Response:
        """A checkpoint as of now; with `streaming=false` it only is made."""
        refusal = self._refuse(request, "snapshot", is_enabled=self._config.admin.enables_snapshot)
        if refusal is not None:
            return refusal
        if not self._is_serving():
            return _answer("snapshot", HTTPStatus.SERVICE_UNAVAILABLE)
        if not self._rates.snapshots.take(self._clock.monotonic_ms()):
            self._statistics.snapshots_too_soon += 1
            return _answer("snapshot", HTTPStatus.TOO_MANY_REQUESTS)
        async with self._one_at_a_time:
            try:
                return await self._take(request)
            except (CheckpointDamagedError, trio.TooSlowError) as error:
                self._statistics.snapshot_errors += 1
                log.error("no snapshot for HTTP", do="look at dataDir's disk", error=error)
                text = f"no snapshot could be made: {error or 'the checkpoint took too long'}"
                return _answer("snapshot", HTTPStatus.INTERNAL_SERVER_ERROR, text)

    async def _take(self, request: Request) -> Response:
        checkpoints = self._checkpoints
        wanted_zxid = self._state.zxid
        with trio.fail_after(CHECKPOINT_SECONDS_MAX):
            while checkpoints.store.zxid < wanted_zxid or checkpoints.last() is None:
                finished = checkpoints.finished
                checkpoints.want()
                await finished.wait()
        body = _SnapshotBody(SnapshotReader(checkpoints.store))
        measured = _SnapshotBody(SnapshotReader(checkpoints.store))  # of the same moment: nothing is between
        try:
            size = await measured.measure(Pace(self._clock))
        except BaseException:
            await body.aclose()
            raise
        finally:
            await measured.aclose()
        headers = {"last_zxid": f"0x{body.zxid:x}", "snapshot_size": str(size)}
        log.info("snapshot over HTTP", zxid=hex(body.zxid), bytes=size, client=request.peer_host)
        if list(request.query.get("streaming", ("true",)))[-1].lower() != "true":
            await body.aclose()
            return _answer("snapshot", HTTPStatus.OK, headers=headers)
        return Response(HTTPStatus.OK, body, "application/octet-stream", headers)

    async def restore(self, request: Request) -> Response:
        """Takes the body up as the server's state."""
        refusal = self._refuse(request, "restore", is_enabled=self._config.admin.enables_restore)
        if refusal is not None:
            return refusal
        if not self._config.standalone:
            return _answer("restore", HTTPStatus.CONFLICT, REFUSED_IN_ENSEMBLE)
        if not self._is_serving():
            return _answer("restore", HTTPStatus.SERVICE_UNAVAILABLE)
        if not self._rates.restores.take(self._clock.monotonic_ms()):
            self._statistics.restores_too_soon += 1
            return _answer("restore", HTTPStatus.TOO_MANY_REQUESTS)
        async with self._one_at_a_time:
            begun_ms = self._clock.monotonic_ms()
            try:
                zxid = await self._install(request)
            except (SnapshotDamagedError, ClientGoneError) as error:
                self._statistics.restore_errors += 1
                log.warning("refused a snapshot over HTTP", client=request.peer_host, error=error)
                text = f"the body is no snapshot of zoolog's: {error}"
                return _answer("restore", HTTPStatus.BAD_REQUEST, text)
        elapsed_ms = self._clock.monotonic_ms() - begun_ms
        self._meters.note("restore_time", elapsed_ms)
        log.warning("restored over HTTP, begins again", zxid=hex(zxid), client=request.peer_host)
        keys = {"last_zxid": zxid, "command": "restore", "error": None}
        return Response(
            HTTPStatus.OK, json.dumps(keys, indent=2).encode(), "application/json", then=self._restart
        )

    async def _install(self, request: Request) -> int:
        """The snapshot in the body is on disk and current when this returns, and nobody is served any
        more.
        """
        received = trio.Event()
        token = trio.lowlevel.current_trio_token()
        try:
            receiver = SnapshotReceiver(
                self._directory,
                self._environments,
                TreeKind(),
                lambda: token.run_sync_soon(received.set),
            )
        except (EnvironmentFailedError, OSError) as error:
            raise SnapshotDamagedError(f"there is no room for it: {error}") from error
        try:
            chunks = ChunkReader(request.receive)
            while not receiver.feed(await chunks.next()):
                while receiver.queued_bytes > RECEIVED_BYTES_MAX:  # noqa: ASYNC110 (a thread drains it)
                    await trio.sleep(WRITER_SECONDS)
            await received.wait()
        except BaseException:
            receiver.abort()
            raise
        return self._switch(receiver)

    def _switch(self, receiver: SnapshotReceiver[DataTree]) -> int:
        """Nothing else happens in between: what is acknowledged before is of the old state."""
        try:
            self._retire()
            zxid = receiver.received_zxid
            epochs = self._directory.epochs
            accepted, current = (max(epoch, zxid >> 32) for epoch in (epochs.accepted, epochs.current))
            self._directory.save_epochs(Epochs(accepted, current))
            installed = receiver.take_installed()
            assert installed is not None
            return installed.zxid
        except EnvironmentFailedError as error:
            if error.disk_full:
                receiver.abort()
                self._restart()
                raise SnapshotDamagedError(f"there is no room for it: {error}") from error
            fail_stop(error, "the snapshot's environment")
        except (OSError, DamagedFileError) as error:
            fail_stop(error, "the switch to the snapshot")

    # -- who may ---------------------------------------------------------------------------------------------

    def _refuse(self, request: Request, command: str, *, is_enabled: bool) -> Response | None:
        """None for somebody who has all permissions on the root."""
        header = request.headers.get("authorization")
        if not header:
            return _answer(command, HTTPStatus.UNAUTHORIZED, "Auth info is missing for the command")
        identities = self._identities(request, header)
        if identities is None:
            return _answer(command, HTTPStatus.UNAUTHORIZED, "Not authenticated")
        acl = self._state.tree.acl_of(self._state.tree.nodes[ROOT].acl)
        may = all(is_allowed(acl, permission, identities) for permission in PERMISSIONS)
        if not may and not self._config.security.skip_acl:
            log.warning("refused over HTTP", command=command, client=request.peer_host)
            return _answer(command, HTTPStatus.FORBIDDEN, "Not authorized")
        if not is_enabled:
            return _answer(command, HTTPStatus.SERVICE_UNAVAILABLE)
        return None

    def _identities(self, request: Request, header: str) -> tuple[Identity, ...] | None:
        """Of `Authorization: <scheme> <credentials>`; None for a scheme that is not known here."""
        scheme, _, credentials = header.strip().partition(" ")
        if scheme == "ip":
            return (Identity("ip", request.peer_host),)
        if scheme != "digest" or ":" not in credentials:
            return None
        packet = encode_int(0) + encode_text(scheme) + encode_buffer(credentials.strip().encode())
        try:
            return self._authentication.read_auth_packet(packet, ())
        except (CredentialError, DecodeError):
            return None


class _SnapshotBody:
    """A snapshot's chunks behind their lengths; closed when the answer has been sent, or could not be."""

    def __init__(self, reader: SnapshotReader) -> None:
        self._reader = reader
        self.zxid = reader.zxid

    async def measure(self, pace: Pace) -> int:
        """Bytes of all of it."""
        size = 0
        while (chunk := self._reader.next_chunk()) is not None:
            size += 4 + len(chunk)
            await pace.step(16)
        return size

    def __aiter__(self) -> "_SnapshotBody":
        return self

    async def __anext__(self) -> bytes:
        chunk = self._reader.next_chunk()
        if chunk is None:
            raise StopAsyncIteration
        return len(chunk).to_bytes(4, "big") + chunk

    async def aclose(self) -> None:
        self._reader.close()


def _answer(
    command: str, status: HTTPStatus, error: str | None = None, headers: dict[str, str] | None = None
) -> Response:
    text = json.dumps({"command": command, "error": error}, indent=2, separators=(",", " : ")) + "\n"
    return Response(status, text.encode(), "application/json", headers or {})
