"""Finding ledgers that no topic names: left by a hub that died between creating one and listing it (P1, 6.9).

Ledgers are listed first and records read afterwards, and young ledgers are left alone, so one that is about
to be named is never taken for an orphan. The cursor ledger of a registered hub is never one, named or not.
One hub of all, the one registered longest, does this.
"""

from typing import Final

import trio

from coord import eventlog
from coord.clock import Clock
from pubsub.core.errors import RecordError
from pubsub.core.names import TopicName
from pubsub.hub.ownership import Holdings
from pubsub.hub.seams import KIND_CURSORS, KIND_TOPIC, LedgerStoreError

ORPHAN_AGE_MS: Final = 10 * 60 * 1000
"""A ledger is named within seconds of its creation, or never."""
READS_AT_ONCE: Final = 32

log = eventlog.get("pubsub.hub")


class OrphanCollector:
    """Deletes topics' ledgers and cursor ledgers that nothing names."""

    def __init__(self, holdings: Holdings, clock: Clock, interval_ms: int) -> None:
        self._holdings = holdings
        self._clock = clock
        self._interval_ms = interval_ms

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(self._interval_ms / 1000)
            registered = self._holdings.neighbours.registered
            if registered and min(registered) == self._holdings.me.registration:
                await self.pass_once()

    async def pass_once(self) -> list[int]:
        """Looks at every ledger and every topic once; returns what was deleted."""
        deleted: list[int] = []
        try:
            suspects = await self._suspects()
            if suspects:
                suspects -= await self._named()
            for ledger_id in sorted(suspects):
                await self._holdings.ledgers.delete(ledger_id)
                deleted.append(ledger_id)
        except (LedgerStoreError, RecordError) as error:
            # A record that cannot be read may name any ledger: nothing is deleted on a guess.
            log.warning("orphaned ledgers are not looked for", error=str(error))
        if deleted:
            log.info("orphaned ledgers deleted", count=len(deleted), first=deleted[0])
        return deleted

    async def _suspects(self) -> set[int]:
        await self._holdings.neighbours.refresh()
        registered = {str(one).encode() for one in self._holdings.neighbours.registered}
        oldest_ms = self._clock.wall_ms() - ORPHAN_AGE_MS
        suspects = set()
        async for one in self._holdings.ledgers.listed():
            kind = one.properties.get("kind")
            if one.created_ms > oldest_ms or kind not in (KIND_TOPIC, KIND_CURSORS):
                continue
            if kind == KIND_CURSORS and one.properties.get("registration") in registered:
                continue
            suspects.add(one.ledger_id)
        return suspects

    async def _named(self) -> set[int]:
        store = self._holdings.store
        named: set[int] = set()
        failures: list[RecordError] = []

        async def read(name: TopicName) -> None:
            try:
                stored = await store.read(name)
            except RecordError as error:
                failures.append(error)
                return
            if stored is not None:
                record = stored[0]
                named.update(one.ledger_id for one in record.ranges)
                named.update(record.deleting)
                named.update(record.cursors)

        names = await store.names()
        for start in range(0, len(names), READS_AT_ONCE):
            async with trio.open_nursery() as nursery:
                for name in names[start : start + READS_AT_ONCE]:
                    nursery.start_soon(read, name)
        if failures:
            raise failures[0]
        return named
