"""One coordination server's configuration: zoo.cfg with ZooKeeper's key names becomes one frozen record.

The file is a Java properties file (specification 19.9). Keys that are understood are listed in `KEYS`; every
other key is no error and is reported in `ServerConfig.unknown_keys`, which the server names in one warning.
A mistake is a `ConfigError` with one line that names key, value and what was expected; the command exits
with status 2.

Keys of our own, beside ZooKeeper's:

    ensemble.id            names the ensemble; peers of another name are refused (default `zoolog`)
    ensemble.secretFile    file with the secret that the servers of one ensemble share (default
                           `<dataDir>/ensemble.secret`; the same bytes on every server, at least 16 of them
                           after blanks at both ends are dropped; `write_ensemble_secret` makes one). Servers
                           of an ensemble do not start without it.
    jute.maxbuffer         largest request frame in bytes (a system property in ZooKeeper, default 1048575)
"""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coord.server.properties import parse_properties

FRAME_BYTES_MAX_DEFAULT = 0xFFFFF
SECRET_BYTES_MIN = 16
SECRET_FILE_NAME = "ensemble.secret"
SERVER_ID_MAX = 255
WORDS_DEFAULT = frozenset({"srvr"})
WORDS_ALL = frozenset({"ruok", "srvr", "stat", "mntr", "isro"})

KEYS = frozenset(
    {
        "dataDir",
        "dataLogDir",
        "clientPort",
        "clientPortAddress",
        "tickTime",
        "initLimit",
        "syncLimit",
        "maxClientCnxns",
        "snapCount",
        "minSessionTimeout",
        "maxSessionTimeout",
        "autopurge.snapRetainCount",
        "autopurge.purgeInterval",
        "4lw.commands.whitelist",
        "electionAlg",
        "clientPortListenBacklog",
        "ensemble.id",
        "ensemble.secretFile",
        "jute.maxbuffer",
    }
)


class ConfigError(Exception):
    """The configuration cannot be used; the text is one line for the person who wrote it."""


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """One `server.N` line: peers talk over the quorum port; the election port is parsed and not used."""

    sid: int
    host: str
    quorum_port: int
    election_port: int
    client_host: str | None = None
    client_port: int | None = None

    def text(self) -> str:
        """The line in canonical form (specification 19.2), without `server.N=`."""
        line = f"{self.host}:{self.quorum_port}:{self.election_port}:participant"
        if self.client_port is None:
            return line
        return f"{line};{self.client_host or '0.0.0.0'}:{self.client_port}"


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything a coordination server is told; times in milliseconds.

    `servers` is empty on a standalone server, whose `sid` is then 1. `client_port` None means no client
    listener, 0 a port the system gives. `max_client_connections` counts per client address, 0 is unlimited.
    """

    data_dir: str
    data_log_dir: str
    client_port: int | None
    client_address: str = "0.0.0.0"
    tick_ms: int = 3000
    init_limit: int = 0
    sync_limit: int = 0
    sid: int = 1
    servers: tuple[PeerAddress, ...] = ()
    max_client_connections: int = 60
    snap_count: int = 100_000
    session_timeout_ms_min: int = 6_000
    session_timeout_ms_max: int = 60_000
    checkpoint_retain_count: int = 3
    purge_interval_hours: int = 0
    words: frozenset[str] = WORDS_DEFAULT
    listen_backlog: int = 1024
    frame_bytes_max: int = FRAME_BYTES_MAX_DEFAULT
    ensemble_id: str = "zoolog"
    ensemble_secret: bytes = b""
    unknown_keys: tuple[str, ...] = ()

    @property
    def standalone(self) -> bool:
        return not self.servers

    def canonical_members(self) -> str:
        """The membership as specification 19.2 writes it, without the version line; empty when standalone."""
        return "\n".join(f"server.{peer.sid}={peer.text()}" for peer in self.servers)


def load_config(path: str) -> ServerConfig:
    """Reads and checks zoo.cfg and the files it names (myid, the ensemble's secret).

    Raises:
        ConfigError: any problem, in one line that starts with the file's name.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {_reason(error)}") from error
    try:
        return parse_config(parse_properties(text))
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error


def parse_config(pairs: Mapping[str, str]) -> ServerConfig:
    """Builds the record from parsed keys; relative paths stay relative to the working directory, as
    ZooKeeper's do.

    Raises:
        ConfigError: a value cannot be used.
    """
    data_dir = pairs.get("dataDir", "")
    if not data_dir:
        raise ConfigError("dataDir is not set")
    tick_ms = _number(pairs, "tickTime", 3000)
    timeout_min = _number(pairs, "minSessionTimeout", -1)
    timeout_max = _number(pairs, "maxSessionTimeout", -1)
    timeout_min = 2 * tick_ms if timeout_min == -1 else timeout_min
    timeout_max = 20 * tick_ms if timeout_max == -1 else timeout_max
    if tick_ms <= 0:
        raise ConfigError(f"tickTime must be positive, got {tick_ms}")
    if timeout_min > timeout_max:
        raise ConfigError(
            f"minSessionTimeout must not be larger than maxSessionTimeout, got {timeout_min} > {timeout_max}"
        )
    client_address, client_port = pairs.get("clientPortAddress", ""), _client_port(pairs)
    servers = _servers(pairs)
    sid, secret = 1, b""
    if len(servers) < 2:
        servers = ()
    else:
        for key in ("initLimit", "syncLimit"):
            if _number(pairs, key, 0) <= 0:
                raise ConfigError(f"{key} is not set: an ensemble needs a positive number of ticks")
        if _number(pairs, "electionAlg", 3) != 3:
            raise ConfigError(f"electionAlg must be 3, got {pairs['electionAlg']}")
        sid = _read_myid(data_dir, servers)
        mine = next(peer for peer in servers if peer.sid == sid)
        client_address, client_port = _client_address(mine, client_address, client_port)
        secret_path = pairs.get("ensemble.secretFile") or os.path.join(data_dir, SECRET_FILE_NAME)
        secret = _read_secret(secret_path)
    retain = _number(pairs, "autopurge.snapRetainCount", 3)
    return ServerConfig(
        data_dir=data_dir,
        data_log_dir=pairs.get("dataLogDir") or data_dir,
        client_port=client_port,
        client_address=client_address or "0.0.0.0",
        tick_ms=tick_ms,
        init_limit=_number(pairs, "initLimit", 0),
        sync_limit=_number(pairs, "syncLimit", 0),
        sid=sid,
        servers=servers,
        max_client_connections=_number(pairs, "maxClientCnxns", 60),
        snap_count=max(2, _number(pairs, "snapCount", 100_000)),
        session_timeout_ms_min=timeout_min,
        session_timeout_ms_max=timeout_max,
        checkpoint_retain_count=max(1, retain),
        purge_interval_hours=_number(pairs, "autopurge.purgeInterval", 0),
        words=_words(pairs),
        listen_backlog=_backlog(pairs),
        frame_bytes_max=_number(pairs, "jute.maxbuffer", FRAME_BYTES_MAX_DEFAULT),
        ensemble_id=pairs.get("ensemble.id") or "zoolog",
        ensemble_secret=secret,
        unknown_keys=tuple(sorted(key for key in pairs if key not in KEYS and not key.startswith("server."))),
    )


def write_ensemble_secret(path: str) -> bytes:
    """Writes a new random secret (64 hexadecimal digits) that only the owner may read; returns the secret."""
    secret = secrets.token_hex(32).encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret + b"\n")
    return secret


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _integer(text: str) -> int:
    """Decimal digits with an optional minus sign; never Python's own wider notion of a number."""
    digits = text[1:] if text.startswith("-") else text
    if not digits or any(digit not in "0123456789" for digit in digits) or len(digits) > 18:
        raise ValueError(text)
    return int(text)


def _number(pairs: Mapping[str, str], key: str, default: int) -> int:
    text = pairs.get(key)
    if text is None or text == "":
        return default
    try:
        return _integer(text)
    except ValueError:
        raise ConfigError(f"{key} must be a number, got {text!r}") from None


def _port(text: str, where: str, *, zero: bool = False) -> int:
    try:
        port = _integer(text)
    except ValueError:
        port = -1
    if not (0 if zero else 1) <= port <= 65535:
        raise ConfigError(f"{where} must be a port, got {text!r}")
    return port


def _client_port(pairs: Mapping[str, str]) -> int | None:
    text = pairs.get("clientPort")
    return None if text is None else _port(text, "clientPort", zero=True)


def _backlog(pairs: Mapping[str, str]) -> int:
    backlog = _number(pairs, "clientPortListenBacklog", -1)
    return 1024 if backlog <= 0 else backlog


def _words(pairs: Mapping[str, str]) -> frozenset[str]:
    text = pairs.get("4lw.commands.whitelist")
    if text is None:
        return WORDS_DEFAULT
    words = {word.strip() for word in text.split(",")}
    return WORDS_ALL if "*" in words else frozenset(words & WORDS_ALL)


def _servers(pairs: Mapping[str, str]) -> tuple[PeerAddress, ...]:
    peers: dict[int, PeerAddress] = {}
    for key, value in pairs.items():
        if not key.startswith("server."):
            continue
        try:
            sid = _integer(key.removeprefix("server."))
        except ValueError:
            raise ConfigError(f"{key}: the id must be a number") from None
        if not 1 <= sid <= SERVER_ID_MAX:
            raise ConfigError(f"{key}: the id must be from 1 to {SERVER_ID_MAX}")
        peers[sid] = _peer(sid, key, value)
    return tuple(peers[sid] for sid in sorted(peers))


def _peer(sid: int, key: str, value: str) -> PeerAddress:
    address, _, client = value.partition(";")
    host, parts = _host_and_rest(address.strip(), key)
    if len(parts) not in (2, 3):
        raise ConfigError(f"{key} must be host:quorumPort:electionPort[:role][;clientPort], got {value!r}")
    role = parts[2].lower() if len(parts) == 3 else "participant"
    if role == "observer":
        raise ConfigError(f"{key}: observers are not supported, the role must be participant")
    if role != "participant":
        raise ConfigError(f"{key}: unknown role {parts[2]!r}, expected participant")
    client_host, client_port = None, None
    if client:
        host_text, _, port_text = client.strip().rpartition(":")
        client_host = host_text.strip("[]") or None
        client_port = _port(port_text, f"{key}: the client port")
    return PeerAddress(
        sid=sid,
        host=host,
        quorum_port=_port(parts[0], f"{key}: the quorum port"),
        election_port=_port(parts[1], f"{key}: the election port"),
        client_host=client_host,
        client_port=client_port,
    )


def _host_and_rest(address: str, key: str) -> tuple[str, list[str]]:
    """Splits `host:a:b` or `[v6]:a:b` into the host and what follows it."""
    if address.startswith("["):
        host, bracket, rest = address[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise ConfigError(f"{key}: expected [address]:port, got {address!r}")
        return host, rest[1:].split(":")
    host, *rest_parts = address.split(":")
    if not host:
        raise ConfigError(f"{key}: the host is missing in {address!r}")
    return host, rest_parts


def _client_address(mine: PeerAddress, address: str, port: int | None) -> tuple[str, int | None]:
    """The member line may supply what clientPort and clientPortAddress do not say; it must not contradict
    them.
    """
    if mine.client_port is None:
        return address, port
    if port is not None and port != mine.client_port:
        raise ConfigError(f"clientPort {port} differs from {mine.client_port} in the line server.{mine.sid}")
    if address and mine.client_host and address != mine.client_host:
        raise ConfigError(
            f"clientPortAddress {address} differs from {mine.client_host} in the line server.{mine.sid}"
        )
    return address or mine.client_host or "", mine.client_port


def _read_myid(data_dir: str, servers: tuple[PeerAddress, ...]) -> int:
    path = os.path.join(data_dir, "myid")
    try:
        text = Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise ConfigError(f"{path} is missing: it holds this server's number ({_reason(error)})") from error
    try:
        sid = _integer(text)
    except ValueError:
        raise ConfigError(f"{path} must hold a number, got {text[:40]!r}") from None
    if all(peer.sid != sid for peer in servers):
        raise ConfigError(f"{path} says {sid}, but there is no line server.{sid}")
    return sid


def _read_secret(path: str) -> bytes:
    try:
        secret = Path(path).read_bytes().strip()
    except OSError as error:
        raise ConfigError(
            f"ensemble secret {path} cannot be read ({_reason(error)}): put the same random text of at least "
            f"{SECRET_BYTES_MIN} bytes there on every server of the ensemble"
        ) from error
    if len(secret) < SECRET_BYTES_MIN:
        raise ConfigError(
            f"ensemble secret {path} has {len(secret)} bytes, expected at least {SECRET_BYTES_MIN}"
        )
    return secret
