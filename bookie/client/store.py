"""Ledger metadata in the coordination service: create, read, compare-and-set, delete, list.

The store's answers can be lost. A lost answer is never taken for a failure: the node is read again, and what
stands there decides (R-M5 for create, by the record's token; R-M6 for a change, by its bytes). Reads that
decide anything are preceded by `sync` on the same session, since a follower may lag.

While the service is away everything here waits and tries again, for RETRY_MS_MAX at most.
"""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import trio

from bookie.ledger import layout
from bookie.ledger.errors import MetadataError, MetadataStoreError, NoSuchLedgerError
from bookie.ledger.layout import ledger_path
from bookie.ledger.metadata import LedgerMetadata
from coord.clock import Clock
from coord.errors import (
    BadVersionError,
    ConnectionLossError,
    CoordError,
    NodeExistsError,
    NoNodeError,
    NotConnectedError,
    NotEmptyError,
)

RETRY_MS_MAX = 30_000
"""How long an operation is tried again while the service cannot be reached."""

RETRY_PAUSE_MS = 100

IDS_PER_CLAIM_MAX = 64
"""Ledger ids claimed at once; a client's first claim is of one, then it doubles."""

T = TypeVar("T")


class Coord(Protocol):
    """What ledgers need of a coordination client (`coord.connect` gives one)."""

    async def create(
        self, path: str, data: bytes = b"", *, ephemeral: bool = False, sequential: bool = False
    ) -> str: ...
    async def get(self, path: str) -> tuple[bytes | None, Any]: ...
    async def set(self, path: str, data: bytes, version: int = -1) -> Any: ...
    async def delete(self, path: str, version: int = -1) -> None: ...
    async def get_children(self, path: str) -> list[str]: ...
    async def sync(self, path: str) -> Any: ...
    def watch(self, path: str, *, children: bool = False) -> AbstractAsyncContextManager[Any]: ...


@dataclass(frozen=True, slots=True)
class Written:
    """The record is in the store, with this version."""

    version: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """The store has this record instead, with this version."""

    metadata: LedgerMetadata
    version: int


class MetadataStore:
    """Ledger records by compare-and-set; methods raise MetadataStoreError when the service stays away."""

    def __init__(self, zk: Coord, rng: random.Random, clock: Clock) -> None:
        self._zk = zk
        self._rng = rng
        self._clock = clock
        self._ids = range(0)
        self._claim = 1
        self._claiming = trio.Lock()

    def new_token(self) -> int:
        """A random number that tells our create from another's (R-M5)."""
        return self._rng.getrandbits(64)

    async def read(self, ledger_id: int, *, fresh: bool = True) -> tuple[LedgerMetadata, int]:
        """The record and its version.

        Args:
            fresh: sync first; without it a follower's old record may come.

        Raises:
            NoSuchLedgerError: there is no such ledger.
            MetadataError: the record is damaged, which is not the same.
        """
        path = ledger_path(ledger_id)

        async def read() -> tuple[LedgerMetadata, int]:
            if fresh:
                await self._zk.sync(path)
            data, stat = await self._zk.get(path)
            return LedgerMetadata.decode(data or b""), stat.version

        try:
            return await self._patiently(read)
        except NoNodeError as error:
            raise NoSuchLedgerError(f"there is no ledger {ledger_id}") from error

    async def create(self, metadata: LedgerMetadata) -> tuple[int, int]:
        """Store a new record under a new id.

        Returns:
            The ledger id and the record's version, once the create is confirmed.
        """
        data = metadata.encode()
        while True:
            ledger_id = await self._next_id()
            if await self._create_node(ledger_id, data, metadata.token):
                return ledger_id, 0

    async def write(self, ledger_id: int, metadata: LedgerMetadata, version: int) -> Written | Conflict:
        """Compare-and-set.

        Returns:
            Written: the record is there, also when only the answer was lost.
            Conflict: what is there instead.

        Raises:
            NoSuchLedgerError: the ledger was deleted.
        """
        path, data = ledger_path(ledger_id), metadata.encode()

        async def write() -> Written | Conflict:
            try:
                stat = await self._zk.set(path, data, version)
                return Written(stat.version)
            except (BadVersionError, ConnectionLossError):
                found, found_version = await self.read(ledger_id)
                if found_version == version:
                    raise NotConnectedError("the set did not happen") from None
                if found.encode() == data:
                    return Written(found_version)
                return Conflict(found, found_version)

        try:
            return await self._patiently(write)
        except NoNodeError as error:
            raise NoSuchLedgerError(f"ledger {ledger_id} was deleted") from error

    async def delete(self, ledger_id: int) -> None:
        """Remove the record, whatever its version; a ledger that is not there is deleted already."""
        path = ledger_path(ledger_id)
        try:
            await self._patiently(lambda: self._zk.delete(path))
        except NoNodeError:
            return
        for parent in reversed(layout.parent_paths(ledger_id)):
            try:
                await self._zk.delete(parent)
            except (NotEmptyError, NoNodeError, ConnectionLossError, NotConnectedError):
                return

    async def ledger_ids(self) -> AsyncIterator[int]:
        """All ledger ids, ascending; never more than one node's children are held per level."""
        await self._patiently(lambda: self._zk.sync(layout.ROOT))
        async for ledger_id in self._descend(layout.ROOT, 0, ()):
            yield ledger_id

    async def instance_id(self) -> str:
        """The id of this cluster's incarnation.

        Raises:
            MetadataStoreError: the cluster was not laid out.
        """
        try:
            data, _ = await self._patiently(lambda: self._zk.get(layout.INSTANCE_ID))
        except NoNodeError as error:
            raise MetadataStoreError(f"{layout.INSTANCE_ID} is missing: start a bookie first") from error
        return (data or b"").decode("ascii", "replace")

    async def _descend(self, path: str, level: int, names: tuple[str, ...]) -> AsyncIterator[int]:
        try:
            children = await self._patiently(lambda: self._zk.get_children(path))
        except NoNodeError:
            return
        for name in layout.level_children(children, level):
            if level == len(layout.LEVEL_DIGITS) - 1:
                yield layout.ledger_id_of((*names, name))
                continue
            async for ledger_id in self._descend(f"{path}/{name}", level + 1, (*names, name)):
                yield ledger_id

    async def _create_node(self, ledger_id: int, data: bytes, token: int) -> bool:
        """Create the node, or say that another ledger has the id."""
        path = ledger_path(ledger_id)

        async def create() -> bool:
            while True:
                try:
                    await self._zk.create(path, data)
                    return True
                except NoNodeError:
                    await self._create_parents(ledger_id)
                except NodeExistsError:
                    # Ours, if an earlier attempt's answer was lost; then the token says so.
                    try:
                        found, _ = await self.read(ledger_id)
                    except (NoSuchLedgerError, MetadataError):
                        return False
                    return found.token == token

        return await self._patiently(create)

    async def _create_parents(self, ledger_id: int) -> None:
        for parent in layout.parent_paths(ledger_id):
            try:
                await self._zk.create(parent)
            except NodeExistsError:
                pass
            except NoNodeError as error:
                if parent.count("/") == 2:
                    raise MetadataStoreError(f"{layout.ROOT} is missing: start a bookie first") from error
                return  # another client removed an empty level just now; the caller tries again

    async def _next_id(self) -> int:
        """An id that nobody ever got: claimed by moving the generator on, and never given back."""
        async with self._claiming:
            if not self._ids:
                count = self._claim
                self._claim = min(2 * count, IDS_PER_CLAIM_MAX)
                self._ids = await self._patiently(lambda: self._claim_ids(count))
            ledger_id, self._ids = self._ids[0], self._ids[1:]
            return ledger_id

    async def _claim_ids(self, count: int) -> range:
        while True:
            try:
                data, stat = await self._zk.get(layout.ID_GENERATOR)
            except NoNodeError as error:
                raise MetadataStoreError(f"{layout.ID_GENERATOR} is missing: start a bookie first") from error
            if not data or not data.isdigit():
                raise MetadataStoreError(f"{layout.ID_GENERATOR} holds {data!r:.40}, expected a number")
            first = int(data)
            try:
                await self._zk.set(layout.ID_GENERATOR, b"%d" % (first + count), stat.version)
            except BadVersionError:
                continue
            return range(first, first + count)

    async def _patiently(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Run an operation that may be repeated, until the service answers."""
        deadline_ms = self._clock.monotonic_ms() + RETRY_MS_MAX
        while True:
            try:
                return await operation()
            except (ConnectionLossError, NotConnectedError) as error:
                if self._clock.monotonic_ms() >= deadline_ms:
                    raise MetadataStoreError(f"the coordination service does not answer: {error}") from error
            except (NoNodeError, NodeExistsError, BadVersionError, NotEmptyError):
                raise
            except CoordError as error:
                raise MetadataStoreError(f"the coordination service refused: {error}") from error
            await trio.sleep(RETRY_PAUSE_MS * (0.5 + self._rng.uniform(0, 1)) / 1000)
