"""Ports that one server would open twice. Without this they were found at start, one after the other, as
"address in use", by whom nobody knows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from coord.server.config.keys import ConfigError
from coord.server.config.members import EVERY_HOST, PeerAddress
from coord.server.config.record import ServerConfig

_EVERY_HOST: Final = frozenset({EVERY_HOST, "", "::"})


@dataclass(frozen=True, slots=True)
class _Port:
    """One that is listened on. `is_needed`: the server does not start without it."""

    key: str
    host: str
    port: int
    is_needed: bool = True

    def collides_with(self, other: "_Port") -> bool:
        same_host = self.host == other.host or not _EVERY_HOST.isdisjoint((self.host, other.host))
        return self.port == other.port != 0 and same_host


def check_ports(config: ServerConfig) -> tuple[str, ...]:
    """Returns warnings: about ports that the server can do without.

    Raises:
        ConfigError: a port that it needs is used twice, or two members have the same address.
    """
    _check_members(config.servers)
    warnings = []
    for one, other in combinations(_ports_of(config), 2):
        if one.collides_with(other):
            text = f"{one.key} and {other.key} have the same port {one.port}"
            if one.is_needed and other.is_needed:
                raise ConfigError(text)
            warnings.append(f"{text}: there will be no admin server")
    return tuple(warnings)


def _ports_of(config: ServerConfig) -> Iterator[_Port]:
    tls, admin = config.tls, config.admin
    if config.client_port is not None:
        yield _Port("clientPort", config.client_address, config.client_port)
    if tls.secure_port is not None:
        yield _Port("secureClientPort", tls.secure_address, tls.secure_port)
    for peer in config.servers:
        if peer.sid == config.sid:
            for address in peer.addresses:
                host = EVERY_HOST if config.ensemble.listen_everywhere else address.host
                yield _Port(f"server.{peer.sid}", host, address.quorum_port)
    if admin.serves_prometheus:
        yield _Port("metricsProvider.httpPort", admin.metrics_host, admin.metrics_port)
    if admin.is_wanted:
        yield _Port("admin.serverPort", admin.host, admin.port, is_needed=False)


def _check_members(servers: tuple[PeerAddress, ...]) -> None:
    owners: dict[tuple[str, int], int] = {}
    for peer in servers:
        for address in peer.addresses:
            place = (address.host, address.quorum_port)
            owner = owners.setdefault(place, peer.sid)
            if owner != peer.sid:
                raise ConfigError(
                    f"server.{owner} and server.{peer.sid} have the same address {place[0]}:{place[1]}"
                )
