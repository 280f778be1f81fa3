"""From zoo.cfg (a Java properties file, specification 19.9) and the files it names to a `ServerConfig`."""

import difflib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from coord.server.config.foreign import REFUSED, is_foreign, refuse
from coord.server.config.keys import ConfigError, Key, Values, integer, keys_of, read_fields, sections_of
from coord.server.config.members import PeerAddress
from coord.server.config.membership import read_membership, role_warnings
from coord.server.config.ports import check_ports
from coord.server.config.record import WORDS_DEFAULT, ServerConfig
from coord.server.config.secret import SECRET_FILE_NAME, read_ensemble_secret
from coord.server.config.tls import TlsConfig
from coord.server.properties import read_properties
from coord.server.tls import make_context

ELECTION_ALGORITHM = 3


def load_config(path: str) -> ServerConfig:
    """Reads and checks zoo.cfg and the files it names (myid, the ensemble's secret, users, certificates).

    Raises:
        ConfigError: any problem, in one line that starts with the file's name.
    """
    try:
        pairs = read_properties(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    try:
        config = parse_config(pairs)
        if config.tls.is_wanted:
            make_context(config.tls)
        return replace(config, path=path)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error


def parse_config(pairs: Mapping[str, str]) -> ServerConfig:
    """Builds the record from parsed keys; relative paths stay relative to the working directory, as
    ZooKeeper's do.

    Raises:
        ConfigError: a value cannot be used.
    """
    values = Values(pairs)
    undeclared = [name for name in values.names if not is_declared(name)]
    refuse(values.pairs, undeclared)
    read = read_fields(ServerConfig, values)
    for name, record in sections_of(ServerConfig).items():
        read[name] = record(**read_fields(record, values))
    if not read.get("data_dir"):
        raise ConfigError("dataDir is not set")
    read["data_log_dir"] = read.get("data_log_dir") or read["data_dir"]
    read.setdefault("client_port", None)
    _bound_timeouts(read)
    if read["sessions"].read_only_mode:
        # Clients of a read-only server look for a better one with it (specification 14.4, 16.2).
        read["words"] = read.get("words", WORDS_DEFAULT) | {"isro"}
    read["snap_count"] = max(2, read.get("snap_count", 100_000))
    read["checkpoint_retain_count"] = max(1, read.get("checkpoint_retain_count", 3))
    read["ensemble_id"] = read.get("ensemble_id") or "zoolog"
    read["shown_text"] = "".join(f"{name}={_shown(name, text)}\n" for name, text in pairs.items())
    read["unknown_keys"] = tuple(name for name in undeclared if not is_foreign(name))
    read["keys_without_effect"] = tuple(name for name in undeclared if is_foreign(name))
    address = read.pop("client_address", "")
    membership = read_membership(read["ensemble"])
    read["warnings"] = membership.warnings
    if membership.servers:
        _check_ensemble(read)
        sid = _read_myid(read["data_dir"], membership.servers)
        read |= {"sid": sid, "servers": membership.servers, "quorum_groups": membership.groups}
        mine = next(peer for peer in membership.servers if peer.sid == sid)
        read["warnings"] += role_warnings(read["ensemble"], mine)
        address, read["client_port"] = _client_address(mine, address, read["client_port"])
        read["tls"] = _tls_of_member(mine, read["tls"])
        secret_path = read["ensemble"].secret_file or os.path.join(read["data_dir"], SECRET_FILE_NAME)
        read["ensemble_secret"] = read_ensemble_secret(secret_path)
    if address:
        read["client_address"] = address
    config = ServerConfig(**read)
    return replace(config, warnings=(*config.warnings, *check_ports(config)))


def _shown(name: str, text: str) -> str:
    """A value for people who may see the configuration, but no secret in it."""
    is_secret = any(part in name.lower() for part in ("password", "secret", "digest", "sasl"))
    return "***" if is_secret and text.lower() not in ("", "true", "false") else text


def known_keys() -> dict[str, Key]:
    """Every declared key by its name; families by their prefix, which ends in a dot."""
    records = [ServerConfig, *sections_of(ServerConfig).values()]
    return {one.name: one for record in records for one in keys_of(record).values()}


def is_declared(name: str) -> bool:
    """Whether a record has the key. One that is refused belongs to no family (`server.principal` is no
    member).
    """
    known = known_keys()
    return name in known or any(
        name in one.aliases or (one.is_family and name.startswith(one.name) and name not in REFUSED)
        for one in known.values()
    )


def with_guess(name: str) -> str:
    """A key that nobody knows, and the one that may be meant, where one is like it."""
    spelt = {known.lower(): known for known in known_keys()}
    close = difflib.get_close_matches(name.lower(), spelt, n=1, cutoff=0.8)
    return f"{name} (did you mean {spelt[close[0]]}?)" if close else name


def _bound_timeouts(read: dict[str, Any]) -> None:
    """Unset, or -1, the bounds of a session's timeout follow the tick."""
    tick_ms = read.get("tick_ms", 3000)
    for name, ticks in (("session_timeout_ms_min", 2), ("session_timeout_ms_max", 20)):
        if read.get(name, -1) == -1:
            read[name] = ticks * tick_ms


def _check_ensemble(read: Mapping[str, Any]) -> None:
    for name, field in (("initLimit", "init_limit"), ("syncLimit", "sync_limit")):
        if read.get(field, 0) <= 0:
            raise ConfigError(f"{name} is not set: an ensemble needs a positive number of ticks")
    algorithm = read["ensemble"].election_algorithm
    if algorithm != ELECTION_ALGORITHM:
        raise ConfigError(f"electionAlg must be {ELECTION_ALGORITHM}, got {algorithm}")


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


def _tls_of_member(mine: PeerAddress, tls: TlsConfig) -> TlsConfig:
    """The same for the TLS port."""
    if mine.secure_port is None:
        return tls
    if tls.secure_port not in (None, mine.secure_port):
        raise ConfigError(
            f"secureClientPort {tls.secure_port} differs from {mine.secure_port} "
            f"in the line server.{mine.sid}"
        )
    return replace(tls, secure_port=mine.secure_port, secure_address=mine.secure_host or tls.secure_address)


def _read_myid(data_dir: str, servers: tuple[PeerAddress, ...]) -> int:
    path = os.path.join(data_dir, "myid")
    try:
        text = Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{path} is missing: it holds this server's number ({reason})") from error
    try:
        sid = integer(text)
    except ValueError:
        raise ConfigError(f"{path} must hold a number, got {text[:40]!r}") from None
    if all(peer.sid != sid for peer in servers):
        raise ConfigError(f"{path} says {sid}, but there is no line server.{sid}")
    return sid
