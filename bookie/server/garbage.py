"""Garbage collection: ledgers that are gone from the metadata are dropped here (11.1).

The local ids are taken before the service is asked, and the service is synced in between, so a ledger that
was created meanwhile is not among the candidates (R-G2). Only parents of local ids are listed. A candidate is
dropped only after its own node was looked for and certainly is not there (R-G1); whatever goes wrong ends the
run with nothing more deleted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import trio

from bookie.ledger import layout
from bookie.server.config import BookieConfig
from bookie.server.identity import read_instance_id
from bookie.server.session import Session
from bookie.storage import Store
from coord import eventlog
from coord.errors import CoordError, NoNodeError

PAGE_LEDGERS: Final = 1000

SUSPICIOUS_LEDGERS: Final = 100
"""So many local ledgers and none of them in the metadata looks like a wrong or formatted service (R-G4)."""

_log = eventlog.get("bookie.server")


@dataclass(frozen=True, slots=True)
class GarbageReport:
    """One run: how many ledgers are here, which were dropped, and why it ended early, if it did."""

    local: int
    deleted: tuple[int, ...] = ()
    refused: str = ""


async def collect_garbage(store: Store, zk: Session, instance_id: str, *, reads_per_s: int) -> GarbageReport:
    """One run.

    Raises:
        CoordError: the service could not be asked; nothing was deleted on that account.
    """
    local = list(_local_ledgers(store))
    found = await read_instance_id(zk)
    if found != instance_id:
        return GarbageReport(len(local), refused=f"the cluster is {found}, the bookie's is {instance_id}")
    await zk.sync(layout.ROOT)
    missing: list[int] = []
    for parent, group in groupby(local, key=lambda ledger_id: layout.parent_paths(ledger_id)[-1]):
        try:
            there = set(await zk.get_children(parent))
        except NoNodeError:
            there = set()
        missing += [number for number in group if layout.ledger_path(number).rpartition("/")[2] not in there]
    if len(missing) == len(local) >= SUSPICIOUS_LEDGERS:
        return GarbageReport(len(local), refused=f"none of {len(local)} ledgers here is in the metadata")
    deleted: list[int] = []
    for ledger_id in missing:
        if await zk.exists(layout.ledger_path(ledger_id)) is None and store.delete(ledger_id):
            deleted.append(ledger_id)
        await trio.sleep(1 / reads_per_s)
    return GarbageReport(len(local), tuple(deleted))


async def collect_regularly(
    store: Store,
    session: Callable[[], Session | None],
    instance_id: str,
    config: BookieConfig,
    on_deleted: Callable[[tuple[int, ...]], None],
) -> None:
    """Collect every `gc_interval_ms` until cancelled."""
    while True:
        await trio.sleep(config.gc_interval_ms / 1000)
        zk = session()
        if zk is None:
            continue
        try:
            report = await collect_garbage(store, zk, instance_id, reads_per_s=config.gc_metadata_reads_per_s)
        except CoordError as error:
            _log.warning("garbage collection was broken off", error=error)
            continue
        if report.refused:
            _log.error(
                "garbage collection refused", do="check that --coord names this cluster", why=report.refused
            )
        if report.deleted:
            _log.info("dropped deleted ledgers", local=report.local, deleted=len(report.deleted))
            on_deleted(report.deleted)


def _local_ledgers(store: Store) -> Iterator[int]:
    after, more = -1, True
    while more:
        page, more = store.ledger_ids(after, PAGE_LEDGERS)
        yield from page
        after = page[-1] if page else after
