"""Settings of one bookie: what `zoolog bookie serve` takes, and every bound of the server, named."""

from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class BookieConfig:
    """Everything `bookie.server.serve` needs; only `directory` and `coord` have no default.

    Attributes:
        directory: data directory of this bookie alone; created when missing.
        coord: connect string of the coordination ensemble, "host:port,host:port/chroot".
        host: address to listen on, and to advertise unless `advertised_host` says otherwise.
        port: 0 takes a free port (the registration tells clients which).
        bookie_id: identity in ensembles and cookies. Without one the directory's cookie decides, and a new
            directory takes "host:port" of its first start.
    """

    directory: Path
    coord: str
    host: str = "127.0.0.1"
    port: int = 0
    bookie_id: str | None = None
    advertised_host: str | None = None
    session_timeout_ms: int = 10_000

    connections_max: int = 4096
    peer_requests_max: int = 4096
    peer_request_bytes_max: int = 16 * MIB
    """Unanswered bytes of one peer at which nothing more is read from it, which comes before any refusal."""
    peer_output_bytes_max: int = 64 * MIB

    unlogged_bytes_max: int = 256 * MIB
    """Adds accepted and not yet durable; above it an add is answered TooManyRequests without effect."""
    cache_bytes_max: int = 64 * MIB
    """Bytes of recent extents kept for tail readers after they are durable."""
    segment_bytes_max: int = 256 * MIB
    checkpoint_interval_ms: int = 60_000
    checkpoint_bytes_max: int = 256 * MIB
    """Log bytes since the last checkpoint that start one early; it bounds the replay at start-up."""
    recent_runs_max: int = 100_000
    """Index runs in memory that start a checkpoint early; it bounds the index memory."""
    ledgers_cached_max: int = 50_000
    """Idle ledgers whose state stays in memory."""

    long_polls_max: int = 10_000
    long_poll_ms_max: int = 60_000
    read_bytes_max: int = 4 * MIB
    """Bytes of one read answer (the first entry is always returned)."""

    gc_interval_ms: int = 600_000
    gc_metadata_reads_per_s: int = 1000
    disk_check_interval_ms: int = 10_000
    disk_free_bytes_min: int = 512 * MIB
    """Free bytes on the data directory's file system below which the bookie turns read-only."""
    disk_reserve_bytes: int = 64 * MIB
    """Free bytes below which recovery adds are refused too."""
