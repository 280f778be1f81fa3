"""What a bookie does with each request: check it, ask the store, answer when the answer is true.

Everything here is synchronous and runs in the reactor's tick. An answer that promises durability is sent from
a callback of the store, and from nowhere else (R-B3, R-N1). The first request of a connection is Hello; a
peer that means another bookie, or another incarnation, is served nothing (R-I3).
"""

from collections.abc import Callable
from typing import Any, Final, NoReturn

from google_crc32c import value as crc32c

from bookie.ledger import wire
from bookie.ledger.extent import ID_MAX, NO_ENTRY_ID, Extent, ExtentError
from bookie.ledger.wire import AddFlag, Code, ReadFlag, Stop
from bookie.server.config import BookieConfig
from bookie.server.cookie import Cookie
from bookie.server.reader import SegmentReader
from bookie.server.waiting import Waiter, WaitingRoom
from bookie.storage import LocalLedger, RefusedError, Store
from bookie.storage.index_format import IndexDamagedError
from bookie.storage.reading import Answer, assemble, plan_read
from coord.clock import Clock
from coord.log import LogFailedError
from coord.rpc import Peer

LIST_PAGE_MAX: Final = 1000
"""Ledger ids in one answer."""

JOIN_PARTS: Final = 16
"""An answer of more extents is joined here, so that the connection's queue stays short."""

_ADD_FLAGS: Final = int(AddFlag.RECOVERY | AddFlag.HIGH_PRIORITY)
_READ_FLAGS: Final = int(ReadFlag.FENCE | ReadFlag.HIGH_PRIORITY)
_RECOVERY: Final = int(AddFlag.RECOVERY)


class Requests:
    """The `Handler` of the bookie's connections.

    Attributes:
        store: decides and remembers.
        waiting: parked Tail requests.
        counts: requests by message class.
        refused: refusals by code.
    """

    def __init__(
        self,
        store: Store,
        cookie: Cookie,
        config: BookieConfig,
        clock: Clock,
        reader: SegmentReader,
        on_disk_failure: Callable[[BaseException], NoReturn],
    ) -> None:
        self.store = store
        self.waiting = WaitingRoom(store.lac_watched, config.long_polls_max)
        self.counts: dict[type, int] = {}
        self.refused: dict[int, int] = {}
        self.peers = 0
        self._cookie = cookie
        self._config = config
        self._clock = clock
        self._reader = reader
        self._on_disk_failure = on_disk_failure
        self._handlers: dict[type, Callable[[Peer, int, Any, memoryview], None]] = {
            wire.Add: self._on_add,
            wire.Read: self._on_read,
            wire.Tail: self._on_tail,
            wire.Fence: self._on_fence,
            wire.ReadLac: self._on_read_lac,
            wire.WriteLac: self._on_write_lac,
            wire.Held: self._on_held,
            wire.ListLedgers: self._on_list,
        }
        store.on_lac = self.waiting.on_lac

    # ---- the rpc service's side

    def on_connected(self, peer: Peer) -> None:
        self.peers += 1

    def on_request(self, peer: Peer, request_id: int, message: Any, body: memoryview) -> None:
        kind = type(message)
        self.counts[kind] = self.counts.get(kind, 0) + 1
        try:
            if peer.data is None:
                self._on_hello(peer, request_id, message)
                return
            handler = self._handlers.get(kind)
            if handler is None:
                raise RefusedError(Code.BAD_REQUEST, f"{kind.__name__} is not a request")
            handler(peer, request_id, message, body)
        except RefusedError as error:
            self.refused[error.code] = self.refused.get(error.code, 0) + 1
            peer.fail(request_id, error.code, str(error))

    def on_one_way(self, peer: Peer, message: Any, body: memoryview) -> None:
        peer.close("there are no one-way messages to a bookie")

    def on_disconnected(self, peer: Peer, reason: str) -> None:
        self.peers -= 1
        self.waiting.drop(peer)

    def on_tick_end(self) -> None:
        try:
            self.store.write()
        except (LogFailedError, OSError) as error:
            self._on_disk_failure(error)
        self.waiting.answer_risen()

    # ---- one request each

    def _on_hello(self, peer: Peer, request_id: int, message: Any) -> None:
        mine = self._cookie
        if not isinstance(message, wire.Hello):
            raise RefusedError(Code.BAD_REQUEST, "a connection begins with Hello")
        if message.version != wire.PROTOCOL_VERSION:
            raise RefusedError(Code.BAD_VERSION, f"this bookie speaks version {wire.PROTOCOL_VERSION}")
        if message.bookie_id != mine.bookie_id or message.incarnation not in (0, mine.incarnation):
            raise RefusedError(Code.WRONG_BOOKIE, f"this is bookie {mine.bookie_id}, {mine.incarnation:016x}")
        peer.data = message
        peer.reply(
            request_id,
            wire.HelloReply(
                wire.PROTOCOL_VERSION,
                mine.bookie_id,
                mine.incarnation,
                mine.instance_id,
                self.store.read_only,
            ),
        )

    def _on_add(self, peer: Peer, request_id: int, message: wire.Add, body: memoryview) -> None:
        """The hot path: one copy out of the read buffer, one checksum over it, one record."""
        flags = message.flags
        if flags & ~_ADD_FLAGS:
            raise RefusedError(Code.BAD_REQUEST, f"unknown flags {flags:#x}")
        _check_key(message.master_key)
        data = bytes(body)
        if crc32c(data) != message.checksum:
            raise RefusedError(
                Code.BAD_REQUEST, "the extent's checksum does not match: it was damaged on its way"
            )
        try:
            extent = Extent(data)
        except ExtentError as error:
            raise RefusedError(Code.BAD_REQUEST, str(error)) from error
        if extent.size != len(data) or extent.ledger_id != message.ledger_id:
            raise RefusedError(Code.BAD_REQUEST, "the body is not one extent of the ledger named")
        run = (extent.first_entry_id, extent.last_entry_id, int(Code.OK))

        def durable() -> None:
            peer.reply(request_id, wire.AddReply((run,)))

        self.store.add(
            extent,
            data,
            message.checksum,
            message.master_key,
            recovery=bool(flags & _RECOVERY),
            on_durable=durable,
        )

    def _on_read(self, peer: Peer, request_id: int, message: wire.Read, body: memoryview) -> None:
        if message.flags & ~_READ_FLAGS:
            raise RefusedError(Code.BAD_REQUEST, f"unknown flags {message.flags:#x}")
        _check_range(message.ledger_id, message.first, message.last)

        def answer() -> None:
            self._answer_read(
                peer,
                request_id,
                message.ledger_id,
                message.first,
                message.last,
                message.max_count,
                message.max_bytes,
            )

        if message.flags & ReadFlag.FENCE:
            _check_key(message.master_key)
            self.store.fence(message.ledger_id, message.master_key, self._guarded(peer, request_id, answer))
        else:
            answer()

    def _on_tail(self, peer: Peer, request_id: int, message: wire.Tail, body: memoryview) -> None:
        ledger_id, first = message.ledger_id, message.first
        _check_range(ledger_id, first, ID_MAX)

        def answer() -> None:
            ledger = self._ledger(ledger_id)
            if ledger.lac < first:
                reply = wire.ReadReply(int(Stop.END), first, ledger.lac, ledger.last_entry_id)
                peer.reply(request_id, reply)
            else:
                self._answer_read(peer, request_id, ledger_id, first, ledger.lac, 0, message.max_bytes)

        ledger = self.store.ledger(ledger_id)
        lac = NO_ENTRY_ID if ledger is None else ledger.lac
        waits_ms = min(message.timeout_ms, self._config.long_poll_ms_max)
        guarded = self._guarded(peer, request_id, answer)
        if lac <= message.previous_lac and waits_ms > 0:
            waiter = Waiter(ledger_id, message.previous_lac, peer, guarded)
            if self.waiting.park(waiter, self._clock.monotonic_ms() + waits_ms):
                return
        guarded()

    def _on_fence(self, peer: Peer, request_id: int, message: wire.Fence, body: memoryview) -> None:
        _check_key(message.master_key)
        _check_ledger(message.ledger_id)
        if not NO_ENTRY_ID <= message.floor < ID_MAX:
            raise RefusedError(Code.BAD_REQUEST, f"floor {message.floor} is out of range")

        def answer() -> None:
            # After the fence is durable: the list is what is here now, holes included (R-N8 b, c).
            ledger = self._ledger(message.ledger_id)
            floor = max(message.floor, ledger.lac)
            held, through = self._held(ledger, floor + 1, ID_MAX)
            peer.reply(request_id, wire.FenceReply(ledger.lac, floor, held, through))

        self.store.fence(message.ledger_id, message.master_key, self._guarded(peer, request_id, answer))

    def _on_read_lac(self, peer: Peer, request_id: int, message: wire.ReadLac, body: memoryview) -> None:
        _check_ledger(message.ledger_id)
        self._reply_lac(peer, request_id, message.ledger_id)

    def _on_write_lac(self, peer: Peer, request_id: int, message: wire.WriteLac, body: memoryview) -> None:
        _check_key(message.master_key)
        _check_ledger(message.ledger_id)
        if not 0 <= message.lac < ID_MAX:
            raise RefusedError(Code.BAD_REQUEST, f"LAC {message.lac} is out of range")

        def durable() -> None:
            self._reply_lac(peer, request_id, message.ledger_id)

        guarded = self._guarded(peer, request_id, durable)
        self.store.write_lac(message.ledger_id, message.master_key, message.lac, guarded)

    def _on_held(self, peer: Peer, request_id: int, message: wire.Held, body: memoryview) -> None:
        _check_range(message.ledger_id, message.first, message.last)
        held, through = self._held(self._ledger(message.ledger_id), message.first, message.last)
        peer.reply(request_id, wire.HeldReply(held, through))

    def _on_list(self, peer: Peer, request_id: int, message: wire.ListLedgers, body: memoryview) -> None:
        if not NO_ENTRY_ID <= message.after <= ID_MAX:
            raise RefusedError(Code.BAD_REQUEST, f"ledger id {message.after} is out of range")
        count = min(message.max_count, LIST_PAGE_MAX) if message.max_count > 0 else LIST_PAGE_MAX
        ids, more = self.store.ledger_ids(message.after, count)
        peer.reply(request_id, wire.LedgerList(tuple(ids), more))

    # ---- parts

    def _answer_read(
        self,
        peer: Peer,
        request_id: int,
        ledger_id: int,
        first: int,
        last: int,
        max_count: int,
        max_bytes: int,
    ) -> None:
        ledger = self._ledger(ledger_id)
        count = max_count if max_count > 0 else ID_MAX
        size = min(max_bytes, wire.READ_BYTES_MAX) if max_bytes > 0 else wire.READ_BYTES_MAX
        plan = plan_read(self.store, ledger, first, last, count, size)

        def send(answer: Answer) -> None:
            extents = answer.extents
            reply = wire.ReadReply(
                int(answer.stop), answer.next_entry_id, ledger.lac, ledger.last_entry_id, int(answer.error)
            )
            peer.reply(request_id, reply, *([b"".join(extents)] if len(extents) > JOIN_PARTS else extents))

        if plan.places:
            self._reader.submit(plan, send)
        else:
            send(assemble(plan, {}))

    def _reply_lac(self, peer: Peer, request_id: int, ledger_id: int) -> None:
        ledger = self._ledger(ledger_id)
        peer.reply(request_id, wire.LacReply(ledger.lac, ledger.last_entry_id, ledger.fenced))

    def _ledger(self, ledger_id: int) -> LocalLedger:
        ledger = self.store.ledger(ledger_id)
        if ledger is None:
            raise RefusedError(Code.NO_LEDGER, f"ledger {ledger_id} is not known here")
        return ledger

    def _held(self, ledger: LocalLedger, first: int, last: int) -> tuple[tuple[wire.Range, ...], int]:
        try:
            return ledger.held(self.store.index, first, last, wire.RANGES_MAX)
        except IndexDamagedError as error:
            raise RefusedError(Code.IO_ERROR, str(error)) from error

    def _guarded(self, peer: Peer, request_id: int, answer: Callable[[], None]) -> Callable[[], None]:
        """`answer` for later: there, a refusal has nobody above it to turn it into an error frame."""

        def guarded() -> None:
            if not peer.is_connected:
                return
            try:
                answer()
            except RefusedError as error:
                self.refused[error.code] = self.refused.get(error.code, 0) + 1
                peer.fail(request_id, error.code, str(error))

        return guarded


def _check_key(master_key: bytes) -> None:
    if len(master_key) != wire.MASTER_KEY_BYTES:
        raise RefusedError(
            Code.BAD_REQUEST, f"a master key has {wire.MASTER_KEY_BYTES} bytes, not {len(master_key)}"
        )


def _check_ledger(ledger_id: int) -> None:
    if not 0 <= ledger_id <= ID_MAX:
        raise RefusedError(Code.BAD_REQUEST, f"ledger id {ledger_id} is out of range")


def _check_range(ledger_id: int, first: int, last: int) -> None:
    _check_ledger(ledger_id)
    if not 0 <= first <= last <= ID_MAX:
        raise RefusedError(Code.BAD_REQUEST, f"entries {first}..{last} are no range")
