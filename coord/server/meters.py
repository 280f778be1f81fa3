"""Distributions of times and sizes that a server keeps beside its counters, by ZooKeeper's names of them.

All of them are noted once per batch, block, group or event of the disk, never per request, by the loop alone.
"""

from typing import Final

from coord.metrics import WINDOW_MS, Summary
from coord.protocol import opcodes
from coord.server.metricnames import ADVANCED, BASIC, METRICS

_TOLD: Final = {
    opcodes.NODE_CREATED: "node_created_watch_count",
    opcodes.NODE_DELETED: "node_deleted_watch_count",
    opcodes.NODE_DATA_CHANGED: "node_changed_watch_count",
    opcodes.NODE_CHILDREN_CHANGED: "node_children_watch_count",
}


class Meters:
    """One `Summary` for each metric of that kind in `METRICS`; times are in milliseconds."""

    def __init__(self) -> None:
        self.summaries = {one.name: Summary() for one in METRICS if one.kind in (BASIC, ADVANCED)}
        # A batch is executed in the moment in which it is known that a quorum has logged it.
        self.summaries["quorum_ack_latency"] = self.summaries["proposal_latency"]
        self._update = self.summaries["updatelatency"]
        self._proposal = self.summaries["proposal_latency"]
        self._propagation = self.summaries["propagation_latency"]
        self._batch_size = self.summaries["write_batch_size"]
        self._fsync = self.summaries["fsynctime"]
        self._group_size = self.summaries["sync_processor_batch_size"]
        self._read = self.summaries["readlatency"]
        self._told = {kind: self.summaries[name] for kind, name in _TOLD.items()}
        self._rotated_ms: int | None = None

    def note(self, name: str, value: int) -> None:
        """For what is rare."""
        self.summaries[name].record(value)

    def note_reads(self, count: int) -> None:
        """So many reads have been answered since the start; those that nobody has noted took no time."""
        self._read.record_many(0, count - self._read.count)

    def note_reads_behind(self, count: int, latency_ms: int) -> None:
        """With a block of writes the reads behind them have been answered."""
        self._read.record_many(latency_ms, count)

    def note_updates(self, count: int, latency_ms: int) -> None:
        """A block of this server's clients has been executed."""
        self._update.record_many(latency_ms, count)

    def note_executed(self, count: int, age_ms: int, *, proposed_here: bool) -> None:
        """A batch of `count` transactions has been executed, `age_ms` after the leader had stamped it."""
        self._batch_size.record(count)
        self._propagation.record(age_ms)
        if proposed_here:
            self._proposal.record(age_ms)

    def note_told(self, kind: int, count: int) -> None:
        """So many watchers have been told of a request's event of a kind."""
        self._told[kind].record(count)

    def note_group(self, elapsed_ms: int, records: int) -> None:
        """The log has written a group."""
        self._fsync.record(elapsed_ms)
        self._group_size.record(records)

    def rotate(self, now_ms: int) -> None:
        """Lets percentiles forget what is older than two windows."""
        if self._rotated_ms is None:
            self._rotated_ms = now_ms
        elif now_ms - self._rotated_ms >= WINDOW_MS:
            self._rotated_ms = now_ms
            for summary in set(self.summaries.values()):  # two names have one
                summary.rotate()
