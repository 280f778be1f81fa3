"""The bounds of a store."""

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """Bytes and counts; see `bookie.server.config` for what an operator may set.

    Attributes:
        unlogged_bytes_max: accepted and not yet durable; above it adds are refused.
        cache_bytes_max: recent extents kept in memory after they are durable.
        checkpoint_bytes_max: log bytes since the last checkpoint that make one due; it bounds replay.
        recent_runs_max: index runs in memory that make a checkpoint due.
        ledgers_cached_max: ledgers whose state stays in memory while nothing happens to them.
        segment_bytes_max: size at which the log begins a new segment.
    """

    unlogged_bytes_max: int = 256 * MIB
    cache_bytes_max: int = 64 * MIB
    checkpoint_bytes_max: int = 256 * MIB
    recent_runs_max: int = 100_000
    ledgers_cached_max: int = 50_000
    segment_bytes_max: int = 256 * MIB
