"""One ledger's life from one seed: the real writer and recovery cores, fake bookies, a bad network.

Messages are delayed, reordered, lost, and delivered long after their sender gave them up; bookies crash and
lose any subset of what they had not synced; the store's answers get lost; recoverers start at any time, run
beside each other, die anywhere. At the end the network heals, one more recovery must succeed (7.5 (8)), and
the laws of 7.5 are checked.

    python -m tests.bookie.ledger_simulation --seeds 2000 [--first S] [--striped]
"""

import argparse
import heapq
import random
import sys
from collections.abc import Callable, Set
from dataclasses import dataclass, field

from bookie.ledger.distribution import Schedule
from bookie.ledger.errors import UNREACHABLE
from bookie.ledger.metadata import Ensemble, Fragment, LedgerMetadata, LedgerState, Member
from bookie.ledger.recovery import Recovery, RecoveryLimits
from bookie.ledger.wire import Add, AddFlag, Fence, Read, ReadFlag, ReadLac
from bookie.ledger.writer import Store, Writer, WriterLimits
from tests.bookie.fake_bookie import FakeBookie, Refused

LEDGER = 7
KEY = b"k" * 20
CHAOS_MS = 4_000
END_MS = 60_000
"""Far behind the end of any run; whoever gets here makes no progress."""
BROKEN_MAX = 10


class LawBrokenError(AssertionError):
    """A law of 7.5 does not hold."""


@dataclass
class Setting:
    """What one seed decides about the size of things."""

    schedule: Schedule
    bookies: int
    entries: int
    recoverers: int
    loss: float
    crashes: int
    batch_entries: int
    timeout_ms: int
    slow: float
    """Share of messages that take long."""


@dataclass
class World:
    """Virtual time, the network, the bookies and the store."""

    rng: random.Random
    setting: Setting
    now_ms: int = 0
    healed: bool = False
    events: list[tuple[int, int, Callable[[], None]]] = field(default_factory=list)
    serial: int = 0
    bookies: dict[Member, FakeBookie] = field(default_factory=dict)
    down: set[Member] = field(default_factory=set)
    epoch: dict[Member, int] = field(default_factory=dict)
    record: LedgerMetadata | None = None
    version: int = 0

    def at(self, delay_ms: float, action: Callable[[], None]) -> None:
        self.serial += 1
        heapq.heappush(self.events, (self.now_ms + max(1, int(delay_ms)), self.serial, action))

    def delay(self) -> float:
        """Mostly quick; now and then long enough to outlive a time-out."""
        if self.healed:
            return 1
        if self.rng.random() < self.setting.slow:
            return self.rng.choice((self.rng.uniform(20, 400), self.rng.uniform(200, 3000)))
        return self.rng.expovariate(1 / 5)

    def lost(self) -> bool:
        return not self.healed and self.rng.random() < self.setting.loss

    def run(self, until: Callable[[], bool]) -> None:
        while self.events and not until():
            self.now_ms, _, action = heapq.heappop(self.events)
            if self.now_ms > END_MS:
                raise LawBrokenError("no progress (7.5 (8))")
            action()

    # --- bookies

    def send(
        self,
        member: Member,
        message: object,
        body: bytes,
        on_reply: Callable[[object, bytes], None],
        on_error: Callable[[int], None],
    ) -> None:
        """One request; its outcome is reported once, or never (then the sender's clock decides)."""
        told = False

        def tell(action: Callable[[], None]) -> None:
            nonlocal told
            if not told:
                told = True
                action()

        def arrive() -> None:
            if member in self.down:
                self.at(self.delay(), lambda: tell(lambda: on_error(UNREACHABLE)))
                return
            bookie, epoch = self.bookies[member], self.epoch[member]
            try:
                reply, data = bookie.answer(message, body)
            except Refused as refused:
                code = refused.code
                reply, data = None, b""
            else:
                code = 0

            def synced() -> None:
                if self.epoch[member] != epoch:
                    return  # crashed before the answer left
                bookie.sync()
                if not self.lost():
                    if reply is None:
                        self.at(self.delay(), lambda: tell(lambda: on_error(code)))
                    else:
                        self.at(self.delay(), lambda: tell(lambda: on_reply(reply, data)))

            # Everything is answered after a sync, refusals and denials included (R-B3).
            self.at(self.delay(), synced)

        if not self.lost():
            self.at(self.delay(), arrive)
        if not self.healed and self.rng.random() < self.setting.loss:
            # The connection breaks for the sender, while the request may still arrive.
            self.at(self.delay(), lambda: tell(lambda: on_error(UNREACHABLE)))

    def crash(self, member: Member) -> None:
        self.bookies[member].crash(self.rng)
        self.epoch[member] += 1
        self.down.add(member)
        self.at(self.rng.choice((5, self.rng.uniform(50, 1500))), lambda: self.down.discard(member))

    def replace(self, ensemble: Ensemble, index: int, excluded: Set[Member]) -> Member | None:
        taken = {m.bookie_id for place, m in enumerate(ensemble) if place != index}
        candidates = [m for m in sorted(self.bookies) if m.bookie_id not in taken and m not in excluded]
        if self.rng.random() < 0.2 or not candidates:
            return None
        return self.rng.choice(candidates)

    # --- the store

    def write(self, store: Store, actor: "Actor") -> None:
        """Compare-and-set as `MetadataStore.write` does it: a lost answer is resolved by reading again."""

        def apply() -> bool:
            if self.version != store.version:
                return False
            self.check_transition(store.metadata)
            self.record, self.version = LedgerMetadata.decode(store.metadata.encode()), self.version + 1
            return True

        def attempt() -> None:
            if actor.dead:
                # A dead client's request may still be on its way.
                if self.rng.random() < 0.5:
                    apply()
                return
            applied = False if self.lost() else apply()
            if applied and not self.lost():
                version = self.version
                self.at(self.delay(), lambda: actor.stored(version))
            else:
                self.at(self.delay(), read_again)

        def read_again() -> None:
            record, version = self.record, self.version
            assert record is not None
            if version == store.version:
                self.at(self.delay(), attempt)
            elif record.encode() == store.metadata.encode():
                self.at(self.delay(), lambda: actor.stored(version))
            else:
                self.at(self.delay(), lambda: actor.conflicted(record, version))

        self.at(self.delay(), attempt)

    def check_transition(self, new: LedgerMetadata) -> None:
        old = self.record
        assert old is not None
        if old.closed or (old.state is LedgerState.IN_RECOVERY and new.state is LedgerState.OPEN):
            raise LawBrokenError(f"{old.state.name} -> {new.state.name}")
        for fragment in old.fragments[:-1]:
            if fragment not in new.fragments:
                raise LawBrokenError(f"fragment {fragment.first_entry_id} was rewritten")


class Actor:
    """A client process: dies at once and for good."""

    dead = False

    def stored(self, version: int) -> None:
        raise NotImplementedError

    def conflicted(self, record: LedgerMetadata, version: int) -> None:
        raise NotImplementedError


class WriterActor(Actor):
    """The application and its writer."""

    def __init__(self, world: World, writer: Writer) -> None:
        self.world = world
        self.writer = writer
        self.payloads: list[bytes] = []
        self.acked = -1
        world.at(1, self.step)
        world.at(20, self.tick)

    def step(self) -> None:
        world, writer = self.world, self.writer
        if self.dead or writer.failure is not None or len(self.payloads) >= world.setting.entries:
            if not self.dead and writer.failure is None and world.rng.random() < 0.7:
                writer.close()
                self.pump()
            return
        count = min(world.rng.choice((1, 1, 2, 5)), world.setting.entries - len(self.payloads))
        new = [
            b"%d:" % (len(self.payloads) + k) + world.rng.randbytes(world.rng.randrange(4))
            for k in range(count)
        ]
        self.payloads += new
        writer.append(new, None)
        self.pump()
        world.at(world.rng.expovariate(1 / 30), self.step)

    def tick(self) -> None:
        if self.dead or self.writer.closed or self.writer.failure is not None:
            return
        self.writer.tick(self.world.now_ms)
        if self.world.rng.random() < 0.1:
            self.writer.spares_changed(self.world.now_ms)
        self.pump()
        self.world.at(50, self.tick)

    def pump(self) -> None:
        if self.dead:
            return
        ready = self.writer.take_ready(self.world.now_ms)
        for last, _ in ready.confirmed:
            if last <= self.acked:
                raise LawBrokenError("acknowledged out of order (R-W3)")
            self.acked = last
        for send in ready.sends:
            self.send(send.request_id, send.member, send.extent)
        if ready.store is not None:
            self.world.write(ready.store, self)

    def send(self, request_id: int, member: Member, extent: object) -> None:
        writer, world = self.writer, self.world
        add = Add(LEDGER, 0, KEY, extent.checksum)

        def on_reply(reply: object, _: bytes) -> None:
            if not self.dead:
                writer.receive(request_id, reply.runs, world.now_ms)
                self.pump()

        def on_error(code: int) -> None:
            if not self.dead:
                writer.receive_error(request_id, code, world.now_ms)
                self.pump()

        world.send(member, add, extent.data, on_reply, on_error)

    def stored(self, version: int) -> None:
        if not self.dead:
            self.writer.stored(version, self.world.now_ms)
            self.pump()

    def conflicted(self, record: LedgerMetadata, version: int) -> None:
        if not self.dead:
            self.writer.conflicted(record, version, self.world.now_ms)
            self.pump()


class RecoveryActor(Actor):
    """One recovery attempt."""

    def __init__(self, world: World, make: Callable[..., Recovery] = Recovery) -> None:
        self.world = world
        assert world.record is not None
        self.core = make(
            LEDGER, world.record, world.version, world, limits=RecoveryLimits(64, 512, 1000, 1000)
        )
        self.core.start(world.now_ms)
        self.pump()
        world.at(50, self.tick)

    def tick(self) -> None:
        if not self.dead and not self.core.done and self.core.failure is None:
            self.core.tick(self.world.now_ms)
            self.pump()
            self.world.at(50, self.tick)

    def pump(self) -> None:
        if self.dead:
            return
        world, core = self.world, self.core
        ready = core.take_ready(world.now_ms)
        for fence in ready.fences:
            self.ask(
                fence.member,
                Fence(LEDGER, KEY, fence.floor),
                b"",
                lambda reply, _, i=fence.request_id: core.receive_fence(i, reply),
                lambda code, i=fence.request_id: core.receive_fence_error(i, code),
            )
        for read in ready.reads:
            flags = int(ReadFlag.FENCE) if read.fence else 0
            self.ask(
                read.member,
                Read(LEDGER, read.first, read.last, 0, read.max_bytes, flags, KEY),
                b"",
                lambda reply, data, i=read.request_id: core.receive_read(i, reply, data, world.now_ms),
                lambda code, i=read.request_id: core.receive_read_error(i, code),
            )
        for send in ready.sends:
            self.ask(
                send.member,
                Add(LEDGER, int(AddFlag.RECOVERY), KEY, send.extent.checksum),
                send.extent.data,
                lambda reply, _, i=send.request_id: core.receive_add(i, reply.runs, world.now_ms),
                lambda code, i=send.request_id: core.receive_add_error(i, code, world.now_ms),
            )
        if ready.store is not None:
            world.write(ready.store, self)

    def ask(
        self, member: Member, message: object, body: bytes, on_reply: Callable, on_error: Callable
    ) -> None:
        def reply(answer: object, data: bytes) -> None:
            if not self.dead:
                on_reply(answer, data)
                self.pump()

        def error(code: int) -> None:
            if not self.dead:
                on_error(code)
                self.pump()

        self.world.send(member, message, body, reply, error)

    def stored(self, version: int) -> None:
        if not self.dead:
            self.core.stored(version, self.world.now_ms)
            self.pump()

    def conflicted(self, record: LedgerMetadata, version: int) -> None:
        if not self.dead:
            self.core.conflicted(record, version, self.world.now_ms)
            self.pump()


def setting_of(rng: random.Random, striped: bool) -> Setting:
    ack, write = rng.choice(((2, 3), (2, 3), (2, 3), (2, 2), (3, 3), (1, 2), (3, 5), (1, 1)))
    size = write + rng.randrange(1, 3) if striped else write
    return Setting(
        schedule=Schedule(size, write, ack, rng.choice((1, 2, 3)) if striped else 1),
        bookies=size + rng.randrange(3),
        entries=rng.choice((3, 8, 25)),
        recoverers=rng.randrange(4),
        loss=rng.choice((0, 0.02, 0.1, 0.25)),
        crashes=rng.choice((0, 1, 4, 8)),
        batch_entries=rng.choice((1, 1, 2, 4)),
        timeout_ms=rng.choice((800, 800, 4000)),
        slow=rng.choice((0.01, 0.1, 0.4)),
    )


def simulate(
    seed: int,
    *,
    striped: bool = False,
    make_writer: Callable[..., Writer] = Writer,
    make_recovery: Callable[..., Recovery] = Recovery,
) -> World:
    """Run one seed to its end and check the laws.

    Raises:
        LawBrokenError: which law, with the seed in its text.
    """
    rng = random.Random(seed)
    setting = setting_of(rng, striped)
    world = World(rng, setting)
    for number in range(setting.bookies):
        bookie = FakeBookie(f"b{number}")
        world.bookies[bookie.member] = bookie
        world.epoch[bookie.member] = 0
    ensemble = tuple(rng.sample(sorted(world.bookies), setting.schedule.ensemble_size))
    world.record = LedgerMetadata(setting.schedule, LedgerState.OPEN, (Fragment(0, ensemble),), token=seed)
    limits = WriterLimits(
        batch_entries=setting.batch_entries,
        batch_bytes=64,
        request_timeout_ms=setting.timeout_ms,
        quorum_grace_ms=600,
    )
    writer = WriterActor(world, make_writer(LEDGER, world.record, 0, world, limits=limits))
    recoverers: list[RecoveryActor] = []
    lacs: list[int] = []

    def start_recovery() -> None:
        recoverers.append(RecoveryActor(world, make_recovery))

    def kill(actors: list) -> None:
        alive = [actor for actor in actors if not actor.dead]
        if alive:
            rng.choice(alive).dead = True

    def peek() -> None:  # a tail reader: whatever LAC a bookie tells must hold for ever (7.5 (7))
        member = rng.choice(sorted(world.bookies))
        world.send(member, ReadLac(LEDGER), b"", lambda reply, _: lacs.append(reply.lac), lambda _: None)
        if world.now_ms < CHAOS_MS:
            world.at(rng.uniform(10, 200), peek)

    peek()
    for _ in range(setting.recoverers):
        world.at(rng.choice((rng.uniform(1, 100), rng.uniform(1, CHAOS_MS / 2))), start_recovery)
        if rng.random() < 0.5:
            world.at(rng.uniform(1, CHAOS_MS), lambda: kill(recoverers))
    if rng.random() < 0.3:
        world.at(rng.uniform(1, CHAOS_MS), lambda: kill([writer]))
    for _ in range(setting.crashes):
        world.at(rng.uniform(1, CHAOS_MS), lambda: world.crash(rng.choice(sorted(world.bookies))))
    try:
        world.run(lambda: world.now_ms >= CHAOS_MS)
        world.healed = True
        finish(world, make_recovery)
        check(world, writer, lacs)
    except LawBrokenError as error:
        raise LawBrokenError(f"seed {seed} striped {striped} {setting}: {error}") from error
    return world


def finish(world: World, make_recovery: Callable[..., Recovery]) -> None:
    """With everything back, recovery must close the ledger (7.5 (8))."""
    actor: RecoveryActor | None = None

    def heartbeat() -> None:
        world.at(50, heartbeat)

    heartbeat()

    def settled() -> bool:
        nonlocal actor
        if world.record is not None and world.record.closed:
            return True
        if world.down:
            return False
        if actor is None or actor.core.failure is not None:
            actor = RecoveryActor(world, make_recovery)
        return False

    world.run(settled)
    deadline = world.now_ms + 10_000  # let late adds arrive, and be acknowledged if they can
    world.run(lambda: world.now_ms > deadline)


def check(world: World, writer: WriterActor, lacs: list[int]) -> None:
    """The laws of 7.5 that one ledger can break."""
    record, schedule = world.record, world.setting.schedule
    assert record is not None
    end = record.last_entry_id
    if end is None:
        raise LawBrokenError("never closed (7.5 (8))")
    if writer.acked > end:
        raise LawBrokenError(f"entry {writer.acked} was acknowledged, the ledger ends at {end} (7.5 (1))")
    if lacs and max(lacs) > end:
        raise LawBrokenError(f"a bookie told LAC {max(lacs)}, the ledger ends at {end} (7.5 (7))")
    length = 0
    for entry_id in range(end + 1):
        payload = writer.payloads[entry_id]
        fragment, _ = record.fragment_of(entry_id)
        copies = 0
        for place in schedule.write_set(entry_id):
            ledger = world.bookies[fragment.ensemble[place]].durable.get(LEDGER)
            entry = ledger.entries.get(entry_id) if ledger else None
            if entry is None:
                continue
            if entry.payload != payload or entry.base_length != length:
                raise LawBrokenError(f"entry {entry_id} differs on a bookie (7.5 (3))")
            copies += 1
        if copies < schedule.ack_quorum:
            raise LawBrokenError(
                f"entry {entry_id} of 0..{end} is on {copies} bookies of its ensemble (7.5 (2))"
            )
        length += len(payload)
    if record.length != length:
        raise LawBrokenError(f"length {record.length}, the entries have {length} bytes (R-F6)")


def main() -> int:
    parser = argparse.ArgumentParser(description="simulate ledgers from seeds")
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--striped", action="store_true")
    options = parser.parse_args()
    broken = 0
    for seed in range(options.first, options.first + options.seeds):
        if broken >= BROKEN_MAX:
            break
        try:
            simulate(seed, striped=options.striped)
        except LawBrokenError as error:
            print(error)
            broken += 1
    print(f"{options.seeds} seeds, {broken} broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
