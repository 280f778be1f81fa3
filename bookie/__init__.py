"""zoolog's ledgers: replicated, fenced, append-only logs on storage servers.

    async with bookie.connect("127.0.0.1:2181") as ledgers:
        async with ledgers.create(ensemble=3, write_quorum=3, ack_quorum=2) as ledger:
            entry_id = await ledger.append(b"...")

Whoever has a coordination client already uses `bookie.open_ledgers(zk)`.
"""

from bookie.client.ledgers import WANTED, Ledgers, connect, open_ledgers
from bookie.client.reading import Entry, LedgerReader
from bookie.client.tailing import LedgerTail
from bookie.client.writing import LedgerWriter, OnDone, WriterStatistics
from bookie.ledger.errors import (
    BookieReadOnlyError,
    BookieTimeoutError,
    BookieUnavailableError,
    ClientClosedError,
    DataUnknownError,
    DigestMismatchError,
    IncorrectParameterError,
    LedgerClosedError,
    LedgerError,
    LedgerExistsError,
    LedgerFencedError,
    LedgerRecoveryError,
    MetadataConflictError,
    MetadataError,
    MetadataStoreError,
    NoSuchEntryError,
    NoSuchLedgerError,
    NotEnoughBookiesError,
    ProtocolVersionError,
    ReadError,
    TooManyRequestsError,
    UnauthorizedError,
)
from bookie.ledger.extent import ENTRY_BYTES_MAX, NO_ENTRY_ID, SealKind
from bookie.ledger.metadata import Fragment, LedgerMetadata, LedgerState, Member
from bookie.ledger.reader import Chunk
from bookie.ledger.recovery import RecoveryLimits
from bookie.ledger.writer import WriterLimits

__all__ = [
    "ENTRY_BYTES_MAX",
    "NO_ENTRY_ID",
    "WANTED",
    "BookieReadOnlyError",
    "BookieTimeoutError",
    "BookieUnavailableError",
    "Chunk",
    "ClientClosedError",
    "DataUnknownError",
    "DigestMismatchError",
    "Entry",
    "Fragment",
    "IncorrectParameterError",
    "LedgerClosedError",
    "LedgerError",
    "LedgerExistsError",
    "LedgerFencedError",
    "LedgerMetadata",
    "LedgerReader",
    "LedgerRecoveryError",
    "LedgerState",
    "LedgerTail",
    "LedgerWriter",
    "Ledgers",
    "Member",
    "MetadataConflictError",
    "MetadataError",
    "MetadataStoreError",
    "NoSuchEntryError",
    "NoSuchLedgerError",
    "NotEnoughBookiesError",
    "OnDone",
    "ProtocolVersionError",
    "ReadError",
    "RecoveryLimits",
    "SealKind",
    "TooManyRequestsError",
    "UnauthorizedError",
    "WriterLimits",
    "WriterStatistics",
    "connect",
    "open_ledgers",
]
