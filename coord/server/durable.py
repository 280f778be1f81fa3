"""The member's disk: log, epochs and checkpoints, with every completion handed back as an event on the loop.

The log's thread reports through `on_log_report`, the epochs' through `on_epochs_report`; both run in the
reactor's tick. Nothing may be appended while a truncation is under way, so what Zab hands out behind one
waits here for it. A failure to persist is final: the process stops at once, acknowledging nothing more.
"""

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from coord.log import DiskFullError, LogFailedError, LogQueueFullError, fail_stop
from coord.storage import DataDirectory, LoggedBatch, TxnLog
from coord.storage import Epochs as StoredEpochs
from coord.storage.steps import Steps
from coord.zab import Epochs, Proposal

BATCH_KIND: Final = 1


class LogReport:
    """What became durable, in the order it was handed out: a zxid logged, or (`is_cut`) cut after."""

    __slots__ = ("is_cut", "zxid")

    def __init__(self, zxid: int, *, is_cut: bool) -> None:
        self.zxid = zxid
        self.is_cut = is_cut


class DurableLog:
    """The transaction log of the member, across generations.

    Args:
        on_reports: gets what became durable; called from the tick.
        on_group: told of each write of the log how many milliseconds it took, and its records.
        before_cut: called before each truncation.

    Attributes:
        owes: something was given to the log since the last `write`.
    """

    def __init__(
        self,
        log: TxnLog,
        on_reports: Callable[[list[LogReport]], None],
        on_group: Callable[[int, int], None] = lambda elapsed_ms, records: None,
        before_cut: Callable[[], None] = lambda: None,
    ) -> None:
        self.owes = False
        self._log = log
        self._log.writer.defer()
        self._before_cut = before_cut
        self._on_group = on_group
        self._on_reports = on_reports
        self._cutting = False
        self._waiting: deque[Callable[[], None]] = deque()
        self._marked_zxid = 0
        self._ends_in_batch = False

    @property
    def txn_log(self) -> TxnLog:
        return self._log

    @property
    def queued_bytes(self) -> int:
        return self._log.writer.queued_bytes

    def append(self, proposal: Proposal, committed_zxid: int) -> None:
        if self._cutting:
            self._waiting.append(lambda: self.append(proposal, committed_zxid))
            return
        report = LogReport(proposal.last_zxid, is_cut=False)
        first, last = proposal.first_zxid, proposal.last_zxid
        self._give(lambda: self._log.append(first, last, (proposal.payload,), committed_zxid, report))
        self._marked_zxid = committed_zxid
        self._ends_in_batch = True

    def seal(self) -> None:
        """What is appended from now on is in frames that only releases of feature level 2 can read. Cheap
        when that is so already.
        """
        self._give(self._log.seal)

    def truncate_above(self, zxid: int) -> None:
        if self._cutting:
            self._waiting.append(lambda: self.truncate_above(zxid))
            return
        self._cutting = True
        self._before_cut()
        self._give(lambda: self._log.truncate_above(zxid, LogReport(zxid, is_cut=True)))

    def mark_committed(self, committed_zxid: int) -> None:
        """For an idle time: what is committed is written down, so that a restart may execute it."""
        if not self._cutting and committed_zxid > self._marked_zxid:
            self._marked_zxid = committed_zxid
            self._ends_in_batch = False
            self._give(lambda: self._log.append_mark(committed_zxid, None))
            self._log.writer.hand_over()

    def write(self, *, in_loop: bool = True) -> bool:
        """Has what was appended written: call it once a tick. True where that is done already; its reports
        have been delivered then.

        Args:
            in_loop: whether it may be done here, if the disk has been quick; else its thread does it.
        """
        self.owes = False
        if not in_loop:
            self._log.writer.hand_over()
            return False
        if not self._log.writer.write():
            return False
        self.on_log_report()
        return True

    def remove_below(self, zxid: int, keep_bytes: int) -> None:
        """Drops old segments, which a durable checkpoint of `zxid` has made superfluous, but for the newest
        `keep_bytes` of them.
        """
        self._give(lambda: self._log.remove_below(zxid, keep_bytes=keep_bytes))

    def replace(self, make: Callable[[], TxnLog]) -> None:
        """Closes the log and goes on with that of a new generation."""
        self._log.close()
        self._log = make()
        self._log.writer.defer()
        self._marked_zxid = self._log.last_zxid
        self._ends_in_batch = False
        self._waiting.clear()
        self._cutting = False

    def _give(self, order: Callable[[], None]) -> None:
        """What the log does not take is lost to this server's history: it cannot go on.

        A failure may show here before its report has come round.
        """
        self.owes = True
        try:
            order()
        except (DiskFullError, LogFailedError, LogQueueFullError) as error:
            fail_stop(error, "the transaction log")

    def on_log_report(self) -> None:
        failure = self._log.failure
        if failure is not None:
            fail_stop(failure, "the transaction log")
        for elapsed_ns, records in self._log.writer.take_group_times():
            self._on_group(elapsed_ns // 1_000_000, records)
        reports: list[LogReport] = []
        for token in self._log.take_durable():
            if isinstance(token, LogReport):
                reports.append(token)
                if token.is_cut:
                    self._cutting = False
        if reports:
            self._on_reports(reports)
        while self._waiting and not self._cutting:
            self._waiting.popleft()()

    def close(self) -> int:
        """Writes what is left, and ends the log with a mark: a last batch that is damaged later has something
        valid behind it then, and is told from one that a crash has torn.

        Returns:
            The zxid up to which the log is durable; 0 if that is not certain.
        """
        if self._ends_in_batch and not self._cutting and self._log.failure is None:
            self._ends_in_batch = False
            with suppress(DiskFullError, LogFailedError, LogQueueFullError):
                self._log.append_mark(self._marked_zxid, None)
        self._log.close()
        return 0 if self._cutting or self._log.failure is not None else self._log.last_zxid


class DurableEpochs:
    """The epoch file, written by a thread of its own; each save comes back in order.

    Args:
        notify: thread-safe, leads to `on_epochs_report` on the loop.
        on_saved: called for each save that is durable.
        threaded: False for simulation: a save is done when `persist` returns, and reported as ever.
    """

    def __init__(
        self,
        directory: DataDirectory,
        notify: Callable[[], None],
        on_saved: Callable[[Epochs], None],
        *,
        threaded: bool = True,
    ) -> None:
        self._directory = directory
        self._notify = notify
        self._on_saved = on_saved
        self._saved: deque[Epochs | BaseException] = deque()
        self._steps = Steps("epochs", threaded=threaded)

    def persist(self, epochs: Epochs) -> None:
        self._steps.do(lambda: self._save(epochs))

    def on_epochs_report(self) -> None:
        while self._saved:
            saved = self._saved.popleft()
            if isinstance(saved, BaseException):
                fail_stop(saved, "the file of epochs")
            self._on_saved(saved)

    def close(self) -> None:
        self._steps.close()

    def _save(self, epochs: Epochs) -> None:
        try:
            self._directory.save_epochs(StoredEpochs(epochs.accepted, epochs.current))
            self._saved.append(epochs)
        except Exception as error:  # whatever it is, the epochs are not durable: the loop stops the process
            self._saved.append(error)
        self._notify()


def proposals_of(batches: Iterable[LoggedBatch]) -> list[Proposal]:
    """The end of the log as Zab wants it."""
    return [Proposal(batch.first, batch.last, batch.payload) for batch in batches if batch.kind == BATCH_KIND]
