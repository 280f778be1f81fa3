"""Carries out `bookie.ledger.recovery.Recovery` until the ledger is closed (open with recovery, 6.2)."""

from functools import partial

import trio

from bookie.client.links import BookieLinks, expect
from bookie.client.store import Conflict, MetadataStore
from bookie.ledger.errors import LedgerError, LedgerRecoveryError, MetadataStoreError, NoSuchLedgerError
from bookie.ledger.extent import Sealer
from bookie.ledger.metadata import LedgerMetadata
from bookie.ledger.pipeline import Placement
from bookie.ledger.recovery import DEFAULT_RECOVERY_LIMITS, Recovery, RecoveryLimits
from bookie.ledger.wire import (
    Add,
    AddFlag,
    AddReply,
    Code,
    Fence,
    FenceReply,
    Read,
    ReadFlag,
    ReadReply,
)
from bookie.ledger.writer import Store
from coord import eventlog, rpc
from coord.clock import Clock

TICK_S = 0.1

ATTEMPTS_MAX = 8
"""Recoveries tried in one call before the last error is given to the caller."""

PAUSE_S = 0.25
"""Between attempts, times the number of the attempt."""

log = eventlog.get("bookie.client")


class Recoverer:
    """What every recovery of one client shares."""

    def __init__(
        self,
        *,
        links: BookieLinks,
        store: MetadataStore,
        placement: Placement,
        clock: Clock,
        limits: RecoveryLimits = DEFAULT_RECOVERY_LIMITS,
    ) -> None:
        self.links = links
        self.store = store
        self.placement = placement
        self.now_ms = clock.monotonic_ms
        self.limits = limits

    async def recover(
        self, ledger_id: int, metadata: LedgerMetadata, version: int, master_key: bytes, sealer: Sealer
    ) -> tuple[LedgerMetadata, int]:
        """Close the ledger where it ends, fencing its writer.

        Cancelled, the ledger stays in recovery; anybody may recover it later.

        Returns:
            The closed record and its version.

        Raises:
            LedgerRecoveryError: too few bookies answered, several times.
            UnauthorizedError: wrong password. NoSuchLedgerError: deleted meanwhile.
        """
        attempt = 1
        while True:
            core = Recovery(ledger_id, metadata, version, self.placement, sealer=sealer, limits=self.limits)
            try:
                return await _Run(self, core, master_key).run()
            except LedgerRecoveryError as error:
                if attempt == ATTEMPTS_MAX:
                    raise
                log.info("recovery is tried again", ledger=ledger_id, attempt=attempt, reason=error)
            await trio.sleep(PAUSE_S * attempt)
            attempt += 1
            metadata, version = await self.store.read(ledger_id)


class _Run:
    """One attempt."""

    def __init__(self, recoverer: Recoverer, core: Recovery, master_key: bytes) -> None:
        self._links = recoverer.links
        self._store = recoverer.store
        self._now_ms = recoverer.now_ms
        self._core = core
        self._key = master_key
        self._news = trio.Event()
        self._to_store: Store | None = None

    async def run(self) -> tuple[LedgerMetadata, int]:
        core = self._core
        core.start(self._now_ms())
        while True:
            self._pump()
            if core.failure is not None:
                raise core.failure
            if core.done:
                return core.metadata, core.version
            if self._to_store is not None:
                store, self._to_store = self._to_store, None
                await self._write(store)
                continue
            with trio.move_on_after(TICK_S):
                await self._news.wait()
            self._news = trio.Event()
            core.tick(self._now_ms())

    def _pump(self) -> None:
        ready = self._core.take_ready(self._now_ms())
        ledger_id, key = self._core.ledger_id, self._key
        for fence in ready.fences:
            message = Fence(ledger_id, key, fence.floor)
            self._links.request(fence.member, message, on_answer=partial(self._on_fence, fence.request_id))
        for read in ready.reads:
            flags = (
                int(ReadFlag.FENCE | ReadFlag.HIGH_PRIORITY) if read.fence else int(ReadFlag.HIGH_PRIORITY)
            )
            ask = Read(ledger_id, read.first, read.last, 0, read.max_bytes, flags, key)
            self._links.request(read.member, ask, on_answer=partial(self._on_read, read.request_id))
        flags = int(AddFlag.RECOVERY | AddFlag.HIGH_PRIORITY)
        for send in ready.sends:
            add = Add(ledger_id, flags, key, send.extent.checksum)
            on_answer = partial(self._on_add, send.request_id)
            self._links.request(send.member, add, send.extent.data, on_answer=on_answer)
        for member in ready.hung:
            self._links.reset(member, "no answer in time")
        if ready.store is not None:
            self._to_store = ready.store

    def _on_fence(self, request_id: int, reply: rpc.Reply | None, code: int) -> None:
        code = expect(reply, code, FenceReply)
        if reply is not None and code == Code.OK:
            self._core.receive_fence(request_id, reply.message)
        else:
            self._core.receive_fence_error(request_id, code)
        self._news.set()

    def _on_read(self, request_id: int, reply: rpc.Reply | None, code: int) -> None:
        code = expect(reply, code, ReadReply)
        if reply is not None and code == Code.OK:
            self._core.receive_read(request_id, reply.message, reply.body, self._now_ms())
        else:
            self._core.receive_read_error(request_id, code)
        self._news.set()

    def _on_add(self, request_id: int, reply: rpc.Reply | None, code: int) -> None:
        code = expect(reply, code, AddReply)
        if reply is not None and code == Code.OK:
            self._core.receive_add(request_id, reply.message.runs, self._now_ms())
        else:
            self._core.receive_add_error(request_id, code, self._now_ms())
        self._news.set()

    async def _write(self, store: Store) -> None:
        core = self._core
        try:
            result = await self._store.write(core.ledger_id, store.metadata, store.version)
        except NoSuchLedgerError:
            core.vanished()
        except MetadataStoreError as error:
            core.store_failed(error)
        except LedgerError as error:
            core.fail(error)
        else:
            if isinstance(result, Conflict):
                core.conflicted(result.metadata, result.version, self._now_ms())
            else:
                core.stored(result.version, self._now_ms())
