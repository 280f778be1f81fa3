"""A bookie in memory that follows the rules of the specification's chapter 3, for tests and simulation.

`answer` acts at once, as a bookie does in its critical section; what has to be durable before the answer may
leave is in `unsynced` until `sync`. `crash` keeps what was synced and any subset of the rest (R-J4).
"""

import random
from dataclasses import dataclass, field

import google_crc32c

from bookie.ledger.extent import NO_ENTRY_ID, Extent, ExtentError, SealKind, encode_extent
from bookie.ledger.metadata import Member
from bookie.ledger.wire import (
    RANGES_MAX,
    READ_BYTES_MAX,
    Add,
    AddFlag,
    AddReply,
    Code,
    Fence,
    FenceReply,
    Held,
    HeldReply,
    Hello,
    HelloReply,
    LacReply,
    LedgerList,
    ListLedgers,
    Read,
    ReadFlag,
    ReadLac,
    ReadReply,
    Stop,
    Tail,
    WriteLac,
)


class Refused(Exception):
    """An error frame."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {int(code)}")
        self.code = int(code)


@dataclass(frozen=True)
class StoredEntry:
    """One entry with what stands in its header."""

    payload: bytes
    lac: int
    base_length: int
    source: bytes = b""
    """The extent it came in, where it has to be kept to be believed (HMAC)."""


@dataclass
class LocalLedger:
    """What one bookie knows of one ledger (3.2)."""

    key: bytes
    fenced: bool = False
    lac: int = NO_ENTRY_ID
    entries: dict[int, StoredEntry] = field(default_factory=dict)

    def copy(self) -> "LocalLedger":
        return LocalLedger(self.key, self.fenced, self.lac, dict(self.entries))


class FakeBookie:
    """One bookie.

    Attributes:
        unsynced: changes that a crash may lose, as (ledger id, key, change) with change one of
            ("entry", id, StoredEntry), ("fence",), ("lac", value), ("key",).
        unreadable: (ledger id, entry id) whose bytes are damaged: I/O error, never "no entry" (R-B9).
        refuse: code to answer every add with, for tests.
    """

    def __init__(self, bookie_id: str, incarnation: int = 1) -> None:
        self.member = Member(bookie_id, incarnation)
        self.ledgers: dict[int, LocalLedger] = {}
        self.durable: dict[int, LocalLedger] = {}
        self.unsynced: list[tuple[int, bytes, tuple]] = []
        self.unreadable: set[tuple[int, int]] = set()
        self.refuse: int | None = None
        self.adds = 0

    def answer(self, message: object, body: bytes = b"") -> tuple[object, bytes]:
        """Act on a request.

        Raises:
            Refused: answered with an error frame.
        """
        match message:
            case Hello():
                if (message.bookie_id, message.incarnation) != self.member:
                    raise Refused(Code.WRONG_BOOKIE)
                return HelloReply(1, *self.member, "instance"), b""
            case Add():
                return self._add(message, body), b""
            case Read():
                if message.flags & ReadFlag.FENCE:
                    self._fence(message.ledger_id, message.master_key)
                return self._read(message.ledger_id, message.first, message.last, message.max_bytes)
            case Tail():
                ledger = self.ledgers.get(message.ledger_id)
                lac = ledger.lac if ledger else NO_ENTRY_ID
                if message.max_bytes == 0 or lac < message.first or ledger is None:
                    return ReadReply(Stop.END, message.first, lac), b""
                return self._read(message.ledger_id, message.first, lac, message.max_bytes)
            case Fence():
                return self._fence_and_testify(message), b""
            case ReadLac():
                ledger = self._known(message.ledger_id)
                return LacReply(ledger.lac, max(ledger.entries, default=NO_ENTRY_ID), ledger.fenced), b""
            case WriteLac():
                ledger = self._authorized(message.ledger_id, message.master_key)
                self._change(message.ledger_id, ledger, ("lac", message.lac))
                return LacReply(ledger.lac, max(ledger.entries, default=NO_ENTRY_ID), ledger.fenced), b""
            case Held():
                ledger = self._known(message.ledger_id)
                ids = [e for e in sorted(ledger.entries) if message.first <= e <= message.last]
                return HeldReply(tuple(ranges_of(ids)), message.last), b""
            case ListLedgers():
                ids = sorted(i for i in self.ledgers if i > message.after)
                return LedgerList(tuple(ids)), b""
        raise Refused(Code.BAD_REQUEST)

    def sync(self) -> None:
        """What was accepted becomes durable."""
        for ledger_id, key, change in self.unsynced:
            apply(self.durable, ledger_id, key, change)
        self.unsynced.clear()

    def crash(self, rng: random.Random) -> None:
        """Restart with what was durable, and any subset of the rest."""
        for ledger_id, key, change in self.unsynced:
            if rng.random() < 0.5:
                apply(self.durable, ledger_id, key, change)
        self.unsynced.clear()
        self.ledgers = {ledger_id: ledger.copy() for ledger_id, ledger in self.durable.items()}

    def _add(self, message: Add, body: bytes) -> AddReply:
        if self.refuse is not None:
            raise Refused(self.refuse)
        if google_crc32c.value(body) != message.checksum or message.flags & ~7:
            raise Refused(Code.BAD_REQUEST)
        try:
            extent = Extent(body)
            extent.verify_payloads()
        except ExtentError:
            raise Refused(Code.BAD_REQUEST) from None
        if extent.ledger_id != message.ledger_id or extent.size != len(body):
            raise Refused(Code.BAD_REQUEST)
        ledger = self._authorized(message.ledger_id, message.master_key)
        if ledger.fenced and not message.flags & AddFlag.RECOVERY:
            raise Refused(Code.FENCED)
        self.adds += 1
        base = extent.base_length
        for entry_id, payload in enumerate(extent.payloads(), extent.first_entry_id):
            if entry_id not in ledger.entries:  # per entry, never "first id present" (R-B7)
                source = body if extent.kind is SealKind.HMAC_SHA256 else b""
                entry = StoredEntry(payload, extent.lac, base, source)
                self._change(extent.ledger_id, ledger, ("entry", entry_id, entry))
            base += len(payload)
        self._change(extent.ledger_id, ledger, ("lac", extent.lac))
        return AddReply(((extent.first_entry_id, extent.last_entry_id, int(Code.OK)),))

    def _read(self, ledger_id: int, first: int, last: int, max_bytes: int) -> tuple[ReadReply, bytes]:
        ledger = self._known(ledger_id)
        limit = max_bytes if 0 < max_bytes < READ_BYTES_MAX else READ_BYTES_MAX
        body, size, stop, error, entry_id = [], 0, Stop.END, 0, first
        while entry_id <= last:
            entry = ledger.entries.get(entry_id)
            if entry is None:
                stop = Stop.NO_ENTRY
                break
            if (ledger_id, entry_id) in self.unreadable:
                stop, error = Stop.ERROR, int(Code.IO_ERROR)
                break
            if body and size + len(entry.payload) > limit:
                stop = Stop.LIMIT
                break
            size += len(entry.payload)
            body.append(entry)
            entry_id += 1
        highest = max(ledger.entries, default=NO_ENTRY_ID)
        return ReadReply(int(stop), entry_id, ledger.lac, highest, error), extents_of(ledger_id, first, body)

    def _fence_and_testify(self, message: Fence) -> FenceReply:
        ledger = self._fence(message.ledger_id, message.master_key)
        floor = max(message.floor, ledger.lac)
        held = ranges_of([e for e in sorted(ledger.entries) if e > floor])
        if len(held) > RANGES_MAX:
            return FenceReply(ledger.lac, floor, tuple(held[:RANGES_MAX]), held[RANGES_MAX][0] - 1)
        return FenceReply(ledger.lac, floor, tuple(held))

    def _fence(self, ledger_id: int, key: bytes) -> LocalLedger:
        ledger = self._authorized(ledger_id, key)
        if not ledger.fenced:
            self._change(ledger_id, ledger, ("fence",))
        return ledger

    def _known(self, ledger_id: int) -> LocalLedger:
        ledger = self.ledgers.get(ledger_id)
        if ledger is None:
            raise Refused(Code.NO_LEDGER)
        return ledger

    def _authorized(self, ledger_id: int, key: bytes) -> LocalLedger:
        ledger = self.ledgers.get(ledger_id)
        if ledger is None:
            ledger = self.ledgers[ledger_id] = LocalLedger(key)
            self.unsynced.append((ledger_id, key, ("key",)))
        if ledger.key != key:
            raise Refused(Code.UNAUTHORIZED)
        return ledger

    def _change(self, ledger_id: int, ledger: LocalLedger, change: tuple) -> None:
        apply(self.ledgers, ledger_id, ledger.key, change)
        self.unsynced.append((ledger_id, ledger.key, change))


def apply(ledgers: dict[int, LocalLedger], ledger_id: int, key: bytes, change: tuple) -> None:
    """Carry one logged change out."""
    ledger = ledgers.setdefault(ledger_id, LocalLedger(key))
    match change:
        case ("entry", int() as entry_id, entry):
            ledger.entries[entry_id] = entry
        case ("fence",):
            ledger.fenced = True
        case ("lac", int() as lac):
            ledger.lac = max(ledger.lac, lac)


def extents_of(ledger_id: int, first: int, entries: list[StoredEntry]) -> bytes:
    """Consecutive entries as extents: cut where the LAC differs, so other cuts than the writer's are seen."""
    body = []
    while entries:
        if entries[0].source:
            body.append(Extent(entries[0].source).cut(first, first))
            entries, first = entries[1:], first + 1
            continue
        count = next((k for k, e in enumerate(entries) if e.lac != entries[0].lac), len(entries))
        payloads = [entry.payload for entry in entries[:count]]
        body.append(encode_extent(ledger_id, first, entries[0].lac, entries[0].base_length, payloads).data)
        entries, first = entries[count:], first + count
    return b"".join(body)


def ranges_of(ids: list[int]) -> list[tuple[int, int]]:
    """Ascending ids as inclusive ranges."""
    ranges: list[tuple[int, int]] = []
    for entry_id in ids:
        if ranges and ranges[-1][1] == entry_id - 1:
            ranges[-1] = (ranges[-1][0], entry_id)
        else:
            ranges.append((entry_id, entry_id))
    return ranges
