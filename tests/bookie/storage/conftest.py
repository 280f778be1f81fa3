"""A store on a faulty disk, driven by hand: nothing reaches the disk before a test lets the log step."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from bookie.ledger.extent import CRC_SEALER, Extent, Sealer, encode_extent, iterate_extents
from bookie.ledger.wire import Code, Stop
from bookie.storage import RefusedError, Store, StoreLimits, open_store
from bookie.storage.index import Changes
from bookie.storage.reading import Answer, assemble, load, plan_read
from coord.disk import FaultyDisk

KEY = b"k" * 20
INCARNATION = 0x1122334455667788


class Bench:
    """One bookie's disk through crashes and restarts, and its store while it is open."""

    def __init__(self, index_directory: Path, limits: StoreLimits) -> None:
        self.disk = FaultyDisk()
        self.disk.make_directory("/data")
        self.index_directory = str(index_directory)
        self.limits = limits
        self.acknowledged: list[object] = []
        self._store: Store | None = None
        self.open(fresh=True)

    @property
    def store(self) -> Store:
        assert self._store is not None
        return self._store

    def open(self, *, fresh: bool = False) -> None:
        self._store = open_store(
            self.disk,
            "/data",
            INCARNATION,
            fresh=fresh,
            notify=lambda: None,
            limits=self.limits,
            index_directory=self.index_directory,
            threaded=False,
        )

    def add(
        self,
        ledger_id: int,
        first: int,
        payloads: list[bytes],
        *,
        lac: int = -1,
        recovery: bool = False,
        key: bytes = KEY,
        base: int = 0,
        sealer: Sealer = CRC_SEALER,
        token: object = None,
    ) -> None:
        """Accept an extent; `token` goes to `acknowledged` once it is durable."""
        encoded = encode_extent(ledger_id, first, lac, base, payloads, sealer)
        self.store.add(
            Extent(encoded.data),
            encoded.data,
            encoded.checksum,
            key,
            recovery=recovery,
            on_durable=lambda: self.acknowledged.append((ledger_id, first) if token is None else token),
        )

    def fence(self, ledger_id: int, key: bytes = KEY) -> None:
        self.store.fence(ledger_id, key, lambda: self.acknowledged.append(("fence", ledger_id)))

    def settle(self) -> None:
        """Let everything accepted become durable and be answered."""
        self.store.flush()
        while self.store.writer.step():
            self.store.on_log()
        self.store.on_log()

    def checkpoint(self) -> None:
        frozen: list[Changes] = []
        self.store.begin_checkpoint(frozen.append)
        self.settle()
        self.store.finish_checkpoint(self.store.index.commit(frozen[0]))

    def crash(self, survives: Callable[[int], bool] | random.Random | None = None) -> None:
        """Lose power with what was not fsynced, and start again."""
        if self._store is not None:
            self._store.log.close()
            self._store.index.close()
            self._store = None
        self.disk.restart(survives or (lambda _: False))
        self.open()

    def close(self) -> None:
        if self._store is not None:
            self._store.log.close()
            self._store.index.close()
            self._store = None

    def answer(
        self, ledger_id: int, first: int, last: int, *, count: int = 1 << 30, size: int = 1 << 30
    ) -> Answer:
        ledger = self.store.ledger(ledger_id)
        if ledger is None:
            raise RefusedError(Code.NO_LEDGER, "no ledger")
        plan = plan_read(self.store, ledger, first, last, count, size)
        return assemble(plan, load(self.store.log, plan.places))

    def read(self, ledger_id: int, first: int, last: int) -> list[bytes]:
        """Payloads of entries that are all expected to be there."""
        answer = self.answer(ledger_id, first, last)
        assert answer.stop is Stop.END, answer
        payloads: list[bytes] = []
        for extent in iterate_extents(b"".join(answer.extents)):
            assert extent.ledger_id == ledger_id
            assert extent.first_entry_id == first + len(payloads)
            extent.verify_payloads()
            payloads += extent.payloads()
        return payloads

    def held(
        self, ledger_id: int, first: int = 0, *, ranges_max: int = 1000
    ) -> tuple[tuple[tuple[int, int], ...], int]:
        ledger = self.store.ledger(ledger_id)
        assert ledger is not None
        return ledger.held(self.store.index, first, 1000, ranges_max)


@pytest.fixture
def limits() -> StoreLimits:
    return StoreLimits()


@pytest.fixture
def bench(tmp_path: Path, limits: StoreLimits):  # type: ignore[no-untyped-def]
    made = Bench(tmp_path, limits)
    yield made
    made.close()
