"""The member lines of zoo.cfg (specification 19.1), and their canonical text (19.2):

    server.N=host:quorumPort:electionPort[:role][;[clientHost:]clientPort][;[secureHost:]securePort]

Where a member has several addresses, `|` stands between them and role and client part follow the last one. A
host is a name, an IPv4 address, or an IPv6 address in brackets.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from coord.server.config.keys import ConfigError, integer, port

SERVER_ID_MAX: Final = 255
EVERY_HOST: Final = "0.0.0.0"

Role = Literal["participant", "observer"]


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """Where peers find a member; the election port is parsed and not used."""

    host: str
    quorum_port: int
    election_port: int

    def text(self) -> str:
        return f"{_host_text(self.host)}:{self.quorum_port}:{self.election_port}"


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """One `server.N` line; `more` has the addresses after the first."""

    sid: int
    host: str
    quorum_port: int
    election_port: int
    client_host: str | None = None
    client_port: int | None = None
    role: Role = "participant"
    more: tuple[LinkAddress, ...] = ()
    secure_host: str | None = None
    secure_port: int | None = None

    @property
    def addresses(self) -> tuple[LinkAddress, ...]:
        return LinkAddress(self.host, self.quorum_port, self.election_port), *self.more

    @property
    def is_observer(self) -> bool:
        return self.role == "observer"

    def text(self) -> str:
        """The line in canonical form (specification 19.2), without `server.N=`."""
        line = "|".join(address.text() for address in self.addresses) + f":{self.role}"
        for host, number in ((self.client_host, self.client_port), (self.secure_host, self.secure_port)):
            if number is not None:
                line += f";{_host_text(host or EVERY_HOST)}:{number}"
        return line


def parse_members(lines: Iterable[tuple[str, str]]) -> tuple[PeerAddress, ...]:
    """The members of (id, text after `server.N=`), in the order of their ids.

    Raises:
        ConfigError: a line cannot be used.
    """
    peers: dict[int, PeerAddress] = {}
    for id_text, value in lines:
        sid = member_id(id_text, f"server.{id_text}")
        if sid in peers:
            raise ConfigError(f"server.{id_text} is given twice")
        peers[sid] = _peer(sid, f"server.{id_text}", value)
    return tuple(peers[sid] for sid in sorted(peers))


def member_id(text: str, name: str) -> int:
    """The number of a member. Raises: ConfigError."""
    try:
        sid = integer(text)
    except ValueError:
        raise ConfigError(f"{name}: the id must be a number") from None
    if not 1 <= sid <= SERVER_ID_MAX:
        raise ConfigError(f"{name}: the id must be from 1 to {SERVER_ID_MAX}")
    return sid


def _peer(sid: int, name: str, value: str) -> PeerAddress:
    spec, *clients = (part.strip() for part in value.split(";"))
    if len(clients) > 2:
        raise ConfigError(f"{name}: at most two client parts can follow, got {value!r}")
    role: Role = "participant"
    addresses = []
    texts = spec.split("|")
    for number, text in enumerate(texts, 1):
        host, rest = _host_and_rest(text.strip(), name)
        if len(rest) == 3 and number == len(texts):
            role = _role(rest.pop(), name)
        if len(rest) != 2:
            raise ConfigError(
                f"{name} must be host:quorumPort:electionPort[:role][;clientPort], got {value!r}"
            )
        addresses.append(
            LinkAddress(
                host, _port(rest[0], f"{name}: the quorum port"), _port(rest[1], f"{name}: the election port")
            )
        )
    first, *more = addresses
    (client_host, client_port), (secure_host, secure_port) = (
        _client(clients[place], name, what) if len(clients) > place else (None, None)
        for place, what in enumerate(("client", "secure client"))
    )
    return PeerAddress(
        sid=sid,
        host=first.host,
        quorum_port=first.quorum_port,
        election_port=first.election_port,
        client_host=client_host,
        client_port=client_port,
        role=role,
        more=tuple(more),
        secure_host=secure_host,
        secure_port=secure_port,
    )


def _role(text: str, name: str) -> Role:
    match text.lower():
        case "participant":
            return "participant"
        case "observer":
            return "observer"
    raise ConfigError(f"{name}: unknown role {text!r}, expected participant or observer")


def _client(text: str, name: str, what: str) -> tuple[str | None, int | None]:
    if not text:
        return None, None
    host, _, port_text = text.rpartition(":")
    return host.strip("[]") or None, _port(port_text, f"{name}: the {what} port")


def _port(text: str, where: str) -> int:
    try:
        number = port(text)
    except ValueError:
        number = 0
    if number == 0:
        raise ConfigError(f"{where} must be a port, got {text!r}")
    return number


def _host_and_rest(address: str, name: str) -> tuple[str, list[str]]:
    """Splits `host:a:b` or `[v6]:a:b` into the host and what follows it."""
    if address.startswith("["):
        host, bracket, rest = address[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise ConfigError(f"{name}: expected [address]:port, got {address!r}")
        return host, rest[1:].split(":")
    host, *rest_parts = address.split(":")
    if not host:
        raise ConfigError(f"{name}: the host is missing in {address!r}")
    return host, rest_parts


def _host_text(host: str) -> str:
    """An IPv6 address in full and in brackets, as ZooKeeper prints it; anything else as it is."""
    if ":" not in host:
        return host
    try:
        groups = ipaddress.IPv6Address(host).exploded.split(":")
    except ValueError:
        return f"[{host}]"
    return "[" + ":".join(group.lstrip("0") or "0" for group in groups) + "]"
