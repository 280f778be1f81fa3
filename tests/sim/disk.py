"""One server's simulated disk: log, epoch file, checkpoint. What was not fsynced is lost, or not, at a crash.

The log takes operations in order and makes them durable in groups, each after a delay (an fsync); the
epoch file is independent. At a crash a prefix of the group under way may have reached the disk; what had
not begun is lost.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING
from zlib import crc32

from coord.zab import Epochs, Membership, Proposal, Recovered

if TYPE_CHECKING:
    from tests.sim.world import World


@dataclass(frozen=True, slots=True)
class State:
    """The replicated state: how many batches were executed, up to which, a digest over all of them, and the
    membership they have led to.
    """

    zxid: int = 0
    count: int = 0
    digest: int = 0
    membership: str = ""
    """Empty before the first change."""

    def execute(self, batch: Proposal) -> "State":
        changed = membership_of(batch.payload)
        return State(
            batch.last_zxid,
            self.count + 1,
            crc32(b"%d %d " % (batch.first_zxid, batch.last_zxid) + batch.payload, self.digest),
            changed.encode() if changed else self.membership,
        )


CHANGE = b"M:"
"""How the payload of a change of membership begins; that of no other batch does."""


def membership_of(payload: bytes) -> Membership | None:
    if not payload.startswith(CHANGE):
        return None
    return Membership.decode(payload[len(CHANGE) :].decode())


@dataclass(frozen=True, slots=True)
class Append:
    batch: Proposal
    committed_zxid: int


@dataclass(frozen=True, slots=True)
class Cut:
    zxid: int


@dataclass(frozen=True, slots=True)
class Install:
    state: State


@dataclass(frozen=True, slots=True)
class Mark:
    """The committed zxid of an idle log."""

    committed_zxid: int


Operation = Append | Cut | Install | Mark


@dataclass(frozen=True, slots=True)
class LostLog:
    """A damaged log that start-up has set aside, and what went with it."""

    current_epoch: int
    checkpoint_zxid: int
    log_after: int
    log: tuple[Proposal, ...]
    committed_mark: int


@dataclass(slots=True)
class Disk:
    """What survives the process."""

    world: "World"
    random: Random
    epochs: Epochs = field(default_factory=lambda: Epochs(0, 0))
    checkpoint: State = field(default_factory=State)
    log_after: int = 0
    """The zxid before the log's first batch; what is older is in the checkpoint only."""
    log: list[Proposal] = field(default_factory=list)
    committed_mark: int = 0
    history_lost: bool = False
    lost_log: LostLog | None = None
    """Of use while there is no current epoch: the peers may still give back what is missing."""
    fsync_us: int = 800
    epochs_us: int = 1_000
    fails: bool = False
    """The next write or fsync ends in an error."""
    on_failure: Callable[[], None] | None = None
    life: int = 0
    """Grows at each crash: completions of an earlier life are void."""
    queue: deque[Operation] = field(default_factory=deque)
    group: list[Operation] = field(default_factory=list)
    epoch_queue: deque[Epochs] = field(default_factory=deque)
    epoch_write: Epochs | None = None

    # The log device.

    def submit(self, operation: Operation, report: Callable[[list[Operation]], None]) -> None:
        self.queue.append(operation)
        if not self.group:
            self._begin(report)

    def _begin(self, report: Callable[[list[Operation]], None]) -> None:
        self.group.extend(self.queue)
        self.queue.clear()
        self.world.later(self._delay(self.fsync_us), self._end, self.life, report)

    def _end(self, life: int, report: Callable[[list[Operation]], None]) -> None:
        if life != self.life:
            return
        if self._failed():
            return
        done = list(self.group)
        self.group.clear()
        for operation in done:
            self._apply(operation)
        if self.queue:
            self._begin(report)
        report(done)

    def _apply(self, operation: Operation) -> None:
        match operation:
            case Append(batch, committed_zxid):
                self.log.append(batch)
                self.committed_mark = max(self.committed_mark, committed_zxid)
            case Cut(zxid):
                self.log = [batch for batch in self.log if batch.last_zxid <= zxid]
            case Install(state):
                self.checkpoint = state
                self.lost_log = None
                self.log = []
                self.log_after = self.committed_mark = state.zxid
            case Mark(committed_zxid):
                self.committed_mark = max(self.committed_mark, committed_zxid)

    def _failed(self) -> bool:
        """Does what is under way end in an error? Then the process is over, and a part of it may be there."""
        if not self.fails or self.on_failure is None:
            return False
        self.fails = False
        self.on_failure()
        return True

    # The epoch file.

    def write_epochs(self, epochs: Epochs, report: Callable[[Epochs], None]) -> None:
        self.epoch_queue.append(epochs)
        if self.epoch_write is None:
            self._begin_epochs(report)

    def _begin_epochs(self, report: Callable[[Epochs], None]) -> None:
        self.epoch_write = self.epoch_queue.popleft()
        self.world.later(self._delay(self.epochs_us), self._end_epochs, self.life, report)

    def _end_epochs(self, life: int, report: Callable[[Epochs], None]) -> None:
        if life != self.life or self.epoch_write is None or self._failed():
            return
        self.epochs, self.epoch_write = self.epoch_write, None
        done = self.epochs
        if self.epoch_queue:
            self._begin_epochs(report)
        report(done)

    # Checkpoints, crashes, start-up.

    def write_checkpoint(self, state: State, keep: int) -> None:
        """Replaces the checkpoint and drops the log before it but for `keep` batches."""
        self.checkpoint = state
        executed = sum(1 for batch in self.log if batch.last_zxid <= state.zxid)
        dropped = self.log[: max(0, executed - keep)]
        if dropped:
            self.log_after = dropped[-1].last_zxid
            del self.log[: len(dropped)]

    def crash(self) -> None:
        """The process ends: of what was under way a prefix may survive."""
        self.life += 1
        for operation in self.group[: self.random.randint(0, len(self.group))]:
            self._apply(operation)
        if self.epoch_write is not None and self.random.random() < 0.5:
            self.epochs = self.epoch_write
        self.queue.clear()
        self.group.clear()
        self.epoch_queue.clear()
        self.epoch_write = None

    def wipe(self) -> None:
        """The disk is lost and replaced by an empty one."""
        self.epochs, self.checkpoint = Epochs(0, 0), State()
        self.log_after = self.committed_mark = 0
        self.log = []
        self.history_lost = False

    def give_up_history(self) -> None:
        """Start-up finds it damaged and sets it aside, as `coord.storage` does: what was promised stays."""
        accepted = self.epochs.accepted
        self.wipe()
        self.epochs = Epochs(accepted, 0)
        self.history_lost = True

    def damage_log(self) -> None:
        """Start-up finds the log damaged: it is set aside, and an empty one begins behind the checkpoint. Of
        one that has begun so nothing more is lost.
        """
        if self.epochs.current > 0:
            self.lost_log = LostLog(
                self.epochs.current,
                self.checkpoint.zxid,
                self.log_after,
                tuple(self.log),
                self.committed_mark,
            )
        self.log = []
        self.log_after = self.committed_mark = self.checkpoint.zxid
        self.epochs = Epochs(self.epochs.accepted, 0)
        self.history_lost = True

    @property
    def can_repair(self) -> bool:
        return self.lost_log is not None and self.epochs.current == 0

    def repair_log(self) -> None:
        """Peers have given back all that was missing: the epoch is claimed again (`coord.zab.repair`)."""
        lost = self.lost_log
        assert lost is not None
        assert self.can_repair
        self.epochs = Epochs(self.epochs.accepted, lost.current_epoch)
        self.log, self.log_after = list(lost.log), lost.log_after
        self.committed_mark = max(lost.committed_mark, self.checkpoint.zxid)
        if self.last_zxid() < self.checkpoint.zxid:
            self.log, self.log_after = [], self.checkpoint.zxid
        self.lost_log = None
        self.history_lost = False

    def may_get_back(self, zxid: int, payload: bytes) -> bool:
        """Was this batch in a log that can be repaired?"""
        lost = self.lost_log
        if lost is None or not self.can_repair:
            return False
        if zxid <= max(lost.checkpoint_zxid, lost.log_after):
            return True
        return any(batch.last_zxid == zxid and batch.payload == payload for batch in lost.log)

    def recover(self) -> tuple[Recovered, list[Proposal]]:
        """Start-up: what the core is told, and the batches to execute on top of the checkpoint, which are
        those up to the highest committed zxid found, and not beyond.
        """
        executed = self.checkpoint.zxid
        replayed = [batch for batch in self.log if executed < batch.last_zxid <= self.committed_mark]
        if replayed:
            executed = replayed[-1].last_zxid
        after = min(self.log_after, executed)
        lost = self.history_lost and self.epochs.current == 0
        accepted, current = self.epochs.accepted, self.epochs.current
        recovered = Recovered(accepted, current, executed, after, tuple(self.log), lost)
        return recovered, replayed

    def last_zxid(self) -> int:
        return self.log[-1].last_zxid if self.log else self.log_after

    def has(self, zxid: int, payload: bytes) -> bool:
        """Is this batch durable here? What a checkpoint covers was checked when it was executed."""
        if zxid <= max(self.checkpoint.zxid, self.log_after):
            return True
        return any(batch.last_zxid == zxid and batch.payload == payload for batch in reversed(self.log))

    def _delay(self, mean_us: int) -> int:
        return int(mean_us * (0.2 + 4 * self.random.random() ** 4))
