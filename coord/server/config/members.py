"""The member lines of zoo.cfg: `server.N=host:quorumPort:electionPort[:role][;[clientHost:]clientPort]`
(specification 19.1), and their canonical text (19.2).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from coord.server.config.keys import ConfigError, integer, port

SERVER_ID_MAX: Final = 255


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


def parse_members(lines: Iterable[tuple[str, str]]) -> tuple[PeerAddress, ...]:
    """The members of (id, text after `server.N=`), in the order of their ids.

    Raises:
        ConfigError: a line cannot be used.
    """
    peers: dict[int, PeerAddress] = {}
    for id_text, value in lines:
        name = f"server.{id_text}"
        try:
            sid = integer(id_text)
        except ValueError:
            raise ConfigError(f"{name}: the id must be a number") from None
        if not 1 <= sid <= SERVER_ID_MAX:
            raise ConfigError(f"{name}: the id must be from 1 to {SERVER_ID_MAX}")
        peers[sid] = _peer(sid, name, value)
    return tuple(peers[sid] for sid in sorted(peers))


def _peer(sid: int, name: str, value: str) -> PeerAddress:
    address, _, client = value.partition(";")
    host, parts = _host_and_rest(address.strip(), name)
    if len(parts) not in (2, 3):
        raise ConfigError(f"{name} must be host:quorumPort:electionPort[:role][;clientPort], got {value!r}")
    role = parts[2].lower() if len(parts) == 3 else "participant"
    if role == "observer":
        raise ConfigError(f"{name}: observers are not supported, the role must be participant")
    if role != "participant":
        raise ConfigError(f"{name}: unknown role {parts[2]!r}, expected participant")
    client_host, client_port = None, None
    if client:
        host_text, _, port_text = client.strip().rpartition(":")
        client_host = host_text.strip("[]") or None
        client_port = _port(port_text, f"{name}: the client port")
    return PeerAddress(
        sid=sid,
        host=host,
        quorum_port=_port(parts[0], f"{name}: the quorum port"),
        election_port=_port(parts[1], f"{name}: the election port"),
        client_host=client_host,
        client_port=client_port,
    )


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
