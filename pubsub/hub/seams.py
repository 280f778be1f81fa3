"""What a hub needs from the layers below, as narrow as it uses them.

`Ledgers` is satisfied by `pubsub.hub.ledgers` over bookie's client and by the in-memory ledgers of the tests,
which pass the same suite. Errors are translated here once: the hub's code knows only those of this file.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, Protocol

KIND_TOPIC: Final = b"topic"
KIND_CURSORS: Final = b"cursors"
"""Values of the property `kind` of the ledgers that hubs create (P1)."""

OnAppended = Callable[[int | Exception], None]
"""Called on the loop, in order of the appends, with the entry's id or what went wrong."""


class LedgerStoreError(Exception):
    """A ledger operation failed."""


class LedgerGoneError(LedgerStoreError):
    """The ledger does not exist (any more)."""


class LedgerFencedError(LedgerStoreError):
    """Somebody else has recovered the ledger: this writer is deposed."""


class TooFewBookiesError(LedgerStoreError):
    """Not enough live bookies for an ack quorum."""


@dataclass(frozen=True, slots=True)
class LedgerFacts:
    """A ledger as it was created."""

    ledger_id: int
    created_ms: int
    properties: dict[str, bytes]


class LedgerReader(Protocol):
    """A closed ledger."""

    ledger_id: int

    @property
    def last_entry(self) -> int:
        """Id of the last entry, -1 when there is none."""
        ...

    async def read(self, first: int, last: int, bytes_max: int) -> list[bytes]:
        """Entries from `first` on, at least one, up to `last` or about `bytes_max` bytes.

        Raises:
            LedgerGoneError, LedgerStoreError
        """
        ...

    def close(self) -> None: ...


class LedgerWriter(Protocol):
    """A ledger this hub writes."""

    ledger_id: int

    @property
    def copies(self) -> int:
        """Live bookies it is written to at present."""
        ...

    def append_nowait(self, entry: bytes, on_appended: OnAppended) -> None:
        """Append; the answer comes through `on_appended`, never from within this call."""
        ...

    async def read(self, first: int, last: int, bytes_max: int) -> list[bytes]:
        """As `LedgerReader.read`, for entries that were reported as appended."""
        ...

    async def close(self) -> None:
        """Seal the ledger after its last confirmed entry.

        Raises:
            LedgerFencedError, LedgerStoreError
        """
        ...

    def abandon(self) -> None:
        """Give the handle up without sealing: pending appends fail, nothing is written any more."""
        ...


class Ledgers(Protocol):
    """The ledger service."""

    copies_wanted: int

    async def create(self, properties: dict[str, bytes]) -> LedgerWriter:
        """A new ledger of `copies_wanted` copies, or of as many as there are bookies, never below the ack
        quorum.

        Raises:
            TooFewBookiesError, LedgerStoreError
        """
        ...

    async def open_recovered(self, ledger_id: int) -> LedgerReader:
        """Open for reading; a ledger that is not closed is fenced and sealed first (T12).

        Raises:
            LedgerGoneError, LedgerStoreError
        """
        ...

    async def delete(self, ledger_id: int) -> None:
        """Delete; one that is gone already counts as deleted.

        Raises:
            LedgerStoreError
        """
        ...

    def listed(self) -> AsyncIterator[LedgerFacts]:
        """All ledgers that hubs have created.

        Raises:
            LedgerStoreError: while iterating.
        """
        ...

    async def bookies_available(self) -> int:
        """How many bookies take writes now."""
        ...
