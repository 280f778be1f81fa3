"""Group commit: who owes the disk what, and how durability comes back.

Two sides meet here. The *loop* appends and takes what became durable; the *writer's thread* forms groups and
writes them. While one group's write is in flight everything appended waits and then leaves as the next group,
so the batch grows with the load and an idle log writes at once. Order is strict: groups are written one after
the other, each durable before the next begins, and `take_durable` returns tokens in the order of `append`.

A hand-over to the thread and back takes two wake-ups, as long as a quick disk takes to write a little. An
owner that says `defer` decides once a tick (`write`): while the disk has been quick, what a tick has appended
is little, and the thread has nothing to do, it is written in the loop's own thread. One slow write, and it is
the thread's again for the next `_QUICK_GROUPS_MIN`: a disk that stands still can hold up a loop once.

The thread runs almost no Python (a checksum and one system call per group, and a join where it has many
parts, bounded by `group_bytes_max`), because every moment it holds the GIL is a moment the loop stands still.

A failed write or sync is final: `failure` is set, nothing appended since is ever reported durable, and the
owner must stop the process (`fail_stop`). A disk that is nearly full is not a failure: appends are refused,
reads go on.
"""

import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from time import perf_counter_ns
from typing import Final, NamedTuple

from coord.log.segments import SegmentedLog

__all__ = ["Appended", "DiskFullError", "Finished", "LogFailedError", "LogQueueFullError", "LogWriter"]

_ZERO_AHEAD_GROUP_BYTES_MAX = (
    32 << 10
)  # above it the group's own bytes, not the sync's metadata, take the time
_FREE_BYTES_CHECK_BYTES = 16 << 20  # free space is looked at once per so many bytes written
_GROUP_RECORDS_MAX = 4096
_QUICK_GROUP_NS_MAX = 2_000_000
_QUICK_GROUPS_MIN = 16
"""So many groups in a row must have been quick before the loop writes one itself."""
_LOOP_GROUP_BYTES_MAX = 64 << 10
"""The most that the loop writes itself; of more, the loop's work and the disk's are worth having at once."""
_GROUP_TIMES_MAX = 1000
_SWITCH_INTERVAL_S = 100e-6
"""How long the thread waits for the GIL before it insists. Each system call of a busy loop lets go of the GIL
for a moment, too short for the thread to wake up in, and restarts its wait: with Python's 5 ms and ticks of
1.3 ms an append was durable after 238 ms (median), with this after 1.4 ms, at 10 % fewer ticks."""


class LogFailedError(Exception):
    """A write or sync of the log failed; what was not reported durable may or may not be on disk."""


class LogQueueFullError(Exception):
    """More bytes wait for the disk than `queue_bytes_max`; this append was not taken."""


class DiskFullError(Exception):
    """Less space is free than `LogConfig.free_bytes_min`; this append was not taken."""


class Appended(NamedTuple):
    """An append that is durable: its bytes are `log.read(segment, offset, length)`."""

    token: object
    segment: int
    offset: int
    length: int


class Finished(NamedTuple):
    """An operation given to `submit` has run, after everything before it became durable."""

    token: object
    result: object


class _Queued(NamedTuple):
    """One entry of the queue; an operation has a length of -1."""

    parts: Sequence[bytes]
    token: object
    length: int
    operation: Callable[[], object] | None


_UNREPORTED: Final = object()
"""The token of what nobody waits for."""


class LogWriter:
    """Appends to a `SegmentedLog` in groups.

    Args:
        notify: called from the writer's thread (any number of times) when `take_durable` has something or
            `failure` is set; must be thread-safe and quick, such as a reactor's `Wakeup.set`.
        threaded: False for tests and simulation: nothing happens until `step` is called.
        queue_bytes_max: bound on bytes appended and not yet taken as durable.
        clock_ns: for the time that groups take.

    Attributes:
        failure: set once, by a failed write or sync or operation.
        groups: number of groups written.
    """

    def __init__(
        self,
        log: SegmentedLog,
        notify: Callable[[], None],
        *,
        threaded: bool = True,
        queue_bytes_max: int = 256 << 20,
        clock_ns: Callable[[], int] = perf_counter_ns,
    ) -> None:
        self._log = log
        self._notify = notify
        self._clock_ns = clock_ns
        self._queue: SimpleQueue[_Queued | None] = SimpleQueue()
        self._held: _Queued | None = None  # taken from the queue, belongs to the next group
        self._defers = False
        self._deferred: list[_Queued] = []
        self._deferred_bytes = 0
        self._given = self._handled = 0  # items: put into the queue, and done with for good
        self._quick_groups = 0  # in a row
        self._durable: deque[list[Appended | Finished]] = deque()
        self._queue_bytes_max = queue_bytes_max
        self._queued_bytes = 0
        self._closing = False
        self._group_times: deque[tuple[int, int]] = deque(maxlen=_GROUP_TIMES_MAX)
        self._until_free_check = 0
        self._disk_is_full = False
        self.failure: BaseException | None = None
        self.groups = 0
        self._thread: threading.Thread | None = None
        if threaded:
            sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_INTERVAL_S))
            self._thread = threading.Thread(target=self._run, name=f"log {log.directory}", daemon=True)
            self._thread.start()

    # The loop's side.

    @property
    def queued_bytes(self) -> int:
        """Bytes appended and not yet taken as durable: what the owner's back-pressure looks at."""
        return self._queued_bytes

    def append(self, parts: Sequence[bytes], token: object) -> None:
        """Queue one record, `parts` run together.

        Args:
            parts: not to be changed afterwards; at most `LogConfig.record_bytes_max` together.
            token: comes back in `Appended`.

        Raises:
            LogFailedError, LogQueueFullError, DiskFullError: not taken.
        """
        length = sum(map(len, parts))
        if length > self._log.config.record_bytes_max:
            raise ValueError(
                f"a record of {length} bytes; at most {self._log.config.record_bytes_max} can be logged"
            )
        if self.failure is not None:
            raise LogFailedError(
                f"the log in {self._log.directory} has failed: {self.failure}"
            ) from self.failure
        if self._queued_bytes + length > self._queue_bytes_max:
            raise LogQueueFullError(f"{self._queued_bytes} bytes wait for the disk")
        if self._disk_is_full and self.disk_is_full():
            free_min = self._log.config.free_bytes_min
            raise DiskFullError(
                f"{self._log.directory}: less than {free_min} bytes are free, nothing is written"
            )
        self._queued_bytes += length
        item = _Queued(parts, token, length, None)
        if self._defers:
            self._deferred.append(item)
            self._deferred_bytes += length
        else:
            self._give(item)

    def defer(self) -> None:
        """From now on what is appended waits for `write`, or for `hand_over`."""
        self._defers = True

    def write(self) -> bool:
        """Writes what was deferred, here and now if that will be quick, else it is the thread's.

        Returns:
            Whether it was done here: `take_durable` has it, or `failure` is set. `notify` is not called.
        """
        group = self._deferred
        if (
            not group
            or self._quick_groups < _QUICK_GROUPS_MIN
            or self._handled < self._given
            or self._deferred_bytes > _LOOP_GROUP_BYTES_MAX
            or len(group) > _GROUP_RECORDS_MAX
            or self._thread is None
            or self.failure is not None
        ):
            self.hand_over()
            return False
        self._deferred, self._deferred_bytes = [], 0
        if self._write_group(group) and self._log.wants_zeros:
            self._give(_Queued((), _UNREPORTED, -1, self._log.zero_ahead))
        return True

    def hand_over(self) -> None:
        """Gives what was deferred to the thread."""
        for item in self._deferred:
            self._give(item)
        self._deferred, self._deferred_bytes = [], 0

    def _give(self, item: _Queued) -> None:
        self._given += 1
        self._queue.put(item)

    def disk_is_full(self) -> bool:
        """Whether appends are refused for want of space; looks again when they were."""
        if self._disk_is_full:
            self._disk_is_full = self._log.free_bytes() < self._log.config.free_bytes_min
        return self._disk_is_full

    def submit(self, operation: Callable[[], object], token: object) -> None:
        """Run `operation` in the writer's thread, after everything appended so far is durable and before
        anything appended later.

        For what changes the set of segments: `log.cut(...)`, `log.remove(...)`, `log.rotate()`. Comes back
        from `take_durable` as `Finished`; an error it raises is a failure of the log.
        """
        if self.failure is not None:
            raise LogFailedError(
                f"the log in {self._log.directory} has failed: {self.failure}"
            ) from self.failure
        self.hand_over()
        self._give(_Queued((), token, -1, operation))

    def take_durable(self) -> list[Appended | Finished]:
        """What became durable since the last call, in the order of `append` and `submit`."""
        taken: list[Appended | Finished] = []
        durable = self._durable
        while durable:
            group = durable.popleft()
            taken += group
        for item in taken:
            if type(item) is Appended:
                self._queued_bytes -= item.length
        return taken

    def take_group_times(self) -> list[tuple[int, int]]:
        """(nanoseconds of its write and sync, records) of each group since the last call; of more than
        `_GROUP_TIMES_MAX` the newest."""
        times, taken = self._group_times, []
        while times:
            taken.append(times.popleft())
        return taken

    def close(self) -> None:
        """Write what is queued, then end the thread. Blocks for as long as that takes. The log stays open."""
        if self._closing:
            return
        self._closing = True
        self.hand_over()
        if self._thread is None:
            while self.step():
                pass
            return
        self._queue.put(None)
        self._thread.join()

    # The writer's side.

    def step(self) -> bool:
        """Write one group or run one operation; False if nothing waits or the log has failed. Only when not
        threaded.

        Raises nothing: a failure is in `failure`, as with the thread.
        """
        assert self._thread is None
        if self.failure is not None or (self._held is None and self._queue.empty()):
            return False
        first = self._held or self._queue.get_nowait()
        self._held = None
        return first is not None and self._write(first)

    def _run(self) -> None:
        while True:
            first = self._held or self._queue.get()
            self._held = None
            if first is None or not self._write(first):
                return
            del first  # or its bytes would live until the next append

    def _write(self, first: _Queued) -> bool:
        """Write the group that begins with `first`; False when the log has failed."""
        if first.operation is not None:
            if not self._operate(first.operation, first.token):
                return False
            self._handled += 1
            return True
        group = self._take_group(first)
        if not self._write_group(group):
            self._notify()
            return False
        self._notify()
        size = sum([item.length for item in group])
        is_idle = size <= _ZERO_AHEAD_GROUP_BYTES_MAX and self._held is None and self._queue.empty()
        if is_idle and not self._operate(self._log.zero_ahead, _UNREPORTED):
            return False
        self._handled += len(group)
        return True

    def _operate(self, operation: Callable[[], object], token: object) -> bool:
        try:
            result = operation()
        except Exception as error:  # as in `_write_group`
            self.failure = error
            self._notify()
            return False
        if token is not _UNREPORTED:
            self._durable.append([Finished(token, result)])
            self._notify()
        return True

    def _write_group(self, group: list[_Queued]) -> bool:
        begun_ns = self._clock_ns()
        try:
            lengths = [item.length for item in group]
            parts = group[0].parts if len(group) == 1 else [part for item in group for part in item.parts]
            segment, offset = self._log.write_group(lengths, parts)
            self._check_free_bytes(sum(lengths))
        except (
            Exception
        ) as error:  # whatever it is, the state of the disk is unknown: it is reported, never retried
            self.failure = error
            return False
        done: list[Appended | Finished] = []
        for item in group:
            done.append(Appended(item.token, segment, offset, item.length))
            offset += item.length
        self._durable.append(done)
        self.groups += 1
        elapsed_ns = self._clock_ns() - begun_ns
        self._quick_groups = self._quick_groups + 1 if elapsed_ns <= _QUICK_GROUP_NS_MAX else 0
        self._group_times.append((elapsed_ns, len(group)))
        return True

    def _take_group(self, first: _Queued) -> list[_Queued]:
        group = [first]
        size = first.length
        queue, size_max = self._queue, self._log.config.group_bytes_max
        while size < size_max and len(group) < _GROUP_RECORDS_MAX and not queue.empty():
            item = queue.get_nowait()
            if item is None:
                queue.put(None)  # closing, so nothing is appended any more: it stays the last
                break
            if item.operation is not None or size + item.length > size_max:
                self._held = item
                break
            group.append(item)
            size += item.length
        return group

    def _check_free_bytes(self, group_bytes: int) -> None:
        self._until_free_check -= group_bytes
        if self._until_free_check <= 0:
            self._until_free_check = _FREE_BYTES_CHECK_BYTES
            if self._log.free_bytes() < self._log.config.free_bytes_min:
                self._disk_is_full = True
                self._until_free_check = 0
