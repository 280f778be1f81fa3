"""`ServerConfig`: everything that a coordination server is told.

What every server needs stands in the record itself, the rest in a record for each subject. A key is declared
where it belongs, in one line (`coord.server.config.keys`).
"""

from dataclasses import dataclass, field
from typing import Final

from coord.server.config.admin import AdminConfig
from coord.server.config.detectors import DetectorsConfig
from coord.server.config.ensemble import EnsembleConfig
from coord.server.config.keys import (
    ConfigError,
    between,
    integer,
    key,
    optional_port,
    positive,
    required_key,
    string,
)
from coord.server.config.limits import LimitsConfig
from coord.server.config.members import PeerAddress
from coord.server.config.nodes import SERVER_ID_MAX_WITH_TTL, NodesConfig
from coord.server.config.quorums import QuorumGroups
from coord.server.config.security import SecurityConfig, check_schemes
from coord.server.config.sessions import SessionsConfig
from coord.server.config.storage import StorageConfig
from coord.server.config.tls import TlsConfig
from coord.server.words import WORDS

FRAME_BYTES_MAX_DEFAULT: Final = 0xFFFFF
FRAME_BYTES_MAX_LARGEST: Final = 48 << 20
"""A znode of such a request fits whatever carries it: a link's frame, a snapshot's chunk, one answer."""
WORDS_DEFAULT = frozenset({"srvr"})
WORDS_ALL = WORDS


def word_list(text: str) -> frozenset[str]:
    """Four-letter words: a list, or `*` for all; words that do not exist are dropped."""
    words = {word.strip() for word in text.split(",")}
    return WORDS_ALL if "*" in words else frozenset(words & WORDS_ALL)


def _backlog(text: str) -> int:
    backlog = integer(text)
    return 1024 if backlog <= 0 else backlog


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything a coordination server is told; times in milliseconds unless a name says otherwise.

    `servers` is empty on a standalone server, whose `sid` is then 1. `client_port` None means no client
    listener, 0 a port the system gives. `shown_text` is the file without its secrets.
    `unknown_keys` are nobody's, `keys_without_effect` ZooKeeper's;
    `warnings` are what else the operator should read at start-up.
    """

    data_dir: str = required_key("dataDir", string, "directory of the server's state", shown="required")
    data_log_dir: str = required_key(
        "dataLogDir", string, "directory of the transaction log, best on a disk of its own", shown="dataDir"
    )
    client_port: int | None = required_key(
        "clientPort", optional_port, "port for clients; without it no such port is opened", shown="none"
    )
    client_address: str = key("clientPortAddress", string, "0.0.0.0", "address that `clientPort` listens on")
    tick_ms: int = key("tickTime", positive, 3000, "milliseconds of a tick, the unit of the limits below")
    init_limit: int = key(
        "initLimit", integer, 0, "ticks in which a server must join its leader", shown="required in ensembles"
    )
    sync_limit: int = key(
        "syncLimit",
        integer,
        0,
        "ticks of silence after which leader and follower part",
        shown="required in ensembles",
    )
    sid: int = 1
    servers: tuple[PeerAddress, ...] = ()
    quorum_groups: QuorumGroups | None = None
    max_client_connections: int = key(
        "maxClientCnxns", integer, 60, "clients at once from one address; 0 is unlimited"
    )
    snap_count: int = key(
        "snapCount", integer, 100_000, "transactions after the last checkpoint before the next, at least"
    )
    session_timeout_ms_min: int = key(
        "minSessionTimeout",
        integer,
        6_000,
        "shortest session a client can have, in ms",
        shown="2 × tickTime",
    )
    session_timeout_ms_max: int = key(
        "maxSessionTimeout",
        integer,
        60_000,
        "longest session a client can have, in ms",
        shown="20 × tickTime",
    )
    checkpoint_retain_count: int = key(
        "autopurge.snapRetainCount", integer, 3, "checkpoints that the log reaches back; older log goes"
    )
    purge_interval_hours: int = key(
        "autopurge.purgeInterval", integer, 0, "hours between purges of the log; 0: with every checkpoint"
    )
    words: frozenset[str] = key(
        "4lw.commands.whitelist",
        word_list,
        WORDS_DEFAULT,
        "four-letter words that are answered; `*` means all",
    )
    listen_backlog: int = key(
        "clientPortListenBacklog", _backlog, 1024, "connections that wait to be accepted"
    )
    frame_bytes_max: int = key(
        "jute.maxbuffer",
        between(1, FRAME_BYTES_MAX_LARGEST),
        FRAME_BYTES_MAX_DEFAULT,
        "bytes of the largest request, at most 48 MB; the same on every server",
    )
    ensemble_id: str = key(
        "ensemble.id", string, "zoolog", "name of the ensemble; peers of another name are refused"
    )
    ensemble_secret: bytes = b""
    shown_text: str = field(default="", compare=False)
    path: str = ""
    """Of zoo.cfg; empty for a record that was made by hand."""
    unknown_keys: tuple[str, ...] = ()
    keys_without_effect: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    nodes: NodesConfig = field(default_factory=NodesConfig)
    sessions: SessionsConfig = field(default_factory=SessionsConfig)
    security: SecurityConfig = field(default_factory=SecurityConfig)
    tls: TlsConfig = field(default_factory=TlsConfig)
    admin: AdminConfig = field(default_factory=AdminConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    detectors: DetectorsConfig = field(default_factory=DetectorsConfig)

    def __post_init__(self) -> None:
        low, high = self.session_timeout_ms_min, self.session_timeout_ms_max
        if low > high:
            raise ConfigError(
                f"minSessionTimeout must not be larger than maxSessionTimeout, got {low} > {high}"
            )
        if self.admin.speaks_tls and not self.tls.key_store:
            raise ConfigError(
                "admin.portUnification or admin.forceHttps is set: ssl.keyStore.location must name a PEM file"
            )
        if self.admin.speaks_tls and self.admin.need_client_auth and not self.tls.trust_store:
            raise ConfigError(
                "admin.needClientAuth is set: ssl.trustStore.location must name a PEM file with the "
                "authorities that sign operators' certificates"
            )
        if self.nodes.extended_types and self.sid > SERVER_ID_MAX_WITH_TTL:
            raise ConfigError(
                f"extendedTypesEnabled needs server ids up to {SERVER_ID_MAX_WITH_TTL}, got {self.sid}"
            )
        check_schemes(self.security, x509=self.tls.asks_for_certificates)

    @property
    def standalone(self) -> bool:
        return not self.servers

    def canonical_members(self) -> str:
        """The membership as specification 19.2 writes it, without the version line; empty when standalone."""
        lines = [f"server.{peer.sid}={peer.text()}" for peer in self.servers]
        if self.quorum_groups is not None:
            lines += self.quorum_groups.lines()
        return "\n".join(lines)
