"""Settings of one hub: what `zoolog hub serve` takes, and every bound of the server, named."""

from dataclasses import dataclass, field
from pathlib import Path

from pubsub.core.retention import RollPolicy

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class HubConfig:
    """Everything `pubsub.hub.serve` needs; only `directory` and `coord` have no default.

    Attributes:
        directory: data directory of this hub alone (its last session); created when missing.
        coord: connect string of the coordination ensemble, "host:port,host:port/chroot".
        host: address to listen on, and to advertise unless `advertised_host` says otherwise.
        port: 0 takes a free port (the registration tells clients which).
        hub_id: a name for logs; default: the address.
        ensemble, write_quorum, ack_quorum: copies of each ledger. With fewer bookies a ledger takes the size
        it
            can get, never below `ack_quorum`.
    """

    directory: Path
    coord: str
    host: str = "127.0.0.1"
    port: int = 0
    hub_id: str | None = None
    advertised_host: str | None = None
    session_timeout_ms: int = 10_000

    ensemble: int = 3
    write_quorum: int = 3
    ack_quorum: int = 2
    roll: RollPolicy = field(default_factory=RollPolicy)

    connections_max: int = 10_000
    peer_requests_max: int = 4096
    peer_request_bytes_max: int = 32 * MIB
    """Unanswered batches of one connection; above it the hub stops reading from it."""
    peer_output_bytes_max: int = 256 * MIB
    """A subscriber's credit bounds its output well below this; a peer over it is cut off."""

    recent_bytes_max: int = 32 * MIB
    """Batches of one topic kept for subscribers that have fallen a little behind."""
    recent_total_bytes_max: int = 512 * MIB
    """The same over all topics."""
    catch_up_bytes: int = 2 * MIB
    """One read of a subscriber that is behind."""

    cursor_interval_ms: int = 1000
    cursor_roll_entries: int = 50_000
    dedup_replay_bytes_max: int = 32 * MIB
    """Bytes published to a topic that have its producers written early; bounds what a take-over replays."""
    maintenance_interval_ms: int = 10_000
    """How often ledgers are looked at for rolling and deletion."""
    orphan_interval_ms: int = 3_600_000
    """How often ledgers that no topic names are looked for; reads every topic's record."""
