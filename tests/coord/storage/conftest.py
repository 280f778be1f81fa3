"""A state small enough to compare, and servers' disks made of it."""

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import google_crc32c
import pytest

from coord.disk import Disk, FaultyDisk
from coord.log import LogConfig
from coord.storage import (
    DataDirectory,
    DiskEnvironments,
    Environments,
    LogOptions,
    RecoveredState,
    open_data_directory,
    open_state,
)


@dataclass
class SmallFreeze:
    zxid: int
    facts: bytes
    nodes: int
    pending: dict[int, bytes | None]
    taken: set[int] = field(default_factory=set)


@dataclass
class SmallState:
    """Numbered texts that can be frozen as a tree can."""

    nodes: dict[int, bytes] = field(default_factory=dict)
    zxid: int = 0
    dirty: set[int] = field(default_factory=set)
    frozen: SmallFreeze | None = None

    def digest(self) -> int:
        return google_crc32c.value(repr(sorted(self.nodes.items())).encode())

    def put(self, number: int, value: bytes | None) -> None:
        self.dirty.add(number)
        if value is None:
            self.nodes.pop(number, None)
        else:
            self.nodes[number] = value

    def freeze(self) -> SmallFreeze:
        assert self.frozen is None
        facts = json.dumps([self.zxid, self.digest()]).encode()
        # Copied at once: what the write barrier of a tree achieves lazily.
        self.frozen = SmallFreeze(
            self.zxid,
            facts,
            len(self.nodes),
            {number: self.nodes.get(number) for number in sorted(self.dirty)},
        )
        self.dirty = set()
        return self.frozen

    def encode_some(self, count: int) -> list[tuple[int, bytes | None]] | None:
        frozen = self.frozen
        assert frozen is not None
        taken = list(frozen.pending)[: max(count // 16, 1)]
        frozen.taken.update(taken)
        return [(number, frozen.pending.pop(number)) for number in taken] or None

    def thaw(self, count: int, *, written: bool) -> bool:
        assert self.frozen is not None
        if not written:
            self.dirty.update(self.frozen.taken, self.frozen.pending)
        self.frozen = None
        return True


class SmallLoader:
    def __init__(self, facts: bytes) -> None:
        self.facts = json.loads(facts)
        self.state = SmallState()

    def add(self, items: Iterable[tuple[int, bytes]]) -> None:
        self.state.nodes.update(items)

    def finish(self) -> SmallState:
        self.state.zxid, digest = self.facts
        if self.state.digest() != digest:
            raise ValueError(f"expected digest {digest}, got {self.state.digest()}")
        return self.state


class SmallKind:
    def fresh(self) -> SmallState:
        return SmallState()

    def loader(self, facts: bytes) -> SmallLoader:
        return SmallLoader(facts)

    def apply(self, state: SmallState, batch: bytes) -> None:
        zxid, number, text = json.loads(batch)
        state.put(number, None if text is None else text.encode())
        state.zxid = zxid


def batch(zxid: int) -> bytes:
    """The batch that ends at a zxid: sets one of 40 numbers, or deletes it."""
    source = random.Random(zxid)
    text = None if source.random() < 0.2 else f"value of {zxid} " * source.randrange(1, 30)
    return json.dumps([zxid, source.randrange(40), text]).encode()


def state_at(zxid: int, first: int = 1) -> dict[int, bytes]:
    """What the state holds after the one-request batches up to a zxid."""
    state = SmallState()
    for number in range(first, zxid + 1):
        SmallKind().apply(state, batch(number))
    return state.nodes


class Server:
    """One server's storage on a faulty disk, or with LMDB on the real one; stepped by hand."""

    def __init__(
        self,
        disk: Disk,
        seed: int = 1,
        *,
        standalone: bool = True,
        data_dir: str = "/data",
        environments: Environments | None = None,
        **config: int,
    ) -> None:
        source = random.Random(seed)
        self.disk = disk
        self.options = LogOptions(
            lambda: None,
            threaded=False,
            config=LogConfig(**config),  # type: ignore[arg-type]
            new_file_id=lambda: source.randbytes(16),
        )
        self.environments = environments or DiskEnvironments(disk)
        self.directory: DataDirectory = open_data_directory(
            disk, data_dir, new_id=lambda: source.randbytes(8)
        )
        self.found: RecoveredState[SmallState] = open_state(
            self.directory, self.environments, SmallKind(), self.options, standalone=standalone
        )
        self.state = self.found.state
        self.log = self.found.log

    def step(self) -> None:
        while self.log.writer.step():
            pass

    def append(self, first: int, last: int | None = None, committed: int = 0) -> None:
        last = first if last is None else last
        self.log.append(first, last, (batch(last),), committed, last)

    def write(self, *zxids: int) -> None:
        """Log, execute: what a standalone server does."""
        for zxid in zxids:
            self.append(zxid)
        self.step()
        for token in self.log.take_durable():
            if token is not None:
                SmallKind().apply(self.state, batch(token))  # type: ignore[arg-type]

    def close(self) -> None:
        self.log.close()
        self.directory.close()


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def server() -> Callable[..., Server]:
    return Server


@pytest.fixture
def small_kind() -> SmallKind:
    return SmallKind()


@pytest.fixture
def batch_at() -> Callable[[int], bytes]:
    return batch


@pytest.fixture
def nodes_at() -> Callable[[int], dict[int, bytes]]:
    return state_at
